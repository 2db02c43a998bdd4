"""Whether the device computes what it should: each task's loss and update, a pruning chain, resuming, two processes.

It uses a small network on scikit-learn's digits, so that only rounding can differ, and all can be computed twice.
"""

from __future__ import annotations

import math
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from benchmarks.gpu.reference import First, first_update
from benchmarks.gpu.results import Check, Line, Said
from benchmarks.gpu.run import Run, Wait, prepare, together
from raysslprune import data, masks, models
from raysslprune.data import Dataset
from raysslprune.spec import Init, Prune, Recipe, Rewind, Train
from raysslprune.training.loop import Checkpoint, Hooks, Loop, Outcome, State

TASKS: dict[str, tuple[tuple[str, Any], ...]] = {
    "labels": (),
    "rotnet": (),
    "exemplar": (("dimension", 16),),
    "npid": (("dimension", 16), ("negatives", 20), ("temperature", 0.5)),
    "s4l": (),
    "simclr": (("dimension", 16), ("hidden", 32)),
    "moco": (("dimension", 16), ("hidden", 32), ("queue", 100), ("ema", 0.9)),
    "byol": (("dimension", 16), ("hidden", 32), ("ema", 0.9)),
    "vicreg": (("dimension", 16), ("hidden", 32)),
}
"""Tasks, with options that suit so few images."""

PRECISIONS = ("float32", "bf16")

# The tolerances are several to some tens of times the differences on a CPU: between float32 or bf16 and float64, over
# six seeds, and between trainings whose first weights differ by a millionth. For float32 they would expose TF32.

LOSS = {"float32": 2e-5, "bf16": 1e-2}
"""Tolerances of a loss, relative to it."""

UPDATE = {"float32": 1e-2, "bf16": 0.4}
"""Tolerances of an update of the weights, relative to its length."""

CHAIN = {"float32": 0.02, "bf16": 0.05}
"""Tolerances of a training's mean loss after some tens of updates."""

SAME_BITS = {"float32": 0.02, "bf16": 0.03}
"""Maximum fraction of bits in which two masks may differ."""

WEIGHTS = 0.05
"""Tolerance of weights after ten updates. Rounding becomes visible if it moves a triplet across its hinge."""

ROUNDING = {
    "float32": "float32 rounds to 2^-24, and TF32's 2^-11 would show",
    "bf16": "bfloat16 rounds to 2^-9, in each of five layers",
}
SAMPLES, REWIND, KEEP = 960, 96, 0.5
"""The chain's samples, rewind and kept fraction; 32,400 weights can be halved four times without a remainder."""


def lines(run: Run) -> Iterator[Line]:
    prepare()
    for precision in PRECISIONS:
        for task in TASKS:
            yield from first(run.device, task, precision)
    for precision in PRECISIONS:
        yield from chain(run.device, precision)
    for task in TASKS:
        yield resumed(run.device, task)
    for task in TASKS if run.on_gpu else ():
        yield waits(run.device, task)
        yield from graph(run.device, task)
    yield from shared(run)


def digits() -> Dataset:
    """Load a part of scikit-learn's digits: 192 for training, 99 for testing."""
    whole = data.load("digits")
    return replace(whole, train=whole.train.some(torch.arange(192)), test=whole.test.some(torch.arange(99)))


def step(task: str, **recipe: Any) -> Train:
    made: dict[str, Any] = {"samples": 320, "batch": 32, "lr": 0.01, "momentum": 0.9, "pad": 1, "options": TASKS[task]}
    return Train(task=task, data="digits", arch="conv4", recipe=Recipe(**made | recipe), seed=0, start=Init(seed=0))


