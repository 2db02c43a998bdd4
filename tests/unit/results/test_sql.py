"""SQL over the results of a root, in the shell and in Python, and each question of docs/querying.md."""

from __future__ import annotations

import csv
import io
import json
import os
import random
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.csv
import pyarrow.ipc
import pyarrow.parquet as pq
import pytest

from raysslprune import plan, results
from raysslprune.loader import load
from raysslprune.results import output, sql
from raysslprune.results.__main__ import main
from raysslprune.spec import Mask, Train, closure
from raysslprune.store import Record, Store, StoreError
from tests.helpers import CHECKOUT
from tests.helpers.processes import wait_until
from tests.helpers.s3 import serving

Frame = Any
"""pandas' types can't follow what is done with one here."""

VERSIONS = {"raysslprune": "0.1.0", "torch": "2.11.0", "numpy": "2.0.0", "python": "3.11.7"}


def record(step: Any) -> Record:
    """What a step could have come to: all of it a function of its id."""
    drawn = random.Random(step.id)
    if isinstance(step, Mask):
        return Record(step=step.id, metrics={"density_in_scope": plan.left(step)}, facts={}, files={})
    density = plan.left(step.mask)
    collapsed = density < 0.02 and drawn.random() < 0.2
    facts = {
        "seconds": drawn.uniform(1, 3),
        "images_per_second": drawn.uniform(5_000, 15_000),
        "begun": 1_763_800_000 + drawn.randrange(100_000) / 8,
        "resumed_at": 640 if drawn.random() < 0.05 else None,
        "host": drawn.choice(["one", "two"]),
        "device": drawn.choice(["cpu", "cuda (H100)"]),
        "workers": drawn.choice([1, 2]),
        "versions": VERSIONS,
    }
    metrics = {"density": density, "collapsed_layers": float(collapsed), "train_loss": drawn.random()}
    metrics["top1"] = 10.0 if collapsed else 98 - drawn.random() - 60 * (1 - density) ** 30 * drawn.random()
    return Record(step=step.id, metrics=metrics, facts=facts, files={})


def write(store: Store, name: str, scale: str, seeds: int) -> None:
    """The tables of a sweep, as the command writes them."""
    points = load(name, scale, seeds).points
    records = {step.id: record(step) for step in closure(point.step for point in points)}
    for suffix, table in {
        "": results.table(name, scale, points, records),
        "-runs": results.provenance(points, records),
    }.items():
        store.write(f"results/{scale}/{name}{suffix}.parquet", results.to_parquet(table))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Figure 3 at two scales, and the rewind study, whose dense networks are Figure 3's."""
    store = Store(str(tmp_path_factory.mktemp("query") / "runs"))
    write(store, "fig3", "laptop", 3)
    write(store, "fig3", "cifar10-small", 2)
    write(store, "rewind", "laptop", 3)
    return store.base


@pytest.fixture
def small(tmp_path: Path) -> str:
    """Figure 3 at scale smoke, with one seed."""
    store = Store(str(tmp_path / "runs"))
    write(store, "fig3", "smoke", 1)
    return store.base


def frame(root: str, pattern: str) -> Frame:
    """The files of a root as pandas reads them, without raysslprune."""
    paths = [path for path in sorted(Path(root).glob("results/*/*.parquet")) if re.fullmatch(pattern, path.stem)]
    assert paths
    parts = []
    for path in paths:
        part = pd.read_parquet(path)
        parts.append(part if "figure" in part else part.assign(figure=path.stem.split("-")[0], scale=path.parent.name))
    return pd.concat(parts, ignore_index=True)


def same(found: list[tuple[Any, ...]], wanted: list[tuple[Any, ...]]) -> None:
    """Row by row; numbers to rounding, NaN is null."""
    assert len(found) == len(wanted)
    for row, right in zip(found, wanted, strict=True):
        assert len(row) == len(right)
        for value, expected in zip(row, right, strict=True):
            if isinstance(expected, float):
                assert (value is None) if np.isnan(expected) else (value == pytest.approx(expected, abs=1e-9)), row
            else:
                assert value == expected, (row, right)


def rows(table: pa.Table) -> list[tuple[Any, ...]]:
    return [tuple(row.values()) for row in table.to_pylist()]


# ------------------------------------------------------------------ docs/querying.md

DOCS = (CHECKOUT / "docs/querying.md").read_text()
QUESTIONS = dict(re.findall(r"^### (.*?)\n(?:(?!^###).)*?```sql\n(.*?)```", DOCS, re.S | re.M))


def fig3(root: str, scale: str = "laptop") -> Frame:
    data = frame(root, "fig3|rewind")
    return data[(data.figure == "fig3") & (data.scale == scale)]


def over_seeds(data: Frame) -> Frame:
    grouped = data.groupby(["panel", "task", "init", "level", "rewind"], dropna=False)
    return grouped.agg(
        density=("density", "mean"), mean=("value", "mean"), stderr=("value", "sem"), n=("value", "size")
    ).reset_index()


def tuples(data: Frame, *columns: str) -> list[tuple[Any, ...]]:
    return [*data[[*columns]].itertuples(index=False, name=None)]


def accuracy(root: str) -> list[tuple[Any, ...]]:
    means = over_seeds(fig3(root)).sort_values(["panel", "task", "init", "level"])
    return tuples(means, "panel", "task", "init", "density", "mean", "stderr", "n")


def below_dense(root: str) -> Frame:
    means = over_seeds(fig3(root))
    (dense,) = means[means.level == 0]["mean"]
    tickets = means[(means.init == "winning ticket") & (means.level > 0)]
    return tickets.assign(points=tickets["mean"] - dense)


