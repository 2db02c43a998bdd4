"""What a report shows: figures, verdicts, tables, and where every number comes from.

It is taken from the store, and nothing is trained. No HTML here: ``page`` makes that.
"""

from __future__ import annotations

import re
import shlex
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import pyarrow as pa

from raysslprune import present, results, words
from raysslprune.catalogue import shown_metrics
from raysslprune.messages import ROOT, SCALE, sweep_command
from raysslprune.paper.scales import SETTINGS
from raysslprune.plan.graph import make_plan
from raysslprune.plan.schedule import Schedule
from raysslprune.results import claims, sql
from raysslprune.spec import Step, Train, closure
from raysslprune.store.record import Damaged, Record, StoreError
from raysslprune.store.steps import Store
from raysslprune.sweep_loader import BESIDE, Sweep, SweepError, known, load
from raysslprune.sweepfile import Drawing, Figure, Listing, Magnitudes, Point, Search
from raysslprune.terminal.tables import listing_cells
from raysslprune.words import duration, size

ROWS = 1000
"""Of a table, at most: who wants more of a figure wants a query of its results file."""

STEPS = 10_000
"""At which steps' own parents are left out, so that a phone can open the page."""

VECTORS = 5_000
"""Points, at most, of a figure that is drawn as vectors: of more these would be larger than pixels."""

PLACES = 4
"""Hosts, or sets of versions, that are named; of more it is said how many."""

Note = Callable[[str], None]


class Link(NamedTuple):
    """A word that leads to a place on the page."""

    text: str
    to: str


class Cell(NamedTuple):
    """parts: what is shown. value: what a number is sorted by; None for words, and where there is none."""

    parts: tuple[str | Link, ...]
    value: float | None = None


class Row(NamedTuple):
    """anchor: the name of the place that links lead to, if any do."""

    cells: tuple[Cell, ...]
    anchor: str = ""


@dataclass(frozen=True, kw_only=True)
class Table:
    """note: below it, what is not in it and where that is."""

    caption: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    note: str = ""

    def is_number(self, column: int) -> bool:
        return any(row.cells[column].value is not None for row in self.rows)


@dataclass(frozen=True, kw_only=True)
class Section:
    """A sweep at a scale. facts: when, where, with which versions, and what it cost, as terms and what they are.

    picture: its MIME type and bytes; none where the table is all there is, or where ``no_picture``: it could not be
    drawn. points: that are in the store. missing: that should be, too.
    """

    anchor: str
    name: str
    scale: str
    title: str
    tables: tuple[Table, ...]
    picture: tuple[str, bytes] | None = None
    no_picture: bool = False
    alt: str = ""
    caption: str = ""
    verdicts: tuple[claims.Verdict, ...] = ()
    seeds: int = 0
    points: int = 0
    missing: int = 0
    steps: tuple[Step, ...] = ()
    facts: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Report:
    """root: as people are told. facts: of all sections together. steps, recipes, runs: behind the sections' points."""

    root: str
    sections: tuple[Section, ...]
    overview: Table
    facts: tuple[tuple[str, str], ...]
    steps: Table
    recipes: Table
    runs: Table


