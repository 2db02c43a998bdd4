"""What makes a GPU wait, how it multiplies, and updates as CUDA graphs: shown without a GPU."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._dynamo.utils import counters
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from raysslprune import masks, models, tasks
from raysslprune.data import dataset, subsets, views
from raysslprune.spec import Init, Train
from raysslprune.tasks import exemplar, labels, moco, npid, rotnet, s4l
from raysslprune.tasks import task as base
from raysslprune.training import loop as training
from raysslprune.training.device import arithmetic
from raysslprune.training.loop import Loop
from tests.unit.test_devices import TASKS, mask, some_digits, step

META = torch.device("meta")
SHAPES = {name: weight.shape for name, weight in models.prunable(models.trunk("conv4", 1)).items()}

# ------------------------------------------------------------------------------------- what waits


class Copies(TorchDispatchMode):
    """Counts the copies from main memory to ``meta``, a device whose tensors have no values: to ask for one raises."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        where = {
            tensor.device.type for tensor in tree_leaves((args, made)) if isinstance(tensor, Tensor) and tensor.ndim
        }
        if len(where) > 1:
            self.found.append(str(func))
        return made


@contextmanager
def quiet(copies: Copies) -> Iterator[None]:
    before = list(copies.found)
    yield
    copies.found[:] = before


@pytest.fixture
def copies(monkeypatch: pytest.MonkeyPatch) -> Copies:
    """What ``sent`` copies does not count, as on a GPU nobody waits for it."""
    counted, sent, choose, of = Copies(), dataset.sent, subsets.choose, subsets.of

    def without(tensor: Tensor, device: torch.device) -> Tensor:
        with quiet(counted):
            return sent(tensor, device)

    for module in (dataset, views, training, labels, rotnet, exemplar, npid, s4l, moco):
        monkeypatch.setattr(module, "sent", without)
    # what looks at values before the first update, by the CPU's
    monkeypatch.setattr(subsets, "choose", lambda _, subset: choose(some_digits(), subset))
    monkeypatch.setattr(subsets, "of", lambda _, subset: of(some_digits(), subset))
    monkeypatch.setattr(
        npid, "uniform", lambda below, shape, seed, device: torch.zeros(shape, dtype=torch.int64, device=device)
    )
    # the fused one is for devices that compute
    monkeypatch.setattr(
        training,
        "optimizer",
        lambda recipe, module, captured_on=None: torch.optim.SGD(module.parameters(), momentum=0.9),
    )
    return counted


def on_meta(task: str, **recipe: Any) -> Loop:
    """The loop of a training, there, after its first update."""
    loop = Loop(step=step(task, **recipe), data=some_digits(), mask=mask(), device=META)
    loop.task.z_known = True  # pyright: ignore[reportAttributeAccessIssue] - NPID asks for it once in a training
    loop.trained.train()
    update(loop)
    return loop


def update(loop: Loop) -> None:
    loop.set_learning_rate()
    loop.next_update()
    loop.seen += loop.recipe.batch


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize(
    "recipe",
    [{}, {"pad": 0, "crop": 0.2, "flip": True, "angle": 10, "jitter": (0.4, 0.4, 0.4, 0.1), "grayscale": 0.2}],
    ids=["moved", "resampled"],
)
def test_an_update_asks_the_device_for_nothing(task: str, recipe: dict[str, Any], copies: Copies) -> None:
    """No value of its tensors, no shape that depends on one, no copy that is waited for."""
    loop = on_meta(task, **recipe)
    loop.ready.clear()  # so that views are made in this update, too
    with copies:
        update(loop)
    assert copies.found == []


@pytest.mark.parametrize(
    "waits",
    [
        lambda images: images.sum().item(),
        lambda images: images[images > 0],
        lambda images: images.nonzero(),
        lambda images: images.cpu(),
    ],
    ids=["item", "boolean index", "nonzero", "cpu"],
)
def test_what_asks_the_device_is_found(waits: Callable[[Tensor], object], copies: Copies) -> None:
    loop = on_meta("labels")
    loss = loop.task.loss
    loop.task.loss = lambda net, *parts: (waits(parts[0]), loss(net, *parts))[1]
    with copies, pytest.raises((RuntimeError, NotImplementedError)):
        update(loop)


def test_a_copy_that_is_waited_for_is_found(copies: Copies) -> None:
    loop = on_meta("labels")
    loss = loop.task.loss
    loop.task.loss = lambda net, *parts: (torch.zeros(3).to(META), loss(net, *parts))[1]
    with copies:
        update(loop)
    assert set(copies.found) == {"aten._to_copy.default"}


# ------------------------------------------------------------------------------------- precision


@pytest.mark.parametrize(("precision", "rounds"), [("float32", False), ("tf32", True), ("bf16", False)])
def test_a_gpu_multiplies_as_the_recipe_says(precision: str, rounds: bool) -> None:
    cudnn: Any = torch.backends.cudnn
    products = torch.backends.cuda.matmul
    before = cudnn.allow_tf32, products.allow_tf32, cudnn.benchmark
    with arithmetic(precision, torch.device("cuda")):
        assert (cudnn.allow_tf32, products.allow_tf32, cudnn.benchmark) == (rounds, rounds, True)
    assert (cudnn.allow_tf32, products.allow_tf32, cudnn.benchmark) == before


def test_the_cpu_knows_no_tf32() -> None:
    exact, rounded = (
        Loop(step=step("labels", precision=precision), data=some_digits(), mask=mask()).run()
        for precision in ("float32", "tf32")
    )
    assert all(torch.equal(rounded.weights[name], tensor) for name, tensor in exact.weights.items())


