"""From points and records to the table, its bytes, and means over seeds."""

from __future__ import annotations

import hashlib
import io
import math
import os
import statistics
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raysslprune import results
from raysslprune.spec import Init, Prune, Recipe, Rewind, Train
from raysslprune.store.record import Record
from raysslprune.sweepfile import Point
from tests.helpers import CHECKOUT

RECIPE = Recipe(samples=2400, batch=64, lr=0.05)
VERSIONS = {"raysslprune": "0.1.0", "torch": "2.11.0", "numpy": "2.0.0", "python": "3.11.7"}
BEGUN = 1_763_800_000.125


def train(number: int) -> Train:
    return Train(task="labels", data="digits", arch="conv4", recipe=RECIPE, seed=number, start=Init(seed=0))


def point(number: int, task: str = "labels", init: str = "winning ticket", level: int = 0, seed: int = 0) -> Point:
    return Point(step=train(number), task=task, init=init, level=level, seed=seed)


def record(number: int, top1: float = 98.5, density: float = 0.8, collapsed: float = 0.0) -> Record:
    return Record(
        step=train(number).id,
        metrics={"top1": top1, "density": density, "collapsed_layers": collapsed, "train_loss": 0.1},
        facts={
            "seconds": 0.9,
            "images_per_second": 14_000.5,
            "begun": BEGUN + number,
            "resumed_at": None,
            "host": f"host{number}",
            "device": "cpu",
            "versions": VERSIONS,
        },
        files={},
    )


def records(*some: Record) -> dict[str, Record]:
    return {one.step: one for one in some}


def example() -> pa.Table:
    """Two curves, three seeds, one point missing."""
    points = [
        point(100 * (task == "rotnet") + 10 * level + seed, task=task, level=level, seed=seed)
        for level in (0, 3)
        for task in ("labels", "rotnet")
        for seed in range(3)
    ]
    done = [record(p.step.seed, top1=90 + p.step.seed / 7, density=0.8**p.level) for p in points]
    return results.table("fig", "laptop", points, records(*done[:-1]))


# ------------------------------------------------------------------ the table


def test_a_row_for_each_point_with_typed_columns() -> None:
    """The density is that of the mask in its scope, here an eighth; of all weights it is what the training says."""
    mask = Prune(of=train(1), keep=0.125, scope="convs:1")
    masked = replace(train(2), start=Rewind(of=train(1), samples=640), mask=mask)
    points = [
        replace(point(1, level=3, seed=1), panel="here"),
        replace(point(2, task="rotnet", init="random re-init", level=7, seed=2), step=masked),
    ]
    of_mask = Record(step=mask.id, metrics={"density": 0.21, "density_in_scope": 0.125}, facts={}, files={})
    of_masked = replace(record(2, 97.25, 0.21, 1.0), step=masked.id)
    table = results.table("fig3", "laptop", points, records(of_masked, of_mask, record(1, 98.5, 0.512)))
    assert table.to_pylist() == [
        {
            "figure": "fig3",
            "scale": "laptop",
            "panel": "here",
            "task": "labels",
            "init": "winning ticket",
            "level": 3,
            "density": 1.0,
            "density_of_all": 0.512,
            "rewind": None,
            "label_samples": 2432,
            "seed": 1,
            "metric": "top1",
            "value": 98.5,
            "collapsed_layers": 0,
            "data": "digits",
            "arch": "conv4",
            "step": train(1).id,
            "design": 2,
        },
        {
            "figure": "fig3",
            "scale": "laptop",
            "panel": "",
            "task": "rotnet",
            "init": "random re-init",
            "level": 7,
            "density": 0.125,
            "density_of_all": 0.21,
            "rewind": 640,
            "label_samples": 2432,
            "seed": 2,
            "metric": "top1",
            "value": 97.25,
            "collapsed_layers": 1,
            "data": "digits",
            "arch": "conv4",
            "step": masked.id,
            "design": 2,
        },
    ]
    text, whole, real = pa.string(), pa.int32(), pa.float64()
    assert dict(zip(table.schema.names, table.schema.types, strict=True)) == {
        "figure": text,
        "scale": text,
        "panel": text,
        "task": text,
        "init": text,
        "level": whole,
        "density": real,
        "density_of_all": real,
        "rewind": pa.int64(),
        "label_samples": pa.int64(),
        "seed": whole,
        "metric": text,
        "value": real,
        "collapsed_layers": whole,
        "data": text,
        "arch": text,
        "step": text,
        "design": whole,
    }
    assert [field.name for field in table.schema if field.nullable] == ["rewind", "label_samples"]


