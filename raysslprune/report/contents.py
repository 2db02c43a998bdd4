"""The contents of a report: figures, verdicts, tables, and the origin of every number.

Everything is read from the store, and nothing is trained. HTML is made by ``page``.
"""

from __future__ import annotations

import re
import shlex
import time
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pyarrow as pa

from raysslprune import present, results, words
from raysslprune.catalogue import shown_metrics
from raysslprune.kinds import Kind, Note, Tried, kind_of
from raysslprune.messages import ROOT, SCALE, sweep_command
from raysslprune.paper.scales import SETTINGS, given
from raysslprune.plan.graph import make_plan
from raysslprune.plan.only import PART
from raysslprune.results import claims, sql
from raysslprune.spec import Step, Train, closure, not_read
from raysslprune.store.record import Damaged, Record, StoreError
from raysslprune.store.steps import Store
from raysslprune.sweep_loader import BESIDE, TUNED, Sweep, SweepError, known, load
from raysslprune.sweepfile import Point
from raysslprune.table import Cell, Link, Table, number, whole
from raysslprune.terminal.tables import pruned, some_collapsed
from raysslprune.words import duration, size

if TYPE_CHECKING:
    from raysslprune.figures.ink import Canvas

ROWS = 1000
"""Maximum number of rows of a table; the results file has all."""

STEPS = 10_000
"""Maximum number of steps that the page shows with their ancestors, so that a phone can open it."""

VECTORS = 5_000
"""Maximum number of points in a figure drawn as SVG; with more, PNG is smaller."""

PLACES = 4
"""Maximum number of hosts, or sets of versions, that are named; the others are counted."""

Rows = Sequence[Mapping[str, Any]]
Facts = tuple[tuple[str, str], ...]
"""Terms and their values, in words."""


@dataclass(frozen=True, kw_only=True)
class Section:
    """A sweep at a scale.

    pictures: MIME type and bytes of the figure, wide and as wide as a phone; empty if it can't be drawn. points: number
    of points in the store. missing: number of points that are not there but should be. warning: a sentence on stored
    rows of an earlier design, which are left out, or ''. facts: when, where and with which versions it was trained, and
    what it cost. explain: the command that explains a row or a step, without its last word.
    """

    anchor: str
    name: str
    scale: str
    title: str
    tables: tuple[Table, ...] = ()
    pictures: tuple[tuple[str, bytes], ...] = ()
    alt: str = ""
    caption: str = ""
    verdicts: tuple[claims.Verdict, ...] = ()
    seeds: int = 0
    points: int = 0
    missing: int = 0
    warning: str = ""
    steps: tuple[Step, ...] = ()
    facts: Facts = ()
    explain: str = ""

    @property
    def warnings(self) -> list[str]:
        """Sentences on verdicts whose dense network is near chance."""
        return claims.warnings(self.verdicts)

    @property
    def no_picture(self) -> bool:
        """True if the figure could not be drawn."""
        return self.points > 0 and not self.pictures


@dataclass(frozen=True, kw_only=True)
class Report:
    """Contents of the page.

    root: as shown to people. facts: about all sections together. steps, recipes, runs: those behind the points.
    """

    root: str
    sections: tuple[Section, ...]
    overview: Table
    facts: Facts
    steps: Table
    recipes: Table
    runs: Table


