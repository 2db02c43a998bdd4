"""The training loop with every task: parts of a batch, frozen trunks, states of tasks, images on disk, learning.

What holds for every training, as masks and schedules, is in test_train.py.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load as from_safetensors
from safetensors.torch import save as to_safetensors
from torch import Tensor, nn

from raysslprune import catalogue, data, masks, models, tasks
from raysslprune.data import IGNORED, DataError, Dataset, Resident, subsets
from raysslprune.data import files as on_disk
from raysslprune.data.batches import Batch, Feed
from raysslprune.data.views import Views, draws
from raysslprune.paper.scales import SETTINGS
from raysslprune.spec import Final, Init, Recipe, Rewind, Train
from raysslprune.tasks import exemplar
from raysslprune.tasks.task import Task
from raysslprune.training import loop as training
from raysslprune.training.loop import Checkpoint, Hooks, Loop, Outcome, State, starting_network

EPOCH = 192


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """Small images are trained fastest so."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Tiny(nn.Module):
    """A trunk from outside the package, for images of any size: ``Tiny`` of this module."""

    width = 8

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, 8, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.second = nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        return self.second(self.norm(self.first(images)).relu()).relu().mean(dim=(2, 3))


class Plain(nn.Module):
    """Without a norm: samples of a batch know nothing of each other."""

    width = 12

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layer = nn.Conv2d(channels, 12, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        return self.layer(images).relu().amax(dim=(2, 3))


@dataclasses.dataclass(kw_only=True)
class Parity(Task):
    """A task from outside the package: is the class odd?"""

    draws = 2
    by: int = 1

    def head(self, width: int, data: Dataset) -> nn.Module:
        return nn.Linear(width, 1)

    def sample(self, views: Views, batch: Batch) -> tuple[Tensor, ...]:
        assert batch.own.shape[1] == 2
        return views(batch), views.split.labels[batch.index[:, 0]] % 2

    def loss(self, net: Any, *parts: Tensor) -> Tensor:
        images, odd = parts
        return F.binary_cross_entropy_with_logits(net(images)[:, 0], odd.float())

    def evaluate(self, net: nn.Module, data: Dataset, recipe: Recipe) -> dict[str, float]:
        return {"by": float(self.by)}


def small() -> Dataset:
    digits = data.load("digits")
    return dataclasses.replace(
        digits, train=digits.train.some(torch.arange(EPOCH)), test=digits.test.some(torch.arange(100))
    )


DATA = small()
SLOW = {"lr": 0.02, "momentum": 0.9, "nesterov": True, "weight_decay": 1e-3}
TASKS: dict[str, tuple[str, dict[str, Any]]] = {
    "labels": ("labels", {}),
    "standardise": ("labels", {"options": (("standardise", True),)}),
    "rotnet": ("rotnet", {"options": (("all_turns", True),)}),
    "exemplar": ("exemplar", {"angle": 15, "jitter": (0.4, 0.4, 0.0, 0.0), "options": (("dimension", 8),)}),
    "semi-hard": ("exemplar", {"crop": 0.5, "pad": 0, "options": (("negatives", "semi-hard"),)}),
    "npid": ("npid", {"options": (("dimension", 8), ("negatives", 20), ("temperature", 0.5))}),
    "s4l": ("s4l", {"options": (("labelled", "20%-of-images"),)}),
    "simclr": ("simclr", {"options": (("dimension", 8), ("hidden", 16))}),
    "moco": ("moco", {"options": (("dimension", 8), ("hidden", 16), ("queue", 100), ("ema", 0.9))}),
    "byol": ("byol", {"options": (("dimension", 8), ("hidden", 16), ("ema", 0.9))}),
    "vicreg": ("vicreg", {"options": (("dimension", 8), ("hidden", 16))}),
}


def recipe(**changes: Any) -> Recipe:
    """Three epochs; batches straddle them."""
    return Recipe(**{"samples": 3 * EPOCH, "batch": 40, "pad": 1, **SLOW, **changes})


def step(task: str = "labels", seed: int = 0, start: Any = None, frozen: bool = False, **changes: Any) -> Train:
    """task: a name in TASKS or of the package."""
    name, more = TASKS.get(task, (task, {}))
    arch = changes.pop("arch", "conv4")
    return Train(
        task=name,
        data="digits",
        arch=arch,
        recipe=recipe(**{**more, **changes}),
        seed=seed,
        start=start or Init(seed=seed),
        trunk_frozen=frozen,
    )


def starting_state(step: Train, dataset: Dataset = DATA) -> State:
    assert isinstance(step.recipe, Recipe)
    task = tasks.find(step.task, step.recipe.options)
    task.begin(dataset, torch.Generator())
    return starting_network(step, task, dataset, None).state_dict()


def assert_same(a: State, b: State) -> None:
    """Bit for bit."""
    assert a.keys() == b.keys()
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=0, atol=0, equal_nan=True, msg=name)


def assert_same_outcome(a: Outcome, b: Outcome) -> None:
    assert_same(a.weights, b.weights)
    assert a.snapshots.keys() == b.snapshots.keys()
    for samples in a.snapshots:
        assert_same(a.snapshots[samples], b.snapshots[samples])
    assert a.metrics == b.metrics


def through_a_file(checkpoint: Checkpoint) -> Checkpoint:
    return Checkpoint(seen=checkpoint.seen, tensors=from_safetensors(to_safetensors(checkpoint.tensors)))


# ------------------------------------------------------------------------------------- interruption


