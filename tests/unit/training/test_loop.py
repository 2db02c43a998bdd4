"""The training loop: masks, interruption, rewinding, schedules and optimisers, against hand-written ones."""

from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load as from_safetensors
from safetensors.torch import save as to_safetensors
from torch import Tensor, nn

from raysslprune import data, models
from raysslprune.catalogue import label_samples
from raysslprune.data import Dataset, Resident
from raysslprune.data.batches import Batch
from raysslprune.data.stream import Stream
from raysslprune.data.views import Views
from raysslprune.lottery import finetune, linear, rewound
from raysslprune.masks import Mask
from raysslprune.spec import Init, Recipe, Rewind, Train, seed_of
from raysslprune.tasks import find
from raysslprune.training import loop as training
from raysslprune.training.loop import Checkpoint, Hooks, Loop, Outcome, State, learning_rate

EPOCH = 192
SHAPES = {
    "layers.conv1.weight": (16, 1, 3, 3),
    "layers.conv2.weight": (32, 16, 3, 3),
    "layers.conv3.weight": (32, 32, 3, 3),
    "layers.conv4.weight": (64, 32, 3, 3),
}
OPTIMIZERS: dict[str, dict[str, Any]] = {
    "sgd": {"lr": 0.05, "weight_decay": 5e-2},
    "momentum": {"lr": 0.05, "momentum": 0.9, "weight_decay": 5e-2},
    "nesterov": {"lr": 0.05, "momentum": 0.9, "nesterov": True, "weight_decay": 5e-2},
    "adam": {"lr": 3e-3, "optimizer": "adam", "weight_decay": 5e-2},
    "adamw": {"lr": 3e-3, "optimizer": "adamw", "weight_decay": 5e-2},
}
WITH_MEMORY = [name for name in OPTIMIZERS if name != "sgd"]


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """Small images are trained fastest so."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def look_always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hooks are called after every update."""
    monkeypatch.setattr(training, "LOOK_EVERY", 0.0)


def small() -> Dataset:
    """A few digits, so that an epoch takes milliseconds."""
    digits = data.load("digits")
    return dataclasses.replace(
        digits, train=digits.train.some(torch.arange(EPOCH)), test=digits.test.some(torch.arange(100))
    )


DATA = small()


def starting_network(step: Train, start: State | None = None) -> models.Network:
    return training.starting_network(step, find(step.task), DATA, start)


def batches(batch: int, count: int, seed: int = 0) -> Iterator[Batch]:
    """Of labels, without a feed: a view of a sample needs three numbers."""
    stream = Stream(EPOCH, 3, seed)
    for position in range(0, count * batch, batch):
        samples = stream.take(position, batch)
        yield Batch(samples.index[:, None], samples.draws[:, None], samples.draws[:, 3:])


def recipe(by: str = "nesterov", **changes: Any) -> Recipe:
    """Three epochs; batches straddle them. by: a name in OPTIMIZERS."""
    return Recipe(**{"samples": 3 * EPOCH, "batch": 40, "pad": 1, **OPTIMIZERS[by], **changes})


def step(task: str = "labels", seed: int = 0, start: Init | Rewind | None = None, **changes: Any) -> Train:
    return Train(
        task=task, data="digits", arch="conv4", recipe=recipe(**changes), seed=seed, start=start or Init(seed=seed)
    )


def some_mask(density: float = 0.3) -> Mask:
    generator = torch.Generator().manual_seed(1)
    return {name: torch.rand(shape, generator=generator) < density for name, shape in SHAPES.items()}


def leak(weights: State, mask: Mask) -> float:
    """The largest magnitude of a weight that should be pruned."""
    return max(float(weights[f"trunk.{name}"][~stays].abs().max()) for name, stays in mask.items())


def assert_same(a: State, b: State) -> None:
    """Bit for bit."""
    assert a.keys() == b.keys()
    for name in a:
        assert a[name].dtype == b[name].dtype
        assert torch.equal(a[name], b[name]), name


def assert_same_outcome(a: Outcome, b: Outcome) -> None:
    assert_same(a.weights, b.weights)
    assert a.snapshots.keys() == b.snapshots.keys()
    for samples in a.snapshots:
        assert_same(a.snapshots[samples], b.snapshots[samples])
    assert a.metrics == b.metrics