def far_below(root: str) -> list[tuple[Any, ...]]:
    ordered = below_dense(root).sort_values(["task", "density"], ascending=[True, False])
    return tuples(ordered, "panel", "task", "density", "points")


def first_below(root: str) -> list[tuple[Any, ...]]:
    found = []
    for _, mine in below_dense(root).groupby("task"):
        worse = mine[mine.points < -1].sort_values("density")
        found += tuples(worse.tail(1), "panel", "task", "density", "points")
    return sorted(found, key=lambda row: row[2])


def worth(root: str) -> list[tuple[Any, ...]]:
    found = []
    data = fig3(root)
    for (task, level), mine in data.groupby(["task", "level"]):
        wide = mine.pivot(index="seed", columns="init", values="value")
        if {"winning ticket", "random re-init"} <= {*wide.columns}:
            gained = (wide["winning ticket"] - wide["random re-init"]).to_numpy()
            stderr = np.std(gained, ddof=1) / np.sqrt(len(gained))
            found.append((mine.panel.iloc[0], task, level, mine.density.iloc[0], gained.mean(), stderr, len(gained)))
    return found


def disagreement(root: str) -> list[tuple[Any, ...]]:
    wide = fig3(root).pivot(index=["panel", "task", "init", "density"], columns="seed", values="value").to_numpy()
    keys = fig3(root).pivot(index=["panel", "task", "init", "density"], columns="seed", values="value").index
    found = [(*key, row.min(), row.max(), np.ptp(row)) for key, row in zip(keys, wide, strict=True)]
    return sorted(found, key=lambda row: -row[-1])[:10]


def collapsed(root: str) -> list[tuple[Any, ...]]:
    lost: dict[tuple[Any, ...], list[Any]] = {}
    for row in fig3(root).itertuples():
        if row.collapsed_layers:
            lost.setdefault((row.panel, row.task, row.init, row.density), []).append(row)
    found = [
        (*key, len(mine), max(row.collapsed_layers for row in mine), sum(row.value for row in mine) / len(mine))
        for key, mine in lost.items()
    ]
    return sorted(found, key=lambda row: (*row[:3], -row[3]))


def best_rewind(root: str) -> list[tuple[Any, ...]]:
    means = over_seeds(frame(root, "rewind"))
    found = []
    for (task, density), mine in means.groupby(["task", "density"]):
        best = mine.loc[mine["mean"].idxmax()]
        worst = best["mean"] - mine["mean"].min()
        found.append((task, density, int(best.rewind), best["mean"], best.stderr, worst, len(mine)))
    return sorted(found, key=lambda row: (row[0], -row[1]))


def two_scales(root: str) -> list[tuple[Any, ...]]:
    one, other = (over_seeds(fig3(root, scale)) for scale in ("laptop", "cifar10-small"))
    both = one.merge(other, on=["task", "init"], suffixes=("", "_large"))
    matched = both[(both.density_large / both.density).between(0.98, 1.02)]
    ordered = matched.sort_values(["task", "init", "density"], ascending=[True, True, False])
    return tuples(ordered, "task", "init", "density", "mean", "mean_large")


def for_a_paper(root: str) -> list[tuple[Any, ...]]:
    means = over_seeds(fig3(root))
    means = means[means.level > 0]
    found = []
    for (panel, init, task), mine in means.groupby(["panel", "init", "task"]):
        cells = [f"{m:.1f} ± {s:.1f}" for m, s in tuples(mine.sort_values("level"), "mean", "stderr")]
        found.append((panel, init, task, *cells))
    return found


def trainings_of(root: str) -> list[tuple[Any, ...]]:
    data = fig3(root)
    mine = data[(data.task == "rotnet") & (data.init == "winning ticket") & (data.level == 18)]
    both = mine.merge(frame(root, "fig3-runs").query("scale == 'laptop'"), on="step").sort_values("seed")
    return tuples(both, "seed", "value", "step", "host", "device", "begun", "torch")


def all_runs(root: str) -> Frame:
    return frame(root, ".*-runs").drop_duplicates(["scale", "step"])


def speeds(root: str) -> list[tuple[Any, ...]]:
    found: dict[tuple[Any, ...], list[float]] = {}
    for row in all_runs(root).itertuples():
        found.setdefault((row.device, row.data, row.arch, row.trained_on), []).append(float(row.images_per_second))
    return [(*key, len(mine), float(np.median(mine))) for key, mine in sorted(found.items())]


def hours(root: str) -> list[tuple[Any, ...]]:
    found = []
    for (scale, task), mine in all_runs(root).groupby(["scale", "trained_on"]):
        spent = float(np.dot(mine.seconds, mine.workers)) / 3600
        found.append((scale, task, len(mine), spent, int(mine.resumed_at.notna().sum())))
    return sorted(found, key=lambda row: (row[0], -row[3]))


ANSWERS: dict[str, Callable[[str], list[tuple[Any, ...]]]] = {
    "Accuracy at each density": accuracy,
    "How far below the dense network?": far_below,
    "Where do tickets first lose more than a point?": first_below,
    "What is a winning ticket worth?": worth,
    "Where do seeds disagree most?": disagreement,
    "Which networks lost whole layers?": collapsed,
    "What is the best rewind?": best_rewind,
    "Is it the same at another scale?": two_scales,
    "A table for a paper": for_a_paper,
    "Which trainings is a number made from?": trainings_of,
    "How fast is each device?": speeds,
    "What did it cost?": hours,
}


def test_every_question_is_tried() -> None:
    assert list(QUESTIONS) == list(ANSWERS)
    assert DOCS.count("```sql") == len(ANSWERS) == 12
    assert "## Twelve questions" in DOCS


@pytest.mark.parametrize("question", ANSWERS)
def test_a_question_of_the_docs_has_the_answer_that_pandas_gives(question: str, root: str) -> None:
    wanted = ANSWERS[question](root)
    assert len(wanted) > 2
    same(rows(results.query(QUESTIONS[question], root)), wanted)


