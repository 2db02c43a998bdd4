"""The table of steps: what it says of each kind of step, and what becomes of the tables of several sweeps."""

from __future__ import annotations

from dataclasses import fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from raysslprune import catalogue, results
from raysslprune.lottery import imp, linear
from raysslprune.results.steps import STEPS, is_steps, joined
from raysslprune.spec import SVM, Imported, Init, RandomPrune, Recipe, Shuffle, Step, Train
from raysslprune.store.record import Record, StoreError
from raysslprune.store.steps import Store
from raysslprune.sweep_loader import load
from raysslprune.sweepfile import Point
from tests.helpers.results import VERSIONS, frame, write

RECIPE = Recipe(samples=2400, batch=60, lr=0.1, schedule="steps", decay_at=(600, 1200), options={"all_turns": True})
CHAIN = imp(
    task="rotnet", data="digits", arch="conv4", recipe=RECIPE, seed=3, levels=3, keep=0.5, rewind=600, scope="convs:2"
)
EXEMPLAR = Train(
    task="exemplar",
    data="digits",
    arch="conv4",
    recipe=Recipe(samples=2400, batch=60, lr=1, jitter=(0.5, 0.5, 0, 0), options={"margin": 1}),
    seed=0,
    start=Init(seed=0),
)


def records(steps: list[Any]) -> dict[str, Record]:
    """Of trainings, with metrics that have the number of the step; of masks, with a density in scope of a half."""
    found = {}
    for number, step in enumerate(steps):
        if isinstance(step, Train):
            facts = {"seconds": 2.5, "images_per_second": 900.0, "begun": 1_763_800_000 + number, "host": "h"}
            facts |= {"device": "cpu", "layers": {"a.weight": 0.25, "b.weight": 1.0}, "multiply_adds": 1000 + number}
            metrics = {"top1": float(number), "density": 0.75, "collapsed_layers": 0.0}
        else:
            facts, metrics = {"layers": {"a.weight": 0.25}}, {"density": 0.75, "density_in_scope": 0.5}
        found[step.id] = Record(step=step.id, metrics=metrics, facts={**facts, "versions": VERSIONS}, files={})
    return found


def table(*steps: Train, **changes: Record) -> pa.Table:
    every = {step.id: step for point in steps for step in _closure(point)}
    return results.steps(
        [Point(step=step, task="t", init="i", level=0, seed=0) for step in steps],
        records([*every.values()]) | changes,
    )


def _closure(step: Step) -> list[Step]:
    return [one for parent in step.parents for one in _closure(parent)] + [step]


def row(of: Step, found: pa.Table) -> dict[str, Any]:
    (one,) = (row for row in found.to_pylist(maps_as_pydicts="strict") if row["step"] == of.id)
    return one


def test_a_training_says_all_of_itself() -> None:
    found = row(CHAIN.rounds[2], table(CHAIN.rounds[2]))
    recipe = {field.name: getattr(RECIPE, field.name) for field in fields(Recipe) if field.name != "options"}
    recipe |= {"decay_at": [600, 1200], "jitter": []}
    svm = dict.fromkeys(field.name for field in fields(SVM))
    parents = [CHAIN.dense.id, CHAIN.masks[2].id]  # pyright: ignore[reportOptionalMemberAccess]
    assert found == {
        "step": CHAIN.rounds[2].id,
        "kind": "Train",
        "task": "rotnet",
        "data": "digits",
        "arch": "conv4",
        "seed": 3,
        "parents": parents,
        "start": "Rewind",
        "rewind": 600,
        "trunk_frozen": False,
        "mask": parents[1],
        "level": 2,
        "keep": None,
        "scope": "convs:2",
        "density": 0.5,
        "density_of_all": 0.75,
        "layers": {"a.weight": 0.25, "b.weight": 1.0},
        "multiply_adds": 1004,
        "curve": None,
        **recipe,
        **svm,
        "seconds": 2.5,
        "images_per_second": 900.0,
        "begun": datetime.fromtimestamp(1_763_800_004, UTC),
        "host": "h",
        "device": "cpu",
        "workers": 1,
        "resumed_at": None,
        **VERSIONS,
        "option_all_turns": True,
        "top1": 4.0,
        "collapsed_layers": 0.0,
    }