def find(names: Sequence[str], scale: str | None, store: Store, note: Note) -> list[tuple[str, Sweep]]:
    """(scale, sweep) for each that has results in the store, with as many seeds as these.

    No names: all of the package that do. note: takes a sentence on what others do.

    Raises SweepError for a name that is unknown or has none, StoreError where nothing has or the store can't be read.
    """
    scales = [scale] if scale else list(SETTINGS)
    names = list(dict.fromkeys(names))
    stems = [Path(name).stem for name in names]
    if len(set(stems)) < len(stems):
        raise SweepError(f"two sweeps of one name have the same results: {', '.join(names)}")
    at = f" at scale {scale}" if scale else ""
    empty = store.is_new()
    found: list[tuple[str, Sweep]] = []
    for name in names or known():
        paths = {} if empty else {s: f"results/{s}/{Path(name).stem}.parquet" for s in scales}
        with_results = {s: path for s, path in paths.items() if store.has(path)}
        found += [(s, load(name, s, _seeds_in(store, path))) for s, path in with_results.items()]
        if names and not with_results:
            load(name, scales[0], 1)  # an unknown name is told first
            makes = sweep_command(name, scale or SCALE, store.shown)
            raise StoreError(f"{store.shown} has no results of {name}{at}; this makes them: {makes}")
    others = [] if names or empty else _of_ones_own(store, scales)
    if others and not found:
        raise StoreError(
            f"{store.shown} has no results of the package's sweeps{at}; those of your own are named by their files: "
            f"{_report_of(others, store)}"
        )
    if not found:
        makes = sweep_command("fig3", scale or SCALE, store.shown)
        raise StoreError(f"{store.shown} has no results{at}; this makes some: {makes}")
    if others:
        every = [*dict.fromkeys(sweep.name for _, sweep in found), *others]
        note(
            f"not included: {', '.join(others)}; to include {'it' if len(others) == 1 else 'them'}: "
            f"{_report_of(every, store)}"
        )
    return sorted(found, key=lambda one: list(SETTINGS).index(one[0]))


def _of_ones_own(store: Store, scales: Sequence[str]) -> list[str]:
    """The files of sweeps that are not of the package and have results, by their names."""
    names = [name for scale, name in sql.files(store) if scale in scales and name not in known()]
    return [f"{name}.py" for name in dict.fromkeys(names) if not name.endswith(BESIDE)]


def _report_of(sweeps: Sequence[str], store: Store) -> str:
    """The command, as it is typed."""
    root = ["--root", store.shown] if store.shown != ROOT else []
    return shlex.join(["raysslprune", "report", *sweeps, *root])


def _seeds_in(store: Store, path: str) -> int:
    """Of a results file. Raises StoreError."""
    try:
        table = results.from_parquet(store.read(path))
        return max(table["seed"].to_pylist()) + 1 if "seed" in table.column_names and len(table) else 1
    except (pa.ArrowException, OSError):
        raise StoreError(f"{store.path(path)} can't be read; the sweep's own command makes it again") from None


def gather(sweeps: Sequence[tuple[str, Sweep]], store: Store, note: Note) -> Report:
    """What the store has of these sweeps, each with its scale. note: takes a sentence on what is left out.

    Raises StoreError where the store can't be read.
    """
    behind = [tuple(closure(point.step for point in sweep.points)) for _, sweep in sweeps]
    records, damaged = store.survey(dict.fromkeys(step.id for steps in behind for step in steps))
    for damage in damaged:
        note(f"step {damage.step_id}: {damage.why}; left out, and the sweep's own command makes it again")
    sections: list[Section] = []
    shown: dict[Step, None] = {}
    for (scale, sweep), steps in zip(sweeps, behind, strict=True):
        others = {step for other in behind if other is not steps for step in other}
        section, of_rows = _section(sweep, scale, steps, records, others, store, note)
        sections.append(section)
        shown |= dict.fromkeys(of_rows)
    steps, recipes, runs = _steps(shown, sections, records)
    everything = dict.fromkeys(step for steps in behind for step in steps)
    return Report(
        root=store.shown,
        sections=tuple(sections),
        overview=_overview(sections, records),
        facts=_facts(everything, records) + _sharing([sweep for _, sweep in sweeps], records),
        steps=steps,
        recipes=recipes,
        runs=runs,
    )