# ------------------------------------------------------------------------------------- masked weights


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_pruned_weights_are_exactly_0_after_every_update(name: str, look_always: None) -> None:
    mask = some_mask()
    found: list[float] = []
    moved: list[bool] = []

    def look(_seen: int, _end: int) -> None:
        weights = loop.net.state_dict()
        found.append(leak(weights, mask))
        moved.append(not torch.equal(weights["trunk.layers.conv2.weight"], before))

    loop = Loop(step=step(by=name), data=DATA, mask=mask, hooks=Hooks(progress=look))
    before = loop.net.state_dict()["trunk.layers.conv2.weight"].clone()
    assert leak(loop.net.state_dict(), mask) == 0
    outcome = loop.run()
    assert found == [0.0] * math.ceil(3 * EPOCH / 40)
    assert all(moved)
    assert leak(outcome.weights, mask) == 0
    for layer, stays in mask.items():  # and nothing else is 0
        assert bool((outcome.weights[f"trunk.{layer}"][stays] != 0).all())


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_mask_applied_before_the_update_only_would_leak(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """So the test above can fail, and the loop's own guard would stop such a training."""
    mask, apply, next_batch = some_mask(), Loop.apply_mask, Loop.next_batch

    def mask_and_next_batch(self: Loop) -> tuple[Tensor, ...]:
        apply(self)
        return next_batch(self)

    monkeypatch.setattr(Loop, "next_batch", mask_and_next_batch)
    loop = Loop(step=step(by=name), data=DATA, mask=mask)
    monkeypatch.setattr(Loop, "apply_mask", lambda _: None)
    with pytest.raises(RuntimeError, match="a pruned weight is no longer 0 after 600 samples"):
        loop.run()
    assert leak(loop.net.state_dict(), mask) > 1e-3


@pytest.mark.parametrize("name", WITH_MEMORY)
def test_masked_gradients_with_a_used_optimiser_would_leak(name: str) -> None:
    """Momentum and weight decay move a weight whose gradient is 0: the other rule that one finds in the wild."""
    weight = nn.Parameter(torch.randn(20, generator=torch.Generator().manual_seed(0)))
    kept = torch.arange(20) < 5
    optimizer = training.optimizer(recipe(by=name), nn.ParameterList([weight]))
    for round_number in range(3):
        optimizer.zero_grad()
        weight.square().sum().backward()
        assert weight.grad is not None
        if round_number == 1:
            weight.data[~kept] = 0
        if round_number >= 1:
            weight.grad[~kept] = 0
        optimizer.step()
    assert float(weight.detach()[~kept].abs().max()) > 1e-4


def test_the_mask_also_holds_at_the_start() -> None:
    mask = some_mask()
    loop = Loop(step=step(), data=DATA, mask=mask, snapshots_at=[0])
    drawn = starting_network(step()).state_dict()
    snapshot = loop.run().snapshots[0]
    for name, stays in mask.items():
        assert torch.equal(snapshot[f"trunk.{name}"], torch.where(stays, drawn[f"trunk.{name}"], 0.0))
    assert torch.equal(snapshot["head.weight"], drawn["head.weight"])


def test_density_and_collapsed_layers_are_reported() -> None:
    mask = some_mask(0.5)
    mask["layers.conv2.weight"][:] = False
    mask["layers.conv4.weight"][:] = False
    outcome = Loop(step=step(), data=DATA, mask=mask).run()
    assert outcome.metrics["collapsed_layers"] == 2.0
    assert outcome.metrics["density"] == sum(int(m.sum()) for m in mask.values()) / 32_400
    assert abs(outcome.metrics["train_loss"] - math.log(10)) < 0.2  # nothing passes, and nothing breaks
    assert all(bool(t.isfinite().all()) for t in outcome.weights.values())


def test_without_a_mask_everything_is_left() -> None:
    metrics = Loop(step=step(), data=DATA).run().metrics
    assert (metrics["density"], metrics["collapsed_layers"]) == (1.0, 0.0)


# ------------------------------------------------------------------------------------- interruption


def through_a_file(checkpoint: Checkpoint) -> Checkpoint:
    return Checkpoint(seen=checkpoint.seen, tensors=from_safetensors(to_safetensors(checkpoint.tensors)))


@pytest.mark.parametrize("task", ["labels", "rotnet"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_interrupted_is_uninterrupted_bit_for_bit(name: str, task: str, look_always: None) -> None:
    """Stopped after the first update, in an epoch's middle, on both sides of a snapshot, and at the end."""
    the_step = step(task, by=name, schedule="cosine", warmup=100)
    mask, at = some_mask(), [0, EPOCH, 400]
    saved: list[bytes] = []
    seen: list[int] = []

    def save(checkpoint: Checkpoint) -> None:
        saved.append(to_safetensors(checkpoint.tensors))
        seen.append(checkpoint.seen)

    hooks = Hooks(save=save, save_every=0.0)
    whole = Loop(step=the_step, data=DATA, mask=mask, snapshots_at=at, hooks=hooks).run()
    assert seen == list(range(40, 601, 40))
    for interrupted in (0, 4, 5, 14):
        loop = Loop(step=the_step, data=DATA, mask=mask, snapshots_at=at)
        loop.restore(Checkpoint(seen=seen[interrupted], tensors=from_safetensors(saved[interrupted])))
        assert_same_outcome(loop.run(), whole)


def test_one_may_be_interrupted_many_times(look_always: None) -> None:
    """Killed after every other update."""

    class Killed(Exception):
        pass

    last: list[Checkpoint] = []

    def kill(checkpoint: Checkpoint) -> None:
        last.append(through_a_file(checkpoint))
        if len(last) % 2 == 0:
            raise Killed

    the_step, mask = step(), some_mask()
    whole = Loop(step=the_step, data=DATA, mask=mask, snapshots_at=[EPOCH]).run()
    outcome: Outcome | None = None
    while outcome is None:
        loop = Loop(step=the_step, data=DATA, mask=mask, snapshots_at=[EPOCH], hooks=Hooks(save=kill, save_every=0.0))
        if last:
            loop.restore(last[-1])
        try:
            outcome = loop.run()
        except Killed:
            assert len(last) <= 15
    assert len(last) == 15
    assert_same_outcome(outcome, whole)


def test_a_rewound_training_can_be_interrupted_too(look_always: None) -> None:
    dense = step()
    snapshot = Loop(step=dense, data=DATA, snapshots_at=[EPOCH]).run().snapshots[EPOCH]
    rewound = step(start=Rewind(of=dense, samples=EPOCH))
    saved: list[Checkpoint] = []
    hooks = Hooks(save=saved.append, save_every=0.0)
    whole = Loop(step=rewound, data=DATA, start=snapshot, mask=some_mask(), hooks=hooks).run()
    loop = Loop(step=rewound, data=DATA, start=snapshot, mask=some_mask())
    loop.restore(through_a_file(saved[3]))
    assert_same_outcome(loop.run(), whole)


def test_a_checkpoint_is_a_copy(look_always: None) -> None:
    """What is saved does not change when training goes on."""
    saved: list[Checkpoint] = []
    as_saved: list[bytes] = []

    def save(checkpoint: Checkpoint) -> None:
        saved.append(checkpoint)
        as_saved.append(to_safetensors(checkpoint.tensors))

    Loop(step=step(), data=DATA, snapshots_at=[0], hooks=Hooks(save=save, save_every=0.0)).run()
    assert [to_safetensors(checkpoint.tensors) for checkpoint in saved] == as_saved


# ------------------------------------------------------------------------------------- learning curves

FEW_NEGATIVES = {"negatives": 20, "temperature": 0.5}


@pytest.mark.parametrize("task", ["labels", "rotnet", "exemplar", "npid", "s4l", "frozen"])
def test_a_learning_curve_changes_no_bit(task: str, look_always: None) -> None:
    """Of weights, snapshots, metrics and global random state."""
    options = FEW_NEGATIVES if task == "npid" else {"labelled": "50%-of-images"} if task == "s4l" else {}
    the_step = step("labels" if task == "frozen" else task, options=options)
    start = None
    if task == "frozen":
        dense = step("rotnet")
        start = Loop(step=dense, data=DATA, snapshots_at=[EPOCH]).run().snapshots[EPOCH]
        the_step = dataclasses.replace(the_step, start=Rewind(of=dense, samples=EPOCH), trunk_frozen=True)
    made = [
        Loop(step=the_step, data=DATA, start=start, mask=some_mask(), snapshots_at=[400], curve_points=points)
        for points in (0, 7)
    ]
    plain = made[0].run()
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tobytes()  # pyright: ignore
    curved = made[1].run()
    after = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tobytes()  # pyright: ignore
    assert torch.equal(before[0], after[0])
    assert before[1:] == after[1:]
    assert_same_outcome(curved, plain)
    assert plain.curve == {}
    first = 200 if task == "frozen" else 0
    assert sorted(curved.curve) == ([200, 280, 320, 400, 480, 520, 600] if first else [0, 80, 200, 320, 400, 480, 600])
    assert all(curved.curve[600][name] == plain.metrics[name] for name in curved.curve[600])
    assert all(values.keys() == curved.curve[600].keys() for values in curved.curve.values())


def test_points_of_a_curve_are_accuracies_of_the_states_there() -> None:
    """Against networks stopped there, whose hits are counted image by image."""
    outcome = Loop(step=step(), data=DATA, snapshots_at=[0, 320, 480], curve_points=7).run()
    for samples, state in outcome.snapshots.items():
        net = starting_network(step())
        net.load_state_dict(state)
        net.eval()
        assert isinstance(DATA.test, Resident)
        with torch.no_grad():
            hits = [
                int(net(DATA.normalise(image[None])).argmax()) == int(label)
                for image, label in zip(DATA.test.images, DATA.test.labels, strict=True)
            ]
        assert outcome.curve[samples] == {"top1": pytest.approx(100 * sum(hits) / len(hits))}
    assert len({values["top1"] for values in outcome.curve.values()}) > 3


def test_a_curve_has_images_that_are_held_out_too() -> None:
    held_out = dataclasses.replace(DATA, validation=DATA.test.some(torch.arange(40)))
    outcome = Loop(step=step(), data=held_out, curve_points=3).run()
    assert [values.keys() for values in outcome.curve.values()] == [{"top1", "top1_validation"}] * 3
    assert outcome.curve[600]["top1_validation"] == outcome.metrics["top1_validation"]


def test_an_interrupted_training_keeps_its_curve(look_always: None) -> None:
    saved: list[Checkpoint] = []
    whole = Loop(step=step(), data=DATA, hooks=Hooks(save=saved.append, save_every=0.0), curve_points=4).run()
    assert sorted(whole.curve) == [0, 200, 400, 600]
    for stopped in (3, 4, 5, 14):  # before a point, at it, after it, and at the end
        loop = Loop(step=step(), data=DATA, curve_points=4)
        loop.restore(through_a_file(saved[stopped]))
        outcome = loop.run()
        assert_same_outcome(outcome, whole)
        assert outcome.curve == whole.curve


@pytest.mark.parametrize(
    ("count", "points"),
    [(0, set()), (1, {1000}), (2, {600, 1000}), (3, {600, 800, 1000}), (4, {600, 700, 900, 1000})],
)
def test_points_are_evenly_spaced_in_whole_updates(count: int, points: set[int]) -> None:
    assert training.evenly_spaced(600, 1000, 100, count) == points
    every = {600, 700, 800, 900, 1000}
    assert training.evenly_spaced(600, 1000, 100, 1000) == every


# ------------------------------------------------------------------------------------- snapshots and rewinding


def test_a_snapshot_is_the_state_of_a_training_that_stops_there() -> None:
    """BatchNorm's statistics too. 192 samples are reached by the fifth update of 40."""
    full = Loop(step=step(), data=DATA, snapshots_at=[0, EPOCH, 3 * EPOCH]).run()
    assert full.snapshots.keys() == {0, EPOCH, 3 * EPOCH}
    stopped = Loop(step=step(samples=EPOCH), data=DATA).run()
    assert_same(full.snapshots[EPOCH], stopped.weights)
    assert_same(full.snapshots[0], starting_network(step()).state_dict())
    assert_same(full.snapshots[3 * EPOCH], full.weights)
    assert int(full.snapshots[EPOCH]["trunk.layers.bn1.num_batches_tracked"]) == 5
    assert float(full.snapshots[EPOCH]["trunk.layers.bn1.running_mean"].abs().max()) > 0
    assert not torch.equal(full.snapshots[EPOCH]["head.weight"], full.weights["head.weight"])


def test_rewinding_brings_back_the_whole_state_head_and_statistics() -> None:
    dense = step()
    snapshot = Loop(step=dense, data=DATA, snapshots_at=[EPOCH]).run().snapshots[EPOCH]
    rewound = step(start=Rewind(of=dense, samples=EPOCH))
    assert_same(starting_network(rewound, snapshot).state_dict(), snapshot)
    loop = Loop(step=rewound, data=DATA, start=snapshot)
    assert_same(loop.net.state_dict(), snapshot)
    assert loop.optimizer.state_dict()["state"] == {}  # a fresh optimiser


def head_by_hand(seed: int, outputs: int) -> dict[str, Tensor]:
    """The trunk's convolutions are drawn before it, from one generator."""
    generator = torch.Generator().manual_seed(seed_of("init", seed, 0))
    for shape in SHAPES.values():
        torch.empty(shape).normal_(generator=generator)
    weight = torch.empty(outputs, 64).uniform_(-1 / 8, 1 / 8, generator=generator)
    return {"head.weight": weight, "head.bias": torch.empty(outputs).uniform_(-1 / 8, 1 / 8, generator=generator)}


@pytest.mark.parametrize(("origin", "outputs"), [("rotnet", 4), ("labels on other data", 10)])
def test_on_another_task_the_head_is_new_from_the_leafs_seed(origin: str, outputs: int) -> None:
    """Other data is another task, even where the head would fit."""
    of = step("rotnet") if origin == "rotnet" else dataclasses.replace(step(), data="other digits")
    snapshot = Loop(step=of, data=DATA, snapshots_at=[EPOCH]).run().snapshots[EPOCH]
    assert snapshot["head.weight"].shape == (outputs, 64)
    heads: list[Tensor] = []
    for seed in (0, 1):
        leaf = step("labels", seed=seed, start=Rewind(of=of, samples=EPOCH))
        state = starting_network(leaf, snapshot).state_dict()
        trunk = {name: t for name, t in snapshot.items() if name.startswith("trunk.")}
        assert_same({name: t for name, t in state.items() if name.startswith("trunk.")}, trunk)
        by_hand = head_by_hand(seed, 10)
        assert_same({name: state[name] for name in by_hand}, by_hand)
        heads.append(state["head.weight"])
    assert not torch.equal(heads[0], heads[1])


def test_another_draw_is_other_weights() -> None:
    states = [starting_network(step(start=Init(seed=s, draw=d))).state_dict() for s, d in ((0, 0), (0, 1))]
    assert not any(torch.equal(states[0][f"trunk.{name}"], states[1][f"trunk.{name}"]) for name in SHAPES)
    assert not torch.equal(states[0]["head.weight"], states[1]["head.weight"])


@pytest.mark.parametrize("task", ["labels", "rotnet"])
@pytest.mark.parametrize("samples", [0, 100, EPOCH, 400])
def test_rewound_and_unmasked_retraces_the_dense_training(task: str, samples: int, look_always: None) -> None:
    """The same data, views and learning rates from there on: without momentum, the same bits."""
    changes: dict[str, Any] = {"by": "sgd", "schedule": "cosine", "warmup": 400}
    dense, rates = step(task, **changes), {True: [], False: []}

    def looking(rewound: bool) -> Hooks:
        return Hooks(progress=lambda *_: rates[rewound].append(loop.optimizer.param_groups[0]["lr"]))

    loop = Loop(step=dense, data=DATA, snapshots_at=[samples], hooks=looking(False))
    whole = loop.run()
    rewound = step(task, start=Rewind(of=dense, samples=samples), **changes)
    loop = Loop(step=rewound, data=DATA, start=whole.snapshots[samples], hooks=looking(True))
    outcome = loop.run()
    assert_same(outcome.weights, whole.weights)
    assert rates[True] == rates[False][math.ceil(samples / 40) :]
    assert outcome.metrics == whole.metrics


def test_a_rewound_training_needs_a_state() -> None:
    with pytest.raises(ValueError, match="starts from another one needs its state"):
        starting_network(step(start=Rewind(of=step(), samples=0)))


def without(state: State, name: str) -> State:
    return {key: t for key, t in state.items() if key != name}


@pytest.mark.parametrize("task", ["labels", "rotnet"])
@pytest.mark.parametrize(
    "spoil",
    [
        lambda s: without(s, "trunk.layers.conv3.weight"),
        lambda s: without(s, "trunk.layers.bn2.running_var"),
        lambda s: {**s, "trunk.layers.conv5.weight": torch.zeros(3)},
        lambda s: {**s, "trunk.layers.conv3.weight": torch.zeros(32, 31, 3, 3)},
        lambda _: {},
    ],
)
def test_a_state_of_another_network_is_refused(task: str, spoil: Callable[[State], State]) -> None:
    state = starting_network(step("labels")).state_dict()
    rewound = step(task, start=Rewind(of=step("labels"), samples=0))
    starting_network(rewound, state)
    with pytest.raises(ValueError, match="the weights to start from do not fit conv4"):
        starting_network(rewound, spoil(state))


@pytest.mark.parametrize("head", [None, torch.zeros(4, 64)])
def test_a_head_that_does_not_fit_is_refused_where_it_is_kept(head: Tensor | None) -> None:
    state = without(starting_network(step()).state_dict(), "head.weight")
    rewound = step(start=Rewind(of=step(), samples=0))
    with pytest.raises(ValueError, match="do not fit conv4"):
        starting_network(rewound, state if head is None else {**state, "head.weight": head})


# ------------------------------------------------------------------------------------- schedules


def rates_of_torch(make: Callable[[torch.optim.Optimizer], Any], count: int) -> list[float]:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    scheduler, rates = make(optimizer), []
    for _ in range(count):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


def rates_of_ours(count: int, **changes: Any) -> list[float]:
    made = Recipe(**{"samples": 6_400, "batch": 64, "lr": 0.1, **changes})
    return [learning_rate(made, 64 * update) for update in range(count)]


def test_cosine_is_torchs() -> None:
    wanted = rates_of_torch(lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 100), 100)
    np.testing.assert_allclose(rates_of_ours(100, schedule="cosine"), wanted, rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("decay_at", [(3_200, 4_800), (1_000, 1_001, 5_000), (64, 6_399)])
def test_steps_are_torchs(decay_at: tuple[int, ...]) -> None:
    """A decay comes at the first update that begins there or later; two at once are two."""
    milestones = [math.ceil(at / 64) for at in decay_at]
    wanted = rates_of_torch(lambda o: torch.optim.lr_scheduler.MultiStepLR(o, milestones), 100)
    ours = rates_of_ours(100, schedule="steps", decay_at=decay_at)
    np.testing.assert_allclose(ours, wanted, rtol=1e-9)


def test_constant() -> None:
    assert rates_of_ours(100) == [0.1] * 100


def test_warm_up_by_hand() -> None:
    np.testing.assert_allclose(rates_of_ours(6, warmup=256), [0.025, 0.05, 0.075, 0.1, 0.1, 0.1])
    np.testing.assert_allclose(rates_of_ours(4, warmup=160), [0.04, 0.08, 0.1, 0.1])
    np.testing.assert_allclose(rates_of_ours(2, warmup=10), [0.1, 0.1])


def test_warm_up_multiplies_the_schedule() -> None:
    cosine = [0.05 * (1 + math.cos(math.pi * update / 100)) for update in range(100)]
    wanted = [rate * min(1.0, (update + 1) / 50) for update, rate in enumerate(cosine)]
    np.testing.assert_allclose(rates_of_ours(100, schedule="cosine", warmup=3_200), wanted)


def test_one_cycle_by_hand() -> None:
    """Up in two updates of 64 samples, then down in eight, as straight lines that meet at the highest rate."""
    np.testing.assert_allclose(
        rates_of_ours(10, schedule="linear", samples=640, warmup=128),
        [0.05, 0.1, 0.1, 0.0875, 0.075, 0.0625, 0.05, 0.0375, 0.025, 0.0125],
    )
    np.testing.assert_allclose(rates_of_ours(4, schedule="linear", samples=256), [0.1, 0.075, 0.05, 0.025])


def test_the_loop_uses_the_schedule(look_always: None) -> None:
    used: list[float] = []
    hooks = Hooks(progress=lambda *_: used.append(loop.optimizer.param_groups[0]["lr"]))
    loop = Loop(step=step(samples=400, schedule="cosine", lr=0.1), data=DATA, hooks=hooks)
    loop.run()
    np.testing.assert_allclose(used, [0.05 * (1 + math.cos(math.pi * update / 10)) for update in range(10)])


@pytest.mark.parametrize(
    ("samples", "batch", "count"),
    [(50_000, 512, 98), (3_840_000, 1_536, 2_500), (0, 64, 0), (1, 64, 1), (64, 64, 1), (65, 64, 2)],
)
def test_samples_are_seen_in_whole_updates(samples: int, batch: int, count: int) -> None:
    """98 a CIFAR epoch and 2,500 to the rewind point are the paper's."""
    assert Recipe(samples=1, batch=batch, lr=0.1).reached(samples) == count * batch


def taken(step: Train, until: int | None = None) -> tuple[int, State]:
    """Rows with labels that the losses of a training and of those before it were computed on, up to a state, and it."""
    before, start = 0, None
    if not isinstance(step.start, Init):
        assert isinstance(step.start.of, Train)
        before, start = taken(step.start.of, step.rewind)
    loop = Loop(step=step, data=DATA, start=start, snapshots_at=() if until is None else {until})
    loss = loop.task.loss
    count = before

    def counting(net: Callable[[Tensor], Tensor], *parts: Tensor) -> Tensor:
        nonlocal count
        if step.task in ("labels", "s4l") and until not in loop.snapshots:
            count += len(parts[-1])  # the labels
        return loss(net, *parts)

    loop.task.loss = counting
    outcome = loop.run()
    return count, outcome.weights if until is None else outcome.snapshots[until]


def trainings_that_start_elsewhere() -> Iterator[Train]:
    """Batches differ, and no rewind is a whole number of them."""
    labels, turned = recipe(), recipe(batch=24)
    some = {"labels": step(), "rotnet": step("rotnet", batch=24), "s4l": step("s4l", batch=16, samples=300)}
    for of in some.values():
        yield of
        for rewind in (0, 100):
            yield rewound(None, to=of, samples=rewind, task="labels", recipe=labels)
    goes_on = rewound(None, to=some["labels"], samples=100, task="labels", recipe=turned)
    yield goes_on
    yield dataclasses.replace(goes_on, first_sample=0)
    yield linear(finetune(goes_on, data="digits", recipe=turned), data="digits", recipe=labels)
    yield rewound(
        None, to=finetune(some["s4l"], data="digits", recipe=labels), samples=90, task="rotnet", recipe=turned
    )


def test_labels_are_counted_as_the_loop_takes_them() -> None:
    counts = [(label_samples(step), taken(step)[0]) for step in trainings_that_start_elsewhere()]
    assert all(known == found for known, found in counts), counts
    assert len({found for _, found in counts}) > 6


def test_progress_counts_samples_to_the_end(look_always: None) -> None:
    told: list[tuple[int, int]] = []
    Loop(step=step(samples=100), data=DATA, hooks=Hooks(progress=lambda *now: told.append(now))).run()
    assert told == [(40, 120), (80, 120), (120, 120)]


# ------------------------------------------------------------------------------------- optimisers

WEIGHTS = np.array([0.5, -1.25, 2.0, 0.0])
GRADIENTS = np.array([[0.1, -0.2, 0.3, 0.4], [0.05, 0.4, -0.3, 0.2], [-0.1, 0.0, 0.25, -0.4]])
RATES = [0.1, 0.05, 0.2]
DECAY = 0.01


def nesterov_by_hand() -> np.ndarray:
    w, momentum = WEIGHTS.copy(), np.zeros(4)
    for gradient, lr in zip(GRADIENTS, RATES, strict=True):
        g = gradient + DECAY * w
        momentum = 0.9 * momentum + g
        w = w - lr * (g + 0.9 * momentum)
    return w


def momentum_by_hand() -> np.ndarray:
    w, momentum = WEIGHTS.copy(), np.zeros(4)
    for gradient, lr in zip(GRADIENTS, RATES, strict=True):
        momentum = 0.9 * momentum + gradient + DECAY * w
        w = w - lr * momentum
    return w


def adam_by_hand(coupled: bool) -> np.ndarray:
    """Kingma and Ba; the decay is part of the gradient (coupled), or shrinks the weight (Loshchilov and Hutter)."""
    w, m, v = WEIGHTS.copy(), np.zeros(4), np.zeros(4)
    for t, (gradient, lr) in enumerate(zip(GRADIENTS, RATES, strict=True), start=1):
        g = gradient + DECAY * w * coupled
        w = w * (1 - lr * DECAY * (not coupled))
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        w = w - lr * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
    return w


@pytest.mark.parametrize(
    ("changes", "by_hand"),
    [
        ({"momentum": 0.9, "nesterov": True}, nesterov_by_hand()),
        ({"momentum": 0.9}, momentum_by_hand()),
        ({"optimizer": "adam"}, adam_by_hand(coupled=True)),
        ({"optimizer": "adamw"}, adam_by_hand(coupled=False)),
    ],
)
def test_updates_by_hand(changes: dict[str, Any], by_hand: np.ndarray) -> None:
    """Three of them, in float64, with changing learning rates; biases decay as weights do."""
    layer = nn.Linear(3, 1)
    made = Recipe(samples=100, batch=10, lr=0.1, weight_decay=DECAY, **changes)
    optimizer = training.optimizer(made, layer)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(WEIGHTS[:3])[None])
        layer.bias.copy_(torch.tensor(WEIGHTS[3:]))
    for gradient, lr in zip(torch.tensor(GRADIENTS).float(), RATES, strict=True):
        layer.weight.grad, layer.bias.grad = gradient[None, :3], gradient[3:]
        optimizer.param_groups[0]["lr"] = lr
        optimizer.step()
    updated = torch.cat([layer.weight.detach()[0], layer.bias.detach()]).numpy()
    np.testing.assert_allclose(updated, by_hand, rtol=2e-6, atol=1e-8)


def test_coupled_and_decoupled_decay_are_told_apart() -> None:
    """By the reference above, so that the test of Adam can fail."""
    assert np.abs(adam_by_hand(coupled=True) - adam_by_hand(coupled=False)).max() > 1e-3


# ------------------------------------------------------------------------------------- the whole loop


def test_the_loop_is_a_plain_pytorch_loop() -> None:
    """Against torch.optim's plain SGD and CosineAnnealingLR on a network of nn.Sequential, over the same views."""
    the_step = step(samples=2 * EPOCH, batch=32, schedule="cosine", weight_decay=5e-4)

    def block(width_in: int, width: int) -> list[nn.Module]:
        return [nn.Conv2d(width_in, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]

    pools = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10)
    net = nn.Sequential(
        *block(1, 16), nn.MaxPool2d(2), *block(16, 32), *block(32, 32), nn.MaxPool2d(2), *block(32, 64), *pools
    )
    drawn = starting_network(the_step).state_dict()
    net.load_state_dict(dict(zip(net.state_dict(), drawn.values(), strict=True)))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9, nesterov=True, weight_decay=5e-4)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 12)
    views, losses = Views(DATA, DATA.train, recipe()), []
    for batch in batches(32, 12):
        loss = F.cross_entropy(net(views(batch).contiguous()), DATA.train.labels[batch.index[:, 0]])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()
        losses.append(loss.item())
    net.eval()
    assert isinstance(DATA.test, Resident)
    images = (DATA.test.images.float() - DATA.mean) / DATA.std
    top1 = 100 * (net(images).argmax(1) == DATA.test.labels).double().mean()

    outcome = Loop(step=the_step, data=DATA).run()
    for ours, (name, theirs) in zip(outcome.weights.values(), net.state_dict().items(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=2e-5, msg=name)
    assert outcome.metrics["top1"] == pytest.approx(float(top1))
    assert outcome.metrics["train_loss"] == pytest.approx(np.mean(losses[6:]), rel=1e-4)


def test_the_training_loss_is_of_the_last_epoch() -> None:
    """Of the batches that begin in it: 40 does not divide 192."""
    views = Views(DATA, DATA.train, recipe())
    loop = Loop(step=step(lr=1e-30, weight_decay=0.0), data=DATA)  # nothing moves
    net = starting_network(step()).train()
    losses: dict[int, list[float]] = {}
    for update, batch in enumerate(batches(40, 15)):
        loss = F.cross_entropy(net(views(batch)), DATA.train.labels[batch.index[:, 0]])
        losses.setdefault(40 * update // EPOCH, []).append(loss.item())
    assert losses.keys() == {0, 1, 2}
    assert loop.run().metrics["train_loss"] == pytest.approx(np.mean(losses[2]), rel=1e-5)


def test_a_training_learns() -> None:
    """Real digits, two epochs: far above chance on both tasks."""
    digits = data.load("digits")
    for task, metric, chance in (("labels", "top1", 10), ("rotnet", "rotation_top1", 25)):
        made = step(task, samples=2_400, batch=64, weight_decay=5e-4, schedule="cosine")
        assert Loop(step=made, data=digits).run().metrics[metric] > 2 * chance


# ------------------------------------------------------------------------------------- failures, random state


def test_a_loss_that_is_no_number_ends_the_training_and_says_where(look_always: None) -> None:
    saved: list[Checkpoint] = []
    loop = Loop(step=step(lr=1e30), data=DATA, hooks=Hooks(save=saved.append, save_every=0.0))
    with pytest.raises(FloatingPointError, match="the loss is nan after 80 of 600 samples"):
        loop.run()
    assert [checkpoint.seen for checkpoint in saved] == [40]


def test_a_loss_that_is_no_number_is_found_at_the_end_at_the_latest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "FIRST_LOOK", 1_000)
    with pytest.raises(FloatingPointError, match="the loss is nan after 600 of 600 samples"):
        Loop(step=step(lr=1e30), data=DATA).run()


def test_no_global_random_state() -> None:
    """Neither used nor changed, in torch, numpy and Python."""
    first = Loop(step=step("rotnet"), data=DATA, mask=some_mask()).run()
    with torch.random.fork_rng():
        torch.manual_seed(1234)
        before = torch.get_rng_state(), random.getstate(), np.random.get_state(legacy=False)["state"]["key"].tolist()
        again = Loop(step=step("rotnet"), data=DATA, mask=some_mask()).run()
        assert torch.equal(torch.get_rng_state(), before[0])
        assert random.getstate() == before[1]
        assert np.random.get_state(legacy=False)["state"]["key"].tolist() == before[2]
    assert_same_outcome(first, again)


def test_seeds_matter() -> None:
    """The step's for data and views, the start's for the weights."""
    base, other_order, other_weights = (
        Loop(step=s, data=DATA).run().weights
        for s in (step(), step(seed=1, start=Init(seed=0)), step(start=Init(seed=1)))
    )
    for other in (other_order, other_weights):
        assert not torch.equal(base["trunk.layers.conv1.weight"], other["trunk.layers.conv1.weight"])


def test_adam_with_l2_leaves_subnormal_weights_and_no_zeros() -> None:
    """The numbers in docs/design.md, on a tenth of the weights: no gradient but that of L2."""
    weight = torch.nn.Linear(2000, 1, bias=False)
    with torch.no_grad():
        weight.weight.copy_(torch.randn(1, 2000, generator=torch.Generator().manual_seed(0)) * 0.05)
    update = training.optimizer(Recipe(samples=2, batch=2, lr=1e-3, optimizer="adam", weight_decay=1e-4), weight)
    for _ in range(3000):
        weight.weight.grad = torch.zeros_like(weight.weight)
        update.step()
    sizes = weight.weight.detach().double().abs()
    assert int((sizes == 0).sum()) == 0
    assert float((sizes < 2.0**-126).double().mean()) > 0.7
    assert 1e-39 < float(sizes.median()) < 1e-38