def test_the_metric_that_a_point_names_is_its_value() -> None:
    one = Point(step=train(1), task="labels", init="any", level=0, seed=0, metric="train_loss")
    assert results.table("f", "s", [one], records(record(1))).to_pylist()[0]["value"] == 0.1


def test_a_missing_point_has_no_row() -> None:
    points = [point(n, level=n) for n in range(5)]
    table = results.table("fig", "laptop", points, records(record(1), record(3), record(9)))
    assert table["level"].to_pylist() == [1, 3]
    empty = results.table("fig", "laptop", points, {})
    assert (len(empty), empty.schema) == (0, table.schema)


def test_rows_stand_in_the_order_of_the_points() -> None:
    numbers = [7, 2, 9, 4, 0, 5]
    done = [record(n, top1=float(n)) for n in range(10)]
    for some in (done, done[::-1]):
        table = results.table("fig", "laptop", (point(n) for n in numbers), records(*some))
        assert table["value"].to_pylist() == numbers


def test_one_training_can_be_several_points() -> None:
    table = results.table("fig", "laptop", [point(1), point(1, task="rotnet")], records(record(1)))
    assert table["task"].to_pylist() == ["labels", "rotnet"]
    assert len(set(table["step"].to_pylist())) == 1


# ------------------------------------------------------------------ its bytes


def test_parquet_gives_the_table_back() -> None:
    table = example()
    back = pq.read_table(io.BytesIO(results.to_parquet(table)))
    assert back.equals(table)
    assert back.schema.equals(table.schema)


def test_what_a_column_means_is_in_the_file() -> None:
    back = pq.read_schema(io.BytesIO(results.to_parquet(example())))
    for field, known in zip(back, results.SCHEMA, strict=True):
        assert field.metadata[b"about"] == known.metadata[b"about"]
        assert len(field.metadata[b"about"]) > 5


def test_the_same_table_gives_the_same_bytes() -> None:
    once = results.to_parquet(example())
    assert results.to_parquet(example()) == once
    code = (
        "import hashlib; from tests.unit.results import test_tables as t; "
        "print(hashlib.sha256(t.results.to_parquet(t.example())).hexdigest())"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "7", "TZ": "Asia/Kathmandu"}
    other = subprocess.run([sys.executable, "-c", code], cwd=CHECKOUT, env=environment, capture_output=True, check=True)
    assert other.stdout.decode().strip() == hashlib.sha256(once).hexdigest()


def test_another_value_gives_other_bytes() -> None:
    one, other = (results.table("f", "s", [point(1)], records(record(1, top1=value))) for value in (98.5, 98.25))
    assert results.to_parquet(one) != results.to_parquet(other)


def test_when_and_where_a_step_ran_is_not_in_the_table() -> None:
    there, here = record(1), record(1)
    there.facts.update(host="elsewhere", begun=0.0, seconds=99.0)
    tables = [results.table("f", "s", [point(1)], records(one)) for one in (here, there)]
    assert results.to_parquet(tables[0]) == results.to_parquet(tables[1])


def test_results_of_an_earlier_design_are_read_with_all_columns() -> None:
    table = example()
    for more in (0, 1):  # tables in docs/data have more columns
        wide = table.append_column("date", pa.array([7] * len(table))) if more else table
        older = wide.drop_columns(["label_samples", "design"])
        found = results.from_parquet(results.to_parquet(older))
        assert found.schema.names == wide.schema.names
        assert found.select(older.schema.names).equals(older)
        assert found["label_samples"].null_count == len(table)
        assert found["design"].to_pylist() == [1] * len(table)
        assert results.from_parquet(results.to_parquet(wide)).equals(wide)
    assert results.from_parquet(results.to_parquet(older)).select(results.SCHEMA.names).schema.equals(results.SCHEMA)


# ------------------------------------------------------------------ over seeds


def rows(*values: tuple[str, int, int, float]) -> pa.Table:
    """task, level, seed, value."""
    some = [
        {
            "figure": "f",
            "scale": "s",
            "panel": "",
            "task": task,
            "init": "any",
            "level": level,
            "density": 0.8**level,
            "seed": seed,
            "metric": "top1",
            "value": value,
            "collapsed_layers": seed,
            "step": "x",
            "design": 2,
        }
        for task, level, seed, value in values
    ]
    return pa.Table.from_pylist(some, schema=results.SCHEMA)