def _section(
    sweep: Sweep,
    scale: str,
    steps: tuple[Step, ...],
    records: Mapping[str, Record],
    others: Collection[Step],
    store: Store,
    note: Note,
) -> tuple[Section, Sequence[Step]]:
    """And the steps of the points that its table shows. others: steps of the other sweeps."""
    common: dict[str, Any] = {
        "anchor": quote(f"{scale}-{sweep.name}"),
        "name": sweep.name,
        "scale": scale,
        "title": sweep.drawing.title,
    }
    if isinstance(sweep.drawing, Listing):
        return Section(**common, tables=(_listing(sweep.drawing, sweep.rows),)), []
    table = results.table(sweep.name, scale, sweep.points, records)
    if lacking := results.unmeasured(sweep.points, records):
        note(f"{sweep.name}: {lacking}")
    rows = table.to_pylist()
    means = results.summary(table).to_pylist()
    tried = _tried(sweep, scale, records, store, note) if isinstance(sweep.drawing, Search) else None
    done = [p for p in sweep.points if p.step.id in records and p.metric in records[p.step.id].metrics]
    alt, image = _figure(sweep, done, table, store, tried, note) if rows else ("", None)
    points = _points(sweep.name, scale, rows, records)
    section = Section(
        **common,
        tables=(_means(means, tried), points) if rows else (),
        picture=image,
        no_picture=bool(rows) and image is None,
        alt=alt,
        caption=_caption(rows, means),
        verdicts=tuple(claims.judge(sweep.claims, table)) if rows else (),
        seeds=len({row["seed"] for row in rows}),
        points=len(rows),
        missing=0 if tried is not None else len(sweep.points) - len(rows),
        steps=steps,
        facts=_facts(steps, records, others),
    )
    return section, [point.step for point in done[:ROWS]]


# ------------------------------------------------------------------------------------- figures


def _tried(
    sweep: Sweep, scale: str, records: Mapping[str, Record], store: Store, note: Note
) -> dict[tuple[str, int, int], float]:
    """What Optuna tried of a search, as its journal says and the store confirms."""
    from raysslprune.plan.search import Studies  # imports Optuna, which takes a second

    assert isinstance(sweep.drawing, Search)
    graph, nothing = make_plan(sweep.points), Schedule([], {})
    name = f"{sweep.name}-{scale}"
    return Studies(name, sweep.drawing.trials, sweep.points, graph, nothing, records, store, note).tried


def _figure(
    sweep: Sweep,
    points: Sequence[Point],
    table: pa.Table,
    store: Store,
    tried: Mapping[tuple[str, int, int], float] | None,
    note: Note,
) -> tuple[str, tuple[str, bytes] | None]:
    """The figure in words, and as an image; without one, and a note, where it can't be drawn."""
    drawn = table
    if isinstance(sweep.drawing, Magnitudes):
        try:
            drawn = results.magnitudes(points, store)
        except Damaged as damage:
            note(f"step {damage.step_id}: {damage.why}; the sweep's own command makes it again")
            return "", None
    kind, mime = ("png", "image/png") if len(table) > VECTORS else ("svg", "image/svg+xml")
    try:
        files = present.files(sweep.name, partial(present.draw, sweep, drawn, tried), kind)
    except present.NoPicture as fault:
        note(str(fault))
        return "", None
    return _in_words(sweep.drawing, points), (mime, files[f".{kind}"])


def _in_words(drawing: Drawing, points: Sequence[Point]) -> str:
    """For those who can't see the image."""
    from raysslprune.figures.style import METRICS  # imports Matplotlib, which takes a second

    shows = " and ".join(METRICS.get(metric, metric) for metric in dict.fromkeys(point.metric for point in points))
    if isinstance(drawing, Magnitudes):
        shows, over = "magnitudes", "the rank of the weight"
    elif isinstance(drawing, Search):
        over = "the rewind in samples seen"
    else:
        assert isinstance(drawing, Figure)
        over = f"{drawing.x} weights"
    curves = ", ".join(dict.fromkeys(f"{point.task} {point.init}" for point in points))
    return f"{drawing.title}: {shows} over {over}. Curves: {curves}. Their numbers are in the table of means."


def _caption(rows: Sequence[Mapping[str, Any]], means: Sequence[Mapping[str, Any]]) -> str:
    """What the figure shows: networks, data, how many seeds."""
    if not rows:
        return ""
    on = ", ".join(dict.fromkeys(f"{row['arch']} on {row['data']}" for row in rows))
    n = sorted({row["n"] for row in means})
    seeds = f"{n[0]} to {n[-1]} seeds" if len(n) > 1 else f"{n[0]} seeds" if n[0] > 1 else "one seed"
    return f"{on}; {seeds}."