def test_the_columns_of_a_table_for_a_paper_are_what_is_pruned(root: str) -> None:
    names = results.query(QUESTIONS["A table for a paper"], root).column_names
    levels = sorted({*fig3(root).level} - {0})
    assert names == ["panel", "init", "task", *(f"{100 - 100 * 0.8**level:04.1f}" for level in levels)]


def test_python_of_the_docs_runs(root: str, tmp_path: Path) -> None:
    (tmp_path / "runs").symlink_to(root)
    code = "\n".join(re.findall(r"```python\n(.*?)```", DOCS, re.S))
    code += "\nprint(len(fig3), len(frame), len(polars), fig3.schema.field('density').metadata[b'about'], best)"
    ran = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    n = len(load("fig3", "laptop", 3).points)
    assert ran.stdout.startswith(f"{n} {n} {n} b'fraction left")


def test_the_commands_of_the_docs_are_taken(root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "runs").symlink_to(root)
    monkeypatch.chdir(tmp_path)
    commands = re.findall(r"^    raysslprune results(.*?) *(?:[#|].*)?$", DOCS, re.M)
    assert len(commands) == 4
    for command in commands:
        words = re.findall(r'"([^"]*)"|(\S+)', command.replace("--root s3://bucket/runs", ""))
        assert main([quoted or plain for quoted, plain in words]) == 0
    assert pyarrow.csv.read_csv("everything.csv").num_rows == len(frame(root, "fig3|rewind"))


# ------------------------------------------------------------------ what there is to ask


def test_the_tables_and_columns_are_those_that_are_described(root: str, capfd: pytest.CaptureFixture[str]) -> None:
    for name, (_, schema) in sql.VIEWS.items():
        found = results.query(f"FROM {name} LIMIT 0", root).schema
        assert found.names == schema.names
        for ours, theirs in zip(schema, found, strict=True):
            kinds = {pa.timestamp("ms", "UTC"): pa.timestamp("us", "UTC"), pa.list_(pa.string()): theirs.type}
            assert kinds.get(ours.type, ours.type) == theirs.type, ours
        assert all((field.metadata or {}).get(b"about") for field in schema), name
    assert main(["--root", root]) == 0
    shown = capfd.readouterr().out
    assert re.search(r"^    density +double +fraction left of the weights", shown, re.M)
    assert shown.splitlines()[-1] == f"in {root}: fig3 (cifar10-small); fig3, rewind (laptop)"
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "\n".join(shown.splitlines()[:-2]) in capfd.readouterr().out


def test_results_are_those_of_all_figures_and_scales(root: str) -> None:
    found = results.query("FROM results ORDER BY scale, figure, panel, task, init, level, rewind, seed", root)
    wanted = frame(root, "fig3|rewind")
    keys = ["scale", "figure", "panel", "task", "init", "level", "rewind", "seed"]
    assert found.num_rows == len(wanted) == sum(len(load(*s).points) for s in SWEEPS)
    assert found["step"].to_pylist() == wanted.sort_values(keys)["step"].tolist()


SWEEPS = (("fig3", "laptop", 3), ("fig3", "cifar10-small", 2), ("rewind", "laptop", 3))


def test_means_are_each_figures_summary(root: str) -> None:
    for name, scale, _ in SWEEPS:
        wanted = results.summary(results.load(name, root, scale)).to_pylist()
        found = results.query(f"FROM means WHERE figure = '{name}' AND scale = '{scale}'", root).to_pylist()
        for row in wanted:
            mine = {"figure": name, "scale": scale, **row}
            assert mine in found
        assert len(found) == len(wanted)


def test_a_training_is_in_runs_once_with_its_figures(root: str) -> None:
    found = {(row["scale"], row["step"]): row for row in results.query("FROM runs", root).to_pylist()}
    behind: dict[tuple[str, str], set[str]] = {}
    for name, scale, seeds in SWEEPS:
        for step in closure(point.step for point in load(name, scale, seeds).points):
            if isinstance(step, Train):
                behind.setdefault((scale, step.id), set()).add(name)
    assert {key: {*row["figures"]} for key, row in found.items()} == behind
    assert any(len(figures) == 2 for figures in behind.values())
    assert results.query("SELECT count(*) AS n FROM runs", root).to_pylist() == [{"n": len(found)}]


def test_everything_has_a_row_for_each_result_also_where_the_runs_are_gone(small: str) -> None:
    before = results.query("FROM everything", small)
    assert before["seconds"].null_count == 0
    assert {*before["step"].to_pylist()} < {*results.query("FROM runs", small)["step"].to_pylist()}
    (Path(small) / "results/smoke/fig3-runs.parquet").unlink()
    after = results.query("FROM everything", small)
    assert after.num_rows == before.num_rows == len(results.load("fig3", small, "smoke"))
    assert after["seconds"].null_count == after.num_rows
    assert (
        after.select(results.SCHEMA.names).sort_by("step").equals(before.select(results.SCHEMA.names).sort_by("step"))
    )


def test_of_two_runs_of_a_training_the_later_counts(small: str) -> None:
    store = Store(small)
    runs = results.load("fig3-runs", small, "smoke")
    later = pa.compute.add(runs["begun"], pa.scalar(1000, pa.duration("ms")))  # pyright: ignore[reportAttributeAccessIssue]
    again = runs.set_column(runs.schema.get_field_index("begun"), runs.schema.field("begun"), later)
    slower = pa.array([9.5] * len(runs))
    again = again.set_column(runs.schema.get_field_index("seconds"), runs.schema.field("seconds"), slower)
    for name, table in (("a", again), ("z", runs)):
        store.write(f"results/smoke/{name}-runs.parquet", results.to_parquet(table))
    found = results.query("SELECT DISTINCT seconds, figures FROM runs", small).to_pylist()
    assert len(found) == 1
    assert found[0]["seconds"] == 9.5
    assert found[0]["figures"] == ["a", "fig3", "z"]