def test_masks_say_from_what_they_are() -> None:
    dense = row(CHAIN.dense, table(CHAIN.dense))
    assert (dense["level"], dense["density"], dense["parents"], dense["mask"]) == (0, 1.0, [], None)
    mask = CHAIN.masks[2]
    assert mask is not None
    sparse = RandomPrune(arch="conv4", data="digits", keep=0.5, level=4, seed=7)
    random = replace(CHAIN.dense, mask=sparse)
    shuffle = Shuffle(of=mask, seed=9)
    imported = Imported(arch="conv4", channels=1, digest="0" * 64)
    shuffled, foreign = (replace(random, mask=other) for other in (shuffle, imported))
    found = table(random, shuffled, foreign)
    names = ("kind", "task", "data", "seed", "level", "keep", "scope", "density", "lr")
    said = {one.id: tuple(row(one, found)[name] for name in names) for one in (mask, sparse, shuffle, imported)}  # pyright: ignore
    assert [*said.values()] == [
        ("Prune", "rotnet", "digits", None, 2, 0.5, "convs:2", 0.5, None),
        ("RandomPrune", None, "digits", 7, 4, 0.5, "all", 0.5, None),
        ("Shuffle", "rotnet", "digits", 9, 2, 0.5, "convs:2", 0.5, None),
        ("Imported", None, None, None, None, None, "all", 0.5, None),
    ]
    assert [row(one, found)["level"] for one in (random, shuffled, foreign)] == [4, 2, None]
    on_random = imp(
        task="labels", data="digits", arch="conv4", recipe=replace(RECIPE, options={}), seed=0, levels=1, keep=0.5,
        rewind=0,
    )  # fmt: skip
    twice = replace(on_random.masks[1], of=replace(on_random.dense, mask=sparse))  # pyright: ignore
    again = replace(random, mask=twice)
    assert row(again, table(again))["level"] == 5, "one pruning after four"


def test_all_fields_of_a_recipe_are_columns() -> None:
    for kind in (Recipe, SVM):
        assert {field.name for field in fields(kind)} - {"options"} <= {*STEPS.names}
    svms = linear(CHAIN.dense, data="digits", recipe=SVM(costs=(0.5, 0.1)))
    found = row(svms, table(svms))
    assert (found["costs"], found["folds"], found["lr"], found["trunk_frozen"]) == ([0.1, 0.5], 3, None, True)


def test_options_that_a_recipe_leaves_out_have_their_defaults() -> None:
    found = row(EXEMPLAR, table(EXEMPLAR, CHAIN.dense))
    default = catalogue.Exemplar()
    assert (found["option_dimension"], found["option_negatives"]) == (default.dimension, default.negatives)
    assert found["option_margin"] == 1.0
    assert found["option_all_turns"] is None


def test_an_option_of_two_types_is_text() -> None:
    npid = replace(EXEMPLAR, task="npid", recipe=replace(EXEMPLAR.recipe, options={"negatives": 64}))  # pyright: ignore
    mine = replace(EXEMPLAR, task="m:T", recipe=replace(EXEMPLAR.recipe, options={"margin": 2, "negatives": True}))  # pyright: ignore
    apart = [table(EXEMPLAR), table(npid), table(mine)]
    assert [one.schema.field("option_negatives").type for one in apart] == [pa.string(), pa.int64(), pa.bool_()]
    for found in (table(EXEMPLAR, npid, mine), joined([STEPS.empty_table(), *apart])):
        assert found["option_negatives"].to_pylist() == ["random", "64", "true"]
        assert found["option_margin"].to_pylist() == [1.0, None, 2.0]