# ------------------------------------------------------------------------------------- CUDA graphs


class Recording(TorchDispatchMode):
    """A CUDA graph on the CPU: operators are recorded with the tensors that they read and write, and done again.

    As with the real one, Python is not run again, nothing of the recording is seen in ``state``, and all that is made
    is made in the same memory each time.
    """

    def __init__(self, state: Callable[[], list[Tensor]]) -> None:
        super().__init__()
        self.state, self.log = state, list[tuple[Any, Any, Any, list[Tensor]]]()

    def __enter__(self) -> Any:
        self.kept = [(tensor, tensor.detach().clone()) for tensor in self.state()]
        return super().__enter__()

    def __exit__(self, *why: Any) -> None:
        super().__exit__(*why)
        for tensor, value in self.kept:
            tensor.detach().copy_(value)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert func is not torch.ops.aten._local_scalar_dense.default, "a value is read"
        made = func(*args, **(kwargs or {}))
        is_new = not any(returned.alias_info for returned in func._schema.returns)
        fresh = [tensor for tensor in tree_leaves(made) if isinstance(tensor, Tensor)] if is_new else []
        self.log.append((func, args, kwargs or {}, fresh))
        return made

    def replay(self) -> None:
        with torch.no_grad():
            for func, args, kwargs, fresh in self.log:
                again = [tensor for tensor in tree_leaves(func(*args, **kwargs)) if isinstance(tensor, Tensor)]
                for tensor, value in zip(fresh, again, strict=False):
                    tensor.copy_(value)


def as_graphs(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> Loop:
    """The loop with its updates captured, on the CPU."""

    def state() -> list[Tensor]:
        moments = [value for values in loop.optimizer.state.values() for value in values.values()]
        kept = [*loop.net.state_dict().values(), *loop.task.state.values()]
        return [*kept, *filter(torch.is_tensor, moments), loop.losses]

    monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: Recording(state))
    monkeypatch.setattr(torch.cuda, "graph", lambda recording, **_: recording)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: None)
    monkeypatch.setattr(Loop, "own_stream", lambda _: nullcontext())
    loop.optimizer = training.optimizer(loop.recipe, loop.trained, captured_on=torch.device("cpu"))
    loop.graphed = True
    return loop


@pytest.mark.parametrize("task", [task for task in TASKS if task != "npid"])
@pytest.mark.parametrize(
    "recipe", [{"schedule": "cosine"}, {"optimizer": "adam", "momentum": 0.0, "bn_batch": 0}], ids=["sgd", "adam"]
)
def test_a_captured_update_is_the_update(task: str, recipe: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Bit for bit; with a rate that changes, BatchNorm on parts of a batch, and losses over two epochs."""
    whole = step(task, **recipe)
    eager = Loop(step=whole, data=some_digits(), mask=mask())
    eager.optimizer = training.optimizer(eager.recipe, eager.trained, captured_on=torch.device("cpu"))
    eager.set_learning_rate = partial(set_rate, eager)
    wanted = eager.run()
    loop = as_graphs(Loop(step=whole, data=some_digits(), mask=mask()), monkeypatch)
    given = loop.run()
    assert loop.graph is not None
    assert given.metrics == wanted.metrics
    for name, tensor in wanted.weights.items():
        assert torch.equal(given.weights[name], tensor), name


def set_rate(loop: Loop) -> float:
    rate = training.learning_rate(loop.recipe, loop.seen)
    loop.optimizer.param_groups[0]["lr"].fill_(rate)
    return rate


def test_a_task_that_looks_at_values_is_not_captured() -> None:
    assert not tasks.find("npid").capturable
    assert not base.Task.capturable
    assert all(tasks.find(task).capturable for task in TASKS if task != "npid")


# ------------------------------------------------------------------------------------- torch.compile


def test_all_rounds_of_a_chain_have_one_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    """Masks and weights are inputs: a second training of the same network compiles nothing."""
    torch.compiler.reset()
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    graphs: list[int] = []
    for seed in range(3):
        sparse = masks.random(SHAPES, 9_000 >> seed, torch.Generator().manual_seed(seed), SHAPES)
        made = Train(
            task="labels", data="digits", arch="conv4", recipe=step("labels").recipe, seed=seed, start=Init(seed=seed)
        )
        Loop(step=made, data=some_digits(), mask=sparse, compiled=True).run()
        graphs.append(counters["stats"]["unique_graphs"])
    assert graphs == [graphs[0]] * 3
    assert graphs[0] > 0


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_compiled_is_eager_but_for_rounding(precision: str) -> None:
    if not shutil.which("g++"):
        pytest.skip("torch.compile needs a C++ compiler")
    made = step("labels", precision=precision, samples=96)
    torch.compiler.reset()
    eager, compiled = (Loop(step=made, data=some_digits(), mask=mask(), compiled=way).run() for way in (False, True))
    tolerance = {"float32": 1e-5, "bf16": 2e-2}[precision]
    for name, tensor in eager.weights.items():
        torch.testing.assert_close(compiled.weights[name], tensor, rtol=tolerance, atol=tolerance, msg=name)
    for name, keep in mask().items():
        assert not compiled.weights[f"trunk.{name}"][~keep].any()


def test_on_the_cpu_nothing_is_captured() -> None:
    loop = Loop(step=step("labels"), data=some_digits(), mask=mask(), graphed=True)
    loop.run()
    assert not loop.graphed
    assert loop.graph is None
