"""Masks by criteria as steps of the graph: what is trained for them, from which state they come, and whole filters."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from io import StringIO
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from rich.console import Console
from safetensors.torch import load as from_safetensors
from torch import Tensor

from raysslprune import masks, models
from raysslprune.evaluate.metrics import features
from raysslprune.lottery import from_start, imp, linear, untrained
from raysslprune.models.channels import affine_mask, dead, spaces
from raysslprune.plan.graph import Plan, make_plan
from raysslprune.spec import Final, Init, Prune, Rewind, Train
from raysslprune.store.record import EMPTIED, WEIGHTS, snapshot_name
from raysslprune.store.steps import Store
from raysslprune.sweepfile import Point
from raysslprune.terminal.explain import explain
from raysslprune.training import runner as running
from tests.helpers.chains import execute
from tests.helpers.runner import LINEAR, SEED, SHORT, STEPS, drawn, left, made, mask_in, record, weights

RECIPE = replace(SHORT, samples=256)
DENSE = Train(task="rotnet", data="digits", arch="conv4", recipe=RECIPE, seed=SEED, start=Init(seed=SEED))
SNIP = Prune(of=DENSE, keep=0.4, criterion="snip", samples=32, at=0)


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def plan_of(*steps: Train, keep_all: bool = True) -> Plan:
    points = [Point(step=step, task=step.task, init="", level=0, seed=step.seed) for step in steps]
    return make_plan(points, keep_all=keep_all)


def under(mask: Prune, task: str = "labels") -> Train:
    assert isinstance(mask.of, Train)
    return from_start(mask, of=mask.of, task=task, recipe=RECIPE)


def largest(state: dict[str, Tensor], count: int) -> dict[str, Tensor]:
    """The mask of the largest weights of a state, by a sorted list."""
    names = [name for name in state if name.startswith("trunk.") and state[name].ndim == 4]
    cut = sorted((abs(x) for name in names for x in state[name].flatten().tolist()), reverse=True)[count - 1]
    return {name.removeprefix("trunk."): state[name].abs() >= cut for name in names}


def same_mask(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


# ------------------------------------------------------------------------------------- what is planned and run


def test_a_mask_at_initialisation_needs_no_training(tmp_path: Path) -> None:
    mask = Prune(of=DENSE, keep=0.4, at=0)
    step = under(mask)
    (job,) = plan_of(step).jobs.values()
    assert (job.before, job.after, job.parents) == ([mask], [], [])
    store = execute([step], tmp_path)
    assert store.record(DENSE.id) is None
    assert same_mask(mask_in(store, mask), largest(drawn(4), 12_960))
    assert record(store, step).metrics["density"] == 0.4
    assert step.start == DENSE.start


def test_a_mask_at_a_snapshot_is_made_after_the_training_that_keeps_it(tmp_path: Path) -> None:
    mask = Prune(of=DENSE, keep=0.4, at=100)
    plan = plan_of(under(mask), keep_all=False)
    dense, last = plan.jobs.values()
    assert (dense.snapshots, dense.after, dense.weights, last.parents) == ({100}, [mask], False, [dense])
    store = execute([under(mask)], tmp_path)
    assert same_mask(mask_in(store, mask), largest(weights(store, DENSE, snapshot_name(100)), 12_960))
    assert not same_mask(mask_in(store, mask), largest(weights(store, DENSE), 12_960))


@pytest.mark.parametrize("fields", [{"at": 100}, {"criterion": "movement"}, {"criterion": "snip", "samples": 32}])
def test_masks_are_made_from_a_training_whose_weights_are_not_kept(fields: dict[str, object], tmp_path: Path) -> None:
    mask = Prune(of=DENSE, keep=0.4, **fields)  # pyright: ignore[reportArgumentType]
    runner = made(tmp_path)
    for job in plan_of(under(mask), keep_all=False).jobs.values():
        runner.run(job.to_plain())
    assert WEIGHTS not in record(runner.store, DENSE).files
    kept = execute([under(mask)], tmp_path / "kept")
    assert same_mask(mask_in(runner.store, mask), mask_in(kept, mask))


def test_a_mask_of_a_snapshot_needs_no_weights_to_be_made_later() -> None:
    mask = Prune(of=DENSE, keep=0.4, at=100)
    job = next(iter(plan_of(under(mask), keep_all=False).jobs.values()))
    done: Any = {DENSE.id: SimpleNamespace(files={snapshot_name(100): None})}
    assert job.is_trained(done)
    final = next(iter(plan_of(under(Prune(of=DENSE, keep=0.4)), keep_all=False).jobs.values()))
    assert not final.is_trained(done)


def test_rounds_judged_where_they_begin_train_no_round(tmp_path: Path) -> None:
    """Iterative SNIP at the rewind point: only the dense training runs, up to its snapshot's file."""
    chain = imp(
        task="rotnet", data="digits", arch="conv4", recipe=RECIPE, seed=SEED, levels=3, keep=0.5, rewind=64,
        criterion="snip", samples=32, at=64,
    )  # fmt: skip
    step = replace(chain.rounds[2], mask=chain.masks[3])
    plan = plan_of(step)
    dense, job = plan.jobs.values()
    assert (dense.train, dense.after, dense.snapshots) == (chain.dense, [chain.masks[1]], {64})
    assert (job.before, job.parents) == ([chain.masks[2], chain.masks[3]], [dense])
    store = execute([step], tmp_path)
    rounds = [mask_in(store, mask) for mask in chain.masks[1:]]
    assert [left(mask) for mask in rounds] == [16_200, 8_100, 4_050]
    assert all(not (later[name] & ~earlier[name]).any() for earlier, later in pairwise(rounds) for name in later)