def test_a_learning_curve_is_a_list_of_its_points(tmp_path: Path) -> None:
    done = records([EXEMPLAR])[EXEMPLAR.id]
    done.facts["curve"] = [[0, {"top1": 10.0, "map": 1.0}], [60, {"top1": 20.0, "map": 2.0}]]
    made = table(EXEMPLAR, **{EXEMPLAR.id: done})
    store = Store(str(tmp_path / "runs"))
    write(store, "fig3", "smoke", 1)
    store.write("results/smoke/mine-steps.parquet", results.to_parquet(made))
    sql = f"SELECT unnest(curve, recursive := true) FROM steps WHERE step = '{EXEMPLAR.id}'"
    assert results.query(sql, store.base).to_pylist() == [
        {"samples": samples, "metric": metric, "value": value}
        for samples, metric, value in ((0, "top1", 10.0), (0, "map", 1.0), (60, "top1", 20.0), (60, "map", 2.0))
    ]


def test_a_metric_never_takes_the_name_of_another_column() -> None:
    metrics = {"density": 0.5, "LR": 3.0, "option_x": 4.0, "rotation_top1": 5.0}
    changed = Record(step=EXEMPLAR.id, metrics=metrics, facts={}, files={})
    found = row(EXEMPLAR, table(EXEMPLAR, **{EXEMPLAR.id: changed}))
    assert {name: found[name] for name in ("lr", "metric_LR", "metric_option_x", "rotation_top1")} == {
        "lr": 1.0,
        "metric_LR": 3.0,
        "metric_option_x": 4.0,
        "rotation_top1": 5.0,
    }
    assert (found["begun"], found["layers"], found["multiply_adds"], found["host"]) == (None, None, None, None)


def test_a_step_of_several_sweeps_is_there_once_as_in_its_last_run() -> None:
    done = records([EXEMPLAR])[EXEMPLAR.id]
    later = replace(done, facts={**done.facts, "begun": 1_763_900_000, "seconds": 9.0})
    first, last = table(EXEMPLAR, CHAIN.dense), table(EXEMPLAR, **{EXEMPLAR.id: later})
    for tables in ([first, last], [last, first]):
        found = joined(tables)
        assert found["step"].to_pylist().count(EXEMPLAR.id) == 1
        assert row(EXEMPLAR, found)["seconds"] == 9.0
        assert len(found) == 2


def test_unfinished_steps_have_no_row_and_the_types_stay() -> None:
    assert results.steps([Point(step=EXEMPLAR, task="t", init="i", level=0, seed=0)], {}).schema.equals(STEPS)
    kept = results.from_parquet(results.to_parquet(table(EXEMPLAR)))
    assert is_steps(kept.schema)
    assert kept.equals(table(EXEMPLAR))
    assert not is_steps(results.PROVENANCE)


def test_the_view_joins_on_step(results_root: str) -> None:
    """The question of the issue, as it is written; and by pandas."""
    found = results.query("SELECT lr, avg(value) FROM results JOIN steps USING (step) GROUP BY lr", results_root)
    data = frame(results_root, "fig3|rewind")
    rates = {
        point.step.id: point.step.recipe.lr  # pyright: ignore[reportAttributeAccessIssue]
        for name, scale, seeds in (("fig3", "laptop", 3), ("fig3", "cifar10-small", 2), ("rewind", "laptop", 3))
        for point in load(name, scale, seeds).points
    }
    wanted = data.assign(lr=data.step.map(rates)).groupby("lr").value.mean()
    assert dict(tuple(one.values()) for one in found.to_pylist()) == pytest.approx(dict(wanted))


def test_only_a_query_of_steps_reads_them(small_root: str) -> None:
    (Path(small_root) / "results/smoke/fig3-steps.parquet").write_bytes(b"broken")
    assert len(results.query("FROM runs", small_root))
    with pytest.raises(StoreError, match=r"fig3-steps\.parquet"):
        results.query("SELECT * FROM Steps", small_root)


def test_without_a_table_of_steps_the_view_is_empty(tmp_path: Path) -> None:
    root = str(tmp_path / "runs")
    write(Store(root), "fig3", "smoke", 1)
    (tmp_path / "runs/results/smoke/fig3-steps.parquet").unlink()
    assert results.query("SELECT lr FROM steps", root).num_rows == 0