# ------------------------------------------------------------------------------------- tables


def _words(text: str) -> Cell:
    return Cell((text,))


def _number(text: str, value: float | None) -> Cell:
    return Cell((text,), value)


def _whole(value: int) -> Cell:
    return _number(f"{value:,}", value)


def _kept(columns: Mapping[str, bool], cells: Iterable[Cell]) -> tuple[Cell, ...]:
    return tuple(cell for cell, kept in zip(cells, columns.values(), strict=True) if kept)


def _names(columns: Mapping[str, bool]) -> tuple[str, ...]:
    return tuple(name for name, kept in columns.items() if kept)


def _where_columns(rows: Sequence[Mapping[str, Any]]) -> dict[str, bool]:
    """The columns that say where in a figure a row stands, and whether they say anything."""
    several = {name: len({row[name] for row in rows} - {None}) > 1 for name in ("panel", "init", "rewind", "metric")}
    return {
        "panel": several["panel"],
        "task": True,
        "init": several["init"],
        "% pruned": True,
        "rewind": several["rewind"],
        "metric": several["metric"],
    }


def _where(row: Mapping[str, Any]) -> tuple[Cell, ...]:
    rewind = row["rewind"]
    pruned = "dense" if row["level"] == 0 else results.pruned_percent(row["density"])
    return (
        _words(row["panel"]),
        _words(row["task"]),
        _words(row["init"]),
        _number(pruned, 100 - 100 * row["density"]),
        _words("") if rewind is None else _whole(rewind),
        _words(row["metric"]),
    )


def _means(means: Sequence[Mapping[str, Any]], tried: Collection[tuple[str, int, int]] | None) -> Table:
    columns = _where_columns(means)
    emptied = any(row["collapsed_layers"] for row in means)
    more = {"mean ± s.e.": True, "n": True, "layers emptied": emptied, "Optuna": tried is not None}
    rows = []
    for row in means:
        digits = ".2g" if 0 < abs(row["mean"]) < 0.05 else ".1f"
        error = "" if row["stderr"] is None else f" ± {row['stderr']:{digits}}"
        was = (row["task"], row["level"], row["rewind"]) in (tried or ())
        cells = (
            *_where(row),
            _number(f"{row['mean']:{digits}}{error}", row["mean"]),
            _whole(row["n"]),
            _whole(row["collapsed_layers"]),
            _words("tried" if was else "not tried"),
        )
        rows.append(Row(_kept(columns | more, cells)))
    return _cut("Means over seeds, ± one standard error", _names(columns | more), rows)


def _points(name: str, scale: str, rows: Sequence[Mapping[str, Any]], records: Mapping[str, Record]) -> Table:
    """A row for each point, numbered as in the results file."""
    columns = {"row": True, **_where_columns(rows), "seed": True, "value": True, "seconds": True, "step": True}
    found = []
    for number, row in enumerate(rows[:ROWS]):
        seconds = records[row["step"]].facts.get("seconds")
        cells = (
            _whole(number),
            *_where(row),
            _whole(row["seed"]),
            _number(f"{row['value']:.6g}", row["value"]),
            _words("") if seconds is None else _number(f"{seconds:.3g}", seconds),
            Cell((Link(row["step"][:8], row["step"]),)),
        )
        found.append(Row(_kept(columns, cells)))
    counted = f"The first {ROWS:,} of {len(rows):,} rows" if len(rows) > ROWS else "Numbered as the rows"
    path = f"results/{scale}/{name}.parquet"
    return Table(
        caption=f"{len(rows):,} points", columns=_names(columns), rows=tuple(found), note=f"{counted} of {path}."
    )


def _listing(drawing: Listing, rows: Sequence[Sequence[Any]]) -> Table:
    def cell(text: str, value: Any) -> Cell:
        return _number(text, value) if isinstance(value, int | float) else _words(text)

    found = [Row(tuple(map(cell, listing_cells(row), row))) for row in rows]
    return _cut(drawing.title, drawing.columns, found)


