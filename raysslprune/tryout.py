"""Try a task, a network or a data set from outside the package: one update, one evaluation, and what is wrong.

Nothing is stored. The training runs on at most TRAIN and TEST images, twice with different global seeds, and once more
from a checkpoint, since a result may depend on a step's identity only.
"""

from __future__ import annotations

import math
import random
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from raysslprune import catalogue, models, sources, tasks
from raysslprune import data as data_sets
from raysslprune.data import Dataset, Split
from raysslprune.data.batches import Batch, Feed
from raysslprune.data.views import Views, draws
from raysslprune.messages import FAILED, USAGE, UserError, traceback_file
from raysslprune.single import default_recipe, with_changes
from raysslprune.spec import NATURAL_SPARSITIES, Init, Recipe, Train
from raysslprune.tasks.task import Task
from raysslprune.training.loop import Checkpoint, Hooks, Loop, Outcome, starting_network

TRAIN, TEST = 512, 256
"""Maximum number of training and test images that are used."""

BATCH, LARGE_BATCH, LARGE = 32, 8, 64
"""Samples in the update; and those if images are larger than LARGE pixels, which take longer."""

TASK, NETWORK, DATA = "task", "network", "data set"
"""Kinds of objects that can be tried."""

OURS = {"density", "collapsed_layers", "train_loss", *NATURAL_SPARSITIES}
"""Names of metrics that every training has; a task can't use them."""


ADVICE = {"the network": "leave out dropout and the like", "load": "use a generator with a fixed seed"}
"""What to do instead of drawing from a global random state, by what draws from it."""


class Fault(UserError):
    """What is wrong with the object that was tried, in one sentence."""

    code = FAILED


@dataclass(frozen=True, kw_only=True)
class Report:
    """What was tried without a fault. facts: names and values to show. notes: sentences on what may be meant."""

    kind: str
    facts: Mapping[str, str]
    notes: tuple[str, ...]


def try_out(
    name: str,
    *,
    task: str = "labels",
    data: str = "digits",
    arch: str = "conv4",
    changes: Mapping[str, Any] | None = None,
    data_root: str = "",
) -> Report:
    """Try the object ``name``, with the two others. changes: fields of the recipe, and options of the task.

    Raises Fault in one sentence for what is wrong with the object, UserError for a wrong call.
    """
    kind = kind_of(name)
    chosen = {TASK: task, DATA: data, NETWORK: arch, kind: name}
    task, data, arch = chosen[TASK], chosen[DATA], chosen[NETWORK]
    root = Path(catalogue.data_root(data_root)).absolute()
    with _in(name, "the data set" if kind == DATA else f"data set {data}"):
        whole = _check_data(data, root) if kind == DATA else _loaded(data, root)
    part = _part(whole)
    recipe = _recipe(task, data, str(root), whole, changes or {})
    step = Train(task=task, data=data, arch=arch, recipe=recipe, seed=0, start=Init(seed=0))
    with _global_state():
        trunk = _check_network(name, arch, part)
        notes = _check_task(name, step, part)
        outcome = _check_training(name, step, part)
    facts = {
        "images": f"{len(whole.train):,} and {len(whole.test):,}, {whole.channels} x {whole.size} x {whole.size}, "
        f"{whole.classes} classes",
        "weights": f"{sum(weight.numel() for weight in models.prunable(trunk).values()):,} that can be pruned",
        "update": f"{recipe.batch} samples, loss {outcome.metrics['train_loss']:.4g}",
        "metrics": ", ".join(f"{n} {v:.4g}" for n, v in outcome.metrics.items() if n not in OURS),
    }
    return Report(kind=kind, facts=facts, notes=notes)