def test_mean_and_standard_error_over_seeds_by_hand() -> None:
    # 96, 98, 100: deviation sqrt((4 + 0 + 4) / 2) = 2
    table = rows(("labels", 3, 0, 96.0), ("labels", 3, 1, 98.0), ("labels", 3, 2, 100.0), ("labels", 7, 0, 50.0))
    three, one = results.summary(table).to_pylist()
    assert three["mean"] == pytest.approx(98.0)
    assert three["stderr"] == pytest.approx(2 / math.sqrt(3))
    assert three["density"] == pytest.approx(0.512)
    assert (three["n"], three["collapsed_layers"], three["collapsed"]) == (3, 2, 2)
    assert (one["mean"], one["stderr"], one["n"], one["collapsed_layers"]) == (50.0, None, 1, 0)


@given(st.lists(st.floats(0, 100, allow_subnormal=False), min_size=2, max_size=12))
def test_mean_and_standard_error_against_statistics(values: list[float]) -> None:
    table = rows(*(("labels", 3, seed, value) for seed, value in enumerate(values)))
    (row,) = results.summary(table).to_pylist()
    assert row["n"] == len(values)
    assert row["mean"] == pytest.approx(statistics.fmean(values), abs=1e-9)
    assert row["stderr"] == pytest.approx(statistics.stdev(values) / math.sqrt(len(values)), abs=1e-6)


