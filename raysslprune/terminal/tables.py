"""Print the plan, the table, the claims, and what masks keep and share."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import pyarrow as pa
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from raysslprune import results
from raysslprune.messages import without_stdout
from raysslprune.paper.recipes import GPU, NETS
from raysslprune.plan.cost import ON_CPU, SOURCES, START, Cost, cost_of, estimate
from raysslprune.plan.graph import Plan
from raysslprune.plan.schedule import Schedule
from raysslprune.results import claims as judged
from raysslprune.store.record import Damaged, Record
from raysslprune.store.steps import Store
from raysslprune.sweepfile import Drawing, Figure, Listing, Magnitudes, Search
from raysslprune.words import duration, size

_MARKS = {judged.HOLDS: "green", judged.FAILS: "red", judged.FEW: "yellow"}


class _Stdout(Console):
    def on_broken_pipe(self) -> None:
        """As by `| head`: what was wanted of it was read. Rich would end the command, with 1."""
        without_stdout(0)


def stdout() -> Console:
    """As plain text in a notebook too; wide enough for a table where it is no terminal."""
    return _Stdout() if sys.stdout.isatty() else _Stdout(width=120, force_jupyter=False)


def dry_run(
    console: Console,
    store: Store,
    graph: Plan,
    records: Mapping[str, Record],
    damaged: Sequence[Damaged],
    missing: Sequence[str],
    cores: int,
    gpu: bool = False,
    figures: Mapping[str, Plan] | None = None,
) -> None:
    """What sweeps would do, and what that would cost: on this machine, or in GPU-hours.

    figures: the plan of each figure alone, by its name, for what it costs alone.
    """
    pending = graph.pending(records)
    masks = sum(mask.id not in records for job in pending for mask in job.masks)
    trainings, steps, left = len(graph.jobs), len(graph.ids), graph.trainings_left(records)
    grid = Table.grid(padding=(0, 2))
    grid.add_row("root", escape(store.path("")))
    grid.add_row("points", f"{len(graph.points):,}")
    counts = f"{_counted(trainings, 'training')}, {_counted(steps - trainings, 'mask')}"
    grid.add_row("unique steps", f"{steps:,} ({counts})")
    grid.add_row("done", _counted(trainings - left, "training"))
    grid.add_row("will run", f"{_counted(left, 'training')}, {_counted(masks, 'mask')}")
    if damaged:
        grid.add_row("damaged", f"{len(damaged):,} of the steps, to be set aside and made again")
    for sentence in missing:
        grid.add_row("data", escape(sentence))
    grid.add_row("without sharing", _counted(graph.trainings_without_sharing(), "training"))
    if gpu:
        console.print(grid, highlight=False)
        _gpu_hours(console, graph, records, figures or {})
        return
    cost = cost_of(graph.jobs.values(), records, NETS)
    seconds = sum(cost.seconds[job.id] for job in pending)
    longest = Schedule(pending, cost.seconds).longest_path
    wall = max(seconds / cores, longest) + (START if pending else 0)
    grid.add_row(
        "time", f"about {duration(wall)} on {cores} cores ({duration(seconds)} of training){_guess(graph, cost)}"
    )
    grid.add_row("disk", _disk(cost))
    console.print(grid, highlight=False)


def _guess(graph: Plan, cost: Cost) -> str:
    """Which networks the time is a guess for."""
    nets = dict.fromkeys(escape(graph.jobs[job_id].train.arch) for job_id in sorted(cost.guessed))
    return f"; a guess, since {' and '.join(nets)} never ran here" if nets else ""


def _disk(cost: Cost) -> str:
    known = f"about {size(cost.disk)} when all is done" if cost.disk or not cost.unsized else ""
    unknown = f"weights of {escape(' and '.join(cost.unsized))} not counted: their size is not known"
    return "; ".join(filter(None, (known, unknown if cost.unsized else "")))


def _gpu_hours(console: Console, graph: Plan, records: Mapping[str, Record], figures: Mapping[str, Plan]) -> None:
    """What each figure costs alone, what all cost together, and what for."""
    jobs = graph.jobs.values()
    together = estimate(graph, records, NETS, "cuda")
    alone = {name: estimate(figure, records, NETS, "cuda", jobs) for name, figure in figures.items()}
    rows = {escape(name): one for name, one in alone.items() if one.points}
    if len(rows) > 1:
        rows["[bold]together[/bold]"] = together
    costs = _columns("", "points", "steps", "trainings", "without\nsharing", "GPU-hours", "left")
    space = _columns("", "masks", "snapshots", "weights,\n--keep needed", "weights,\n--keep all")
    for name, e in (rows or {"": together}).items():
        counts = (f"{count:,}" for count in (e.points, e.steps, e.trainings, e.without_sharing))
        costs.add_row(name, *counts, _hours(e.hours), _hours(e.hours_left))
        space.add_row(name, *(size(d) for d in (e.disk.masks, e.disk.snapshots, e.disk.needed, e.disk.weights)))
    work = _columns("", "trainings", "10⁶ samples", "images/s", "", "GPU-hours", "left")
    for w in sorted(together.work, key=lambda w: -w.hours):
        numbers = (f"{w.samples / 1e6:,.1f}", f"{w.images_per_second:,.0f}", w.source, *map(_hours, (w.hours, w.left)))
        row = ("", "", w.source) if w.source == ON_CPU else numbers
        work.add_row(escape(w.what), f"{w.trainings:,}", *row)
    for heading, columns in (("what it takes", costs), ("what for", work), ("what stays on disk", space)):
        console.print(f"\n[bold]{heading}[/bold]")
        console.print(columns, highlight=False)
    if len(alone) > 1:
        apart = sum(one.hours for one in alone.values())
        sentence = f"\neach figure alone: {_hours(apart)} GPU-hours; together: {_hours(together.hours)}"
        console.print(sentence, highlight=False)
    console.print(f"\nGPU-hours of one {GPU}, with images ready as fast as it wants them.", highlight=False)
    for source in dict.fromkeys(w.source for w in together.work):
        console.print(f"{source}: {SOURCES[source]}", highlight=False, markup=False)


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}{'s' * (count != 1)}"


def _hours(hours: float) -> str:
    return f"{hours:,.1f}" if hours < 100 else f"{hours:,.0f}"


def _columns(first: str, *headings: str) -> Table:
    """A table of names and numbers."""
    columns = Table(box=None, padding=(0, 2, 0, 0))
    columns.add_column(first)
    for heading in headings:
        columns.add_column(heading, justify="right" if heading else "left")
    return columns


def table(console: Console, drawing: Drawing, values: pa.Table) -> None:
    """Mean ± standard error over seeds, laid out as the drawing is."""
    means = results.summary(values).to_pylist()
    console.print(f"\n[bold]{escape(drawing.title)}[/bold]: mean ± standard error over n seeds, in %")
    inits = drawing.inits if isinstance(drawing, Figure) else ()
    for panel in dict.fromkeys(row["panel"] for row in means):
        for init in inits or (None,):
            mine = [row for row in means if row["panel"] == panel and init in (None, row["init"])]
            if mine:
                title = ", ".join(filter(None, (panel, init)))
                if isinstance(drawing, Magnitudes):
                    _grid(console, title, "weights up to", mine, _threshold, lambda row: str(row["init"]))
                elif isinstance(drawing, Search):
                    _grid(console, title, "rewound to", mine, _rewind, _study)
                else:
                    _grid(console, title, "% pruned", mine, _pruned, _curve_among(mine))
    collapsed = [row for row in means if row["collapsed_layers"]]
    if collapsed:
        where = sorted({f"{row['task']} at {results.pruned_percent(row['density'])} %" for row in collapsed})
        console.print(f"\nlayers with no weight left in at least one seed: {escape(', '.join(where))}", highlight=False)


def search(
    console: Console, values: pa.Table, tried: Collection[tuple[str, int, int]], importance: Mapping[str, float]
) -> None:
    """What a search found, beside the best of all that the table knows: with the full grid trained, the grid's best."""
    studies: dict[tuple[str, int], list[Row]] = {}
    for row in results.summary(values).to_pylist():
        if row["rewind"] is not None:  # the others are shown beside them, and are no candidates
            studies.setdefault((row["task"], row["level"]), []).append(row)
    console.print("\n[bold]What Optuna found[/bold]")
    grid = _columns("", "% pruned", "tried", "best of these", "at", "known", "best known", "at")
    for (task, level), rows in studies.items():
        mine = [row for row in rows if (task, level, row["rewind"]) in tried]
        cells = []
        for some in (mine, rows):
            best = max(some, key=lambda row: row["mean"], default=None)
            cells += [str(len(some)), *((_cell(best), f"{best['rewind']:,}") if best else ("", ""))]
        grid.add_row(escape(task), results.pruned_percent(rows[0]["density"]), *cells)
    console.print(grid, highlight=False)
    if importance:
        shares = ", ".join(f"{name} {100 * share:.1f}%" for name, share in importance.items())
        console.print(f"importance over all that was tried (fANOVA): {shares}", highlight=False)