def kind_of(name: str) -> str:
    """Return which kind of object a name stands for. Raises UserError if it stands for none of them."""
    tables = {TASK: catalogue.TASKS, NETWORK: catalogue.ARCHITECTURES, DATA: catalogue.DATASETS}
    source = name if name.endswith(".py") else catalogue.data_parts(name)[0]
    for kind, table in tables.items():
        if source in table:
            return kind
    with _in(source, "the import of its module"):
        try:
            found = catalogue.resolve("object", {k: v for table in tables.values() for k, v in table.items()}, source)
        except ValueError as error:
            raise UserError(str(error), code=USAGE) from error
    if isinstance(found, type) and issubclass(found, Task):
        return TASK
    if all(callable(getattr(found, method, None)) for method in ("locate", "load")):
        return DATA
    if all(callable(getattr(found, method, None)) for method in ("loss", "evaluate")):
        raise Fault(f"{name} has a loss, but is no subclass of raysslprune.Task")
    if callable(found):
        return NETWORK
    raise Fault(
        f"{name} is a {type(found).__name__}: neither a task (a subclass of raysslprune.Task), nor a data set (a class "
        "with locate and load), nor a network (a function of the number of channels)"
    )


# ------------------------------------------------------------------------------------- faults in a sentence


@contextmanager
def _in(name: str, what: str, hint: Callable[[Exception], str] = lambda _: "") -> Iterator[None]:
    """Raise a Fault in place of any exception. what: what was done. hint: advice on an exception."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        text = " ".join(str(error).split())
        said = f"{name}: {what} raised {type(error).__name__}: {text:.500}{_where(name, error)}{hint(error)}"
        raise Fault(f"{said}{traceback_file()}") from error


def _where(name: str, error: Exception) -> str:
    """Return the line of the object's own file in which an exception was raised; '' if there is none."""
    file = sources.file_of(name.partition(":")[0]) if ":" in name else None
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if file and Path(frame.filename).resolve() == file.resolve()]
    if isinstance(error, SyntaxError):
        lines.append(error.lineno)
    return f" ({file.name}, line {lines[-1]})" if file and lines else ""


def _demand(condition: object, sentence: str) -> None:
    if not condition:
        raise Fault(sentence)


# ------------------------------------------------------------------------------------- global randomness


def _seed(number: int) -> None:
    torch.manual_seed(number)
    random.seed(number)
    np.random.seed(number)


@contextmanager
def _global_state() -> Iterator[None]:
    """Restore the global random states and PyTorch's number of threads at the end of the block."""
    threads, states = torch.get_num_threads(), (random.getstate(), np.random.get_state())
    torch.set_num_threads(1)  # as a sweep's workers
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        torch.set_num_threads(threads)
        random.setstate(states[0])
        np.random.set_state(states[1])


def _states() -> dict[str, object]:
    """Return the global random states, by whose they are."""
    _, keys, *rest = np.random.get_state()
    return {
        "torch's": torch.get_rng_state().numpy().tobytes(),
        "Python's": random.getstate(),
        "numpy's": (np.asarray(keys).tobytes(), rest),
    }


@contextmanager
def _drawing_nothing(name: str, what: str) -> Iterator[None]:
    """Raise a Fault if the block draws from a global random state."""
    before = _states()
    yield
    after = _states()
    for whose, state in before.items():
        advice = ADVICE.get(what, "use batch.own, or the generator that begin gets")
        _demand(
            after[whose] == state,
            f"{name}: {what} draws from {whose} global random state, so results would depend on more than the step; "
            f"{advice}",
        )


# ------------------------------------------------------------------------------------- data


def _loaded(name: str, root: Path) -> Dataset:
    data_sets.source(name).locate(root, True)
    return data_sets.load(name, str(root))


def _check_data(name: str, root: Path) -> Dataset:
    source = data_sets.source(name)
    with _in(name, "locate"):
        source.locate(root, True)
    found: list[Dataset] = []
    with _global_state():
        for seed in (1, 2):
            _seed(seed)
            with _in(name, "load"), _drawing_nothing(name, "load"):
                found.append(source.load(root))
    for data in found:
        _demand(isinstance(data, Dataset), f"{name}: load returns a {type(data).__name__}, not a Dataset")
        for role, split in (("train", data.train), ("test", data.test)):
            _check_split(f"{name}: {role}", split, data)
        shape = (data.channels, 1, 1)
        for moment in ("mean", "std"):
            value = getattr(data, moment)
            _demand(tuple(value.shape) == shape, f"{name}: {moment} is {tuple(value.shape)}, not {shape}, by channel")
            _demand(value.isfinite().all(), f"{name}: {moment} is not finite")
        _demand((data.std > 0).all(), f"{name}: the standard deviation of a channel is 0")
        pairs = ((data.train.channels, data.train.size), (data.test.channels, data.test.size))
        _demand(pairs[0] == pairs[1], f"{name}: training and test images differ in channels or size: {pairs}")
    first, second = (_some_images(data) for data in found)
    _demand(
        all(torch.equal(*pair) for pair in zip(first, second, strict=True)),
        f"{name}: load gives other images or labels each time it is called",
    )
    return data_sets.load(name, str(root))