def find(names: Sequence[str], scale: str | None, store: Store, note: Note) -> list[tuple[str, Sweep]]:
    """Return (scale, sweep) for each sweep that has results in the store, with as many seeds as its results.

    names: empty for all of the package's sweeps; then ``note`` receives a sentence that names the user's own ones.

    Raises SweepError for an unknown sweep, StoreError if a sweep or the store has no results, or can't be read.
    """
    scales = [scale] if scale else list(SETTINGS)
    names = list(dict.fromkeys(names))
    if len({Path(name).stem for name in names}) < len(names):
        raise SweepError(f"two sweeps have the same name: {', '.join(names)}")
    at = f" at scale {scale}" if scale else ""
    paths = {} if store.is_new() else sql.files(store)
    found: list[tuple[str, Sweep]] = []
    for name in names or known():
        here = {s: paths[s, Path(name).stem] for s in scales if (s, Path(name).stem) in paths}
        found += [(s, _loaded(name, s, store, path)) for s, path in here.items()]
        if names and not here:
            load(name, scales[0], 1)  # raises SweepError for an unknown sweep: a better message
            makes = sweep_command(name, given(scale or SCALE), store.shown)
            begin = f"{Path(name).stem}{PART}"
            parts = [key for key in paths if key[0] in scales and key[1].startswith(begin)]
            only = ", ".join(f"{part} ({s})" for s, part in parts if not part.endswith(BESIDE))
            only = f", only of parts, which reports don't have: {only}" if only else ""
            raise StoreError(f"{store.shown} has no results of {name}{at}{only}; to make them, run: {makes}")
    stems = dict.fromkeys(name for s, name in paths if s in scales and name not in known() and not names)
    own = [
        f"{name}.py" for name in stems if not name.endswith(BESIDE) and PART not in name and not TUNED.fullmatch(name)
    ]
    aside = _aside(paths, scales) if not names else ""
    if own and not found:
        raise StoreError(
            f"{store.shown} has no results of the package's sweeps{at}; to report on your own sweeps: "
            f"{_command(own, scale, store)}"
        )
    if not found:
        makes = sweep_command("fig3", given(scale or SCALE), store.shown)
        but = f" but {aside}" if aside else ""
        raise StoreError(f"{store.shown} has no results{at}{but}; this makes some: {makes}")
    if aside:
        note(f"not included: {aside}; a report on another scale needs its --scale and --set, and has whole sweeps only")
    if own:
        every = [*dict.fromkeys(sweep.name for _, sweep in found), *own]
        them = "it" if len(own) == 1 else "them"
        note(f"not included: {', '.join(own)}; to include {them}: {_command(every, scale, store)}")
    return sorted(found, key=lambda one: scales.index(one[0]))


def _aside(paths: Iterable[tuple[str, str]], scales: Sequence[str]) -> str:
    """Name the results of scales that are not the package's, unless asked for, and of parts of sweeps."""
    kept = {*scales, *SETTINGS}
    names = [(s, name) for s, name in paths if not name.endswith(BESIDE) and (s not in kept or PART in name)]
    return ", ".join(f"{name} ({s})" for s, name in names)


def _command(sweeps: Sequence[str], scale: str | None, store: Store) -> str:
    """Return the command that reports on these sweeps. scale: as it was given, or None."""
    words = ["--scale", *given(scale)] if scale else []
    words += ["--root", store.shown] if store.shown != ROOT else []
    return shlex.join(["raysslprune", "report", *sweeps, *words])


def _explaining(sweep: Sweep, scale: str, store: Store) -> str:
    """Return the command that explains a row of a sweep's table or a step behind it, without the row or step."""
    seeds, more = sorted({point.seed for point in sweep.points}), list[str]()
    if sweep.looks:
        more = ["--until-decided", "--max-seeds", str(sweep.looks[-1])]
    usual = sweep.looks or seeds == [*range(SETTINGS[scale].seeds)]
    return sweep_command(sweep.given, given(scale), store.shown, None if usual else seeds, [*more, "--explain"])


def _loaded(name: str, scale: str, store: Store, path: str) -> Sweep:
    """Load a sweep with the seeds and looks of its results file. Raises SweepError, StoreError."""
    sweep = load(name, scale, _seeds_in(store, path))
    return replace(sweep, looks=results.stored_looks(store, scale, sweep.name))


def _seeds_in(store: Store, path: str) -> list[int]:
    """Return the seeds in a results file. Raises StoreError."""
    try:
        table = results.from_parquet(store.read(path))
        return sorted({*table["seed"].to_pylist()}) if "seed" in table.column_names and len(table) else [0]
    except (pa.ArrowException, OSError):
        raise StoreError(f"{store.path(path)} can't be read; run its sweep again to rebuild it") from None