def _cut(caption: str, columns: tuple[str, ...], rows: Sequence[Row]) -> Table:
    """A table of at most ROWS rows, which says so."""
    note = f"The first {ROWS:,} of {len(rows):,} rows." if len(rows) > ROWS else ""
    return Table(caption=caption, columns=columns, rows=tuple(rows[:ROWS]), note=note)


def _overview(sections: Sequence[Section], records: Mapping[str, Record]) -> Table:
    columns = {
        "figure": True,
        "shows": True,
        "scale": len({section.scale for section in sections}) > 1,
        "seeds": True,
        "points": True,
        "missing": any(section.missing for section in sections),
        **{word: any(v.verdict == word for section in sections for v in section.verdicts) for word in _VERDICTS},
        "trainings": True,
        "time": True,
    }
    rows = []
    for section in sections:
        verdicts = [verdict.verdict for verdict in section.verdicts]
        done = _trainings(section.steps, records)
        counts = (section.seeds, section.points, section.missing, *map(verdicts.count, _VERDICTS), len(done))
        cells = (
            Cell((Link(section.name, section.anchor),)),
            _words(section.title),
            _words(section.scale),
            *(_whole(count) if count else _words("") for count in counts),
            _took(done) if done else _words(""),
        )
        rows.append(Row(_kept(columns, cells)))
    return Table(caption="What is on this page", columns=_names(columns), rows=tuple(rows))


_VERDICTS = (claims.HOLDS, claims.FAILS, claims.FEW)


# ------------------------------------------------------------------------------------- steps


_NAMED = re.compile(r"([0-9a-f]{16}|R\d+(?=, seed))")


def _steps(
    shown: Collection[Step], sections: Iterable[Section], records: Mapping[str, Record]
) -> tuple[Table, Table, Table]:
    """The steps of the points that are shown, and those behind them; the recipes, and the runs, that they name."""
    steps = closure(shown)
    number = {step: step.id for step in steps}
    note = "Each stands after those that it is made from. Metrics that are 0 are left out."
    if len(steps) > STEPS:
        note += f" Of these {len(steps):,} steps, only those of the points above are here."
        steps = [step for step in steps if step in shown]
    figures: dict[Step, list[str]] = {}
    for section in sections:
        for step in section.steps:
            names = figures.setdefault(step, [])
            if section.name not in names:
                names.append(section.name)
    recipes: dict[str, str] = {}
    runs: dict[str, list[Record]] = {}
    places = {step.id: step.id for step in steps}
    rows = []
    for step in steps:
        recipe = ""
        if isinstance(step, Train):
            recipe = recipes.setdefault(words.recipe_in_words(step), f"R{len(recipes) + 1}")
            places[recipe] = recipe
        record = records.get(step.id)
        made = _linked(words.how_made(step, number, recipe), places)
        outcome = (_words("not done"), _words(""), _words(""), _words(""))
        if record is not None:
            run = words.run_of(record)
            runs.setdefault(run, []).append(record)
            outcome = _outcome(record, 1 + list(runs).index(run))
        rows.append(Row((_words(f"steps/{step.id}/"), made, *outcome, _words(" ".join(figures[step]))), step.id))
    found = [Row((_words(key), _words(what)), key) for what, key in recipes.items()]
    where = [
        Row((_words(f"run {n}"), _words(run), _whole(len(made)), _took(made)), f"run-{n}")
        for n, (run, made) in enumerate(runs.items(), 1)
    ]
    return (
        Table(
            caption=f"{len(rows):,} steps",
            columns=("folder in the root", "what it is", "metrics", "seconds", "begun (UTC)", "run", "for"),
            rows=tuple(rows),
            note=note,
        ),
        Table(
            caption=f"{len(found):,} recipes",
            columns=("recipe", "in full, where it differs from the defaults"),
            rows=tuple(found),
        ),
        Table(caption=f"{len(where):,} runs", columns=("run", "what", "steps", "time"), rows=tuple(where)),
    )