def test_other_tables_are_there_by_the_end_of_their_names(small: str) -> None:
    store = Store(small)
    weight = {"panel": "p", "task": "t", "init": "i", "seed": 0, "rank": 0.5, "magnitude": 0.1, "sparsity": 3.0}
    sorted_weights = pa.Table.from_pylist([weight], schema=results.MAGNITUDES)
    tables = {
        "fig6-magnitudes": sorted_weights,
        "fig3-layers": pa.table({"layer": ["conv1"], "kept": [3]}),
        "table1": pa.table({"network": ["n"], "% of training": [1.5]}),
    }
    for name, table in tables.items():
        store.write(f"results/smoke/{name}.parquet", results.to_parquet(table))
    store.write("results/smoke/fig3.png", b"no table")
    assert rows(results.query("FROM magnitudes", small)) == [("fig6", "smoke", "p", "t", "i", 0, 0.5, 0.1, 3.0)]
    assert rows(results.query("FROM layers", small)) == [("fig3", "smoke", "conv1", 3)]
    assert rows(results.query("FROM table1", small)) == [("table1", "smoke", "n", 1.5)]
    assert results.load("table1", small, "smoke").equals(tables["table1"])


# ------------------------------------------------------------------ load


def test_load_gives_what_the_sweep_wrote(root: str) -> None:
    for scale, n in (("laptop", 3), ("cifar10-small", 2)):
        table = results.load("fig3", root, scale)
        assert table.schema.equals(results.SCHEMA)
        assert table.equals(pq.read_table(Path(root) / f"results/{scale}/fig3.parquet"))
        assert {*table["seed"].to_pylist()} == {*range(n)}
    assert results.load("fig3", root).equals(results.load("fig3", root, "laptop"))
    assert results.load("fig3-runs", root).schema.equals(results.PROVENANCE)


def test_what_is_not_there_is_named_beside_what_is(root: str, tmp_path: Path) -> None:
    there = "fig3, fig3-runs (cifar10-small); fig3, fig3-runs, rewind, rewind-runs (laptop)"
    for name, scale in (("fig9", "laptop"), ("rewind", "cifar10-small"), ("../fig3", "laptop")):
        with pytest.raises(FileNotFoundError) as error:
            results.load(name, root, scale)
        assert str(error.value) == f"there is no {name} of scale {scale} in {root}, only {there}"
    (tmp_path / "empty").mkdir()
    for nothing in ("empty", "nowhere"):
        with pytest.raises(StoreError, match=f"there are no results in .*; this makes some: .* --root .*{nothing}$"):
            results.load("fig3", str(tmp_path / nothing))
        with pytest.raises(StoreError, match="there are no results in"):
            results.query("SELECT 1", str(tmp_path / nothing))


def test_what_cannot_be_read_is_named(small: str) -> None:
    path = Path(small) / "results/smoke/fig3.parquet"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    for call in (lambda: results.load("fig3", small, "smoke"), lambda: results.query("FROM runs", small)):
        with pytest.raises(StoreError, match=f"can't read {path}: .*; its sweep, run again, writes it anew"):
            call()
    older = pq.read_table(io.BytesIO(whole)).drop_columns(["density_of_all"])
    path.write_bytes(results.to_parquet(older))
    with pytest.raises(StoreError, match=f"{path} is of another version of raysslprune"):
        results.query("FROM results", small)
    file = Path(small) / "file"
    file.write_text("")
    with pytest.raises(StoreError, match=r"there are no results|can't read"):
        results.query("FROM results", str(file))


# ------------------------------------------------------------------ without copies


def addresses(column: Any) -> list[int | None]:
    """Where the parts of a column lie in memory: validity, offsets of text, values."""
    return [buffer and buffer.address for chunk in column.chunks for buffer in chunk.buffers()]


def test_pandas_shares_the_memory_of_the_table(root: str) -> None:
    for table in (results.load("fig3", root), results.query("FROM everything", root)):
        given = table.to_pandas(types_mapper=pd.ArrowDtype)
        for name in table.column_names:
            assert addresses(given[name].array.__arrow_array__()) == addresses(table[name]), name
        copied = table.to_pandas()
        assert addresses(pa.chunked_array([pa.array(copied["value"].copy())])) != addresses(table["value"])


def test_polars_shares_the_memory_of_the_table(root: str) -> None:
    table = results.load("fig3", root)
    given = pl.DataFrame(pl.from_arrow(table))
    for name in ("value", "density", "level", "seed"):
        assert given[name].to_arrow().buffers()[1].address == addresses(table[name])[1], name
    # Of text that is longer than 12 bytes a view points to its letters, somewhere in the table's own
    letters = table["panel"].chunk(0).buffers()[2]
    views = given["panel"].to_arrow(compat_level=pl.CompatLevel.newest())
    assert letters.address <= views.buffers()[2].address < letters.address + letters.size
    assert given["panel"].to_list() == table["panel"].to_pylist()


def test_a_long_answer_goes_to_polars_and_pandas_without_a_copy(small: str) -> None:
    table = results.query("SELECT results.value, i FROM results, range(10_000) AS t(i)", small)
    assert table["value"].num_chunks > 1
    given = table.to_pandas(types_mapper=pd.ArrowDtype)
    assert addresses(given["value"].array.__arrow_array__()) == addresses(table["value"])
    chunks = pl.DataFrame(pl.from_arrow(table))["value"].get_chunks()
    assert [chunk.to_arrow().buffers()[1].address for chunk in chunks] == addresses(table["value"])[1::2]