@pytest.mark.parametrize("bn_batch", [0, 10])
@pytest.mark.parametrize("task", TASKS)
def test_interrupted_is_uninterrupted_bit_for_bit(task: str, bn_batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also with views made for many updates at once, which an interruption groups otherwise."""
    monkeypatch.setattr(training, "LOOK_EVERY", 0.0)
    monkeypatch.setattr(training, "VIEWS_AT_ONCE", 120)
    the_step = step(task, schedule="cosine", bn_batch=bn_batch, samples=2 * EPOCH)
    saved: list[Checkpoint] = []
    hooks = Hooks(save=lambda c: saved.append(through_a_file(c)), save_every=0.0)
    whole = Loop(step=the_step, data=DATA, snapshots_at=[0, EPOCH], hooks=hooks)
    outcome = whole.run()
    assert [c.seen for c in saved] == list(range(40, 401, 40))
    for interrupted in (0, 5, 9):
        loop = Loop(step=the_step, data=DATA, snapshots_at=[0, EPOCH])
        loop.restore(saved[interrupted])
        assert_same_outcome(loop.run(), outcome)
        assert_same(loop.task.state, whole.task.state)


# ------------------------------------------------------------------------------------- parts of a batch


def taken(loop: Loop, count: int) -> tuple[Tensor, ...]:
    """The views and targets of the first samples."""
    return loop.task.sample(loop.views, loop.feed.take(0, count))


def test_the_gradient_of_parts_is_the_mean_and_so_are_their_statistics() -> None:
    """One update of 64 samples as 4 parts of 16, by four networks of their own."""
    the_step = step(samples=64, batch=64, bn_batch=16, momentum=0.0, nesterov=False, weight_decay=0.0)
    loop = Loop(step=the_step, data=DATA)
    images, labels = taken(loop, 64)
    fresh = loop.net.train()
    losses, gradients, statistics, first = [], [], [], []
    for part in range(4):
        net, rows = copy.deepcopy(fresh), slice(16 * part, 16 * part + 16)
        loss = F.cross_entropy(net(images[rows]), labels[rows])
        loss.backward()
        losses.append(loss.item())
        gradients.append([p.grad for p in net.parameters()])
        statistics.append({name: b for name, b in net.named_buffers() if "running" in name})
        shown = F.conv2d(images[rows], fresh.state_dict()["trunk.layers.conv1.weight"], padding=1)
        first.append(torch.stack([shown.mean((0, 2, 3)), shown.var((0, 2, 3))]))
    before = [p.detach().clone() for p in fresh.parameters()]
    outcome = loop.run()
    for name, start, parameter, *parts in zip(
        dict(loop.net.named_parameters()), before, loop.net.parameters(), *gradients, strict=True
    ):
        mean = torch.stack(parts).mean(0)
        assert parameter.grad is not None
        torch.testing.assert_close(parameter.grad, mean, rtol=1e-5, atol=1e-7)
        torch.testing.assert_close(outcome.weights[name], start - 0.02 * mean, rtol=1e-5, atol=1e-7)
    for name in statistics[0]:
        mean = torch.stack([s[name] for s in statistics]).mean(0)
        torch.testing.assert_close(outcome.weights[name], mean, rtol=1e-5, atol=1e-6)
    by_hand = 0.9 * torch.tensor([[0.0], [1.0]]) + 0.1 * torch.stack(first).mean(0)
    torch.testing.assert_close(outcome.weights["trunk.layers.bn1.running_mean"], by_hand[0], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(outcome.weights["trunk.layers.bn1.running_var"], by_hand[1], rtol=1e-5, atol=1e-6)
    assert outcome.metrics["train_loss"] == pytest.approx(np.mean(losses), rel=1e-5)


def test_statistics_move_once_an_update_from_where_they_were() -> None:
    """Two updates of two parts: 0.81 of the start, 0.09 of the first update's mean, 0.1 of the second's."""
    the_step = step(samples=80, batch=40, bn_batch=20, lr=1e-30, weight_decay=0.0)
    loop = Loop(step=the_step, data=DATA)
    images, _ = taken(loop, 80)
    shown = F.conv2d(images, loop.net.state_dict()["trunk.layers.conv1.weight"], padding=1)
    means = torch.stack([part.mean((0, 2, 3)) for part in shown.split(20)])
    found = loop.run().weights["trunk.layers.bn1.running_mean"]
    wanted = 0.09 * (means[0] + means[1]) / 2 + 0.1 * (means[2] + means[3]) / 2
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("task", ["labels", "npid", "s4l"])
def test_one_part_is_the_whole_batch_bit_for_bit(task: str) -> None:
    one, other = (Loop(step=step(task, bn_batch=b), data=DATA, snapshots_at=[EPOCH]).run() for b in (0, 40))
    assert_same_outcome(one, other)


@pytest.mark.parametrize("bn_batch", [2, 8, 20])
def test_without_a_norm_parts_change_nothing(bn_batch: int) -> None:
    for task in ("labels", "rotnet"):
        whole, parts = (
            Loop(step=step(task, arch=f"{__name__}:Plain", bn_batch=b), data=DATA).run() for b in (0, bn_batch)
        )
        for name, tensor in whole.weights.items():
            torch.testing.assert_close(parts.weights[name], tensor, rtol=1e-3, atol=1e-5)
        assert parts.metrics["train_loss"] == pytest.approx(whole.metrics["train_loss"], rel=1e-4)


def test_with_a_norm_parts_are_another_training() -> None:
    whole, parts = (Loop(step=step(bn_batch=b), data=DATA).run() for b in (0, 10))
    assert not torch.allclose(parts.weights["head.weight"], whole.weights["head.weight"], rtol=1e-2)


def test_negatives_come_from_the_same_part(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    loss = exemplar.triplet

    def triplet(*rows: Any) -> Tensor:
        sizes.append(len(rows[0]))
        return loss(*rows)

    monkeypatch.setattr(exemplar, "triplet", triplet)
    Loop(step=step("exemplar", samples=80, bn_batch=10), data=DATA).run()
    assert sizes == [10] * 8


@pytest.mark.parametrize("task", ["simclr", "vicreg"])
def test_views_are_compared_over_the_whole_batch_and_normalised_in_its_parts(task: str) -> None:
    """One update of 64 images as 4 parts of 16; the loss is one, over all embeddings, as are the variances."""
    the_step = step(task, samples=64, batch=64, bn_batch=16, momentum=0.0, nesterov=False, weight_decay=0.0)
    loop = Loop(step=the_step, data=DATA)
    views, net = taken(loop, 64), copy.deepcopy(loop.net).train()
    parts = [[view[16 * part : 16 * part + 16] for view in views] for part in range(4)]
    statistics: list[Tensor] = []
    outputs: list[tuple[Tensor, ...]] = []
    for part in parts:
        fresh = copy.deepcopy(loop.net).train()
        for images in (torch.cat(part),) if task == "simclr" else part:
            fresh(images)
        statistics.append(fresh.state_dict()["trunk.layers.bn3.running_var"])
        outputs.append(net(torch.cat(part)).chunk(2) if task == "simclr" else tuple(map(net, part)))
    first, second = map(torch.cat, zip(*outputs, strict=True))
    given = iter((torch.cat([first, second]),) if task == "simclr" else (first, second))
    loss = loop.task.loss(lambda _: next(given), *views)
    loss.backward()
    outcome = loop.run()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None
        wanted = parameter.detach() - 0.02 * parameter.grad
        torch.testing.assert_close(outcome.weights[name], wanted, rtol=1e-4, atol=1e-6, msg=name)
    torch.testing.assert_close(outcome.weights["trunk.layers.bn3.running_var"], torch.stack(statistics).mean(0))
    assert outcome.weights["trunk.layers.bn3.num_batches_tracked"] == 1
    assert outcome.metrics["train_loss"] == pytest.approx(loss.item(), rel=1e-5)


# ------------------------------------------------------------------------------------- a frozen trunk


@functools.cache
def pretrained() -> tuple[Train, State]:
    the_step = step("rotnet")
    return the_step, Loop(step=the_step, data=DATA).run().weights


def trunk_of(state: State) -> State:
    return {name: t for name, t in state.items() if name.startswith("trunk.")}


@pytest.mark.parametrize("task", ["labels", "standardise", "rotnet", "npid", "s4l"])
@pytest.mark.parametrize("pad", [0, 1])
@pytest.mark.parametrize("bn_batch", [0, 8])
def test_a_frozen_trunk_stays_as_it_is_and_the_head_learns(task: str, pad: int, bn_batch: int) -> None:
    origin, weights = pretrained()
    lr = 0.3 if task == "labels" else 0.02
    the_step = step(task, start=Final(of=origin), frozen=True, pad=pad, bn_batch=bn_batch, lr=lr)
    loop = Loop(step=the_step, data=DATA, start=weights, snapshots_at=[0])
    outcome = loop.run()
    assert_same(trunk_of(outcome.weights), trunk_of(weights))
    weight = "head.1.weight" if task == "standardise" else "head.weight"
    assert not torch.equal(outcome.weights[weight], outcome.snapshots[0][weight])
    assert all(p.grad is None for p in loop.net.trunk.parameters())
    assert loop.checkpoint().tensors.keys() > {"optimizer.0.momentum_buffer", "optimizer.1.momentum_buffer"}
    assert not any(name.startswith("optimizer.2") for name in loop.checkpoint().tensors)
    if task in ("labels", "standardise"):
        assert outcome.metrics["top1"] > 25


@pytest.mark.parametrize("pad", [0, 1])
def test_a_head_alone_can_be_interrupted(pad: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "LOOK_EVERY", 0.0)
    origin, weights = pretrained()
    the_step = step("standardise", start=Final(of=origin), frozen=True, pad=pad, bn_batch=10)
    saved: list[Checkpoint] = []
    whole = Loop(step=the_step, data=DATA, start=weights, hooks=Hooks(save=saved.append, save_every=0.0)).run()
    loop = Loop(step=the_step, data=DATA, start=weights)
    loop.restore(through_a_file(saved[6]))
    assert_same_outcome(loop.run(), whole)


def test_the_head_is_new_by_the_leafs_seed() -> None:
    origin, weights = pretrained()
    heads = [
        Loop(step=step(seed=s, start=Final(of=origin), frozen=True), data=DATA, start=weights, snapshots_at=[0])
        for s in (0, 1)
    ]
    first, second = (loop.run().snapshots[0]["head.weight"] for loop in heads)
    assert first.shape == (10, 64)
    assert not torch.equal(first, second)


@pytest.mark.parametrize("task", ["labels", "standardise"])
@pytest.mark.parametrize("bn_batch", [0, 20])
def test_features_computed_once_are_those_of_every_step(
    task: str, bn_batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    origin, weights = pretrained()
    the_step = step(task, start=Final(of=origin), frozen=True, pad=0, bn_batch=bn_batch)
    asked: list[int] = []
    loop = Loop(step=the_step, data=DATA, start=weights)
    loop.net.trunk.register_forward_pre_hook(lambda _module, inputs: asked.append(len(inputs[0])))
    once = loop.run()
    assert asked == [100]  # for the evaluation
    monkeypatch.setattr(Views, "random", True)
    loop = Loop(step=the_step, data=DATA, start=weights)
    loop.net.trunk.register_forward_pre_hook(lambda _module, inputs: asked.append(len(inputs[0])))
    always = loop.run()
    assert sum(asked) == 100 + 600 + 100
    for name, tensor in always.weights.items():
        torch.testing.assert_close(once.weights[name], tensor, rtol=1e-4, atol=1e-5)
    assert once.metrics["top1"] == pytest.approx(always.metrics["top1"], abs=1.01)
    assert once.metrics["train_loss"] == pytest.approx(always.metrics["train_loss"], rel=1e-4)


def test_features_are_of_the_masked_trunk() -> None:
    origin, weights = pretrained()
    the_step = step(start=Final(of=origin), frozen=True, pad=0)
    mask = {
        name.removeprefix("trunk."): torch.rand(t.shape, generator=torch.Generator().manual_seed(0)) < 0.5
        for name, t in weights.items()
        if t.ndim == 4
    }
    already = {name: t * mask[name.removeprefix("trunk.")] if t.ndim == 4 else t for name, t in weights.items()}
    one, other = (Loop(step=the_step, data=DATA, start=s, mask=mask).run() for s in (weights, already))
    assert_same_outcome(one, other)
    dense = Loop(step=the_step, data=DATA, start=weights).run()
    assert dense.metrics["train_loss"] < one.metrics["train_loss"]
    assert one.metrics["density"] == pytest.approx(0.5, abs=0.01)


def test_natural_sparsity_is_of_the_weights_that_the_mask_leaves() -> None:
    origin, weights = pretrained()
    layer = "trunk.layers.conv2.weight"
    weights = {**weights, layer: weights[layer].clone()}
    weights[layer][:4] = 1e-8
    weights[layer][4:6] = 0.0
    mask = {
        name.removeprefix("trunk."): torch.ones(t.shape, dtype=torch.bool) for name, t in weights.items() if t.ndim == 4
    }
    mask[layer.removeprefix("trunk.")][1] = False
    mask["layers.conv4.weight"][:32] = False
    metrics = Loop(step=step(start=Final(of=origin), frozen=True), data=DATA, start=weights, mask=mask).run().metrics
    left = 32_400 - 16 * 9 - 32 * 32 * 9
    assert metrics["natural_sparsity"] == pytest.approx(100 * 5 * 144 / left)
    assert metrics["natural_sparsity_1e-9"] == pytest.approx(100 * 2 * 144 / left)


@pytest.mark.parametrize("parts", [1, 4])
def test_a_standardised_linear_classifier_by_hand(parts: int) -> None:
    """In float64, with the mean and variance of each part of a batch; for testing with the running ones."""
    origin, weights = pretrained()
    changes: dict[str, Any] = {"pad": 0, "momentum": 0.0, "nesterov": False, "lr": 0.1, "schedule": "cosine"}
    if parts > 1:
        changes["bn_batch"] = 40 // parts
    the_step = step("standardise", start=Final(of=origin), frozen=True, **changes)
    loop = Loop(step=the_step, data=DATA, start=weights, snapshots_at=[0])
    net = copy.deepcopy(loop.net).eval()
    splits: list[Tensor] = []
    for split in (DATA.train, DATA.test):
        assert isinstance(split, Resident)
        with torch.no_grad():
            splits.append(net.trunk(DATA.normalise(split.images)).double())
    features, asked = splits
    outcome = loop.run()
    weight, bias = (outcome.snapshots[0][f"head.1.{name}"].double() for name in ("weight", "bias"))
    mean, variance = torch.zeros(64, dtype=torch.float64), torch.ones(64, dtype=torch.float64)
    for position in range(0, 600, 40):
        index = Feed(DATA.train, recipe(pad=0), 0, views=1, draws=3, own=0).take(position, 40).index[:, 0]
        errors, centred, means, variances = [], [], [], []
        for one in index.chunk(parts):
            rows = features[one]
            normed = (rows - rows.mean(0)) / (rows.var(0, unbiased=False) + 1e-5).sqrt()
            outputs = normed @ weight.T + bias
            errors.append((outputs.softmax(1) - F.one_hot(DATA.train.labels[one], 10)) / 40)
            centred.append(normed)
            means.append(rows.mean(0))
            variances.append(rows.var(0))
        error, normed = torch.cat(errors), torch.cat(centred)
        lr = 0.1 * 0.5 * (1 + math.cos(math.pi * position / 576))
        weight, bias = weight - lr * (error.T @ normed + 1e-3 * weight), bias - lr * (error.sum(0) + 1e-3 * bias)
        mean, variance = (0.9 * old + 0.1 * sum(new) / parts for old, new in ((mean, means), (variance, variances)))
    wanted = {"head.1.weight": weight, "head.1.bias": bias, "head.0.running_mean": mean, "head.0.running_var": variance}
    for name, tensor in wanted.items():
        torch.testing.assert_close(outcome.weights[name].double(), tensor, rtol=1e-3, atol=1e-5)
    outputs = (asked - mean) / (variance + 1e-5).sqrt() @ weight.T + bias
    top1 = 100 * (outputs.argmax(1) == DATA.test.labels).double().mean()
    assert outcome.metrics["top1"] == pytest.approx(float(top1), abs=1.01)


# ------------------------------------------------------------------------------------- states of tasks


def test_snapshots_hold_the_memory_and_final_weights_do_not() -> None:
    loop = Loop(step=step("npid"), data=DATA, snapshots_at=[0, EPOCH, 3 * EPOCH])
    bank = loop.task.state["bank"].clone()
    outcome = loop.run()
    assert not any(name.startswith("task.") for name in outcome.weights)
    for state in outcome.snapshots.values():
        assert state.keys() == outcome.weights.keys() | {"task.bank", "task.log_z"}
    assert torch.equal(outcome.snapshots[0]["task.bank"], bank)
    assert outcome.snapshots[0]["task.log_z"].isnan()
    assert outcome.snapshots[EPOCH]["task.log_z"].isfinite()
    assert torch.equal(outcome.snapshots[3 * EPOCH]["task.bank"], loop.task.state["bank"])
    moved = (outcome.snapshots[EPOCH]["task.bank"] != bank).any(1)
    assert bool(moved.all())  # each image was seen
    torch.testing.assert_close(outcome.snapshots[EPOCH]["task.bank"].norm(dim=1), torch.ones(EPOCH))


@pytest.mark.parametrize("samples", [0, 100, 400])
def test_rewinding_npid_brings_its_memory_back(samples: int) -> None:
    """Without momentum, unmasked, the dense training is retraced bit for bit, memory and all."""
    changes: dict[str, Any] = {"momentum": 0.0, "nesterov": False, "bn_batch": 20}
    dense = step("npid", **changes)
    whole = Loop(step=dense, data=DATA, snapshots_at=[samples])
    outcome = whole.run()
    snapshot = from_safetensors(to_safetensors(outcome.snapshots[samples]))
    again = Loop(
        step=step("npid", start=Rewind(of=dense, samples=samples), **changes),
        data=DATA,
        start=snapshot,
        snapshots_at=[samples],
    )
    assert_same(
        {f"task.{name}": t.clone() for name, t in again.task.state.items()},
        {name: t for name, t in snapshot.items() if name.startswith("task.")},
    )
    retraced = again.run()
    assert_same_outcome(retraced, outcome)
    assert_same(again.task.state, whole.task.state)


def test_a_rewound_memory_is_a_copy() -> None:
    dense = step("npid")
    snapshot = Loop(step=dense, data=DATA, snapshots_at=[EPOCH]).run().snapshots[EPOCH]
    before = {name: t.clone() for name, t in snapshot.items()}
    Loop(step=step("npid", start=Rewind(of=dense, samples=EPOCH)), data=DATA, start=snapshot).run()
    assert_same(snapshot, before)


@pytest.mark.parametrize("task", ["labels", "rotnet"])
def test_another_task_does_not_mind_the_memory(task: str) -> None:
    dense = step("npid")
    snapshot = Loop(step=dense, data=DATA, snapshots_at=[EPOCH]).run().snapshots[EPOCH]
    leaf = step(task, start=Rewind(of=dense, samples=EPOCH))
    loops = [Loop(step=leaf, data=DATA, start=s) for s in (snapshot, trunk_of(snapshot))]
    assert_same_outcome(*(loop.run() for loop in loops))


def half() -> masks.Mask:
    """A mask of the network's in these tests: half of the weights, at random."""
    shapes = {name: weight.shape for name, weight in models.prunable(models.trunk("conv4", 1)).items()}
    return masks.random(shapes, 16_200, torch.Generator().manual_seed(1))


def averaged(loop: Loop) -> State:
    prefix = "average.trunk."
    return {name.removeprefix(prefix): t for name, t in loop.task.state.items() if name.startswith(prefix)}


@pytest.mark.parametrize("task", ["moco", "byol"])
def test_a_moving_average_is_under_the_mask_from_the_first_update_to_the_last(task: str) -> None:
    loop = Loop(step=step(task), data=DATA, mask=half())
    start = {name: t.clone() for name, t in averaged(loop).items()}
    for state in (start, averaged(loop) if loop.run() else {}):
        for name, keep in half().items():
            assert not state[name][~keep].any()
            assert state[name][keep].all()
    assert all(not torch.equal(start[name], averaged(loop)[name]) for name in start)


@pytest.mark.parametrize("task", ["moco", "byol"])
def test_rewinding_brings_the_moving_average_back_under_the_mask(task: str) -> None:
    dense = step(task)
    origin = Loop(step=dense, data=DATA, snapshots_at=[EPOCH])
    snapshot = origin.run().snapshots[EPOCH]
    kept = {name: t for name, t in snapshot.items() if name.startswith("task.average.trunk.")}
    later = {f"task.{name}": t for name, t in origin.task.state.items()}
    assert all(not torch.equal(tensor, later[name]) for name, tensor in kept.items())
    loop = Loop(step=step(task, start=Rewind(of=dense, samples=EPOCH)), data=DATA, start=snapshot, mask=half())
    for name, tensor in averaged(loop).items():
        wanted = kept[f"task.average.trunk.{name}"]
        assert torch.equal(tensor, wanted * half()[name] if name in half() else wanted), name
    rest = {name: tensor for name, tensor in snapshot.items() if name.startswith("task.") and name not in kept}
    assert rest
    for name, tensor in rest.items():
        assert torch.equal(loop.task.state[name.removeprefix("task.")], tensor), name


@pytest.mark.parametrize("task", ["moco", "byol"])
def test_rewound_and_unmasked_a_newer_task_retraces_its_dense_training(task: str) -> None:
    changes: dict[str, Any] = {"momentum": 0.0, "nesterov": False}
    dense = step(task, **changes)
    whole = Loop(step=dense, data=DATA, snapshots_at=[EPOCH])
    outcome = whole.run()
    again = Loop(
        step=step(task, start=Rewind(of=dense, samples=EPOCH), **changes), data=DATA, start=outcome.snapshots[EPOCH]
    )
    assert_same(again.run().weights, outcome.weights)
    assert_same(again.task.state, whole.task.state)


def test_npid_on_other_data_begins_its_memory_anew() -> None:
    dense = dataclasses.replace(step("npid"), data="other digits")
    snapshot = Loop(step=dense, data=DATA, snapshots_at=[EPOCH]).run().snapshots[EPOCH]
    loop = Loop(step=step("npid", start=Rewind(of=dense, samples=EPOCH)), data=DATA, start=snapshot)
    assert loop.task.state["log_z"].isnan()
    assert torch.equal(loop.task.state["bank"], Loop(step=step("npid"), data=DATA).task.state["bank"])


def test_the_memory_begins_by_the_steps_seed() -> None:
    banks = [Loop(step=step("npid", seed=s, start=Init(seed=0)), data=DATA).task.state["bank"] for s in (0, 0, 1)]
    assert torch.equal(banks[0], banks[1])
    assert not torch.equal(banks[0], banks[2])


# ------------------------------------------------------------------------------------- S4L


def poisoned(seed: int, outside: bool, inside: bool) -> tuple[Outcome, set[int]]:
    """S4L after its part was chosen, with labels that are no class on the other images, or on its own."""
    train = DATA.train.some(torch.arange(EPOCH))
    loop = Loop(step=step("s4l", seed=seed), data=dataclasses.replace(DATA, train=train))
    pool = loop.task.pool()
    assert pool is not None
    known = torch.zeros(EPOCH, dtype=torch.bool)
    known[pool] = True
    if outside:
        train.labels[~known] = 1000
    if inside:
        train.labels[known] = 1000
    partners: set[int] = set()
    take = loop.feed.take

    def noted(position: int, count: int) -> Batch:
        batch = take(position, count)
        assert set(batch.index[:, 0].tolist()) <= set(pool.tolist())
        partners.update(batch.index[:, 1].tolist())
        return batch

    loop.feed.take = noted
    return loop.run(), partners


def test_s4l_trains_on_its_parts_labels_and_on_all_images() -> None:
    clean, partners = poisoned(0, outside=False, inside=False)
    assert partners == set(range(EPOCH))
    assert_same_outcome(poisoned(0, outside=True, inside=True)[0], clean)  # it has its own copy of the part's


def test_an_epoch_of_s4l_is_one_of_the_labelled_images() -> None:
    loop = Loop(step=step("s4l"), data=DATA)
    pool = loop.task.pool()
    assert pool is not None
    assert loop.feed.samples == len(pool) < 60
    assert sorted(loop.feed.take(0, len(pool)).index[:, 0].tolist()) == pool.tolist()


def test_the_training_loss_of_s4l_is_of_the_labelled_images_last_epoch() -> None:
    loop = Loop(step=step("s4l", samples=90, batch=10, bn_batch=5), data=DATA)
    losses: list[float] = []
    loss = loop.task.loss

    def noted(net: Any, *parts: Tensor) -> Tensor:
        losses.append(loss(net, *parts).item())
        return loss(net, *parts)

    loop.task.loss = noted
    metrics = loop.run().metrics
    epoch = loop.feed.samples
    assert 30 < epoch < 50
    last = [value for part, value in enumerate(losses) if part // 2 * 10 >= 80 // epoch * epoch]
    assert 2 <= len(last) < 10
    assert metrics["train_loss"] == pytest.approx(np.mean(last), rel=1e-4)


def test_s4ls_loss_uses_the_true_labels_of_the_part() -> None:
    loop = Loop(step=step("s4l"), data=DATA)
    batch = loop.feed.take(0, 100)
    labels = loop.task.sample(loop.views, batch)[2]
    assert labels.tolist() == DATA.train.labels[batch.index[:, 0]].tolist()


# ------------------------------------------------------------------------------------- names of one's own


def test_a_task_and_a_trunk_from_outside_the_package() -> None:
    the_step = step(f"{__name__}:Parity", arch=f"{__name__}:Tiny", options=(("by", 3),))
    loop = Loop(step=the_step, data=DATA)
    assert isinstance(loop.net.trunk, Tiny)
    outcome = loop.run()
    assert outcome.metrics["by"] == 3.0
    assert outcome.weights["trunk.first.weight"].shape == (8, 1, 3, 3)
    with pytest.raises(ValueError, match=f"task {__name__}:Parity has no option 'of'; its options: by"):
        Loop(step=step(f"{__name__}:Parity", options=(("of", 3),)), data=DATA)


# ------------------------------------------------------------------------------------- images on disk

COLOURS = [(200, 60, 60), (60, 200, 60), (60, 60, 200)]


def coloured(folder: Path, count: int, multilabel: bool = False) -> Dataset:
    """Noisy images of sizes that differ, each of one colour; for several classes at once in halves of two."""
    rng = np.random.default_rng(0)
    names, labels = [], []
    for i in range(count):
        width, height = int(rng.integers(24, 60)), int(rng.integers(24, 60))
        pixels = rng.normal(0, 30, (height, width, 3))
        pixels += COLOURS[i % 3]
        label = [int(i % 3 == c) for c in range(3)]
        if multilabel:
            other = int(rng.integers(3))
            pixels[: height // 2] += np.array(COLOURS[other]) - np.array(COLOURS[i % 3])
            label[other] = 1
            label[int(rng.integers(3))] = IGNORED if rng.random() < 0.3 else label[0]
            label[i % 3] = 1
        Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(folder / f"{i}.jpg")
        names.append(f"{i}.jpg")
        labels.append(label if multilabel else i % 3)
    targets = torch.tensor(labels, dtype=torch.int8 if multilabel else torch.int64)
    half = 2 * count // 3
    made = on_disk.dataset(folder, (names[:half], targets[:half]), (names[half:], targets[half:]), 3)
    splits = [
        dataclasses.replace(s, size=16, resize=20) for s in (made.train, made.test) if isinstance(s, on_disk.Files)
    ]
    return dataclasses.replace(made, train=splits[0], test=splits[1])


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return coloured(tmp_path_factory.mktemp("pictures"), 72)


def on_files(task: str = "labels", **changes: Any) -> Train:
    defaults = {
        "samples": 480,
        "batch": 16,
        "pad": 0,
        "crop": 0.3,
        "flip": True,
        "lr": 0.05,
        "arch": f"{__name__}:Tiny",
    }
    return step(task, **{**defaults, **changes})


@pytest.mark.parametrize(
    ("task", "metric", "least"),
    [("labels", "top1", 90), ("rotnet", "rotation_top1", 0), ("exemplar", "triplet_accuracy", 60),
     ("npid", "knn_top1", 60), ("s4l", "top1", 60), ("simclr", "knn_top1", 60), ("moco", "knn_top1", 60),
     ("byol", "knn_top1", 60), ("vicreg", "knn_top1", 60)],
)  # fmt: skip
def test_every_task_trains_on_images_on_disk(task: str, metric: str, least: float, pictures: Dataset) -> None:
    changes = {"lr": 0.005} if task == "vicreg" else {}  # its loss is some 25 times as large
    outcome = Loop(step=on_files(task, **changes), data=pictures).run()
    assert least <= outcome.metrics[metric] <= 100


def test_training_on_files_is_a_plain_loop_over_their_crops(pictures: Dataset) -> None:
    the_step = on_files(momentum=0.0, nesterov=False, samples=96)
    assert isinstance(the_step.recipe, Recipe)
    loop = Loop(step=the_step, data=pictures)
    net = copy.deepcopy(loop.net).train()
    feed = Feed(pictures.train, the_step.recipe, 0, views=1, draws=draws(the_step.recipe), own=0)
    for position in range(0, 96, 16):
        batch = feed.take(position, 16)
        assert batch.pixels is not None
        flip = batch.draws[:, 0, 2, None, None, None] < 0.5
        images = torch.where(flip, batch.pixels[:, 0].flip(3), batch.pixels[:, 0])
        images = (images.float() - pictures.mean) / pictures.std
        net.zero_grad()
        F.cross_entropy(net(images), pictures.train.labels[batch.index[:, 0]]).backward()
        with torch.no_grad():
            for p in net.parameters():
                assert p.grad is not None
                p -= 0.05 * (p.grad + 1e-3 * p)
    found = loop.run().weights
    for name, tensor in net.state_dict().items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-3, atol=1e-5, msg=name)


@pytest.mark.parametrize(
    ("task", "bn_batch"),
    [("labels", 0), ("labels", 8), ("exemplar", 4), ("npid", 8), ("s4l", 8), ("simclr", 8), ("moco", 4), ("byol", 8)],
)
def test_interrupted_on_files_bit_for_bit(
    task: str, bn_batch: int, pictures: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "LOOK_EVERY", 0.0)
    the_step = on_files(task, samples=128, bn_batch=bn_batch)
    saved: list[Checkpoint] = []
    whole = Loop(step=the_step, data=pictures, hooks=Hooks(save=saved.append, save_every=0.0)).run()
    for interrupted in (0, 4):
        loop = Loop(step=the_step, data=pictures)
        loop.restore(through_a_file(saved[interrupted]))
        assert_same_outcome(loop.run(), whole)


def test_several_labels_at_once(tmp_path: Path) -> None:
    """As VOC07: a logistic loss for each class, ignored ones left out, mean average precision."""
    dataset = coloured(tmp_path, 72, multilabel=True)
    assert dataset.multilabel
    for split in (dataset.train, dataset.test):
        assert set(split.labels.flatten().tolist()) == {0, 1, IGNORED}
    start, end = (Loop(step=on_files(samples=n), data=dataset).run().metrics for n in (16, 960))
    assert end.keys() == start.keys() >= {"map"}
    assert end["map"] > 85
    assert end["train_loss"] < start["train_loss"]
    assert "top1" not in end


@pytest.mark.parametrize("task", catalogue.TASKS)
def test_what_is_measured_is_known_without_torch(task: str, tmp_path: Path) -> None:
    """Or a misprint would be found when all is trained."""
    one, several = step(task, samples=40), replace(on_files(task, samples=16), data="voc07")
    assert set(Loop(step=one, data=DATA).run().metrics) == set(catalogue.metrics(one))
    if task != "s4l":  # whose labels choose a part of the images
        measured = Loop(step=several, data=coloured(tmp_path, 72, multilabel=True)).run().metrics
        assert set(measured) == set(catalogue.metrics(several))
    unknown = replace(one, data="mine:Data")
    assert set(catalogue.metrics(unknown)) == {*catalogue.metrics(one), *catalogue.metrics(replace(one, data="voc07"))}
    assert catalogue.metrics(replace(one, task="mine:Task")) == ()


@pytest.mark.parametrize("task", TASKS)
def test_held_out_images_are_measured_as_test_images_are_and_change_nothing(task: str) -> None:
    """A training that has them as its test images is the same, bit for bit, and so is one of which they are noise."""
    held = subsets.of(DATA, "25%-held-out")
    assert isinstance(held.validation, Resident)
    one = replace(step(task, samples=80), data="digits:25%-held-out")
    noise = torch.randint_like(held.validation.images, 17)
    measured, tested, spoilt = (
        Loop(step=one, data=dataclasses.replace(held, **changes)).run()
        for changes in (
            {},
            {"test": held.validation, "validation": None},
            {"validation": Resident(images=noise, labels=held.validation.labels)},
        )
    )
    assert_same(measured.weights, tested.weights)
    assert_same(measured.weights, spoilt.weights)
    own = {name: value for name, value in measured.metrics.items() if not name.endswith("_validation")}
    assert own == {name: value for name, value in spoilt.metrics.items() if name in own}
    assert set(measured.metrics) == set(catalogue.metrics(one))
    for name in measured.metrics.keys() - own.keys():
        assert measured.metrics[name] == tested.metrics[name.removesuffix("_validation")]
    assert len(own) < len(measured.metrics)


@pytest.mark.parametrize("bn_batch", [0, 4])
def test_files_are_decoded_in_the_parts_that_are_trained_on(bn_batch: int, pictures: Dataset) -> None:
    """Not for many updates at once, which would be more than memory holds."""
    loop = Loop(step=on_files(samples=48, bn_batch=bn_batch), data=pictures)
    asked: list[tuple[int, int]] = []
    take = loop.feed.take

    def noted(position: int, count: int) -> Batch:
        asked.append((position, count))
        return take(position, count)

    loop.feed.take = noted
    loop.run()
    assert asked == [(position, bn_batch or 16) for position in range(0, 48, bn_batch or 16)]


def test_features_of_files_are_computed_without_decoding_again(
    pictures: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    origin = on_files()
    weights = Loop(step=origin, data=pictures).run().weights
    seen: list[int] = []
    image = on_disk.Files.image
    monkeypatch.setattr(on_disk.Files, "image", lambda self, i: seen.append(i) or image(self, i))
    linear = on_files(start=Final(of=origin), frozen=True, crop=0.0, flip=False)
    once = Loop(step=linear, data=pictures, start=weights).run()
    assert len(seen) == len(pictures.train) + len(pictures.test)
    monkeypatch.setattr(Views, "random", True)
    always = Loop(step=linear, data=pictures, start=weights).run()
    assert len(seen) > 480
    for name, tensor in always.weights.items():
        torch.testing.assert_close(once.weights[name], tensor, rtol=1e-4, atol=1e-5)
    assert_same(trunk_of(once.weights), trunk_of(weights))


def test_a_broken_image_ends_the_training_with_its_name(pictures: Dataset, tmp_path: Path) -> None:
    dataset = coloured(tmp_path, 72)
    (tmp_path / "7.jpg").write_bytes(b"\xff\xd8 no more")
    with pytest.raises(DataError, match=r"image .*/7\.jpg is broken"):
        Loop(step=on_files(), data=dataset).run()


def test_images_on_disk_are_not_shifted(pictures: Dataset) -> None:
    """A recipe that asks for it is refused, not quietly ignored."""
    with pytest.raises(ValueError, match="pad is for resident images only"):
        Loop(step=on_files(crop=0.0, pad=1), data=pictures)


# ------------------------------------------------------------------------------------- learning

LAPTOP = SETTINGS["laptop"]


def learned(task: str, seed: int, **changes: Any) -> tuple[Train, Outcome]:
    """changes: of the laptop's recipe."""
    name, _, part = task.partition(":")
    made = Train(
        task=name,
        data=f"{LAPTOP.data}:{part}" if part else LAPTOP.data,
        arch=LAPTOP.arch,
        recipe=replace(LAPTOP.recipes["s4l:10%-of-images" if task == "s4l" else task], **changes),
        seed=seed,
        start=Init(seed=seed),
    )
    return made, Loop(step=made, data=data.load(made.data)).run()


def linear(seed: int, of: Train | None, weights: State | None) -> float:
    """Top-1 of a linear classifier on frozen features, or on those of a net that was never trained."""
    made = Train(
        task="labels",
        data=LAPTOP.data,
        arch=LAPTOP.arch,
        recipe=LAPTOP.linear[0].recipe,
        seed=seed,
        start=Final(of=of) if of else Init(seed=seed),
        trunk_frozen=True,
    )
    return Loop(step=made, data=data.load(LAPTOP.data), start=weights).run().metrics["top1"]


def measured(task: str, seed: int) -> dict[str, float]:
    """The task's own metrics, and by how much its features are better than those of an untrained net."""
    made, outcome = learned(task, seed)
    if "gain" not in LEARNED[task]:
        return outcome.metrics
    return {**outcome.metrics, "gain": linear(seed, made, outcome.weights) - untrained(seed)}


@functools.cache
def untrained(seed: int) -> float:
    return linear(seed, None, None)


LEARNED = {
    "rotnet": {"rotation_top1": 80},
    "exemplar": {"triplet_accuracy": 90, "gain": 4},
    "npid": {"knn_top1": 65, "gain": 2},
    "s4l": {"top1": 80, "rotation_top1": 75},
    "simclr": {"knn_top1": 88, "gain": 4},
    "moco": {"knn_top1": 80, "gain": 4},
    "byol": {"knn_top1": 70, "gain": 2},
    "vicreg": {"knn_top1": 80, "gain": 4},
}
NEWER = ("simclr", "moco", "byol", "vicreg")


@pytest.mark.parametrize(
    "task", [pytest.param(task, marks=pytest.mark.slow) if task in NEWER else task for task in LEARNED]
)
def test_every_task_learns_something_about_digits(task: str) -> None:
    found = measured(task, 0)
    assert all(found[metric] > least for metric, least in LEARNED[task].items()), found


@pytest.mark.slow
@pytest.mark.parametrize("task", LEARNED)
def test_every_task_learns_with_every_seed(task: str) -> None:
    found = [measured(task, seed) for seed in range(3)]
    for metric, least in LEARNED[task].items():
        assert np.mean([metrics[metric] for metrics in found]) > least, found


@pytest.mark.slow
def test_unlabelled_images_help_where_labels_are_few() -> None:
    """Paper, 4.2.2: S4L is better than labels on as few images. On digits only while training is short."""
    s4l, labels = (
        np.mean([learned(task, seed, samples=2_880)[1].metrics["top1"] for seed in range(3)])
        for task in ("s4l", "labels:10%-of-images")
    )
    assert s4l > labels + 1