def _check_split(what: str, split: Split, data: Dataset) -> None:
    """Raise a Fault for images or labels of a wrong type, shape or range."""
    labels = split.labels
    _demand(len(split) > 0, f"{what} has no images")
    _demand(len(labels) == len(split), f"{what} has {len(split):,} images, but {len(labels):,} labels")
    images, _ = next(iter(split.batches(2)))
    _demand(images.dtype == torch.uint8, f"{what} has images of {images.dtype}, not of uint8")
    _demand(images.ndim == 4, f"{what} has images of shape {tuple(images.shape)}, not (n, channels, size, size)")
    _demand(images.shape[2] == images.shape[3], f"{what} has images of {tuple(images.shape[2:])} pixels, not squares")
    if labels.ndim == 1:
        _demand(labels.dtype == torch.int64, f"{what} has labels of {labels.dtype}, not of int64")
        low, high = int(labels.min()), int(labels.max())
        _demand(low >= 0 and high < data.classes, f"{what} has labels {low} to {high}, with {data.classes} classes")
    else:
        wanted = (len(split), data.classes)
        _demand(tuple(labels.shape) == wanted, f"{what} has labels of shape {tuple(labels.shape)}, not {wanted}")
        _demand(labels.dtype == torch.int8, f"{what} has several labels an image, of {labels.dtype}, not of int8")


def _some_images(data: Dataset) -> list[Tensor]:
    splits = [split.some(_index(len(split), TEST)) for split in (data.train, data.test)]
    return [tensor for split in splits for batch in split.batches(TEST) for tensor in batch]


def _index(count: int, most: int) -> Tensor:
    """Evenly spaced indices, at most ``most`` of ``count``."""
    return torch.linspace(0, count - 1, min(count, most)).long()


def _part(data: Dataset) -> Dataset:
    """Return a data set of a few images."""
    train, test = data.train.some(_index(len(data.train), TRAIN)), data.test.some(_index(len(data.test), TEST))
    return replace(data, train=train, test=test, validation=None)


def _recipe(task: str, data: str, root: str, whole: Dataset, changes: Mapping[str, Any]) -> Recipe:
    """Return the recipe of :func:`single.train`, shortened to two updates. Raises UserError for a wrong change."""
    try:
        recipe = with_changes(default_recipe(task, data, root)[0], task, changes, lambda: len(whole.train))
    except ValueError as error:
        raise UserError(str(error), code=USAGE) from error
    batch = min(recipe.batch, BATCH if whole.size <= LARGE else LARGE_BATCH)
    return replace(recipe, samples=2 * batch, batch=batch, bn_batch=0, schedule="constant", decay_at=(), warmup=0)


# ------------------------------------------------------------------------------------- a network


def _check_network(name: str, arch: str, data: Dataset) -> nn.Module:
    """Check the trunk by itself, in training and in evaluation; return its outline."""

    def hint(error: Exception) -> str:
        unknown = isinstance(error, TypeError) and "models.draw" in str(error)
        return "; build the network of convolutions, linear layers and batch-norm" if unknown else ""

    with _in(name, f"making network {arch}", hint):
        outline = models.trunk(arch, data.channels)
        generator = torch.Generator().manual_seed(0)
        trunk = models.network(arch, data.channels, lambda _: nn.Identity(), generator, torch.device("cpu")).trunk
    _demand(models.prunable(outline), f"{name}: network {arch} has no convolution and no linear layer to prune")
    images, _ = next(data.batches(data.train, 8))
    for mode in (trunk.train, trunk.eval):
        mode()
        what = f"network {arch}, on images of {tuple(images.shape)},"
        with torch.no_grad(), _in(name, what), _drawing_nothing(name, "the network"):
            features = trunk(images)
        _demand(isinstance(features, Tensor), f"{name}: network {arch} returns a {type(features).__name__}")
        wanted = (len(images), outline.width)
        _demand(
            tuple(features.shape) == wanted,
            f"{name}: network {arch} gives features of shape {tuple(features.shape)}, not {wanted}, (n, width)",
        )
        _demand(features.isfinite().all(), f"{name}: network {arch} gives features that are not finite")
    return outline