Row = Mapping[str, Any]


def _grid(
    console: Console,
    title: str,
    corner: str,
    means: Sequence[Row],
    row_of: Callable[[Row], str],
    column_of: Callable[[Row], str],
) -> None:
    """One table: what ``row_of`` tells apart downwards, what ``column_of`` does to the right."""
    counts = {row["n"] for row in means}
    shown = len(counts) > 1
    n = "n in brackets" if shown else f"n = {counts.pop()}"
    console.print(f"\n[bold]{escape(title)}[/bold], {n}" if title else f"\n{n}", highlight=False)
    grid = Table(box=None, padding=(0, 2, 0, 0))
    columns = list(dict.fromkeys(column_of(row) for row in means))
    for heading in (corner, *columns):
        grid.add_column(escape(heading), justify="right")
    cells: dict[str, dict[str, Row]] = {}
    for row in sorted(means, key=lambda row: (-row["density"], row["rewind"] or 0)):
        cells.setdefault(row_of(row), {})[column_of(row)] = row
    for name, found in cells.items():
        grid.add_row(name, *(_cell(found[column], shown) if column in found else "" for column in columns))
    console.print(grid, highlight=False)


def _curve_among(rows: Sequence[Row]) -> Callable[[Row], str]:
    """A curve's name: its task, and its init where one task has several."""
    several = len({row["init"] for row in rows}) > 1
    return lambda row: f"{row['task']}, {row['init']}" if several else str(row["task"])