def test_rounds_rewound_to_initialisation_train_nothing_at_all(tmp_path: Path) -> None:
    chain = imp(
        task="rotnet", data="digits", arch="conv4", recipe=RECIPE, seed=SEED, levels=2, keep=0.5, rewind=0,
        criterion="snip", samples=32, at=0,
    )  # fmt: skip
    last = chain.masks[2]
    assert last is not None
    step = from_start(last, of=chain.dense, task="labels", recipe=RECIPE)
    (job,) = plan_of(step).jobs.values()
    assert tuple(job.before) == chain.masks[1:]
    store = execute([step], tmp_path)
    assert left(mask_in(store, last)) == 8_100


def test_movement_in_a_chain_is_counted_from_the_rewind_point() -> None:
    chain = imp(
        task="labels", data="digits", arch="conv4", recipe=RECIPE, seed=SEED, levels=2, keep=0.5, rewind=64,
        criterion="movement",
    )  # fmt: skip
    first, second = chain.masks[1:]
    assert first is not None
    assert second is not None
    assert (first.since, second.since) == (64, None)
    dense, *_ = plan_of(replace(chain.dense, mask=second)).jobs.values()
    assert dense.snapshots == {64}


def test_a_mask_at_the_start_of_a_transfer_reads_the_weights_transferred(tmp_path: Path) -> None:
    transferred = replace(DENSE, task="labels", start=Final(of=DENSE))
    mask = Prune(of=transferred, keep=0.4, at=0)
    plan = plan_of(replace(transferred, mask=mask), keep_all=False)
    dense, job = plan.jobs.values()
    assert (dense.train, dense.weights, job.before) == (DENSE, True, [mask])
    store = execute([replace(transferred, mask=mask)], tmp_path)
    assert same_mask(mask_in(store, mask), largest(weights(store, DENSE), 12_960))


def test_layers_that_are_emptied_are_named(tmp_path: Path) -> None:
    mask = Prune(of=DENSE, keep=2 / 32_400, at=0)
    store = execute([under(mask)], tmp_path)
    emptied = [name for name, m in mask_in(store, mask).items() if not m.any()]
    assert len(emptied) >= 2
    assert sorted(record(store, mask).facts[EMPTIED]) == sorted(emptied)
    whole = execute([under(Prune(of=DENSE, keep=0.4, at=0))], tmp_path / "whole")
    assert EMPTIED not in record(whole, Prune(of=DENSE, keep=0.4, at=0)).facts


@pytest.mark.parametrize("allocation", ["uniform", "erk", "lamp"])
def test_allocations_keep_exact_counts(allocation: str, tmp_path: Path) -> None:
    mask = Prune(of=DENSE, keep=0.1, at=0, allocation=allocation)
    store = execute([under(mask)], tmp_path)
    stays = mask_in(store, mask)
    assert left(stays) == 3_240
    shapes = {name: m.shape for name, m in stays.items()}
    if allocation == "uniform":
        assert [left(stays, n) for n in (1, 2, 3, 4)] == [14, 461, 922, 1_843]
    if allocation == "erk":
        assert {name: int(m.sum()) for name, m in stays.items()} == masks.erk(shapes, 3_240)


# ------------------------------------------------------------------------------------- whole filters

FILTERS = Prune(of=DENSE, keep=0.3, unit="filter", allocation="uniform")