def gather(sweeps: Sequence[tuple[str, Sweep]], store: Store, note: Note) -> Report:
    """Make a report on these sweeps, each with its scale, from the store. note: receives sentences on what is left out.

    Raises StoreError if the store can't be read.
    """
    behind = [tuple(closure(point.step for point in sweep.points)) for _, sweep in sweeps]
    everything = dict.fromkeys(step for steps in behind for step in steps)
    records, damaged = store.survey(dict.fromkeys(step.id for step in everything))
    for damage in damaged:
        note(f"{damage}; left out; run its sweep again to rebuild it")
    sections: list[Section] = []
    shown: dict[Step, None] = {}
    for (scale, sweep), steps in zip(sweeps, behind, strict=True):
        others = {step for other in behind if other is not steps for step in other}
        section, of_rows = _section(sweep, scale, steps, records, others, store, note)
        sections.append(section)
        shown |= dict.fromkeys(of_rows)
    steps, recipes, runs = _steps(shown, sections, records)
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
    """Return a section, and the steps of the points in its table. others: steps of the other sweeps."""
    kind, title = kind_of(sweep), sweep.drawing.title
    section = Section(anchor=quote(f"{scale}-{sweep.name}"), name=sweep.name, scale=scale, title=title)
    if not kind.trains:
        return replace(section, tables=(_cut(kind.listing),)), []
    table = kind.table(scale, records)
    if lacking := results.unmeasured(sweep.points, records):
        note(f"{sweep.name}: {lacking}")
    rows, means = table.to_pylist(), results.summary(kind.shown(table)).to_pylist()
    studies = kind.studies(scale, records, store, note)
    tried = studies and studies.tried
    missing = 0 if tried is not None or sweep.looks else len(sweep.points) - len(rows)
    path = f"results/{scale}/{sweep.name}.parquet"
    warning = results.left_out(path, results.stored_rows(store, scale, sweep.name), sweep.points)
    section = replace(section, missing=missing, warning=warning, steps=steps, facts=_facts(steps, records, others))
    if not rows:
        return section, []
    done = [p for p in sweep.points if p.step.id in records and p.metric in records[p.step.id].metrics]
    pictures = _figure(kind, done, table, store, tried, note)
    section = replace(
        section,
        tables=(_means(means, tried), _points(sweep.name, scale, rows, records)),
        pictures=pictures,
        alt=_in_words(kind, done) if pictures else "",
        caption=_caption(rows, means),
        verdicts=tuple(claims.judge(sweep.claims, table)),
        seeds=len({row["seed"] for row in rows}),
        points=len(rows),
        explain=_explaining(sweep, scale, store),
    )
    return section, [point.step for point in done[:ROWS]]


# ------------------------------------------------------------------------------------- figures


def _figure(
    kind: Kind, points: Sequence[Point], table: pa.Table, store: Store, tried: Tried | None, note: Note
) -> tuple[tuple[str, bytes], ...]:
    """Draw the figure as images, wide and narrow, without its title; return none, after a note, if this fails."""
    form, mime = ("png", "image/png") if len(table) > VECTORS else ("svg", "image/svg+xml")
    try:
        drawn = kind.drawn_table(points, table, store)

        def canvas(narrow: bool) -> Canvas:
            untitled = kind.canvas(drawn, tried, narrow=narrow)
            untitled.suptitle("")  # the section's heading is the title
            return untitled

        files = [present.files(kind.sweep.name, partial(canvas, narrow), form) for narrow in (False, True)]
    except Damaged as damage:
        note(f"{damage}; run its sweep again to rebuild it")
        return ()
    except present.NoPicture as error:
        note(str(error))
        return ()
    return tuple((mime, file[f".{form}"]) for file in files)


def _in_words(kind: Kind, points: Sequence[Point]) -> str:
    """Describe the figure for readers who can't see it."""
    from raysslprune.figures.style import METRICS  # imports Matplotlib, which takes a second

    shows = " and ".join(METRICS.get(metric, metric) for metric in dict.fromkeys(point.metric for point in points))
    curves = ", ".join(dict.fromkeys(f"{point.task} {point.init}" for point in points))
    axes = f"{kind.measures or shows} over {kind.over}"
    return f"{kind.sweep.drawing.title}: {axes}. Curves: {curves}. Their numbers are in the table of means."


def _caption(rows: Rows, means: Rows) -> str:
    """Name what the figure shows: networks, data, number of seeds."""
    on = ", ".join(dict.fromkeys(f"{row['arch']} on {row['data']}" for row in rows))
    n = sorted({row["n"] for row in means})
    if len(n) > 1:
        return f"{on}; {n[0]} to {n[-1]} seeds."
    return f"{on}; {f'{n[0]} seeds' if n[0] > 1 else 'one seed'}."


# ------------------------------------------------------------------------------------- tables


def _place_columns(rows: Rows) -> dict[str, bool]:
    """Return the columns that place a row in a figure, by name; False for those in which all are equal."""
    names = ("panel", "task", "init", "% pruned", "rewind", "metric")
    always = ("task", "% pruned")
    return {name: name in always or len({row[name] for row in rows} - {None}) > 1 for name in names}


def _place(row: Mapping[str, Any]) -> tuple[str | Cell, ...]:
    share = number(pruned(row), 100 - 100 * row["density"])
    rewind = "" if row["rewind"] is None else whole(row["rewind"])
    return row["panel"], row["task"], row["init"], share, rewind, row["metric"]