def _pruned(row: Row) -> str:
    return "dense" if row["level"] == 0 else results.pruned_percent(row["density"])


def _rewind(row: Row) -> str:
    return "no" if row["rewind"] is None else f"{row['rewind']:,}"


def _study(row: Row) -> str:
    return f"{row['task']} at {results.pruned_percent(row['density'])} %"


def _threshold(row: Row) -> str:
    return str(row["metric"]).removeprefix("natural_sparsity").strip("_") or "1.2e-07"


def listing(console: Console, drawing: Listing, rows: Sequence[Sequence[Any]]) -> None:
    """A table that needed no training."""
    console.print(f"\n[bold]{escape(drawing.title)}[/bold]")
    grid = Table(box=None, padding=(0, 2, 0, 0))
    for number, name in enumerate(drawing.columns):
        numbers = all(isinstance(row[number], int | float) for row in rows)
        grid.add_column(escape(name), justify="right" if numbers else "left")
    for row in rows:
        grid.add_row(*(escape(text) for text in listing_cells(row)))
    console.print(grid, highlight=False)


def listing_cells(row: Sequence[Any]) -> list[str]:
    """A listing's values for people: numbers to three digits or whole."""

    def cell(value: Any) -> str:
        if isinstance(value, float) and abs(value) < 999.5:
            return f"{value:.3g}"
        return f"{value:,.0f}" if isinstance(value, int | float) else str(value)

    return [cell(value) for value in row]


