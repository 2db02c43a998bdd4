"""SQL over the tables of a root, by DuckDB on Arrow tables in memory.

DuckDB has access to the root's tables only: to no file, network, extension or Python variable. pyarrow reads the root,
also on s3://, and nothing is written to disk.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import fs

from raysslprune.messages import USAGE, UserError, note, sweep_command
from raysslprune.results.claims import CLAIMS
from raysslprune.results.steps import STEPS, is_steps, joined
from raysslprune.results.tables import (
    DESIGN,
    EARLIER_DESIGN,
    MAGNITUDES,
    MEANS,
    PROVENANCE,
    SCHEMA,
    column,
    from_parquet,
    means,
)
from raysslprune.store.record import StoreError
from raysslprune.store.steps import Store

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection, Statement

LABELS = (SCHEMA.field("figure"), SCHEMA.field("scale"))
RUNS = pa.schema(
    [
        SCHEMA.field("scale"),
        column("figures", pa.list_(pa.string()), "those that it is behind", nullable=True),
        *PROVENANCE,
    ]
)
EVERYTHING = pa.schema([*SCHEMA, *(field.with_nullable(True) for field in RUNS if field.name not in SCHEMA.names)])

VIEWS: Mapping[str, tuple[str, pa.Schema]] = {
    "results": ("a row for each point of each figure at each scale", SCHEMA),
    "means": ("the same over seeds", MEANS),
    "runs": ("a row for each training of a scale, however many figures share it", RUNS),
    "steps": ("a row for each training and mask behind the results; also option_NAME for each option of a task", STEPS),
    "everything": ("results, with what runs says of each row's training", EVERYTHING),
    "claims": ("a row for each claim of each figure in each panel, with its verdict", pa.schema([*LABELS, *CLAIMS])),
    "magnitudes": ("sorted weights, of the figures that draw them", pa.schema([*LABELS, *MAGNITUDES])),
}
"""The tables of SQL: name to description and columns; ``steps`` has more. Other tables of a figure, such as
``fig3-layers``, are named by the end of the file's name, ``layers``."""

OF_MASKS = ("layers", "overlap")
"""Tables that ``raysslprune analysis`` makes."""

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
    "temp_directory": "",  # a query that does not fit into memory fails instead of writing to disk
    "threads": 1,  # so that sums are added in one order and do not vary
}
READS = ("SELECT", "EXPLAIN", "MULTI")
"""DuckDB's types of the statements that are run. FROM, WITH, VALUES, DESCRIBE, SUMMARIZE and SHOW are of type SELECT,
PIVOT is of type MULTI."""

BATCH = 1 << 16
"""Rows in a batch of an answer."""


class QueryError(UserError, ValueError):
    """A query can't be answered."""

    code = USAGE


def load(name: str, root: str | os.PathLike[str] = "runs", scale: str = "laptop") -> pa.Table:
    """Return a sweep's table by its file's name, such as ``fig3``, ``fig3-runs`` or ``table1``.

    Raises FileNotFoundError if the root has other tables only, StoreError if it has none or can't be read.
    """
    store = Store(root)
    paths = files(store)
    if (scale, name) not in paths:
        raise FileNotFoundError(f"there is no {name} of scale {scale} in {store.shown}, only {_named(paths)}")
    return _read(store, paths[scale, name])


def query(sql: str, root: str | os.PathLike[str] = "runs") -> pa.Table:
    """Return the answer to one query over VIEWS. Raises QueryError and StoreError."""
    return ask(sql, root).read_all()


def contents(root: str | os.PathLike[str], but: Container[tuple[str, str]] = ()) -> str:
    """Return the names of a root's tables, as text for people: ``fig3, fig5 (laptop)``. Raises StoreError.

    but: (figure, scale) of those to leave out.
    """
    beside = ("-runs", "-steps", "-claims", "-magnitudes")
    return _named(key for key in files(Store(root)) if not key[1].endswith(beside) and (key[1], key[0]) not in but)