def _means(means: Rows, tried: Tried | None) -> Table:
    emptied = any(row["collapsed"] for row in means)
    columns = {
        "mean ± s.e.": True,
        "median": any(map(some_collapsed, means)),
        "n": True,
        "layers emptied": emptied,
        "seeds collapsed": emptied,
        "search": tried is not None,
    }
    rows = []
    for row in means:
        digits = ".2g" if 0 < abs(row["mean"]) < 0.05 else ".1f"
        error = "" if row["stderr"] is None else f" ± {row['stderr']:{digits}}"
        mean = number(f"{row['mean']:{digits}}{error}", row["mean"])
        median = number(f"{row['median']:{digits}}", row["median"])
        counts = (whole(row[name]) for name in ("n", "collapsed_layers", "collapsed"))
        search = "finalist" if (row["task"], row["level"], row["rewind"]) in (tried or ()) else "fell behind"
        rows.append((*_place(row), mean, median, *counts, search))
    caption = "Means over seeds, ± one standard error"
    return _cut(Table.of(_place_columns(means) | columns, rows, caption=caption))


def _points(name: str, scale: str, rows: Rows, records: Mapping[str, Record]) -> Table:
    """Make a table with a row for each point, numbered as in the results file."""
    columns = {"row": True, **_place_columns(rows), "seed": True, "value": True, "seconds": True, "step": True}
    found = []
    for row_number, row in enumerate(rows[:ROWS]):
        value, link = number(f"{row['value']:.6g}", row["value"]), Cell((Link(row["step"][:8], row["step"]),))
        found.append((whole(row_number), *_place(row), whole(row["seed"]), value, _seconds(records[row["step"]]), link))
    counted = f"The first {ROWS:,} of {len(rows):,} rows" if len(rows) > ROWS else "Numbered as the rows"
    note = f"{counted} of results/{scale}/{name}.parquet."
    return Table.of(columns, found, caption=f"{len(rows):,} points", note=note)


def _cut(table: Table) -> Table:
    """Keep at most ROWS rows of a table, with a note that says so."""
    if len(table.rows) <= ROWS:
        return table
    return replace(table, rows=table.rows[:ROWS], note=f"The first {ROWS:,} of {len(table.rows):,} rows.")


def _overview(sections: Sequence[Section], records: Mapping[str, Record]) -> Table:
    columns = {
        "figure": True,
        "shows": True,
        "scale": len({section.scale for section in sections}) > 1,
        "seeds": True,
        "points": True,
        "missing": any(section.missing for section in sections),
        **{word: any(v.verdict == word for s in sections for v in s.verdicts) for word in claims.VERDICTS},
        "trainings": True,
        "time": True,
    }
    rows = []
    for section in sections:
        verdicts = [verdict.verdict for verdict in section.verdicts]
        done = _trainings(section.steps, records)
        counts = (section.seeds, section.points, section.missing, *map(verdicts.count, claims.VERDICTS), len(done))
        link = Cell((Link(section.name, section.anchor),))
        cells = [whole(count) if count else "" for count in counts]
        rows.append((link, section.title, section.scale, *cells, _took(done) if done else ""))
    return Table.of(columns, rows, caption="What is on this page")


# ------------------------------------------------------------------------------------- steps


_NAMED = re.compile(r"([0-9a-f]{16}|R\d+(?=, seed))")


def _steps(
    shown: Collection[Step], sections: Iterable[Section], records: Mapping[str, Record]
) -> tuple[Table, Table, Table]:
    """Make the tables of the shown points' steps and their ancestors, and of the recipes and runs that these name."""
    steps = closure(shown)
    ids = {step: step.id for step in steps}
    note = "Each step comes after those that it is made from. Metrics that are 0 are left out."
    if len(steps) > STEPS:
        note += f" Of these {len(steps):,} steps, only those of the points above are here."
        steps = [step for step in steps if step in shown]
    figures: dict[Step, dict[str, None]] = defaultdict(dict)
    for section in sections:
        for step in section.steps:
            figures[step][section.name] = None
    recipes: dict[str, str] = defaultdict(lambda: f"R{len(recipes) + 1}")
    numbers: dict[str, int] = defaultdict(lambda: len(numbers) + 1)
    runs: dict[str, list[Record]] = defaultdict(list)
    links = {step.id: step.id for step in steps}
    rows = []
    unread = {of for step in steps for of in not_read(step)}
    for step in steps:
        recipe = recipes[words.recipe_in_words(step)] if isinstance(step, Train) else ""
        links[recipe] = recipe
        made = _linked(words.how_made(step, ids, recipe), links)
        outcome: tuple[str | Cell, ...] = ("not needed" if step in unread else "not done", "", "", "")
        if record := records.get(step.id):
            run = words.run_of(record)
            runs[run].append(record)
            outcome = _outcome(record, numbers[run])
        rows.append((f"steps/{step.id}/", made, *outcome, " ".join(figures[step])))
    found = [(key, what) for what, key in recipes.items()]
    where = [(f"run {numbers[run]}", run, whole(len(made)), _took(made)) for run, made in runs.items()]
    columns = ("folder in the root", "what it is", "metrics", "seconds", "begun (UTC)", "run", "for")
    in_full = ("recipe", "in full, where it differs from the defaults")
    anchors = [f"run-{numbers[run]}" for run in runs]
    return (
        Table.of(columns, rows, caption=f"{len(rows):,} steps", note=note, anchors=[step.id for step in steps]),
        Table.of(in_full, found, caption=f"{len(found):,} recipes", anchors=[*recipes.values()]),
        Table.of(("run", "what", "steps", "time"), where, caption=f"{len(where):,} runs", anchors=anchors),
    )


