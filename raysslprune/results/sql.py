"""SQL over the tables of a root, by DuckDB on Arrow tables in memory.

DuckDB sees the tables of VIEWS and nothing else: no file, no network, no extension, no Python variable. A root on s3://
is read through pyarrow, and nothing is written to disk.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from pyarrow import fs

from raysslprune.messages import sweep_command
from raysslprune.results.tables import MAGNITUDES, MEANS, PROVENANCE, SCHEMA, from_parquet, means
from raysslprune.store.record import StoreError
from raysslprune.store.steps import Store

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection, Statement

LABELS = (SCHEMA.field("figure"), SCHEMA.field("scale"))
RUNS = pa.schema(
    [
        SCHEMA.field("scale"),
        pa.field("figures", pa.list_(pa.string()), metadata={"about": "those that it is behind"}),
        *PROVENANCE,
    ]
)
EVERYTHING = pa.schema([*SCHEMA, *(field.with_nullable(True) for field in RUNS if field.name not in SCHEMA.names)])

VIEWS: Mapping[str, tuple[str, pa.Schema]] = {
    "results": ("a row for each point of each figure at each scale", SCHEMA),
    "means": ("the same over seeds", MEANS),
    "runs": ("a row for each training of a scale, however many figures share it", RUNS),
    "everything": ("results, with what runs says of each row's training", EVERYTHING),
    "magnitudes": ("sorted weights, of the figures that draw them", pa.schema([*LABELS, *MAGNITUDES])),
}
"""What there is to ask: by name, what it holds and its columns. Other tables in the folder of a figure, as
``fig3-layers``, are there by the end of their names, as ``layers``."""

OF_MASKS = ("layers", "overlap")
"""Tables that the analysis makes."""

JOIN = f"""
CREATE TEMP VIEW everything AS
SELECT results.*, runs.* EXCLUDE ({", ".join(name for name in RUNS.names if name in SCHEMA.names)})
FROM results LEFT JOIN runs USING (scale, step)
"""

LOCKED = {
    "enable_external_access": False,
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
    "python_enable_replacements": False,  # or SQL could name this process's variables
    "temp_directory": "",  # what does not fit into memory fails, rather than go to the disk
    "threads": 1,  # so that sums are added up in one order, and are the same each time
}
READS = ("SELECT", "EXPLAIN", "MULTI")
"""Kinds of statements that are run, in DuckDB's words: FROM, WITH, VALUES, DESCRIBE, SUMMARIZE and SHOW are SELECT too,
and PIVOT is MULTI."""

BATCH = 1 << 16
"""Rows that are fetched at once."""


class QueryError(ValueError):
    """A query can't be answered. The message is a sentence for the user."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """The rows of a query, computed while ``batches`` is iterated, which raises QueryError too."""

    schema: pa.Schema
    batches: Iterator[pa.RecordBatch]


def load(name: str, root: str | os.PathLike[str] = "runs", scale: str = "laptop") -> pa.Table:
    """A sweep's table by its file's name, as ``fig3``, ``fig3-runs`` or ``table1``.

    Raises FileNotFoundError where the root has others only, and StoreError where it has none, or can't be read.
    """
    store = Store(root)
    paths = files(store)
    if (scale, name) not in paths:
        raise FileNotFoundError(f"there is no {name} of scale {scale} in {store.shown}, only {_named(paths)}")
    return _read(store, paths[scale, name])


def query(sql: str, root: str | os.PathLike[str] = "runs") -> pa.Table:
    """The answer to one query over VIEWS. Raises QueryError and StoreError."""
    answer = ask(sql, root)
    return pa.Table.from_batches(list(answer.batches), answer.schema)


def contents(root: str | os.PathLike[str]) -> str:
    """The tables that a root has, for people: ``fig3, fig5 (laptop)``. Raises StoreError."""
    paths = files(Store(root))
    return _named([key for key in paths if not key[1].endswith(("-runs", "-magnitudes"))])


