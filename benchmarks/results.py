"""The page docs/results.md: tables of a root are joined to those in docs/data, and page and pictures made from these.

Nothing is trained. The tables in docs/data have all seeds of a sweep; a seed is added once and stays as it is.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from benchmarks import page
from raysslprune import results
from raysslprune.messages import SCALE, UserError, sweep_command
from raysslprune.paper.scales import given
from raysslprune.results.sql import files
from raysslprune.results.tables import KEYS
from raysslprune.store.steps import Store
from raysslprune.sweep_loader import Sweep, known, load
from raysslprune.sweepfile import Magnitudes, Point, Search

DOCS = Path(__file__).parent.parent / "docs"

Row = dict[str, Any]
Place = tuple[Any, ...]
"""Key of a row in a sweep's table: its values in the columns KEYS, and its seed."""


def arguments(parser: argparse.ArgumentParser) -> None:
    add = "first add the seeds of the result tables in this root to docs/data"
    parser.add_argument("--add", metavar="ROOT", help=add)
    scale = "scale of the tables to add (default: %(default)s)"
    parser.add_argument("--scale", default=SCALE, choices=list(page.SCALES), help=scale)


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Add the tables of a root, if one is given, and write the page. Returns what happened to each file."""
    (scale,) = (scale for scale in page.SCALES if scale == options.scale)
    added = add(options.add, scale, DOCS / "data") if options.add else {}
    return added | page.write(DOCS)


def add(root: str, scale: str, data: Path) -> dict[str, str]:
    """Merge a root's tables at a scale into those in ``data``: all of them, or none if one is refused.

    Returns what happened to each file. Raises UserError if a table does not fit, StoreError if the root has none.
    """
    store = Store(root)
    have = {name for at, name in files(store) if at == scale}
    source = f"{store.shown}/results/{scale}"
    joined: dict[Path, pa.Table] = {}
    for name in known():
        if name not in have or "seed" not in (new := results.load(name, root, scale)).schema.names:
            continue
        path = data / scale / f"{name}.parquet"
        old = page.read(path)
        seeds = {row["seed"] for table in filter(None, (old, new)) for row in table.to_pylist()}
        sweep = only(load(name, scale, 1 + max(seeds)), seeds)
        joined[path] = join(sweep, old, with_origin(new, results.load(f"{name}-runs", root, scale)), source)
        if isinstance(sweep.drawing, Magnitudes):
            lines, both = path.with_stem(f"{name}-magnitudes"), results.load(f"{name}-magnitudes", root, scale)
            joined[lines] = join_magnitudes(name, page.read(lines), both, source)
    if not joined:
        command = sweep_command("all", given(scale), store.shown)
        raise UserError(f"{source} has no table of a sweep that trains; to make some, run: {command}")
    others = {path: page.read(path) for path in (data / scale).glob("*.parquet")}
    _check_agreement(
        [table for table in (others | joined).values() if table is not None and "step" in table.schema.names]
    )
    return {f"{scale}/{path.name}": _write(path, table) for path, table in joined.items()}


def only(sweep: Sweep, seeds: set[int]) -> Sweep:
    """Return the sweep with the points of these seeds only."""
    return replace(sweep, points=tuple(point for point in sweep.points if point.seed in seeds))


def with_origin(table: pa.Table, runs: pa.Table) -> pa.Table:
    """Add the columns of :data:`page.COLUMNS` to results: when and with what each row's training ran."""
    origin = {row["step"]: row for row in runs.to_pylist()}
    rows = table.to_pylist()
    for row in rows:
        run = origin[row["step"]]
        row |= {name: run[name] for name in (*page.VERSIONS, "device")} | {"date": run["begun"].date(), "tried": None}
    return pa.Table.from_pylist(rows, schema=page.COLUMNS)


def join(sweep: Sweep, old: pa.Table | None, new: pa.Table, source: str) -> pa.Table:
    """Merge the rows of both tables in the order of the sweep's points; a point that both have keeps its old row.

    Raises UserError if a row's step is not that of the sweep's point, if a seed lacks points (of a search: those by
    which it chose), or if the tables differ in a point.
    """
    rows: dict[Place, Row] = {}
    steps = {_place_of(point): point.step for point in sweep.points}
    parts = (("docs/data", old), (source, new))
    for where, row in ((where, row) for where, table in parts if table for row in table.to_pylist()):
        place = _place(row)
        if place not in steps or steps[place].id != row["step"]:
            now = f"step {steps[place].id}" if place in steps else "no such point"
            raise UserError(f"{_named(row)} is step {row['step']} in {where} and {now} in sweeps/; nothing was added")
        row |= page.of_this_design(steps[place])  # a table of an earlier design lacks these columns
        before = rows.setdefault(place, row)
        if differ := [name for name in results.SCHEMA.names if before[name] != row[name]]:
            name = differ[0]
            raise UserError(
                f"{_named(row)} has {name} {row[name]} in {source} and {before[name]} in docs/data; nothing was added"
            )
    if not isinstance(sweep.drawing, Search):
        _check_complete(sweep, rows, source)
    ordered = [rows[place] for place in steps if place in rows]
    if isinstance(sweep.drawing, Search):
        mark_tried(sweep, ordered, source)
    return pa.Table.from_pylist(ordered, schema=page.COLUMNS)