def ask(sql: str, root: str | os.PathLike[str]) -> pa.RecordBatchReader:
    """Answer one query as :func:`query` does, but batch by batch, so that an answer of any length needs little memory.

    The rows are computed while the reader is read, which raises QueryError too.
    """
    import duckdb

    connection = _connected(Store(root), with_steps=re.search(r"\bsteps\b", sql, re.IGNORECASE) is not None)
    # DuckDB ignores Ctrl-C while it streams, so it runs in a thread, and this one waits and can interrupt it
    pool = ThreadPoolExecutor(1)

    def call(function: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return pool.submit(function, *arguments).result()
        except (duckdb.Error, pa.ArrowException, OSError) as error:  # OSError: an error in the middle of a stream
            raise QueryError(_sentence(error)) from None
        except BaseException:
            connection.interrupt()
            raise

    statement = call(_statement, connection, sql)
    answer = call(lambda: connection.sql(statement).to_arrow_reader(BATCH))
    if twice := [name for name in answer.schema.names if answer.schema.names.count(name) > 1]:
        raise QueryError(f"two columns of the answer are called {twice[0]}; name one of them with AS")
    return pa.RecordBatchReader.from_batches(answer.schema, iter(lambda: call(next, answer, None), None))


def _statement(connection: DuckDBPyConnection, sql: str) -> Statement:
    """Parse the text, which must be one query that only reads."""
    statements = connection.extract_statements(sql)
    if not statements:
        raise QueryError("there is no query")
    if len(statements) != 1:
        raise QueryError(f"one query at a time, not {len(statements)}")
    if statements[0].type.name not in READS:
        raise QueryError("only queries that read are allowed: SELECT, FROM, WITH, PIVOT, DESCRIBE, SUMMARIZE, EXPLAIN")
    return statements[0]


def _sentence(error: Exception) -> str:
    """Turn DuckDB's message into one sentence: drop its picture of the position, and add a hint."""
    says = str(error).split("\n\n")[0]
    if table := re.search(r"Table with name (\S+) does not exist", says):
        near = difflib.get_close_matches(table[1], [*VIEWS, *OF_MASKS], 1)
        hint = f"did you mean {near[0]}?" if near else f"figures are in their rows, as in WHERE figure = '{table[1]}'"
        if near and near[0] in OF_MASKS:
            hint = f"raysslprune analysis fig3 makes {near[0]}"
        says = f"{says.splitlines()[0]} There are {', '.join(VIEWS)}; {hint}"
    elif column := re.search(r'Referenced column "(.+?)" not found', says):
        known = {name for _, schema in VIEWS.values() for name in schema.names}
        if column[1] == "figure":
            says += "; a run is behind several: list_contains(figures, 'fig3')"
        elif not difflib.get_close_matches(column[1], known, 1, cutoff=0.7):  # at 0.6, fig3 matches figure
            text = column[1].strip("\u2018\u2019")
            says += f"; text is written in single quotes, '{text}', and then the whole query in double quotes"
    return " ".join(says.split())


# ------------------------------------------------------------------ the tables


def _connected(store: Store, with_steps: bool) -> DuckDBPyConnection:
    """Return a DuckDB that has the tables of a root, and access to nothing else."""
    import duckdb

    connection = duckdb.connect(config=LOCKED)
    connection.execute("SET enable_progress_bar = false")  # it would go to stdout
    for name, table in _tables(store, with_steps).items():
        connection.register(name, table)
    connection.execute(JOIN)
    connection.execute("SET TimeZone = 'UTC'")
    connection.execute("SET lock_configuration = true")
    return connection


_SCHEMAS = {"results": SCHEMA, "runs": PROVENANCE, "claims": CLAIMS, "magnitudes": MAGNITUDES}
"""Columns by which files of these views are recognised."""


def _tables(store: Store, with_steps: bool) -> dict[str, pa.Table]:
    """Read all tables of all figures and scales, and join those of one view; ``everything`` is a view over these.

    with_steps: False leaves the view ``steps`` empty, since its tables are as large as all others together.
    """
    paths = {(scale, name): path for (scale, name), path in files(store).items() if with_steps or not _of_steps(name)}
    with ThreadPoolExecutor(16) as pool:
        tables = dict(zip(paths, pool.map(lambda path: _read(store, path), paths.values()), strict=True))
    tables = {key: _with_warning(table) for key, table in tables.items()}
    steps = [tables.pop(key) for key in [key for key in tables if is_steps(tables[key].schema)]]
    figures = [name for (_, name), table in tables.items() if table.schema.equals(SCHEMA)]
    found = {view: [_labelled(schema.empty_table(), "", "")] for view, schema in _SCHEMAS.items()}
    for (scale, name), table in tables.items():
        view, figure = _view(name, table.schema, figures)
        path = store.path(paths[scale, name])
        labels = zip(table["figure"].to_pylist(), table["scale"].to_pylist(), strict=True) if view == "results" else ()
        if {*labels} - {(name, scale)}:
            raise StoreError(f"{path} contains rows of another figure or scale; delete it, or run its own sweep again")
        if view not in _SCHEMAS and (view in VIEWS or "step" in table.schema.names):
            raise StoreError(f"{path} was written by another version of raysslprune; delete it, or run its sweep again")
        found.setdefault(view, []).append(_labelled(table, figure, scale))
    whole = {view: pa.concat_tables(parts, promote_options="permissive") for view, parts in found.items()}
    earlier = whole["results"].filter(pc.field("design") < DESIGN).select(["scale", "figure"]).to_pylist()
    if tables_of := dict.fromkeys((row["scale"], row["figure"]) for row in earlier):
        note(
            f"design = 1 marks the rows of {_named(tables_of)}: these may be of {EARLIER_DESIGN}; run its sweep again "
            "to make them anew"
        )
    whole |= {"means": means(whole["results"]), "runs": _once(whole["runs"])}
    return whole | {"steps": joined([STEPS.empty_table(), *steps])}


def _with_warning(table: pa.Table) -> pa.Table:
    """Add the last column of CLAIMS to a table of claims that lacks it, as of development versions; keep others."""
    if not table.schema.equals(pa.schema([*CLAIMS][:-1])):
        return table
    return table.append_column(CLAIMS.field("warning"), pa.repeat("", len(table)))


def _of_steps(name: str) -> bool:
    return name.endswith("-steps")


def _view(name: str, schema: pa.Schema, figures: Sequence[str]) -> tuple[str, str]:
    """Return the view to which a file's rows belong, and their figure: ``layers``, ``fig3`` for ``fig3-layers``."""
    for view, known in _SCHEMAS.items():
        if schema.equals(known):
            return view, name.removesuffix(f"-{view}")
    figure = max((figure for figure in figures if name.startswith(f"{figure}-")), key=len, default=None)
    return (name, name) if figure is None else (name[len(figure) + 1 :], figure)


def _labelled(table: pa.Table, figure: str, scale: str) -> pa.Table:
    """Add the columns ``figure`` and ``scale`` to a table that lacks them."""
    if "figure" in table.schema.names:
        return table
    labels = [pa.repeat(value, len(table)) for value in (figure, scale)]
    return pa.Table.from_arrays([*labels, *table.columns], schema=pa.schema([*LABELS, *table.schema]))


def _once(runs: pa.Table) -> pa.Table:
    """Keep one row for each training of a scale, in order of time: its last run, with all its figures."""
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


def rows_of_others(store: Store, own: Container[tuple[str, str, int]]) -> dict[tuple[str, str], set[str]]:
    """Return the steps in the rows of all tables of results, by scale and figure.

    own: (scale, figure, seed) of rows to leave out. Raises StoreError for a table that can't be read.
    """
    found: dict[tuple[str, str], set[str]] = {}
    for path in _files(store).values():
        table = _read(store, path)
        if {"scale", "figure", "seed", "step"} <= {*table.schema.names}:  # a table of any version of the package
            columns = (table[name].to_pylist() for name in ("scale", "figure", "seed", "step"))
            for scale, figure, seed, step in zip(*columns, strict=True):
                if (scale, figure, seed) not in own:
                    found.setdefault((scale, figure), set()).add(step)
    return found


def files(store: Store) -> dict[tuple[str, str], str]:
    """Map (scale, name) to the path of each table under a root, sorted. Raises StoreError if there is none."""
    paths = _files(store)
    if not paths:
        gone = ", which does not exist" if store.local and not os.path.isdir(store.base) else ""
        command = sweep_command("fig3", root=store.root)
        raise StoreError(f"there are no results in {store.shown}{gone}; this makes some: {command}")
    return paths


def _files(store: Store) -> dict[tuple[str, str], str]:
    try:
        folder = fs.FileSelector(f"{store.base}/results", recursive=True, allow_not_found=True)
        found = [info.path for info in store.fs.get_file_info(folder) if info.path.endswith(".parquet")]
    except OSError as error:
        raise StoreError(f"can't read {store.shown}: {error}") from None
    parts = [path.removesuffix(".parquet").split("/")[-3:] for path in found]
    paths = {(scale, name): f"results/{scale}/{name}.parquet" for top, scale, name in parts if top == "results"}
    return dict(sorted(paths.items()))


def _read(store: Store, path: str) -> pa.Table:
    try:
        return from_parquet(store.read(path))
    except (OSError, pa.ArrowException) as error:
        raise StoreError(
            f"can't read {store.path(path)}: {str(error).splitlines()[0]}; run its sweep again to rebuild it"
        ) from None


def _named(keys: Iterable[tuple[str, str]]) -> str:
    """Return the names of tables by scale, as text: ``fig3, fig5 (laptop); fig3 (smoke)``."""
    scales: dict[str, list[str]] = {}
    for scale, name in keys:
        scales.setdefault(scale, []).append(name)
    return "; ".join(f"{', '.join(names)} ({scale})" for scale, names in scales.items())
