"""SQL over the results of a root, in the shell and in Python, and each question of docs/querying.md."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.csv
import pyarrow.ipc
import pyarrow.parquet as pq
import pytest

from raysslprune import results
from raysslprune.commands.results import described, main
from raysslprune.results import sql
from raysslprune.spec import Train, closure
from raysslprune.store.record import StoreError
from raysslprune.store.steps import Store
from raysslprune.sweep_loader import load
from tests.helpers.results import frame, write, write_of_earlier_design


def rows(table: pa.Table) -> list[tuple[Any, ...]]:
    return [tuple(row.values()) for row in table.to_pylist()]


# ------------------------------------------------------------------------------------- what there is to ask


def test_the_tables_and_columns_are_those_that_are_described(
    results_root: str, capfd: pytest.CaptureFixture[str]
) -> None:
    for name, (_, schema) in sql.VIEWS.items():
        found = results.query(f"FROM {name} LIMIT 0", results_root).schema
        more = found.names[len(schema) :]
        assert found.names == [*schema.names, *more]
        assert bool(more) == (name == "steps"), "only steps have columns that depend on their tasks"
        for ours, theirs in zip(schema, found, strict=False):
            if pa.types.is_list(ours.type):  # whose elements have another name
                assert ours.type.value_type == theirs.type.value_type, ours
                continue
            if isinstance(ours.type, pa.MapType):  # whose entries have another name
                assert (ours.type.key_type, ours.type.item_type) == (theirs.type.key_type, theirs.type.item_type)
                continue
            kinds = {pa.timestamp("ms", "UTC"): pa.timestamp("us", "UTC")}
            assert kinds.get(ours.type, ours.type) == theirs.type, ours
        assert all((field.metadata or {}).get(b"about") for field in schema), name
    with pytest.raises(SystemExit):
        main(["--help"])
    shown = capfd.readouterr().out
    assert described() in shown
    assert re.search(r"^    density +double +fraction left of the weights", shown, re.M)


def test_results_are_those_of_all_figures_and_scales(results_root: str) -> None:
    found = results.query("FROM results ORDER BY scale, figure, panel, task, init, level, rewind, seed", results_root)
    wanted = frame(results_root, "fig3|rewind")
    keys = ["scale", "figure", "panel", "task", "init", "level", "rewind", "seed"]
    assert found.num_rows == len(wanted) == sum(len(load(*s).points) for s in SWEEPS)
    assert found["step"].to_pylist() == wanted.sort_values(keys)["step"].tolist()


SWEEPS = (("fig3", "laptop", 3), ("fig3", "cifar10-small", 2), ("rewind", "laptop", 3))


def test_means_are_each_figures_summary(results_root: str) -> None:
    for name, scale, _ in SWEEPS:
        wanted = results.summary(results.load(name, results_root, scale)).to_pylist()
        found = results.query(f"FROM means WHERE figure = '{name}' AND scale = '{scale}'", results_root).to_pylist()
        labels = {"laptop": 14_400, "cifar10-small": 60_032}[scale]  # 60,000 in batches of 64
        for row in wanted:
            mine = {"figure": name, "scale": scale, **row, "label_samples": labels, "design": 2}
            assert mine in found
        assert len(found) == len(wanted)


def test_a_training_is_in_runs_once_with_its_figures(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "runs"))
    store.create()
    behind: dict[tuple[str, str], set[str]] = {}
    for name in ("fig3", "fig5"):
        write(store, name, "smoke", 1)
        for step in closure(point.step for point in load(name, "smoke", 1).points):
            if isinstance(step, Train):
                behind.setdefault(("smoke", step.id), set()).add(name)
    found = {(row["scale"], row["step"]): row for row in results.query("FROM runs", store.shown).to_pylist()}
    assert {key: {*row["figures"]} for key, row in found.items()} == behind
    assert any(len(figures) == 2 for figures in behind.values())
    assert results.query("SELECT count(*) AS n FROM runs", store.shown).to_pylist() == [{"n": len(found)}]


def test_everything_has_a_row_for_each_result_also_where_the_runs_are_gone(small_root: str) -> None:
    before = results.query("FROM everything", small_root)
    assert before["seconds"].null_count == 0
    assert {*before["step"].to_pylist()} < {*results.query("FROM runs", small_root)["step"].to_pylist()}
    (Path(small_root) / "results/smoke/fig3-runs.parquet").unlink()
    after = results.query("FROM everything", small_root)
    assert after.num_rows == before.num_rows == len(results.load("fig3", small_root, "smoke"))
    assert after["seconds"].null_count == after.num_rows
    assert (
        after.select(results.SCHEMA.names).sort_by("step").equals(before.select(results.SCHEMA.names).sort_by("step"))
    )


def test_claims_are_those_of_all_figures_and_scales(results_root: str) -> None:
    found = results.query("FROM claims", results_root).to_pylist()
    wanted = []
    for name, scale, seeds in SWEEPS:
        for row in pq.read_table(f"{results_root}/results/{scale}/{name}-claims.parquet").to_pylist():
            wanted.append({"figure": name, "scale": scale, **row})
            assert (row["n"], row["p_true"] is None) == (seeds, seeds < 3)
    assert len(wanted) > 20
    assert sorted(found, key=str) == sorted(wanted, key=str)


def test_of_two_runs_of_a_training_the_later_counts(small_root: str) -> None:
    store = Store(small_root)
    runs = results.load("fig3-runs", small_root, "smoke")
    later = pa.compute.add(runs["begun"], pa.scalar(1000, pa.duration("ms")))  # pyright: ignore[reportAttributeAccessIssue]
    again = runs.set_column(runs.schema.get_field_index("begun"), runs.schema.field("begun"), later)
    slower = pa.array([9.5] * len(runs))
    again = again.set_column(runs.schema.get_field_index("seconds"), runs.schema.field("seconds"), slower)
    for name, table in (("a", again), ("z", runs)):
        store.write(f"results/smoke/{name}-runs.parquet", results.to_parquet(table))
    found = results.query("SELECT DISTINCT seconds, figures FROM runs", small_root).to_pylist()
    assert len(found) == 1
    assert found[0]["seconds"] == 9.5
    assert found[0]["figures"] == ["a", "fig3", "z"]


def test_other_tables_are_there_by_the_end_of_their_names(small_root: str) -> None:
    store = Store(small_root)
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
    assert rows(results.query("FROM magnitudes", small_root)) == [("fig6", "smoke", "p", "t", "i", 0, 0.5, 0.1, 3.0)]
    assert rows(results.query("FROM layers", small_root)) == [("fig3", "smoke", "conv1", 3)]
    assert rows(results.query("FROM table1", small_root)) == [("table1", "smoke", "n", 1.5)]
    assert results.load("table1", small_root, "smoke").equals(tables["table1"])


# ------------------------------------------------------------------------------------- load


def test_load_gives_what_the_sweep_wrote(results_root: str) -> None:
    for scale, n in (("laptop", 3), ("cifar10-small", 2)):
        table = results.load("fig3", results_root, scale)
        assert table.schema.equals(results.SCHEMA)
        assert table.equals(pq.read_table(Path(results_root) / f"results/{scale}/fig3.parquet"))
        assert {*table["seed"].to_pylist()} == {*range(n)}
    assert results.load("fig3", results_root).equals(results.load("fig3", results_root, "laptop"))
    assert results.load("fig3-runs", results_root).schema.equals(results.PROVENANCE)


def test_what_is_not_there_is_named_beside_what_is(results_root: str, tmp_path: Path) -> None:
    there = "fig3, fig3-claims, fig3-runs, fig3-steps (cifar10-small); "
    there += "fig3, fig3-claims, fig3-runs, fig3-steps, rewind, rewind-claims, rewind-runs, rewind-steps (laptop)"
    for name, scale in (("fig9", "laptop"), ("rewind", "cifar10-small"), ("../fig3", "laptop")):
        with pytest.raises(FileNotFoundError) as error:
            results.load(name, results_root, scale)
        assert str(error.value) == f"there is no {name} of scale {scale} in {results_root}, only {there}"
    (tmp_path / "empty").mkdir()
    for nothing in ("empty", "nowhere"):
        with pytest.raises(StoreError, match=f"there are no results in .*; this makes some: .* --root .*{nothing}$"):
            results.load("fig3", str(tmp_path / nothing))
        with pytest.raises(StoreError, match="there are no results in"):
            results.query("SELECT 1", str(tmp_path / nothing))


def test_claims_without_warnings_are_read_as_claims(small_root: str) -> None:
    """Such as a development version wrote."""
    path = Path(small_root) / "results/smoke/fig3-claims.parquet"
    whole = results.from_parquet(path.read_bytes())
    path.write_bytes(results.to_parquet(whole.drop_columns(["warning"])))
    found = results.query("SELECT says, warning FROM claims", small_root)
    assert rows(found) == [(says, "") for says in whole["says"].to_pylist()]


def test_what_cannot_be_read_is_named(small_root: str) -> None:
    path = Path(small_root) / "results/smoke/fig3.parquet"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    for call in (lambda: results.load("fig3", small_root, "smoke"), lambda: results.query("FROM runs", small_root)):
        with pytest.raises(StoreError, match=f"can't read {path}: .*; run its sweep again to rebuild it"):
            call()
    older = pq.read_table(io.BytesIO(whole)).drop_columns(["density_of_all"])
    path.write_bytes(results.to_parquet(older))
    with pytest.raises(StoreError, match=f"{path} was written by another version of raysslprune"):
        results.query("FROM results", small_root)
    file = Path(small_root) / "file"
    file.write_text("")
    with pytest.raises(StoreError, match=r"there are no results|can't read"):
        results.query("FROM results", str(file))


def test_rows_of_an_earlier_design_say_so(small_root: str, capsys: pytest.CaptureFixture[str]) -> None:
    both = "SELECT figure, label_samples, design, count(*) FROM {} GROUP BY ALL ORDER BY ALL"
    assert rows(results.query(both.format("results"), small_root)) == [("fig3", 1_216, 2, 21)]
    assert capsys.readouterr().err == ""
    store = Store(small_root)
    write_of_earlier_design(store, "fig3", "smoke", 1)
    write(store, "rewind", "smoke", 1)
    for view in ("results", "means", "everything"):
        found = rows(results.query(both.format(view), small_root))
        assert found[0] == ("fig3", None, 1, 21), view
        assert {(figure, design) for figure, _, design, _ in found[1:]} == {("rewind", 2)}
        err = capsys.readouterr().err
        assert err.startswith(
            "raysslprune: design = 1 marks the rows of fig3 (smoke): these may be of an earlier design"
        )
        assert err.endswith("; run its sweep again to make them anew\n")
    assert results.load("fig3", small_root, "smoke").schema.equals(results.SCHEMA)
    assert main(["SELECT DISTINCT design FROM results WHERE figure = 'fig3'", "--root", small_root]) == 0
    shown = capsys.readouterr()
    assert shown.out.split() == ["design", "1"]
    assert shown.err == err


def addresses(column: Any) -> list[int | None]:
    """Where the parts of a column lie in memory: validity, offsets of text, values."""
    return [buffer and buffer.address for chunk in column.chunks for buffer in chunk.buffers()]


# ------------------------------------------------------------------------------------- without copies


def test_pandas_shares_the_memory_of_the_table(results_root: str) -> None:
    for table in (results.load("fig3", results_root), results.query("FROM everything", results_root)):
        given = table.to_pandas(types_mapper=pd.ArrowDtype)
        for name in table.column_names:
            assert addresses(given[name].array.__arrow_array__()) == addresses(table[name]), name
        copied = table.to_pandas()
        assert addresses(pa.chunked_array([pa.array(copied["value"].copy())])) != addresses(table["value"])


def test_polars_shares_the_memory_of_the_table(results_root: str) -> None:
    table = results.load("fig3", results_root)
    given = pl.DataFrame(pl.from_arrow(table))
    for name in ("value", "density", "level", "seed"):
        assert given[name].to_arrow().buffers()[1].address == addresses(table[name])[1], name
    # Of text that is longer than 12 bytes a view points to its letters, somewhere in the table's own
    letters = table["panel"].chunk(0).buffers()[2]
    views = given["panel"].to_arrow(compat_level=pl.CompatLevel.newest())
    assert letters.address <= views.buffers()[2].address < letters.address + letters.size
    assert given["panel"].to_list() == table["panel"].to_pylist()


def test_a_long_answer_goes_to_polars_and_pandas_without_a_copy(small_root: str) -> None:
    table = results.query("SELECT results.value, i FROM results, range(10_000) AS t(i)", small_root)
    assert table["value"].num_chunks > 1
    given = table.to_pandas(types_mapper=pd.ArrowDtype)
    assert addresses(given["value"].array.__arrow_array__()) == addresses(table["value"])
    chunks = pl.DataFrame(pl.from_arrow(table))["value"].get_chunks()
    assert [chunk.to_arrow().buffers()[1].address for chunk in chunks] == addresses(table["value"])[1::2]


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
def inside(small_root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """In a folder with a file; afterwards nothing else is in it."""
    monkeypatch.chdir(tmp_path)
    Path("secret.csv").write_text("a\n4711\n")
    yield small_root
    assert sorted(os.listdir()) == ["runs", "secret.csv"]


# ------------------------------------------------------------------------------------- nothing but these tables


def test_sql_reads_and_writes_no_files_and_sets_nothing(inside: str) -> None:
    for statement in FORBIDDEN:
        with pytest.raises(results.QueryError) as error:
            results.query(statement, inside)
        assert "4711" not in str(error.value)
    connection = sql._connected(Store(inside), True)
    for statement in FORBIDDEN:  # a second lock: DuckDB would refuse them too
        with pytest.raises(duckdb.Error, match=r"disabled|locked|not found|does not exist|external"):
            connection.execute(statement).fetchall()


def test_only_queries_are_run(inside: str) -> None:
    for statement in NO_QUERIES:
        with pytest.raises(results.QueryError, match="only queries that read are allowed: SELECT"):
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
def test_all_kinds_of_queries_are_run(statement: str, small_root: str) -> None:
    assert results.query(statement, small_root).num_rows > 0


def test_variables_of_python_are_no_tables(small_root: str) -> None:
    mine = pa.table({"a": [1]})
    with pytest.raises(results.QueryError, match="Table with name mine does not exist"):
        results.query("FROM mine", small_root)
    with pytest.raises(duckdb.CatalogException, match="Table with name mine does not exist"):
        sql._connected(Store(small_root), True).sql("FROM mine")  # from here, where the variable is
    assert len(mine) == 1


@pytest.mark.parametrize(
    ("statement", "says"),
    [
        ("SELEC 1", r'Parser Error: syntax error at or near "selec"'),
        ("SELECT x FROM results", 'Binder Error: Referenced column "x" not found in FROM clause!.*'),
        ("FROM nothing", "Catalog Error: Table with name nothing does not exist! There are results, means, runs, .*"),
        ("FROM fig3", ".*; figures are in their rows, as in WHERE figure = 'fig3'"),
        ("FROM layers", ".*; raysslprune analysis fig3 makes layers"),
        ("FROM overlap", ".*; raysslprune analysis fig3 makes overlap"),
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
    statement: str, says: str, small_root: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(results.QueryError) as error:
        results.query(statement, small_root)
    assert re.fullmatch(says, str(error.value), re.I), str(error.value)
    for form in ("csv", "parquet"):
        assert main([statement, "--root", small_root, "--format", form]) == 2
        shown = capfd.readouterr().err
        assert shown.startswith("raysslprune: ")
        assert shown.count("\n") == 1


def test_nothing_but_the_answer_goes_to_stdout(small_root: str) -> None:
    """However long it takes."""
    shown = results.query("SELECT current_setting('enable_progress_bar') AS bar", small_root)
    assert shown.to_pylist() == [{"bar": False}]


def test_the_machine_makes_no_difference(small_root: str) -> None:
    """Sums are added up in one order, and a day begins at the same moment everywhere."""
    settings = "SELECT current_setting('threads') AS threads, current_setting('TimeZone') AS zone"
    assert results.query(settings, small_root).to_pylist() == [{"threads": 1, "zone": "UTC"}]