def _check_complete(sweep: Sweep, rows: Mapping[Place, Row], source: str) -> None:
    for seed in dict.fromkeys(point.seed for point in sweep.points):
        points = [point for point in sweep.points if point.seed == seed]
        if missing := [point for point in points if _place_of(point) not in rows]:
            first = f"{missing[0].curve}, level {missing[0].level}"
            raise UserError(
                f"{sweep.name}, seed {seed}: {len(missing)} of {len(points)} points are missing in {source}, "
                f"such as {first}; run the sweep to its end; nothing was added"
            )


def mark_tried(sweep: Sweep, rows: Sequence[Row], source: str) -> None:
    """Set ``tried`` of each row: whether its rewind is a finalist. The same values give the same choices."""
    from raysslprune.plan.search import Study, grid  # imports Optuna, which takes a second

    assert isinstance(sweep.drawing, Search)
    values = {(row["step"], row["metric"]): row["value"] for row in rows}
    tried: set[tuple[str, int, int]] = set()
    for key, candidates in grid(p for p in sweep.points if p.metric == sweep.drawing.objective).items():

        def look(rewind: int, seed: int, points: Mapping[int, Sequence[Point]] = candidates) -> float | None:
            point = points[rewind][seed]
            return values.get((point.step.id, point.metric))

        study = Study("", list(candidates), len(next(iter(candidates.values()))))
        study.advance(look)
        if study.awaited:
            rewind, seed = study.awaited[0]
            raise UserError(
                f"{sweep.name}: the choice for {key[0]}, level {key[1]}, needs seed {candidates[rewind][seed].seed} of "
                f"rewind {rewind}, which {source} does not have; run the sweep to its end; nothing was added"
            )
        tried |= {(*key, rewind) for rewind in study.values}
    for row in rows:
        row["tried"] = (row["task"], row["level"], row["rewind"]) in tried


def join_magnitudes(name: str, old: pa.Table | None, new: pa.Table, source: str) -> pa.Table:
    """Merge the sorted magnitudes of both tables, by seed. Raises UserError if they differ within a seed."""
    found: dict[int, list[Row]] = {}
    for seed, rows in ((seed, rows) for table in (old, new) if table for seed, rows in _by_seed(table).items()):
        if found.setdefault(seed, rows) != rows:
            raise UserError(
                f"{name}, seed {seed} has other magnitudes in {source} than in docs/data; nothing was added"
            )
    return pa.Table.from_pylist([row for seed in sorted(found) for row in found[seed]], schema=results.MAGNITUDES)


def _by_seed(table: pa.Table) -> dict[int, list[Row]]:
    found: dict[int, list[Row]] = {}
    for row in table.to_pylist():
        found.setdefault(row["seed"], []).append(row)
    return found


def _check_agreement(tables: Sequence[pa.Table]) -> None:
    """Raise UserError if two sweeps have different values for one training, so come from different runs."""
    values: dict[tuple[str, str], Row] = {}
    for row in (row for table in tables for row in table.to_pylist()):
        first = values.setdefault((row["step"], row["metric"]), row)
        if first["value"] != row["value"]:
            raise UserError(
                f"{_named(row)} has the value {row['value']}, and the same training has {first['value']} in "
                f"{first['figure']}: the tables come from different runs; nothing was added"
            )


def _place(row: Row) -> Place:
    return (*(row[name] for name in KEYS), row["seed"])


def _place_of(point: Point) -> Place:
    return (point.panel, point.task, point.init, point.level, point.step.rewind, point.metric, point.seed)


def _named(row: Row) -> str:
    parts = [row["panel"], f"{row['task']} {row['init']}", f"level {row['level']}", row["metric"]]
    rewind = [] if row["rewind"] is None else [f"rewound to {row['rewind']}"]
    return f"{row['figure']}, seed {row['seed']}: {', '.join(filter(None, [*parts, *rewind]))}"


def _write(path: Path, table: pa.Table) -> str:
    """Write a table, unless the file has it already. Returns whether it did, and the seeds, in words."""
    old = page.read(path)
    seeds = sorted(_by_seed(table))
    if old is not None and old.equals(table):
        return f"unchanged, seeds {', '.join(map(str, seeds))}"
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_bytes(results.to_parquet(table))
    os.replace(part, path)
    return f"written, seeds {', '.join(map(str, seeds))}"