# ------------------------------------------------------------------ nothing but these tables

FORBIDDEN = (
    "FROM 'secret.csv'",
    "FROM read_csv('secret.csv')",
    "FROM read_text('secret.csv')",
    "FROM read_blob('secret.csv')",
    "FROM read_json('secret.csv')",
    "FROM sniff_csv('secret.csv')",
    "FROM glob('*')",
    "FROM parquet_scan('runs/results/smoke/fig3.parquet')",
    "FROM 'https://example.com/a.csv'",
    "FROM 's3://bucket/a.parquet'",
    "EXPLAIN ANALYZE COPY (SELECT 1) TO 'made.csv'",
    "COPY (SELECT 1) TO 'made.csv'",
    "COPY results TO 'made.parquet'",
    "EXPORT DATABASE 'made'",
    "IMPORT DATABASE 'made'",
    "ATTACH 'made.db'",
    "INSTALL httpfs",
    "LOAD httpfs",
    "LOAD 'secret.csv'",
    "SET threads = 2",
    "SET enable_external_access = true",
    "SET temp_directory = 'made'",
    "RESET lock_configuration",
    "PRAGMA enable_profiling",
    "FROM enable_logging(storage = 'file', storage_path = 'made')",
    "CALL enable_logging(storage = 'file', storage_path = 'made')",
)
NO_QUERIES = (
    "ATTACH ':memory:' AS other",
    "CREATE TABLE mine AS SELECT 1",
    "CREATE VIEW results AS SELECT 1",
    "CREATE MACRO two() AS 2",
    "DROP VIEW results",
    "INSERT INTO results SELECT * FROM results",
    "DELETE FROM results",
    "BEGIN",
    "PREPARE p AS SELECT 1",
    "CALL pragma_version()",
    "CHECKPOINT",
)


@pytest.fixture
def inside(small: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """In a folder with a file; afterwards nothing else is in it."""
    monkeypatch.chdir(tmp_path)
    Path("secret.csv").write_text("a\n4711\n")
    yield small
    assert sorted(os.listdir()) == ["runs", "secret.csv"]


def test_sql_reads_and_writes_no_files_and_sets_nothing(inside: str) -> None:
    for statement in FORBIDDEN:
        with pytest.raises(results.QueryError) as error:
            results.query(statement, inside)
        assert "4711" not in str(error.value)
    connection = sql._connected(Store(inside))
    for statement in FORBIDDEN:  # a second lock: DuckDB would refuse them too
        with pytest.raises(duckdb.Error, match=r"disabled|locked|not found|does not exist|external"):
            connection.execute(statement).fetchall()


def test_only_queries_are_run(inside: str) -> None:
    for statement in NO_QUERIES:
        with pytest.raises(results.QueryError, match="only what reads is run here"):
            results.query(statement, inside)
    for number, statements in ((2, "SELECT 1; SELECT 2"), (2, "SELECT 1; DROP VIEW results")):
        with pytest.raises(results.QueryError, match=f"one query at a time, not {number}"):
            results.query(statements, inside)


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT 1 AS one;",
        "FROM results LIMIT 1",
        "WITH a AS (SELECT 1) FROM a",
        "VALUES (1)",
        "DESCRIBE results",
        "SUMMARIZE runs",
        "SHOW TABLES",
        "EXPLAIN FROM results",
        "PIVOT results ON level USING avg(value) GROUP BY task",
        "FROM (PIVOT results ON level USING avg(value) GROUP BY task)",
        "-- why\nSELECT 1",
    ],
)
def test_all_kinds_of_queries_are_run(statement: str, small: str) -> None:
    assert results.query(statement, small).num_rows > 0


def test_variables_of_python_are_no_tables(small: str) -> None:
    mine = pa.table({"a": [1]})
    with pytest.raises(results.QueryError, match="Table with name mine does not exist"):
        results.query("FROM mine", small)
    with pytest.raises(duckdb.CatalogException, match="Table with name mine does not exist"):
        sql._connected(Store(small)).sql("FROM mine")  # from here, where the variable is
    assert len(mine) == 1