# ------------------------------------------------------------------------------------- a task


class _Watched(Views):
    """Views that note which of them a task uses."""

    def __init__(self, data: Dataset, recipe: Recipe, task: Task, name: str) -> None:
        super().__init__(data, data.train, recipe)
        self.task, self.name, self.used = task, name, set[int]()

    def __call__(self, batch: Batch, view: int = 0, turns: Tensor | int = 0) -> Tensor:
        count = self.task.views
        _demand(
            isinstance(view, int) and -count <= view < count,
            f"{self.name}: sample asks for view {view}, counted from 0, but the class has views = {count}; it needs "
            f"{view + 1}",
        )
        self.used.add(view % count)
        return super().__call__(batch, view, turns)


def _check_task(name: str, step: Train, data: Dataset) -> tuple[str, ...]:
    """Check each method of the task by itself; return notes."""
    recipe = step.recipe
    assert isinstance(recipe, Recipe)
    with _in(name, "making the task"):
        try:
            task = tasks.find(step.task, recipe.options)
        except ValueError as error:
            raise UserError(str(error), code=USAGE) from error
    for field, low in (("views", 1), ("draws", 0)):
        value = getattr(task, field)
        _demand(type(value) is int and value >= low, f"{name}: {field} is {value!r}, not a whole number from {low}")
    generator = torch.Generator().manual_seed(0)
    with _in(name, "begin"), _drawing_nothing(name, "begin"):
        task.begin(data, generator)
    for key, tensor in task.state.items():
        _demand(isinstance(tensor, Tensor), f"{name}: state {key!r} is a {type(tensor).__name__}, not a tensor")
    with _in(name, "head", _hint_on_layers), _drawing_nothing(name, "head"):
        net = starting_network(step, task, data, None).train()
    views = _Watched(data, recipe, task, name)
    parts = _sampled(name, task, views, step, data)
    _check_loss(name, task, net, parts)
    _check_evaluation(name, task, net.eval(), data, recipe)
    idle = sorted(set(range(task.views)) - views.used)
    return (f"views is {task.views}, but sample uses only {len(views.used)} of them",) * bool(idle)


def _hint_on_layers(error: Exception) -> str:
    unknown = isinstance(error, TypeError) and "models.draw" in str(error)
    return "; build the head of convolutions, linear layers and batch-norm" if unknown else ""


def _sampled(name: str, task: Task, views: _Watched, step: Train, data: Dataset) -> tuple[Tensor, ...]:
    """Return what the task makes of the first batch. Raises Fault for wrong shapes."""
    recipe = views.recipe
    with _in(name, "pool"):
        pool = task.pool()
    feed = Feed(
        data.train,
        recipe,
        step.seed,
        views=task.views,
        draws=draws(recipe),
        own=task.draws,
        pool=pool,
        partner=task.partner,
    )
    batch = feed.take(0, recipe.batch)

    def hint(error: Exception) -> str:
        beyond = isinstance(error, IndexError)
        return f"; draws is {task.draws}, so batch.own has {task.draws} numbers for each sample" if beyond else ""

    with _in(name, "sample", hint), _drawing_nothing(name, "sample"):
        parts: Any = task.sample(views, batch)
    _demand(
        isinstance(parts, tuple) and all(isinstance(part, Tensor) for part in parts),
        f"{name}: sample must return a tuple of tensors, not {_described(parts)}",
    )
    for number, part in enumerate(parts):
        _demand(
            part.ndim and len(part) == recipe.batch,
            f"{name}: tensor {number} of sample has shape {tuple(part.shape)} for {recipe.batch} samples; it needs a "
            "row for each sample",
        )
    return parts


