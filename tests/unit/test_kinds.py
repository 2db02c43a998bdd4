"""What is particular to each kind of drawing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest

from raysslprune import kinds
from raysslprune.kinds import kind_of
from raysslprune.messages import note
from raysslprune.spec import NATURAL_SPARSITIES, closure
from raysslprune.store.steps import Store
from raysslprune.sweep_loader import Sweep, SweepError, load
from raysslprune.sweepfile import Drawing, Figure, Listing, Search
from raysslprune.terminal import tables
from tests.helpers.results import record


def test_every_drawing_is_of_a_kind() -> None:
    assert set(kinds._KINDS) == set(get_args(Drawing))


@pytest.mark.parametrize(
    ("name", "trains", "chooses", "draws_weights"),
    [
        ("fig3", True, False, False),
        ("fig6", True, False, True),
        ("rewind", True, True, False),
        ("table1", False, False, False),
    ],
)
def test_what_a_sweep_trains(name: str, trains: bool, chooses: bool, draws_weights: bool, tmp_path: Path) -> None:
    kind = kind_of(load(name, "smoke", 1))
    assert (kind.trains, kind.chooses, kind.draws_weights) == (trains, chooses, draws_weights)
    assert bool(kind.plan_note) == chooses
    studies = kind.studies("smoke", {}, Store(tmp_path / "runs"), note)
    assert (studies is not None) == chooses
    assert not (tmp_path / "runs").exists(), "it was only looked at"


def test_a_figure_has_a_table_for_each_of_its_inits() -> None:
    sweep = Sweep(name="mine", drawing=Figure(title="Mine", inits=("a", "b"), x="pruned"), claims=(), points=())
    assert kind_of(sweep).inits == ("a", "b")
    assert kind_of(sweep).over == "pruned weights"


@pytest.mark.parametrize(
    ("name", "subtitle"),
    [
        ("fig2", "digits, 10% of the images, four convolutions"),
        ("rewind", "digits, 25% held out, four convolutions"),
        ("fig8", ""),
    ],
)
def test_a_subtitle_has_no_internal_names(name: str, subtitle: str) -> None:
    assert kind_of(load(name, "smoke", 1)).subtitle == subtitle


def test_rows_of_thresholds_are_in_order() -> None:
    sweep = load("fig6", "smoke", 1)
    records = {step.id: record(step) for step in closure(point.step for point in sweep.points)}
    kind = kind_of(sweep)
    for _, _, grid in tables.mean_tables(kind.table("smoke", records), kind.layout, kind.inits):
        thresholds = [float(row[0]) for row in grid.texts()[1:]]
        assert thresholds == sorted(thresholds)
        assert len(thresholds) == len(NATURAL_SPARSITIES)


def test_candidates_that_are_no_grid_are_refused(tmp_path: Path) -> None:
    """One of another init."""
    search = load("rewind", "smoke", 1)
    last = replace(search.points[-1], init="random re-init")
    assert isinstance(search.drawing, Search)
    assert last.metric == search.drawing.objective
    with pytest.raises(SweepError, match=r"^rewind: the rewinds of \w+, level \d+ can't be compared: each needs"):
        kind_of(replace(search, points=(*search.points[:-1], last))).studies("smoke", {}, Store(tmp_path), note)


def test_what_chooses_is_in_a_searchs_table_and_is_not_shown() -> None:
    sweep = load("rewind", "smoke", 1)
    records = {step.id: record(step) for step in closure(point.step for point in sweep.points)}
    kind = kind_of(sweep)
    table = kind.table("smoke", records)
    assert set(table["metric"].to_pylist()) == {"top1", "top1_validation"}
    assert len(table) == len(sweep.points)
    shown = kind.shown(table)
    assert shown.to_pylist() == [row for row in table.to_pylist() if row["metric"] == "top1"]
    assert kind.drawn_table(sweep.points, table, Store("/nowhere")).equals(shown)


def test_a_listing_has_a_table_and_no_figure() -> None:
    sweep = Sweep(name="t", drawing=Listing(title="T", columns=("a", "b")), claims=(), points=(), rows=(("x", 1234.4),))
    kind = kind_of(sweep)
    assert kind.listing.texts() == [["a", "b"], ["x", "1,234"]]
    assert kind.table("smoke", {}).to_pylist() == [{"a": "x", "b": 1234.4}]
    with pytest.raises(ValueError, match="t is a table, and has no figure"):
        kind.canvas(kind.table("smoke", {}), None)
