"""Numbers that go wrong: what is not finite, and layers that are pruned to nothing. Ranks: test_distributed."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch

from raysslprune import data, sweep, sweep_loader
from raysslprune.commands import analysis
from raysslprune.commands.report import main as report
from raysslprune.spec import Final, Init, Recipe, Train
from raysslprune.store.steps import Store
from raysslprune.training import loop as training
from raysslprune.training.loop import Checkpoint, Hooks, Loop
from raysslprune.training.make_masks import NoExchange
from raysslprune.training.runner import Runner
from tests.helpers.chains import execute

RECIPE = Recipe(samples=640, batch=64, lr=0.05)
GOOD = 192
"""Samples after which the learning rate explodes, below."""


def step(recipe: Recipe = RECIPE, **fields: Any) -> Train:
    made: dict[str, Any] = {"start": Init(seed=0), **fields}
    return Train(task="labels", data="digits", arch="conv4", recipe=recipe, seed=0, **made)


@pytest.fixture
def explodes(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the update after GOOD: its loss is a number still, and the weights that it leaves are not."""
    monkeypatch.setattr(training, "LOOK_EVERY", 0.0)
    monkeypatch.setattr(training, "learning_rate", lambda _, seen: 0.05 if seen < GOOD else 1e39)


@pytest.mark.usefixtures("explodes")
def test_a_checkpoint_never_holds_what_is_not_finite() -> None:
    saved: list[Checkpoint] = []
    hooks = Hooks(save=saved.append, save_every=0.0)
    with pytest.raises(FloatingPointError) as caught:
        Loop(step=step(), data=data.load("digits"), hooks=hooks).run()
    assert (
        str(caught.value)
        == "a weight is not finite after 256 of 640 samples; the last good checkpoint is at 192 samples"
    )
    assert [checkpoint.seen for checkpoint in saved] == [64, 128, 192]
    assert all(tensor.isfinite().all() for checkpoint in saved for tensor in checkpoint.tensors.values())


@pytest.mark.usefixtures("explodes")
def test_the_last_good_checkpoint_stays_and_the_same_command_goes_on_from_it(tmp_path: Path) -> None:
    store, wild = Store(str(tmp_path / "runs")), step()
    store.create()
    runner = Runner(store=store, exchange=NoExchange(), checkpoint_every=0.0)
    for _ in range(2):
        with pytest.raises(
            FloatingPointError, match="after 256 of 640 samples; the last good checkpoint is at 192 samples"
        ):
            runner.train(wild, set())
        kept = runner.checkpoint(wild, set())
        assert kept is not None
        assert kept.seen == GOOD
    assert store.record(wild.id) is None


def test_a_start_or_a_metric_that_is_no_number_fails_the_step() -> None:
    digits, first = data.load("digits"), step()
    start = Loop(step=first, data=digits).run().weights
    start["trunk.layers.conv2.weight"][0, 0, 0, 0] = math.inf
    moved = step(start=Final(of=first))
    with pytest.raises(FloatingPointError, match="a weight is not finite after 0 of 640 samples; there is no"):
        Loop(step=moved, data=digits, start=start).run()
    loop = Loop(step=first, data=digits)
    loop.task.evaluate = lambda net, data, recipe: {"top1": math.nan}
    with pytest.raises(FloatingPointError, match="top1 is nan after 640 of 640 samples"):
        loop.run()


# 3 of 32,400 weights stay in the end, so that one of four layers at least is empty
COLLAPSES = """
from raysslprune.lottery import imp, winning_ticket
from raysslprune.spec import Recipe
from raysslprune.sweepfile import Curve, Figure, Point

FIGURE = Figure(title="t", references=(Curve(task="labels", init="ticket"),))


def points(scale, seed):
    recipe = Recipe(samples=640, batch=64, lr=0.05)
    chain = imp(task="labels", data="digits", arch="conv4", recipe=recipe, seed=seed, levels=2, keep=0.01, rewind=64)
    for level in (0, 1, 2):
        ticket = winning_ticket(chain, level, task="labels", recipe=recipe)
        yield Point(step=ticket, task="labels", init="ticket", level=level, seed=seed)
"""


def test_layers_that_are_pruned_to_nothing_are_told_everywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In the table, on the terminal, in the report and in the analysis; the training itself goes on."""
    monkeypatch.chdir(tmp_path)
    Path("collapses.py").write_text(COLLAPSES)
    execute([point.step for point in sweep_loader.load("collapses.py", "smoke", 1).points], tmp_path / "runs", {64})
    where = ["collapses.py", "--scale", "smoke"]
    assert sweep.main(where) == 0
    assert "layers with no weight left in at least one seed: labels at 99.99" in capsys.readouterr().out
    dense, _, last = pq.read_table("runs/results/smoke/collapses.parquet").to_pylist()
    assert dense["collapsed_layers"] == 0
    assert last["collapsed_layers"] > 0
    assert analysis.main(where) == 0
    layers = pq.read_table("runs/results/smoke/collapses-layers.parquet").to_pylist()
    empty = [row["layer"] for row in layers if row["level"] == 2 and row["kept"] == 0]
    assert len(empty) == last["collapsed_layers"]
    assert empty
    assert report([*where, "--out", "page.html"]) == 0
    assert "layers emptied" in Path("page.html").read_text()


def test_a_network_without_any_weight_left_is_trained_and_told() -> None:
    """Its outputs are the head's bias: chance, and a number."""
    loop = Loop(step=step(replace(RECIPE, samples=64)), data=data.load("digits"))
    kept = {name: torch.zeros_like(mask) for name, mask in loop.kept.items()}
    metrics = Loop(step=step(), data=data.load("digits"), mask=kept).run().metrics
    assert metrics["collapsed_layers"] == len(kept)
    assert (metrics["density"], metrics["natural_sparsity"]) == (0.0, 0.0)
    assert 5 < metrics["top1"] < 20