def _described(value: object) -> str:
    if isinstance(value, tuple | list):
        return f"a {type(value).__name__} of {', '.join(type(part).__name__ for part in value) or 'nothing'}"
    return f"a {type(value).__name__}"


def _check_loss(name: str, task: Task, net: nn.Module, parts: tuple[Tensor, ...]) -> None:
    """Raise a Fault for a loss that is no finite scalar, or that has no gradient for the trunk."""
    shapes = ", ".join(str(tuple(part.shape)) for part in parts)
    with _in(name, f"loss, on tensors of {shapes},"), _drawing_nothing(name, "loss"):
        loss: Any = task.loss(net, *parts)
    _demand(isinstance(loss, Tensor), f"{name}: loss returns a {type(loss).__name__}, not a tensor")
    _demand(loss.ndim == 0, f"{name}: loss has shape {tuple(loss.shape)}; it must be the mean over samples, a scalar")
    _demand(loss.isfinite(), f"{name}: loss is {loss.item()} in the first update")
    _demand(loss.requires_grad, f"{name}: loss has no gradient: it does not depend on the network, or is detached")
    with _in(name, "the gradient of loss"):
        loss.backward()
    trunk = dict(net.get_submodule("trunk").named_parameters())
    without = [key for key, weight in trunk.items() if weight.grad is None]
    _demand(len(without) < len(trunk), f"{name}: loss has no gradient for any weight of the network's trunk")
    _demand(not without, f"{name}: loss has no gradient for {', '.join(without[:3])} of the trunk")
    grads = [weight.grad for weight in trunk.values() if weight.grad is not None]
    _demand(all(grad.isfinite().all() for grad in grads), f"{name}: the gradient of loss is not finite")
    _demand(any(grad.any() for grad in grads), f"{name}: the gradient of loss is 0 for all weights of the trunk")


def _check_evaluation(name: str, task: Task, net: nn.Module, data: Dataset, recipe: Recipe) -> None:
    with _in(name, "evaluate"), _drawing_nothing(name, "evaluate"):
        metrics: Any = task.evaluate(net, data, recipe)
    _demand(
        isinstance(metrics, dict) and metrics and all(isinstance(key, str) for key in metrics),
        f"{name}: evaluate must return a dict of metrics by name, not {_described(metrics)}",
    )
    for key, value in metrics.items():
        _demand(key not in OURS, f"{name}: evaluate returns {key!r}, the name of a metric that every training has")
        _demand(
            isinstance(value, int | float) and not isinstance(value, bool),
            f"{name}: metric {key!r} is a {type(value).__name__}, not a number; use float(...) or .item()",
        )
        _demand(math.isfinite(value), f"{name}: metric {key!r} is {value}")


# ------------------------------------------------------------------------------------- a training


def _check_training(name: str, step: Train, data: Dataset) -> Outcome:
    """Train two updates and evaluate, again with other global seeds, and again from a checkpoint."""
    saved: list[Checkpoint] = []

    def run(seed: int, resumed: Checkpoint | None = None) -> Outcome:
        _seed(seed)
        loop = Loop(step=step, data=data, hooks=Hooks(save=saved.append, save_every=0.0))
        if resumed:
            loop.restore(resumed)
        return loop.run()

    with _in(name, "a training of two updates"):
        first, second = run(1), run(2)
        checkpoint = saved[0]
        if not _same(first, second):
            why = (
                "with another global random seed the same training gives another result; all randomness must come from "
                "batch.own, or from the generator that begin gets"
                if _same(first, run(1))
                else "the same training gives another result when it is repeated with the same global seeds; look for "
                "state outside the object, the time, or the order of a set"
            )
            raise Fault(f"{name}: {why}")
        _demand(
            _same(first, run(1, checkpoint)),
            f"{name}: a training that resumes after its first update gives another result than without interruption; "
            "what changes between updates must be a tensor in self.state, which begin creates",
        )
    return first


def _same(one: Outcome, other: Outcome) -> bool:
    """Return whether two trainings have the same weights and metrics, bit for bit."""
    names = one.weights.keys()
    alike = names == other.weights.keys() and all(torch.equal(one.weights[n], other.weights[n]) for n in names)
    return alike and one.metrics == other.metrics