def _linked(text: str, places: Mapping[str, str]) -> Cell:
    """With the steps and recipes that it names as links; a step by the beginning of its id."""
    parts = [Link(part[:8], places[part]) if part in places else part for part in _NAMED.split(text) if part]
    return Cell(tuple(parts))


def _outcome(record: Record, run: int) -> tuple[Cell, Cell, Cell, Cell]:
    metrics = ", ".join(f"{name} {value:.4g}" for name, value in shown_metrics(record.metrics).items() if value)
    seconds, begun = record.facts.get("seconds"), record.facts.get("begun")
    return (
        _words(metrics),
        _words("") if seconds is None else _number(f"{seconds:.3g}", seconds),
        _words("") if begun is None else _number(_utc(begun), begun),
        Cell((Link(f"run\u00a0{run}", f"run-{run}"),)),
    )


def _took(records: Iterable[Record]) -> Cell:
    seconds = sum(_spent(record) for record in records)
    return _number(duration(seconds), seconds)


# ------------------------------------------------------------------------------------- provenance and cost


def _trainings(steps: Iterable[Step], records: Mapping[str, Record]) -> list[Record]:
    return [records[step.id] for step in steps if isinstance(step, Train) and step.id in records]


def _facts(
    steps: Collection[Step], records: Mapping[str, Record], others: Collection[Step] | None = None
) -> tuple[tuple[str, str], ...]:
    """When, where and with what the steps were made, and what they cost. others: steps that others need, too."""
    done = _trainings(steps, records)
    if not done:
        return ()
    begun = min(record.facts["begun"] for record in done)
    ended = max(record.facts["begun"] + record.facts["seconds"] for record in done)
    versions = dict.fromkeys(_versions(record) for step in steps if (record := records.get(step.id)))
    places = dict.fromkeys(f"{record.facts['host']} ({record.facts['device']})" for record in done)
    shared = len(_trainings([step for step in steps if step in others], records)) if others else 0
    among = f", {shared:,} of them for other figures, too" if shared else ""
    if shared == len(done):
        among = ", all of them for other figures, too"
    seconds = sum(_spent(record) for record in done)
    timed = [record.facts for record in done if record.facts["images_per_second"]]
    images = sum(facts["images_per_second"] * facts["seconds"] for facts in timed)
    facts = [
        ("Trained", f"{_utc(begun)} to {_utc(ended).removeprefix(_utc(begun)[:11])} UTC"),
        ("Where", _few(places)),
        ("Versions", _few(versions, "; ")),
        ("Trainings", f"{len(done):,}{among}"),
        ("Training time", duration(seconds)),
        ("Disk", size(sum(file.size for s in steps if s.id in records for file in records[s.id].files.values()))),
    ]
    if images:
        facts.insert(5, ("Speed", f"{images / sum(f['seconds'] for f in timed):,.0f} images/s a training"))
    return tuple(facts)


def _sharing(sweeps: Iterable[Sweep], records: Mapping[str, Record]) -> tuple[tuple[str, str], ...]:
    done = make_plan(point for sweep in sweeps for point in sweep.points if point.step.id in records)
    alone, together = done.trainings_without_sharing(), len(done.jobs)
    return (("Without sharing", f"{alone:,} trainings instead of {together:,}"),) if alone > together else ()


def _spent(record: Record) -> float:
    """Of all workers that shared it; masks take none that anybody measured."""
    return record.facts.get("seconds", 0.0) * record.facts.get("workers", 1)


def _versions(record: Record) -> str:
    return ", ".join(f"{name} {version}" for name, version in record.facts.get("versions", {}).items())


def _few(names: Collection[str], between: str = ", ") -> str:
    shown = between.join(list(names)[:PLACES])
    return f"{shown}{between}and {len(names) - PLACES:,} more" if len(names) > PLACES else shown


def _utc(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.gmtime(seconds))