@pytest.mark.parametrize(
    ("statement", "says"),
    [
        ("SELEC 1", r'Parser Error: syntax error at or near "selec"'),
        ("SELECT x FROM results", 'Binder Error: Referenced column "x" not found in FROM clause!.*'),
        ("FROM nothing", "Catalog Error: Table with name nothing does not exist! There are results, means, runs, .*"),
        ("FROM fig3", ".*; figures are in their rows, as in WHERE figure = 'fig3'"),
        ("FROM layers", ".*; layers is there when raysslprune analysis fig3 has made it"),
        ("FROM overlap", ".*; overlap is there when raysslprune analysis fig3 has made it"),
        ("", "there is no query"),
        ("-- a", "there is no query"),
        ("FROM means WHERE figure = fig3", ".*; text is written in single quotes, 'fig3', and then .*"),
        ('FROM means WHERE figure = "fig3"', ".*; text is written in single quotes, 'fig3', and then .*"),
        ("FROM mean", r".*; did you mean means\?"),
        ('FROM means WHERE task = "rotnet"', ".*; text is written in single quotes, 'rotnet', and then .*"),
        ("FROM means WHERE task = ‘rotnet’", ".*; text is written in single quotes, 'rotnet', and then .*"),
        ("SELECT densty FROM means", '.*Candidate bindings: "density"[^;]*'),
        ("FROM runs WHERE figure = 'fig3'", r".*; a run is behind several: list_contains\(figures, 'fig3'\)"),
        ("SELECT CAST(task AS INTEGER) FROM results", "Conversion Error: Could not convert string .* to INT32 .*"),
        ("SELECT error('in a \n\n\n word')", ".*in a"),
        ("SELECT 1 AS a, 2 AS a", "two columns of the answer are called a; name one of them with AS"),
        ("SELECT 1 // (i - 900_000) AS n FROM range(1_000_000) AS t(i)", "Invalid Input Error: Division by zero.*"),
    ],
)
def test_a_query_that_fails_says_so_in_a_sentence(
    statement: str, says: str, small: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(results.QueryError) as error:
        results.query(statement, small)
    assert re.fullmatch(says, str(error.value), re.I), str(error.value)
    for form in ("csv", "parquet"):
        assert main([statement, "--root", small, "--format", form]) == 2
        shown = capfd.readouterr().err
        assert shown.startswith("raysslprune: ")
        assert shown.count("\n") == 1


def test_nothing_but_the_answer_goes_to_stdout(small: str) -> None:
    """However long it takes."""
    shown = results.query("SELECT current_setting('enable_progress_bar') AS bar", small)
    assert shown.to_pylist() == [{"bar": False}]


def test_the_machine_makes_no_difference(small: str) -> None:
    """Sums are added up in one order, and a day begins at the same moment everywhere."""
    settings = "SELECT current_setting('threads') AS threads, current_setting('TimeZone') AS zone"
    assert results.query(settings, small).to_pylist() == [{"threads": 1, "zone": "UTC"}]


# ------------------------------------------------------------------ formats

ODD = """
SELECT * FROM (VALUES
    (1, 0.1 + 0.2::DOUBLE, 'a, "b"', [1.5, NULL], DATE '2020-02-01', 12::HUGEINT, {'k': 'v'}, TRUE),
    (2, 'nan'::DOUBLE, '', [], NULL, NULL, NULL, FALSE),
    (3, NULL, NULL, NULL, NULL, 3::HUGEINT, {'k': NULL}, NULL),
    (4, '-inf'::DOUBLE, 'ü', ['nan'::DOUBLE], NULL, NULL, NULL, NULL)
) AS t(whole, real, text, list, day, huge, struct, yes) ORDER BY whole
"""


def asked(capfdbinary: pytest.CaptureFixture[bytes], *arguments: str) -> bytes:
    assert main([*arguments]) == 0
    return capfdbinary.readouterr().out


def test_csv_has_all_digits_and_tells_null_from_nothing(small: str, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    text = asked(capfdbinary, ODD, "--root", small, "--format", "csv").decode()
    assert text.splitlines() == [
        '"whole","real","text","list","day","huge","struct","yes"',
        '1,0.30000000000000004,"a, ""b""","[1.5, null]",2020-02-01,12,"{""k"": ""v""}",true',
        '2,nan,"","[]",,,,false',
        '3,,,,,3,"{""k"": null}",',
        '4,-inf,"ü","[null]",,,,',
    ]


def test_text_for_the_shell_is_values_alone(small: str, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    odd = ODD.replace("'ü'", "chr(9) || 'ü' || chr(10) || 'b'")
    text = asked(capfdbinary, odd, "--root", small, "--format", "txt").decode()
    assert text.splitlines() == [
        '1\t0.30000000000000004\ta, "b"\t[1.5, null]\t2020-02-01\t12\t{"k": "v"}\ttrue',
        "2\tnan\t\t[]\t\t\t\tfalse",
        '3\t\t\t\t\t3\t{"k": null}\t',
        "4\t-inf\tü b\t[null]\t\t\t\t",
    ]
    step = asked(capfdbinary, "SELECT step FROM results LIMIT 1", "--root", small, "--format", "txt").decode()
    assert re.fullmatch("[0-9a-f]{16}\n", step), "as it is, in $(...)"


def test_json_is_json(small: str, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    def no_constant(name: str) -> None:
        raise AssertionError(name)

    text = asked(capfdbinary, ODD, "--root", small, "--format", "json")
    names = ("whole", "real", "text", "list", "day", "huge", "struct", "yes")
    assert [tuple(row[name] for name in names) for row in json.loads(text, parse_constant=no_constant)] == [
        (1, 0.1 + 0.2, 'a, "b"', [1.5, None], "2020-02-01", 12, {"k": "v"}, True),
        (2, None, "", [], None, None, None, False),
        (3, None, None, None, None, 3, {"k": None}, None),
        (4, None, "ü", [None], None, None, None, None),
    ]
    assert json.loads(asked(capfdbinary, "FROM results LIMIT 0", "--root", small, "--format", "json")) == []
    odd = "SELECT 1.25::DECIMAL(5,2) AS d, TIMESTAMPTZ '2020-01-02 03:04:05+00' AS t, '\\xAB'::BLOB AS b"
    (row,) = json.loads(asked(capfdbinary, odd, "--root", small, "--format", "json"))
    assert (row["d"], row["t"], row["b"]) == (1.25, "2020-01-02T03:04:05+00:00", "ab")


def test_csv_and_json_give_every_number_back(root: str, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    wanted = results.query("FROM everything ORDER BY ALL", root).to_pylist()
    found = json.loads(asked(capfdbinary, "FROM everything ORDER BY ALL", "--root", root, "--format", "json"))
    text = asked(capfdbinary, "FROM everything ORDER BY ALL", "--root", root, "--format", "csv").decode()
    table = [*csv.DictReader(io.StringIO(text))]
    assert len(wanted) == len(found) == len(table)
    for one, other, cells in zip(wanted, found, table, strict=True):
        assert {**one, "begun": one["begun"].isoformat()} == other
        for name in ("density", "value", "seconds", "images_per_second"):
            assert float(cells[name]) == one[name]
        assert json.loads(cells["figures"]) == one["figures"]


@pytest.mark.parametrize("ending", ["csv", "txt", "json", "parquet", "arrow"])
def test_a_file_has_what_stdout_has(
    ending: str, small: str, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    query = "SELECT value, task, i FROM results, range(4_000) AS t(i) ORDER BY ALL"
    path = tmp_path / f"all.v1.{ending}"
    assert output.format_of(f"a.b.{ending.upper()}") == ending
    path.write_text("before")
    assert main([query, "--root", small, "--export", str(path)]) == 0
    said = capfdbinary.readouterr()
    wanted = results.query(query, small)
    assert wanted["i"].num_chunks > 1
    assert said.out == b""
    assert said.err.decode() == f"raysslprune: {path}: {wanted.num_rows:,} rows\n"
    assert asked(capfdbinary, query, "--root", small, "--format", ending) == path.read_bytes()
    if ending == "parquet":
        assert pq.read_table(path).equals(wanted)
    elif ending == "arrow":
        assert pa.ipc.open_file(path).read_all().equals(wanted)
    elif ending == "csv":
        assert pyarrow.csv.read_csv(path)["value"].to_pylist() == wanted["value"].to_pylist()
    assert sorted(os.listdir(tmp_path)) == [path.name, "runs"]


def test_a_file_is_whole_or_as_it_was(small: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "all.csv"
    path.write_text("before")
    query = "SELECT 1 // (i - 900_000) AS n FROM range(1_000_000) AS t(i)"
    assert main([query, "--root", small, "--export", str(path)]) == 2
    assert main(["SELECT INTERVAL 1 DAY AS i", "--root", small, "--export", str(path)]) == 2
    assert "csv can't hold this" in capfd.readouterr().err
    assert path.read_text() == "before"
    assert sorted(os.listdir(tmp_path)) == ["all.csv", "runs"]


def test_a_table_for_people(small: str, capfd: pytest.CaptureFixture[str]) -> None:
    """Numbers to the right; a text of several lines keeps them, and can't steer the terminal."""
    odd = ODD.replace("'ü'", "'ü\x1b[31m\n two'")
    assert main([odd, "--root", small]) == 0
    shown = capfd.readouterr()
    assert shown.out == (
        "whole    real  text    list         day         huge  struct       yes\n"
        '    1  0.3000  a, "b"  1.500, null  2020-02-01    12  {"k": "v"}   true\n'
        "    2     nan                       null        null  null         false\n"
        '    3    null  null    null         null           3  {"k": null}  null\n'
        "    4    -inf  ü\ufffd[31m  nan          null        null  null         null\n"
        "                two\n"
    )
    assert shown.err == ""


def test_a_table_for_people_has_a_hundred_rows(small: str, capfd: pytest.CaptureFixture[str]) -> None:
    for rows_there, told in ((100, False), (101, True)):
        assert main([f"SELECT i FROM range({rows_there}) AS t(i) ORDER BY i", "--root", small]) == 0
        shown = capfd.readouterr()
        assert shown.out.split() == ["i", *map(str, range(100))]
        said = "raysslprune: these are the first 100 rows; --format csv or --export FILE gives all\n"
        assert shown.err == (said if told else "")
    assert main(["SELECT task, begun FROM everything LIMIT 0", "--root", small]) == 0
    assert capfd.readouterr().out == "task  begun\n"


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (97.83333, "97.83"),
        (98.0, "98.00"),
        (0.0047223, "0.004722"),
        (1.0, "1.000"),
        (14_000.6, "14001"),
        (-1234.5678, "-1235"),
        (999.96, "1000"),
        (0.0, "0"),
        (1.2e-7, "1.200e-07"),
        (3e20, "3.000e+20"),
        (float("nan"), "nan"),
        (float("-inf"), "-inf"),
    ],
)
def test_numbers_for_people(value: float, shown: str) -> None:
    assert output._number(value) == shown


# ------------------------------------------------------------------ the command


@contextmanager
def command(*arguments: str, stdout: Any = subprocess.PIPE) -> Iterator[subprocess.Popen[bytes]]:
    """``raysslprune results`` with these arguments, as a user starts it, until it ends."""
    words = [sys.executable, "-m", "raysslprune", "results", *arguments]
    with subprocess.Popen(words, stdout=stdout, stderr=subprocess.PIPE) as process:
        try:
            yield process
        except BaseException:
            process.kill()
            raise


MAKES = "this makes some: python -m raysslprune.sweep fig3 --root"
NOTHING = f"there are no results in nowhere, which does not exist; {MAKES} nowhere"
ENDINGS = "argument --export: a file ends in .csv, .txt, .json, .parquet, .arrow, not"


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["SELECT 1", "--root", "nowhere"], 1, NOTHING),
        (["--root", "nowhere"], 1, NOTHING),
        (["--root", "folder.csv"], 1, f"there are no results in folder.csv; {MAKES} folder.csv"),
        (["SELECT 1", "--root", "nope://a"], 1, "can't use nope://a as the root: .*"),
        (
            ["SELECT 1", "--root", "a\udcff"],
            1,
            "can't use a\N{REPLACEMENT CHARACTER} as the root: its name is not UTF-8",
        ),
        (["SELECT 1", "--root", "s3:/key:secret@bucket/a"], 1, "--root wants two slashes in an address, as .*"),
        (["SELECT 1", "--root", "s3://key:secret@bucket/a"], 1, "--root may not hold credentials.*"),
        (["SELECT 1", "--export", "nowhere/a.csv"], 1, "can't write nowhere/a.csv: No such file or directory"),
        (["SELECT 1", "--export", "folder.csv"], 1, "can't write folder.csv: Is a directory"),
        (["SELECT 1", "--export", "a.xls"], 2, f"{ENDINGS} 'a.xls'; see --help"),
        (["SELECT 1", "--export", "csv"], 2, f"{ENDINGS} 'csv'; see --help"),
        (["SELECT 1", "--export", "a.csv", "--format", "csv"], 2, "argument --format: not allowed with .*"),
        (["SELECT 1", "--format", "xml"], 2, "argument --format: invalid choice: 'xml'.*"),
        (["--export", "a.csv"], 2, "--format and --export want a query; see --help"),
        (["--format", "csv"], 2, "--format and --export want a query; see --help"),
        (["SELECT", "1", "FROM", "results"], 2, "a query is one argument: put it into double quotes; see --help"),
        (["SELECT 1", "--roo", "runs"], 2, r"unrecognized arguments: --roo runs; did you mean --root\?; see --help"),
    ],
)
def test_what_is_wrong_is_said_in_a_sentence(
    arguments: list[str],
    code: int,
    says: str,
    small: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("folder.csv").mkdir()
    if code == 2:  # found by the parser, which exits
        with pytest.raises(SystemExit) as stopped:
            main(arguments)
        assert stopped.value.code == code
    else:
        assert main(arguments) == code
    shown = capfd.readouterr()
    assert re.fullmatch(f"raysslprune: {says}\n", shown.err), shown.err
    assert shown.out == "", "no schema where there is nothing to ask"
    assert sorted(os.listdir()) == ["folder.csv", "runs"]
    assert "secret" not in shown.err


def test_binary_is_not_for_a_terminal(small: str) -> None:
    ours, theirs = os.openpty()
    with command("SELECT 1", "--root", small, "--format", "parquet", stdout=theirs) as process:
        assert process.stderr is not None
        said = process.stderr.read().decode()
    os.close(ours)
    os.close(theirs)
    assert process.returncode == 2
    assert said == "raysslprune: parquet is not for a terminal: name a file with --export; see --help\n"


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_a_closed_pipe_is_no_error(form: str, small: str) -> None:
    endless = "SELECT * FROM range(100_000_000_000) AS t(i)"
    with command(endless, "--root", small, "--format", form) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.read(4)
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 0


def test_a_full_disk_is_said(small: str) -> None:
    with open("/dev/full", "wb") as full, command("FROM results", "--root", small, stdout=full) as run:
        assert run.stderr is not None
        said = run.stderr.read().decode()
    assert run.returncode == 1
    assert said == "raysslprune: [Errno 28] No space left on device\n"


def test_an_interrupted_export_leaves_no_file(small: str, tmp_path: Path) -> None:
    path = tmp_path / "all.csv"
    path.write_text("before")
    with command("SELECT 0 * i FROM range(100_000_000_000) AS t(i)", "--root", small, "--export", str(path)) as process:
        wait_until(lambda: bool([*tmp_path.glob("all.csv.*.part")]) or process.poll() is not None)
        process.send_signal(signal.SIGINT)
        assert process.stderr is not None
        assert process.stderr.read().decode() == "raysslprune: stopped\n"
    assert process.returncode == 130
    assert path.read_text() == "before"
    assert sorted(os.listdir(tmp_path)) == ["all.csv", "runs"]


def test_a_query_that_computes_for_long_can_be_interrupted(small: str) -> None:
    query = "SELECT a.i FROM range(10_000_000) AS a(i), range(10_000_000) AS b(i) WHERE a.i + b.i < 0"
    with command(query, "--root", small) as process:

        def used() -> float:
            """Seconds of the processor; it starts in less than one."""
            times = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
            return (int(times[11]) + int(times[12])) / os.sysconf("SC_CLK_TCK")

        wait_until(lambda: used() > 2)
        process.send_signal(signal.SIGINT)
        assert process.stderr is not None
        assert process.stderr.read().decode() == "raysslprune: stopped\n"
    assert process.returncode == 130


def test_a_long_answer_needs_little_memory(small: str) -> None:
    """80 MB of CSV, and more of Arrow."""
    code = (
        "import resource, sys; from raysslprune.results.__main__ import main; code = main(sys.argv[1:]); "
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr); sys.exit(code)"
    )
    peak: list[int] = []
    for form, n in (("csv", 10), ("csv", 2_500_000), ("arrow", 2_500_000)):
        query = f"SELECT i, i * 0.1 AS x, 'abcdefgh' || i AS s FROM range({n}) AS t(i)"
        arguments = [sys.executable, "-c", code, query, "--root", small, "--format", form]
        ran = subprocess.run(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=True)
        peak.append(int(ran.stderr) // 1024)
    assert max(peak) - peak[0] < 60, peak


def test_what_is_heavy_is_imported_by_the_query() -> None:
    code = (
        "import sys, raysslprune.results, raysslprune.results.__main__ as m; m._parser().format_help(); "
        "print(*(sys.modules.keys() & {'duckdb', 'pandas', 'polars', 'torch', 'ray', 'matplotlib', 'rich'}))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "\n"


# ------------------------------------------------------------------ on s3://


def test_a_root_on_s3(small: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    with serving(tmp_path) as server:
        root = server.root(server.bucket())
        with pytest.raises(StoreError, match="there are no results in s3://"):
            results.query("SELECT 1", root)
        store = Store(root)
        for path in sorted(Path(small).glob("results/*/*.parquet")):
            store.write(str(path.relative_to(small)), path.read_bytes())
        assert results.load("fig3", root, "smoke").equals(results.load("fig3", small, "smoke"))
        for query in ("FROM everything ORDER BY ALL", "FROM means ORDER BY ALL"):
            assert results.query(query, root).equals(results.query(query, small))
        assert main(["SELECT count(*) AS n FROM results", "--root", root]) == 0
        assert capfd.readouterr().out.split() == ["n", str(len(results.load("fig3", small, "smoke")))]
    assert os.listdir() == []