@given(st.lists(st.tuples(st.sampled_from("ab"), st.floats(0, 100), st.integers(0, 2)), min_size=1, max_size=12))
def test_medians_and_collapsed_seeds_by_a_loop(drawn: list[tuple[str, float, int]]) -> None:
    table = rows(*((task, 3, seed, value) for seed, (task, value, _) in enumerate(drawn)))
    layers = pa.array([layers for *_, layers in drawn], pa.int32())
    place = table.schema.get_field_index("collapsed_layers")
    table = table.set_column(place, table.schema.field(place), layers)
    for row in results.summary(table).to_pylist():
        mine = sorted((value, layers) for task, value, layers in drawn if task == row["task"])
        low, high = mine[(len(mine) - 1) // 2][0], mine[len(mine) // 2][0]
        assert row["median"] == pytest.approx((low + high) / 2)
        assert row["collapsed"] == len([layers for _, layers in mine if layers])
        assert row["collapsed_layers"] == max(layers for _, layers in mine)


def test_equal_values_have_no_error() -> None:
    (row,) = results.summary(rows(("labels", 3, 0, 97.5), ("labels", 3, 1, 97.5))).to_pylist()
    assert (row["mean"], row["stderr"], row["n"]) == (97.5, 0.0, 2)


def test_one_seed_has_a_null_for_its_error_and_not_a_nan() -> None:
    table = results.summary(rows(("labels", 3, 0, 96.0), ("labels", 7, 0, 95.0)))
    assert table["stderr"].null_count == 2
    assert table.schema.field("stderr").type == pa.float64()


def test_groups_stand_in_the_order_of_their_first_rows() -> None:
    table = rows(*((task, level, seed, 1.0) for seed in range(3) for level in (7, 3) for task in ("random", "labels")))
    keys = [(row["task"], row["level"]) for row in results.summary(table).to_pylist()]
    assert keys == [("random", 7), ("labels", 7), ("random", 3), ("labels", 3)]


def test_tasks_inits_levels_and_metrics_are_kept_apart() -> None:
    points = [
        Point(step=train(n), task=task, init=init, level=level, seed=0, metric=metric)
        for n, (task, init, level, metric) in enumerate(
            (task, init, level, metric)
            for task in ("labels", "rotnet")
            for init in ("winning ticket", "random re-init")
            for level in (3, 7)
            for metric in ("top1", "train_loss")
        )
    ]
    table = results.table("f", "s", points, records(*(record(n) for n in range(16))))
    assert results.summary(table)["n"].to_pylist() == [1] * 16


def test_a_summary_of_nothing_is_empty() -> None:
    assert len(results.summary(rows())) == 0
    assert results.means(rows()).schema.equals(results.MEANS)


def test_means_keep_figures_and_scales_apart() -> None:
    one = rows(("labels", 3, 0, 96.0), ("labels", 3, 1, 98.0))
    others = [
        one.set_column(one.schema.get_field_index(name), one.schema.field(name), pa.array(["other"] * 2))
        for name in ("figure", "scale")
    ]
    table = results.means(pa.concat_tables([one, *others]))
    assert table.schema.equals(results.MEANS)
    assert [(row["figure"], row["scale"], row["mean"], row["n"]) for row in table.to_pylist()] == [
        ("f", "s", 97.0, 2),
        ("other", "s", 97.0, 2),
        ("f", "other", 97.0, 2),
    ]
    summary = results.summary(one)
    assert table.slice(0, 1).select(summary.column_names).to_pylist() == summary.to_pylist()


# ------------------------------------------------------------------ when, where, how fast


def test_provenance_is_typed_and_joins_on_step() -> None:
    points = [point(2), point(1), point(2, task="rotnet"), point(8)]
    table = results.provenance(points, records(record(1), record(2), record(3)))
    assert table["step"].to_pylist() == [train(2).id, train(1).id]
    assert table.schema.field("begun").type == pa.timestamp("ms", tz="UTC")
    assert [field.name for field in table.schema if field.nullable] == ["resumed_at"]
    first = table.to_pylist()[0]
    assert first["begun"] == datetime.fromtimestamp(BEGUN + 2, UTC)
    assert {name: first[name] for name in ("seconds", "images_per_second", "host", "device")} == {
        "seconds": 0.9,
        "images_per_second": 14_000.5,
        "host": "host2",
        "device": "cpu",
    }
    assert {name: first[name] for name in VERSIONS} == VERSIONS
    assert {name: first[name] for name in ("trained_on", "data", "arch", "workers", "resumed_at")} == {
        "trained_on": "labels",
        "data": "digits",
        "arch": "conv4",
        "workers": 1,
        "resumed_at": None,
    }
    assert pq.read_table(io.BytesIO(results.to_parquet(table))).equals(table)


def test_provenance_has_the_trainings_behind_the_points_too() -> None:
    """A point's mask was pruned in a training on rotations, which two workers went on with after a kill."""
    pretext = replace(train(1), task="rotnet")
    mask = Prune(of=pretext, keep=0.5)
    masked = replace(train(2), mask=mask)
    shared = replace(record(1), step=pretext.id)
    shared.facts.update(workers=2, resumed_at=640, host="elsewhere", seconds=7.5)
    of_mask = Record(step=mask.id, metrics={"density_in_scope": 0.5}, facts={"versions": VERSIONS}, files={})
    points = [replace(point(2), step=masked), replace(point(2, task="rotnet"), step=masked)]
    done = records(shared, of_mask, replace(record(2), step=masked.id))
    table = results.provenance(points, done).select(["step", "trained_on", "workers", "resumed_at", "host", "seconds"])
    assert [tuple(row.values()) for row in table.to_pylist()] == [
        (pretext.id, "rotnet", 2, 640, "elsewhere", 7.5),
        (masked.id, "labels", 1, None, "host2", 0.9),
    ]
    assert results.provenance(points, records(shared))["step"].to_pylist() == [pretext.id]


def test_provenance_of_nothing_keeps_its_types() -> None:
    table = results.provenance([point(1)], {})
    assert len(table) == 0
    assert table.schema.equals(results.PROVENANCE)


# ------------------------------------------------------------------ percent


@pytest.mark.parametrize(
    ("left", "pruned"),
    [(1.0, "0.0"), (0.512, "48.8"), (0.2097, "79.0"), (0.0440, "95.6"), (0.00922, "99.08"), (0.00472, "99.53")],
)
def test_percent_pruned_for_people(left: float, pruned: str) -> None:
    assert results.pruned_percent(left) == pruned


@given(st.integers(1, 32_400))
def test_percent_pruned_keeps_two_digits_of_what_is_left(weights: int) -> None:
    text = results.pruned_percent(weights / 32_400)
    exact, shown = 100 * Decimal(weights) / 32_400, 100 - Decimal(text)
    assert len(text.partition(".")[2]) >= 1
    assert abs(shown - exact) <= max(exact * Decimal("0.05"), Decimal("0.0001"))
    if exact >= 1:
        assert abs(shown - exact) <= Decimal("0.05")


def test_nothing_left_is_all_pruned() -> None:
    assert results.pruned_percent(0.0) == "100.0"