def claims(
    console: Console, verdicts: Sequence[judged.Verdict], *, of_paper: bool = True, seeds_hint: str = "--seeds "
) -> None:
    """Each claim with its verdict, the numbers, and the test.

    of_paper: whether the paper makes them. seeds_hint: what a person types to have more seeds, but for their number.
    """
    if verdicts:
        console.print(f"\n[bold]Claims{' of the paper' if of_paper else ''}[/bold]")
    for verdict in verdicts:
        where = f"{verdict.panel}: " if verdict.panel else ""
        said = escape(f"{where}{verdict.claim.says} ({verdict.claim.source})")
        console.print(f"[{_MARKS[verdict.verdict]}]{verdict.verdict}[/]: {said}", highlight=False)
        console.print(f"    {verdict.numbers}", highlight=False, markup=False)
    if any(verdict.verdict == judged.FEW for verdict in verdicts):
        console.print(
            f"verdicts need {judged.MIN_SEEDS} seeds: run again with {seeds_hint}{judged.MIN_SEEDS}", highlight=False
        )
    console.print()


def _cell(row: Row, with_n: bool = False) -> str:
    error = "" if row["stderr"] is None else f" ± {row['stderr']:.1f}"
    return f"{row['mean']:.1f}{error}" + (f" ({row['n']})" if with_n else "")


def mask_densities(console: Console, table: pa.Table) -> None:
    """At the middle density of each panel; all of them would be too much to read."""
    rows = table.to_pylist()
    for panel in dict.fromkeys(row["panel"] for row in rows):
        lefts = sorted({row["left"] for row in rows if row["panel"] == panel}, reverse=True)
        mine = [row for row in rows if row["panel"] == panel and row["left"] == lefts[len(lefts) // 2]]
        where = f"% left of each layer where {results.pruned_percent(mine[0]['overall'])} % of all weights are pruned"
        cells = {(row["layer"], row["task"]): _fraction(row["density"], row["stderr"], percent=True) for row in mine}
        _wide(console, panel, f"{where}, {_seeds(mine)}", "layer", cells)


def mask_overlaps(console: Console, table: pa.Table) -> None:
    """Of each panel and relation, beside what chance gives."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in table.to_pylist():
        groups.setdefault((row["panel"], row["relation"]), []).append(row)
    for (panel, relation), rows in groups.items():
        cells = {}
        for row in sorted(rows, key=lambda row: -row["density"]):
            pair = " and ".join(dict.fromkeys((row["task_a"], row["task_b"])))
            shared = f"{_fraction(row['jaccard'], row['stderr'])} ({row['chance']:.3f})"
            cells[results.pruned_percent(row["density"]), pair] = shared
        _wide(console, panel, f"{relation}, Jaccard index (by chance), {_seeds(rows)}", "% pruned", cells)


def _wide(console: Console, panel: str, title: str, corner: str, cells: Mapping[tuple[str, str], str]) -> None:
    """Rows and columns in the order in which they first appear, in as many tables as the width takes."""
    console.print(f"\n[bold]{escape(panel)}[/bold]{': ' if panel else ''}{escape(title)}", highlight=False)
    rows, columns = ([*dict.fromkeys(key[side] for key in cells)] for side in (0, 1))
    widest = 2 + max(map(len, cells.values()))
    fit = max(1, (console.width - 2 - max(map(len, (corner, *rows)))) // widest)
    for at in range(0, min(len(columns), MAX_COLUMNS), fit):
        grid = Table(box=None, padding=(0, 2, 0, 0))
        grid.add_column(escape(corner), justify="right", no_wrap=True)
        for heading in columns[at : at + fit]:
            grid.add_column(escape(heading), justify="right")
        for name in rows:
            grid.add_row(escape(name), *(cells.get((name, column), "") for column in columns[at : at + fit]))
        console.print(grid, highlight=False)
    if len(columns) > MAX_COLUMNS:
        console.print(f"{len(columns) - MAX_COLUMNS} more are in the table's file", highlight=False)


def _fraction(value: float, error: float | None, percent: bool = False) -> str:
    def number(fraction: float) -> str:
        return f"{100 * fraction:.2f}" if percent else f"{fraction:.3f}"

    return number(value) + ("" if error is None else f" ± {number(error)}")


def _seeds(rows: Sequence[Mapping[str, Any]]) -> str:
    counts = sorted({row["n"] for row in rows})
    return f"n = {counts[0]}" + (f" to {counts[-1]}" if len(counts) > 1 else "")


MAX_COLUMNS = 8
"""That are printed."""