def half() -> masks.Mask:
    """Make a mask that keeps a random half of the weights."""
    shapes = {name: weight.shape for name, weight in models.prunable(models.trunk("conv4", 1)).items()}
    return masks.random(shapes, sum(shape.numel() for shape in shapes.values()) // 2, torch.Generator().manual_seed(1))


# ------------------------------------------------------------------------------------- the first update


def first(device: torch.device, task: str, precision: str) -> Iterator[Line]:
    """Compare the loss and the weights after one update with those of other code in float64."""
    made = step(task, samples=32, precision=precision)
    loop = Loop(step=made, data=digits(), mask=half(), device=device)
    seen = First(loop)
    outcome = loop.run()
    loss, after = first_update(seen)
    name = f"{task}, {precision}"
    yield Check(
        name=f"{name}: first loss, beside float64",
        found=seen.loss,
        expected=loss,
        tolerance=LOSS[precision] * abs(loss),
        why=f"{LOSS[precision]:g} of the loss: {ROUNDING[precision]}",
    )
    yield Check(
        name=f"{name}: first update, length of the error over that of the update",
        found=length(after, outcome.weights) / length(after, seen.weights),
        expected=0,
        tolerance=UPDATE[precision],
        why=f"a gradient is a sum of numbers of either sign; {ROUNDING[precision]}",
    )
    yield zeros(name, outcome.weights, half())


def length(one: State, other: State) -> float:
    """Return the Euclidean length of the difference, over all weights together."""
    return math.sqrt(sum(float((tensor - other[name].double()).square().sum()) for name, tensor in one.items()))


def zeros(name: str, weights: Mapping[str, Tensor], mask: masks.Mask) -> Check:
    alive = sum(int(weights[f"trunk.{n}"][~keep].count_nonzero()) for n, keep in mask.items())
    return Check(name=f"{name}: pruned weights that are not 0", found=alive, expected=0, tolerance=0, why="exact")


# ------------------------------------------------------------------------------------- a chain


def chain(device: torch.device, precision: str) -> Iterator[Line]:
    """Train, prune by half and rewind, twice, and compare the device with the CPU."""
    here, there = levels(torch.device("cpu"), precision), levels(device, precision)
    for level, ((there_outcome, there_mask), (here_outcome, here_mask)) in enumerate(zip(there, here, strict=True)):
        name = f"chain, level {level}, {precision}"
        yield from exact(name, level, there_outcome, there_mask)
        yield Check(
            name=f"{name}: mean loss, beside the CPU",
            found=there_outcome.metrics["train_loss"],
            expected=here_outcome.metrics["train_loss"],
            tolerance=CHAIN[precision],
            why=f"rounding grows from update to update; {ROUNDING[precision]}",
        )
        yield Check(
            name=f"{name}: the next mask, fraction of bits unlike the CPU's",
            found=differing(there_mask, here_mask) / sum(m.numel() for m in here_mask.values()),
            expected=0,
            tolerance=SAME_BITS[precision],
            why="weights near the threshold; two masks at random would differ in a fourth of their bits or more",
        )


def exact(name: str, level: int, outcome: Outcome, mask: masks.Mask) -> Iterator[Check]:
    """Check what must be exact: the mask made from the device's weights, and the zeros under the mask before it."""
    weights = trunk(outcome)
    before = {n: w != 0 for n, w in weights.items()}  # trained with momentum, no remaining weight is exactly 0
    left = sum(m.numel() for m in mask.values()) // 2**level
    yield counts(f"{name}: weights that are not 0", before, left)
    yield counts(f"{name}: weights that the next mask leaves", mask, left // 2)
    yield Check(
        name=f"{name}: bits unlike a full sort's",
        found=differing(mask, sorted_mask(weights, before, left // 2, mask)),
        expected=0,
        tolerance=0,
        why="the same weights give the same mask",
    )


def levels(device: torch.device, precision: str) -> list[tuple[Outcome, masks.Mask]]:
    """Return each training's outcome, and the mask made from it."""
    dense = step("labels", samples=SAMPLES, precision=precision)
    outcome = Loop(step=dense, data=digits(), snapshots_at=[REWIND], device=device).run()
    made = [(outcome, pruned(outcome, masks.full({n: w.shape for n, w in trunk(outcome).items()})))]
    last = dense
    for _ in range(2):
        last = replace(dense, start=Rewind(of=dense, samples=REWIND), mask=Prune(of=last, keep=KEEP))
        start, mask = outcome.snapshots[REWIND], made[-1][1]
        trained = Loop(step=last, data=digits(), start=start, mask=mask, device=device).run()
        made.append((trained, pruned(trained, mask)))
    return made


def trunk(outcome: Outcome) -> dict[str, Tensor]:
    names = models.prunable(models.trunk("conv4", 1))
    return {name: outcome.weights[f"trunk.{name}"] for name in names}


def pruned(outcome: Outcome, mask: masks.Mask) -> masks.Mask:
    return masks.prune(trunk(outcome), mask, KEEP, torch.Generator().manual_seed(0)).mask


def sorted_mask(weights: Mapping[str, Tensor], before: masks.Mask, count: int, mask: masks.Mask) -> masks.Mask:
    """Make the next mask in numpy: sort the remaining weights by magnitude; among equals, those of ``mask`` stay."""
    flat = np.concatenate([w.numpy().ravel() for w in weights.values()]).astype(np.float64)
    left = np.flatnonzero(np.concatenate([m.numpy().ravel() for m in before.values()]))
    drawn = np.concatenate([mask[n].numpy().ravel() for n in weights])
    order = left[np.lexsort((drawn[left], np.abs(flat[left])))]
    stays = np.zeros(len(flat), bool)
    stays[order[len(order) - count :]] = True
    parts = np.split(stays, np.cumsum([w.numel() for w in weights.values()])[:-1])
    return {n: torch.from_numpy(part).view(w.shape) for (n, w), part in zip(weights.items(), parts, strict=True)}


def counts(name: str, mask: masks.Mask, expected: int) -> Check:
    found = sum(int(np.count_nonzero(m.numpy())) for m in mask.values())
    return Check(name=name, found=found, expected=expected, tolerance=0, why="counts are exact")


def differing(one: masks.Mask, other: masks.Mask) -> int:
    return sum(int((one[name] != other[name]).sum()) for name in other)


# ------------------------------------------------------------------------------------- interrupted, and shared


def resumed(device: torch.device, task: str) -> Check:
    """Compare a training that resumed from a checkpoint with one that was never interrupted."""
    made, saved = step(task, bn_batch=16), list[Checkpoint]()
    hooks = Hooks(save=saved.append, save_every=0.0, look_every=0.0)
    whole = Loop(step=made, data=digits(), mask=half(), device=device, hooks=hooks).run()
    again = Loop(step=made, data=digits(), mask=half(), device=device)
    again.restore(saved[4])
    exact = device.type == "cpu"
    return Check(
        name=f"{task}: interrupted and resumed, largest difference of a weight",
        found=apart(again.run().weights, whole.weights),
        expected=0,
        tolerance=0 if exact else WEIGHTS,
        why="on the CPU bit for bit" if exact else "a GPU adds up gradients in no fixed order",
    )


def waits(device: torch.device, task: str) -> Check:
    """Check that updates never wait for the GPU, as torch reports it, if views are made anew for each."""
    loop = Loop(step=step(task), data=digits(), mask=half(), device=device)
    loop.trained.train()

    def update() -> None:
        loop.next_update()
        loop.seen += loop.recipe.batch
        loop.ready = []

    for _ in range(3):  # the first may wait: NPID looks whether its normalisation is known
        update()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            for _ in range(5):
                update()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    found = [str(each.message) for each in caught if "synchroniz" in str(each.message)]
    return Check(
        name=f"{task}: waits for the device in five updates", found=len(found), expected=0, tolerance=0, why="exact"
    )


def graph(device: torch.device, task: str) -> Iterator[Line]:
    """Compare updates as CUDA graphs with the same updates kernel by kernel."""
    loop = Loop(step=step(task, bn_batch=16), data=digits(), mask=half(), device=device, graphed=True)
    if not loop.graphed:
        yield Said(name=f"{task}: as a graph", says="not captured, since its updates look at values")
        return
    weights = loop.run().weights
    yield Check(
        name=f"{task}: as a graph, largest difference of a weight",
        found=apart(weights, shareable(task, device)),
        expected=0,
        tolerance=WEIGHTS,
        why="the same kernels, but a GPU adds up gradients in no fixed order",
    )
    yield zeros(f"{task}, as a graph", weights, half())


def shared(run: Run) -> Iterator[Line]:
    """Compare two processes on this one device with one process; they use gloo, since NCCL refuses to share a GPU."""
    alone = {task: shareable(task, run.device) for task in TASKS}
    with tempfile.TemporaryDirectory() as folder:
        one, other = together(run, 2, rank_of_two, folder)
    for task, weights in alone.items():
        yield from beside_alone(f"{task}, two processes on a device", [one[task], other[task]], weights)


def shareable(task: str, device: torch.device) -> State:
    """Return the weights of a training in two parts, which two processes can share."""
    return Loop(step=step(task, bn_batch=16), data=digits(), mask=half(), device=device).run().weights


def rank_of_two(run: Run, _wait: Wait, rank: int, folder: str) -> dict[str, State]:
    meet = Path(folder, "meet").as_uri()
    limit = timedelta(seconds=max(run.left, 1))
    dist.init_process_group("gloo", init_method=meet, rank=rank, world_size=2, timeout=limit)
    trained = {task: shareable(task, run.device) for task in TASKS}
    dist.destroy_process_group()
    return trained


def beside_alone(name: str, ranks: list[State], alone: State) -> Iterator[Check]:
    """Compare the weights of several processes with each other, and with those of one alone."""
    different = sum(not torch.equal(rank[n], tensor) for rank in ranks for n, tensor in ranks[0].items())
    yield Check(
        name=f"{name}: tensors that differ", found=different, expected=0, tolerance=0, why="all have one network"
    )
    yield Check(
        name=f"{name}: largest difference from one alone",
        found=apart(ranks[0], alone),
        expected=0,
        tolerance=WEIGHTS,
        why="gradients are added up in another order, in each of ten updates",
    )


def apart(one: State, other: State) -> float:
    return max(float((one[n].double() - tensor.double()).abs().max()) for n, tensor in other.items())