def ask(sql: str, root: str | os.PathLike[str]) -> Answer:
    """:func:`query`, batch by batch, so that an answer of any length needs little memory."""
    import duckdb

    connection = _connected(Store(root))
    # While DuckDB streams it does not look for Ctrl-C: so it works in a thread, and this one waits, and can tell it
    pool = ThreadPoolExecutor(1)

    def call(function: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return pool.submit(function, *arguments).result()
        except (duckdb.Error, pa.ArrowException, OSError) as error:  # OSError: a fault in the midst of a stream
            raise QueryError(_sentence(error)) from None
        except BaseException:
            connection.interrupt()
            raise

    statement = call(_statement, connection, sql)
    reader = call(lambda: connection.sql(statement).to_arrow_reader(BATCH))
    if twice := [name for name in reader.schema.names if reader.schema.names.count(name) > 1]:
        raise QueryError(f"two columns of the answer are called {twice[0]}; name one of them with AS")

    def batches() -> Iterator[pa.RecordBatch]:
        while (batch := call(next, reader, None)) is not None:
            yield batch

    return Answer(schema=reader.schema, batches=batches())


def _statement(connection: DuckDBPyConnection, sql: str) -> Statement:
    """The one query in the text, which only reads."""
    statements = connection.extract_statements(sql)
    if not statements:
        raise QueryError("there is no query")
    if len(statements) != 1:
        raise QueryError(f"one query at a time, not {len(statements)}")
    if statements[0].type.name not in READS:
        raise QueryError("only what reads is run here: SELECT, FROM, WITH, PIVOT, DESCRIBE, SUMMARIZE, EXPLAIN")
    return statements[0]


def _sentence(error: Exception) -> str:
    """What DuckDB says, without the picture of where in the query, and its guess at what was meant."""
    says = str(error).split("\n\n")[0]
    if table := re.search(r"Table with name (\S+) does not exist", says):
        near = difflib.get_close_matches(table[1], [*VIEWS, *OF_MASKS], 1)
        hint = f"did you mean {near[0]}?" if near else f"figures are in their rows, as in WHERE figure = '{table[1]}'"
        if near and near[0] in OF_MASKS:
            hint = f"{near[0]} is there when raysslprune analysis fig3 has made it"
        says = f"{says.splitlines()[0]} There are {', '.join(VIEWS)}; {hint}"
    elif column := re.search(r'Referenced column "(.+?)" not found', says):
        known = {name for _, schema in VIEWS.values() for name in schema.names}
        if column[1] == "figure":
            says += "; a run is behind several: list_contains(figures, 'fig3')"
        elif not difflib.get_close_matches(column[1], known, 1, cutoff=0.7):  # fig3 is no misprint of figure
            text = column[1].strip("\u2018\u2019")
            says += f"; text is written in single quotes, '{text}', and then the whole query in double quotes"
    return " ".join(says.split())


# ------------------------------------------------------------------ the tables


def _connected(store: Store) -> DuckDBPyConnection:
    """A DuckDB that knows the tables of a root and nothing else."""
    import duckdb

    connection = duckdb.connect(config=LOCKED)
    for name, table in _tables(store).items():
        connection.register(name, table)
    connection.execute(JOIN)
    connection.execute("SET TimeZone = 'UTC'")
    connection.execute("SET enable_progress_bar = false")  # of a query of seconds, which would go to stdout
    connection.execute("SET lock_configuration = true")
    return connection


def _tables(store: Store) -> dict[str, pa.Table]:
    """All but ``everything``, of all figures and scales."""
    paths = files(store)
    with ThreadPoolExecutor(16) as pool:
        tables = dict(zip(paths, pool.map(lambda path: _read(store, path), paths.values()), strict=True))
    figures = [name for (_, name), table in tables.items() if table.schema.equals(SCHEMA)]
    found = {kind: [_labelled(schema.empty_table(), "", "")] for kind, schema in _SCHEMAS.items()}
    for (scale, name), table in tables.items():
        kind, figure = _kind(name, table.schema, figures)
        if kind == "results" and not _labels(table) <= {(name, scale)}:
            path = store.path(paths[scale, name])
            raise StoreError(f"{path} is the table of another figure or scale; its sweep, run again, writes it anew")
        if kind not in _SCHEMAS and (kind in VIEWS or "step" in table.schema.names):
            raise StoreError(
                f"{store.path(paths[scale, name])} is of another version of raysslprune; "
                "run its sweep again, which writes it anew, or delete it"
            )
        found.setdefault(kind, []).append(_labelled(table, figure, scale))
    whole = {kind: pa.concat_tables(parts, promote_options="permissive") for kind, parts in found.items()}
    return {**whole, "means": means(whole["results"]), "runs": _once(whole["runs"])}


_SCHEMAS = {"results": SCHEMA, "runs": PROVENANCE, "magnitudes": MAGNITUDES}


def _kind(name: str, schema: pa.Schema, figures: Sequence[str]) -> tuple[str, str]:
    """The view that a file's rows are of, and their figure: of ``fig3-layers`` these are ``layers`` and ``fig3``."""
    for kind, known in _SCHEMAS.items():
        if schema.equals(known):
            return kind, name.removesuffix(f"-{kind}")
    figure = max((figure for figure in figures if name.startswith(f"{figure}-")), key=len, default=None)
    return (name, name) if figure is None else (name[len(figure) + 1 :], figure)


def _labels(table: pa.Table) -> set[tuple[str, str]]:
    """What figures and scales a table of results says that its rows are of."""
    return {(row["figure"], row["scale"]) for row in table.select(["figure", "scale"]).to_pylist()}


def _labelled(table: pa.Table, figure: str, scale: str) -> pa.Table:
    """With the columns ``figure`` and ``scale``."""
    if "figure" in table.schema.names:
        return table
    labels = [pa.repeat(value, len(table)) for value in (figure, scale)]
    return pa.Table.from_arrays([*labels, *table.columns], schema=pa.schema([*LABELS, *table.schema]))


def _once(runs: pa.Table) -> pa.Table:
    """One row for each training of a scale, with all its figures; of runs that differ the last. In order of time."""
    rest = [name for name in PROVENANCE.names if name != "step"]
    grouped = (
        runs.sort_by("begun")
        .group_by(["scale", "step"], use_threads=False)
        .aggregate([("figure", "distinct"), *((name, "last") for name in rest)])
    )
    figures = [sorted(names) for names in grouped["figure_distinct"].to_pylist()]
    columns = [grouped["scale"], figures, grouped["step"], *(grouped[f"{name}_last"] for name in rest)]
    return pa.table(columns, schema=RUNS)


# ------------------------------------------------------------------ the files


def files(store: Store) -> dict[tuple[str, str], str]:
    """Scale and name to path of the tables under a root, sorted. Raises StoreError where there is none."""
    try:
        folder = fs.FileSelector(f"{store.base}/results", recursive=True, allow_not_found=True)
        found = [info.path for info in store.fs.get_file_info(folder) if info.path.endswith(".parquet")]
    except OSError as error:
        raise StoreError(f"can't read {store.shown}: {error}") from None
    paths: dict[tuple[str, str], str] = {}
    for path in found:
        top, scale, file = path.split("/")[-3:]
        if top == "results":
            paths[scale, file.removesuffix(".parquet")] = f"{top}/{scale}/{file}"
    if not paths:
        gone = ", which does not exist" if store.local and not os.path.isdir(store.base) else ""
        command = sweep_command("fig3", root=store.root)
        raise StoreError(f"there are no results in {store.shown}{gone}; this makes some: {command}")
    return dict(sorted(paths.items()))


def _read(store: Store, path: str) -> pa.Table:
    try:
        return from_parquet(store.read(path))
    except (OSError, pa.ArrowException) as error:
        raise StoreError(
            f"can't read {store.path(path)}: {str(error).splitlines()[0]}; its sweep, run again, writes it anew"
        ) from None


def _named(keys: Iterable[tuple[str, str]]) -> str:
    """``fig3, fig5 (laptop); fig3 (smoke)``."""
    scales: dict[str, list[str]] = {}
    for scale, name in keys:
        scales.setdefault(scale, []).append(name)
    return "; ".join(f"{', '.join(names)} ({scale})" for scale, names in scales.items())