@pytest.fixture(scope="module")
def filtered(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return execute(leaves(), tmp_path_factory.mktemp("filters"), snapshots=[128])


def leaves() -> list[Train]:
    again = replace(DENSE, start=Rewind(of=DENSE, samples=128), mask=FILTERS)
    return [under(FILTERS), again, linear(again, data="digits", recipe=replace(LINEAR, samples=256))]


@pytest.mark.parametrize("number", [0, 1, 2], ids=["from the start", "rewound", "linear classifier"])
def test_a_removed_filter_has_no_scale_and_no_shift(number: int, filtered: Store) -> None:
    """At the end of every training under its mask, and in its snapshots."""
    step, mask = leaves()[number], mask_in(filtered, FILTERS)
    stays = affine_mask(spaces(models.trunk("conv4", 1), (1, 8, 8)), mask)
    assert 0 < sum(int((~m).sum()) for m in stays.values()) < sum(len(m) for m in stays.values())
    files = [WEIGHTS, *(name for name in record(filtered, step).files if name.startswith("snapshot"))]
    for name in files:
        state = weights(filtered, step, name)
        for parameter, m in stays.items():
            assert not state[f"trunk.{parameter}"][~m].any()
            assert parameter.endswith("bias") or (state[f"trunk.{parameter}"][m] != 0).all()
    dense = weights(filtered, DENSE)
    assert any((dense[f"trunk.{parameter}"][~m] != 0).any() for parameter, m in stays.items())


def test_the_number_of_weights_is_reported(filtered: Store) -> None:
    stays = mask_in(filtered, FILTERS)
    density = record(filtered, FILTERS).metrics["density_in_scope"]
    assert density == left(stays) / 32_400
    assert abs(density - 0.3) < 0.01


def test_linear_svms_see_removed_channels_as_zero(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even from the first weights, where BatchNorm is whole."""
    seen: list[Tensor] = []
    monkeypatch.setattr(running, "features", lambda *given: seen.append(features(*given)) or seen[-1])
    machines = STEPS["SVMs"].recipe
    step = replace(untrained(DENSE, data="digits", recipe=machines), mask=FILTERS)
    store = execute([step], tmp_path)
    last = [space for space in spaces(models.trunk("conv4", 1), (1, 8, 8)) if space.makers][-1]
    gone = dead(last, mask_in(store, FILTERS))
    assert gone is not None
    assert 0 < int(gone.sum()) < len(gone)
    assert not seen[0][:, gone].any()
    assert seen[0][:, ~gone].any(0).all()


def test_filters_are_pruned_round_by_round(tmp_path: Path) -> None:
    """What one round has removed, none brings back; every round trains without scale and shift of what is gone."""
    chain = imp(
        task="labels", data="digits", arch="resnet8", recipe=RECIPE, seed=SEED, levels=2, keep=0.5, rewind=64,
        unit="filter", allocation="uniform", criterion="l2",
    )  # fmt: skip
    first, second = chain.masks[1:]
    assert first is not None
    assert second is not None
    step = replace(chain.rounds[1], mask=second)
    store = execute([step], tmp_path)
    shapes = {name: w.shape for name, w in models.prunable(models.trunk("resnet8", 1)).items()}
    one, two = (
        masks.unpack(from_safetensors(store.artefact(mask.id, "mask.safetensors")), shapes) for mask in (first, second)
    )
    total = sum(shape.numel() for shape in shapes.values())
    assert abs(masks.left(one) / total - 0.5) < 0.02
    assert abs(masks.left(two) / masks.left(one) - 0.5) < 0.03
    assert all(not (two[name] & ~one[name]).any() for name in shapes)
    found = spaces(models.trunk("resnet8", 1), (1, 8, 8))
    for training, mask in ((chain.rounds[1], one), (step, two)):
        state = weights(store, training)
        for name, m in affine_mask(found, mask).items():
            assert not state[f"trunk.{name}"][~m].any()


def test_explain_says_that_a_training_is_not_needed(tmp_path: Path) -> None:
    step = under(SNIP)
    store = execute([step], tmp_path)
    records = {one.id: record(store, one) for one in (step, SNIP)}
    console = Console(file=StringIO(), width=400)
    point = Point(step=step, task="labels", init="", level=1, seed=SEED)
    explain(console, "mine", [point], step.id, records, store)
    said = console.file.getvalue()  # pyright: ignore[reportAttributeAccessIssue]
    assert "not needed" in said
    assert "by snip on 32 samples at 0" in said
    assert store.step(step.id) == step