def _linked(text: str, links: Mapping[str, str]) -> Cell:
    """Make a cell in which the steps and recipes are links; a step is shown by the beginning of its id."""
    parts = [Link(part[:8], links[part]) if part in links else part for part in _NAMED.split(text) if part]
    return Cell(tuple(parts))


def _outcome(record: Record, run: int) -> tuple[str | Cell, ...]:
    metrics = ", ".join(f"{name} {value:.4g}" for name, value in shown_metrics(record.metrics).items() if value)
    begun = record.facts.get("begun")
    when = "" if begun is None else number(_utc(begun), begun)
    return metrics, _seconds(record), when, Cell((Link(f"run\u00a0{run}", f"run-{run}"),))


def _seconds(record: Record) -> str | Cell:
    seconds = record.facts.get("seconds")
    return "" if seconds is None else number(f"{seconds:.3g}", seconds)


def _took(records: Iterable[Record]) -> Cell:
    seconds = sum(_spent(record) for record in records)
    return number(duration(seconds), seconds)


# ------------------------------------------------------------------------------------- provenance and cost


def _trainings(steps: Iterable[Step], records: Mapping[str, Record]) -> list[Record]:
    return [records[step.id] for step in steps if isinstance(step, Train) and step.id in records]


def _facts(steps: Collection[Step], records: Mapping[str, Record], others: Collection[Step] | None = None) -> Facts:
    """Return when, where and with which versions steps were made, and their cost. others: steps of other sweeps."""
    done = _trainings(steps, records)
    if not done:
        return ()
    begun = _utc(min(record.facts["begun"] for record in done))
    ended = _utc(max(record.facts["begun"] + record.facts["seconds"] for record in done))
    versions = dict.fromkeys(_versions(record) for step in steps if (record := records.get(step.id)))
    places = dict.fromkeys(f"{record.facts['host']} ({record.facts['device']})" for record in done)
    shared = len(_trainings([step for step in steps if step in others], records)) if others else 0
    among = f", {'all' if shared == len(done) else f'{shared:,}'} of them shared with other figures" if shared else ""
    timed = [record.facts for record in done if record.facts["images_per_second"]]
    images = sum(facts["images_per_second"] * facts["seconds"] for facts in timed)
    speed = f"{images / sum(facts['seconds'] for facts in timed):,.0f} images/s per training" if images else ""
    facts = {
        "Trained": f"{begun} to {ended.removeprefix(begun[:11])} UTC",
        "Where": _few(places),
        "Versions": _few(versions, "; "),
        "Trainings": f"{len(done):,}{among}",
        "Training time": duration(sum(map(_spent, done))),
        "Speed": speed,
        "Disk": size(sum(file.size for s in steps if s.id in records for file in records[s.id].files.values())),
    }
    return tuple((term, value) for term, value in facts.items() if value)


def _sharing(sweeps: Iterable[Sweep], records: Mapping[str, Record]) -> Facts:
    done = make_plan(point for sweep in sweeps for point in sweep.points if point.step.id in records)
    alone, together = done.trainings_without_sharing(), len(done.jobs)
    return (("Without sharing", f"{alone:,} trainings instead of {together:,}"),) if alone > together else ()


def _spent(record: Record) -> float:
    """Return the seconds of all workers of a training; 0 for a mask, whose time is not measured."""
    return record.facts.get("seconds", 0.0) * record.facts.get("workers", 1)


def _versions(record: Record) -> str:
    return ", ".join(f"{name} {version}" for name, version in record.facts.get("versions", {}).items())


def _few(names: Collection[str], between: str = ", ") -> str:
    shown = between.join(list(names)[:PLACES])
    return f"{shown}{between}and {len(names) - PLACES:,} more" if len(names) > PLACES else shown


def _utc(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.gmtime(seconds))
