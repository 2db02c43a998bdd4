"""Print the plan, the table, the claims, and what masks keep and share."""

from __future__ import annotations

import math
import sys
import textwrap
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import pyarrow as pa
from rich.console import Console
from rich.markup import escape
from rich.table import Table as Grid

from raysslprune import results
from raysslprune.messages import without_stdout
from raysslprune.paper.recipes import GPU, NETS
from raysslprune.plan.cost import ON_CPU, SOURCES, START, cost_of, estimate
from raysslprune.plan.graph import Job, Plan
from raysslprune.plan.schedule import Schedule
from raysslprune.results import claims as judged
from raysslprune.spec import NATURAL_SPARSITIES
from raysslprune.store.leftovers import KINDS, Leftover
from raysslprune.store.record import WEIGHTS, Damaged, Record, snapshots_in
from raysslprune.store.steps import Store
from raysslprune.sweepfile import Listing
from raysslprune.table import Cell, Table, number, whole
from raysslprune.words import duration, size

_MARKS = {judged.HOLDS: "green", judged.CONTRADICTED: "red", judged.UNDECIDED: "yellow"}


class _Stdout(Console):
    def on_broken_pipe(self) -> None:
        """Ignore a closed pipe, as after `| head`; rich would end the command with code 1."""
        without_stdout(0)


def stdout() -> Console:
    """Return a console on stdout: plain text in a notebook too, and wide enough for a table if it is not a terminal."""
    return _Stdout() if sys.stdout.isatty() else _Stdout(width=120, force_jupyter=False)


def show(console: Console, table: Table, keep_first: bool = False) -> None:
    """Print a table below its caption, folded to the console's width. keep_first: do not fold its first column."""
    if table.caption:
        console.print(f"\n[bold]{escape(table.caption)}[/bold]")
    grid = Grid(box=None, padding=(0, 2, 0, 0), show_header=any(table.columns))
    for place, (name, right) in enumerate(zip(table.columns, table.right, strict=True)):
        grid.add_column(escape(name), justify="right" if right else "left", no_wrap=keep_first and not place)
    for row in table.rows:
        grid.add_row(*(f"[bold]{escape(cell.text)}[/bold]" if cell.strong else escape(cell.text) for cell in row.cells))
    console.print(grid, highlight=False)


# ------------------------------------------------------------------------------------- the plan


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
    """Print what sweeps would do, and the cost: on this machine, or in GPU-hours.

    figures: plan of each figure by name, for the cost of each figure alone.
    """
    pending = graph.pending(records)
    masks = sum(mask.id not in records for job in pending for mask in job.masks)
    trainings, steps, left = len(graph.jobs), len(graph.ids), graph.trainings_left(records)
    weights = len(graph.weights)
    counts = f"{_counted(trainings, 'training')}, {_counted(steps - trainings - weights, 'mask')}"
    counts += f", {_counted(weights, 'imported network')}" if weights else ""
    rows = [
        ("root", store.path("")),
        ("points", f"{len(graph.points):,}"),
        ("unique steps", f"{steps:,} ({counts})"),
        ("done", _counted(trainings - left, "training")),
        ("will run", f"{_counted(left, 'training')}, {_counted(masks, 'mask')}"),
    ]
    if damaged:
        rows.append(("damaged", f"{len(damaged):,} of the steps, to be set aside and made again"))
    rows += [("data", sentence) for sentence in missing]
    rows.append(("without sharing", _counted(graph.trainings_without_sharing(), "training")))
    if not gpu:
        rows += _on_this_machine(graph, records, pending, cores)
    show(console, Table.of(("", ""), rows))
    if gpu:
        _gpu_hours(console, graph, records, figures or {})


def leftovers(console: Console, unneeded: Sequence[Leftover], caption: str) -> None:
    """Print how many leftovers there are of each kind, and how much space they take."""

    def row(name: str, some: Sequence[Leftover]) -> tuple[str | Cell, ...]:
        files = [file for one in some for file in one.files.items()]
        weights = sum(count for name, count in files if name == WEIGHTS)
        snapshots = sum(count for name, count in files if snapshots_in([name]))
        sizes = (sum(count for _, count in files), weights, snapshots)
        return (name, whole(len(some)), whole(len(files)), *(number(size(count), count) for count in sizes))

    kinds = {kind: [one for one in unneeded if one.kind == kind] for kind in KINDS}
    rows = [row(kind, some) for kind, some in kinds.items() if some]
    columns = ("", "steps", "files", "size", "of that,\nweights", "snapshots")
    show(console, Table.of(columns, rows if len(rows) == 1 else [*rows, row("together", unneeded)], caption=caption))


def _on_this_machine(
    graph: Plan, records: Mapping[str, Record], pending: Sequence[Job], cores: int
) -> list[tuple[str, str]]:
    """Return the rows on time and disk space, in words."""
    cost = cost_of(graph.jobs.values(), records, NETS)
    seconds = sum(cost.seconds[job.id] for job in pending)
    longest = Schedule(pending, cost.seconds).longest_path
    wall = max(seconds / cores, longest) + (START if pending else 0)
    guessed = " and ".join(dict.fromkeys(graph.jobs[job_id].train.arch for job_id in sorted(cost.guessed)))
    guess = f"; a guess: no such training of {guessed} was timed" if guessed else ""
    disk = [f"about {size(cost.disk)} when all is done"] if cost.disk or not cost.unsized else []
    if cost.unsized:
        disk.append(f"weights of {' and '.join(cost.unsized)} not counted (unknown size)")
    time = f"about {duration(wall)} on {cores} cores ({duration(seconds)} of training){guess}"
    return [("time", time), ("disk", "; ".join(disk))]


def _gpu_hours(console: Console, graph: Plan, records: Mapping[str, Record], figures: Mapping[str, Plan]) -> None:
    """Print what each figure costs alone, what all cost together, and for which trainings."""
    together = estimate(graph, records, NETS, "cuda")
    alone = {name: estimate(figure, records, NETS, "cuda", graph.jobs.values()) for name, figure in figures.items()}
    rows = [(Cell((name,)), one) for name, one in alone.items() if one.points]
    if len(rows) > 1:
        rows.append((Cell(("together",), strong=True), together))
    costs, space, work = [], [], []
    for name, e in rows or [(Cell(("",)), together)]:
        counts = map(whole, (e.points, e.steps, e.trainings, e.without_sharing))
        costs.append((name, *counts, _hours(e.hours), _hours(e.hours_left)))
        sizes = (e.disk.masks, e.disk.snapshots, e.disk.needed, e.disk.weights)
        space.append((name, *(number(size(count), count) for count in sizes)))
    for w in sorted(together.work, key=lambda w: -w.hours):
        samples = number(f"{w.samples / 1e6:,.1f}", w.samples)
        speed = number(f"{w.images_per_second:,.0f}", w.images_per_second)
        on_gpu = (samples, speed, w.source, _hours(w.hours), _hours(w.left))
        work.append((w.what, whole(w.trainings), *(("", "", w.source, "", "") if w.source == ON_CPU else on_gpu)))
    takes = ("", "points", "steps", "trainings", "without\nsharing", "GPU-hours", "left")
    stays = ("", "masks", "snapshots", "weights,\n--keep needed", "weights,\n--keep all")
    spent = ("", "trainings", "10⁶ samples", "images/s", "", "GPU-hours", "left")
    show(console, Table.of(takes, costs, caption="cost by figure"))
    show(console, Table.of(spent, work, caption="cost by kind of training"))
    show(console, Table.of(stays, space, caption="disk space"))
    say = partial(console.print, highlight=False, markup=False)
    if len(alone) > 1:
        apart = sum(one.hours for one in alone.values())
        say(f"\neach figure alone: {_hours(apart).text} GPU-hours; together: {_hours(together.hours).text}")
    say(f"\nGPU-hours of one {GPU}, assuming that input never limits it.")
    for source in dict.fromkeys(w.source for w in together.work):
        say(f"{source}: {SOURCES[source]}")


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}{'s' * (count != 1)}"


def _hours(hours: float) -> Cell:
    return number(f"{hours:,.1f}" if hours < 100 else f"{hours:,.0f}", hours)


# ------------------------------------------------------------------------------------- results

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Layout:
    """Layout of a table of means.

    corner: heading of the first column. row_of: returns the name of a mean's row. column_of: returns the name of its
    column; the second argument is True if the table has several inits. order: what the rows are sorted by.
    """

    corner: str
    row_of: Callable[[Row], str]
    column_of: Callable[[Row, bool], str]
    order: Callable[[Row], tuple[float, float]] = lambda row: (-row["density"], row["rewind"] or 0)


def _curve(row: Row, several_inits: bool) -> str:
    return f"{row['task']}, {row['init']}" if several_inits else row["task"]


def pruned(row: Row) -> str:
    """Return the pruned fraction in percent as text, or ``dense``."""
    return "dense" if row["level"] == 0 else results.pruned_percent(row["density"])


def _rewind(row: Row) -> str:
    return "no" if row["rewind"] is None else f"{row['rewind']:,}"


def _study(row: Row) -> str:
    return f"{row['task']} at {results.pruned_percent(row['density'])} %"


def _threshold(row: Row) -> str:
    return str(row["metric"]).removeprefix("natural_sparsity").strip("_") or "1.2e-07"


BY_PRUNING = Layout("% pruned", pruned, _curve)
BY_THRESHOLD = Layout(
    "weights up to",
    _threshold,
    lambda row, _: row["init"],
    lambda row: (NATURAL_SPARSITIES.get(row["metric"], math.inf), 0),
)
BY_REWIND = Layout("rewound to", _rewind, lambda row, _: _study(row))


def table(console: Console, title: str, values: pa.Table, layout: Layout, inits: Sequence[str] = ()) -> None:
    """Print mean ± standard error over seeds: a table for each panel and, if there are ``inits``, for each of these.

    Curves are rows where they do not fit the console as columns, and are narrower as rows.
    """
    console.print(f"\n[bold]{escape(title)}[/bold]: mean ± standard error over n seeds, in %")
    for caption, n, grid in mean_tables(values, layout, inits):
        console.print(f"\n[bold]{escape(caption)}[/bold], {n}" if caption else f"\n{n}", highlight=False)
        show(console, grid if grid.width <= console.width else min(grid, grid.turned, key=lambda each: each.width))
    if empty := empty_layers(values):
        console.print(f"\nlayers with no weight left in at least one seed: {escape(empty)}", highlight=False)


def mean_tables(values: pa.Table, layout: Layout, inits: Sequence[str] = ()) -> Iterator[tuple[str, str, Table]]:
    """Yield panel and init, the number of seeds in words, and the table of means, for each panel and each of inits."""
    means = results.summary(values).to_pylist()
    for panel in dict.fromkeys(row["panel"] for row in means):
        for init in inits or (None,):
            mine = [row for row in means if row["panel"] == panel and init in (None, row["init"])]
            if mine:
                yield ", ".join(filter(None, (panel, init))), *_means(layout, mine)


def empty_layers(values: pa.Table) -> str:
    """Return where a layer is empty in a seed, as ``random at 99.08 % (2 of 3 seeds), ...``; several panels are named.

    A seed counts once, whatever the init: all inits of a task and level have the same mask.
    """
    place = ("panel", "task", "level")
    seeds: dict[tuple[Any, ...], dict[int, bool]] = {}
    for row in values.to_pylist():
        empty = seeds.setdefault(tuple(row[name] for name in place), {})
        empty[row["seed"]] = empty.get(row["seed"], False) or row["collapsed_layers"] > 0
    found: dict[str, list[str]] = {}
    for row in results.summary(values, place).to_pylist():
        empty = seeds[tuple(row[name] for name in place)]
        if count := sum(empty.values()):
            found.setdefault(row["panel"], []).append(f"{_study(row)} ({count} of {_counted(len(empty), 'seed')})")
    several = len({panel for panel, *_ in seeds}) > 1
    return "; ".join((f"{panel}: " if several else "") + ", ".join(sorted(where)) for panel, where in found.items())


def _means(layout: Layout, means: Sequence[Row]) -> tuple[str, Table]:
    """Return the number of seeds in words, and a table of means."""
    counts = {row["n"] for row in means}
    n = "n in brackets" if len(counts) > 1 else f"n = {min(counts)}"
    several = len({row["init"] for row in means}) > 1
    columns = dict.fromkeys(layout.column_of(row, several) for row in means)
    ordered = sorted(means, key=layout.order)
    cells = {(layout.row_of(row), layout.column_of(row, several)): mean(row, len(counts) > 1) for row in ordered}
    return n, _crossed(layout.corner, columns, cells)


def mean(row: Row, with_n: bool = False) -> str:
    """Write mean ± standard error of a row of results.summary, and the median if only some of its seeds collapsed.

    with_n: and the number of seeds.
    """
    error = "" if row["stderr"] is None else f" ± {row['stderr']:.1f}"
    more = [str(row["n"])] * with_n + [f"median {row['median']:.1f}"] * some_collapsed(row)
    return f"{row['mean']:.1f}{error}" + (f" ({', '.join(more)})" if more else "")


def some_collapsed(row: Row) -> bool:
    """Return whether a layer is empty in some seeds of a row of results.summary, but not in all."""
    return 0 < row["collapsed"] < row["n"]


def _crossed(corner: str, columns: Iterable[str], cells: Mapping[tuple[str, str], str]) -> Table:
    """Make a table of cells given by row and column; rows are in the order of their first cells."""
    columns = [*columns]
    rows = [
        (row, *(cells.get((row, column), "") for column in columns)) for row in dict.fromkeys(row for row, _ in cells)
    ]
    return Table.of((corner, *columns), rows, right=[True] * (len(columns) + 1))


def search(
    console: Console, values: pa.Table, tried: Mapping[tuple[str, int, int], float], importance: Mapping[str, float]
) -> None:
    """Print the rewind that each study chose and the best in the table, which may be the full grid's."""
    console.print("\n[bold]What was chosen[/bold]")
    show(console, search_table(values, tried))
    if importance:
        shares = ", ".join(f"{name} {100 * share:.1f}%" for name, share in importance.items())
        console.print(f"parameter importance over all means (fANOVA): {shares}", highlight=False)


def search_table(values: pa.Table, tried: Mapping[tuple[str, int, int], float]) -> Table:
    """Make a table of the rewind that each study chose, with its value in ``values``, and of the best value there, of
    all rewinds known with as many seeds.

    tried: means by which the finalists are compared.
    """
    studies: dict[tuple[str, int], list[Row]] = {}
    for row in results.summary(values).to_pylist():
        if row["rewind"] is not None:  # networks that are not rewound are no candidates
            studies.setdefault((row["task"], row["level"]), []).append(row)
    found = []
    for (task, level), rows in studies.items():
        among = {row["rewind"]: tried[at] for row in rows if (at := (task, level, row["rewind"])) in tried}
        chosen = max(sorted(among), key=among.__getitem__, default=None)
        known = [row for row in rows if row["n"] == max(row["n"] for row in rows)]
        cells = []
        for count, best in (
            (len(among), next((row for row in rows if row["rewind"] == chosen), None)),
            (len(known), max(known, key=lambda row: row["mean"])),
        ):
            cells += [str(count), *((mean(best), f"{best['rewind']:,}") if best else ("", ""))]
        found.append((task, results.pruned_percent(rows[0]["density"]), *cells))
    columns = ("", "% pruned", "finalists", "chosen", "at", "on all seeds", "best of these", "at")
    return Table.of(columns, found, right=[bool(name) for name in columns])


def listing_table(drawing: Listing, rows: Sequence[Sequence[Any]]) -> Table:
    """Make the table of a sweep that trains nothing; numbers have three significant digits, or none after the point."""

    def cell(value: Any) -> str | Cell:
        if isinstance(value, float) and abs(value) < 999.5:
            return number(f"{value:.3g}", value)
        return number(f"{value:,.0f}", value) if isinstance(value, int | float) else str(value)

    return Table.of(drawing.columns, [[cell(value) for value in row] for row in rows], caption=drawing.title)


def claims(
    console: Console, verdicts: Sequence[judged.Verdict], *, of_paper: bool = True, seeds_hint: str = "--seeds "
) -> None:
    """Print each claim with its verdict, the numbers with a 90% interval, and the test.

    Claims that can't be told for the same reason share a line. of_paper: the paper makes these claims. seeds_hint: what
    a user types before a number to get more seeds.
    """
    if verdicts:
        console.print(f"\n[bold]Claims{' of the paper' if of_paper else ''}[/bold]")
    untold = Counter(verdict.untold for verdict in verdicts if verdict.untold)
    for verdict in (one for one in verdicts if untold[one.untold] < 2):
        where = f"{verdict.panel}: " if verdict.panel else ""
        said = escape(f"{where}{verdict.claim.says} ({verdict.claim.source})")
        console.print(f"[{_MARKS[verdict.verdict]}]{verdict.verdict}[/]: {said}", highlight=False)
        for line in ";\n".join(verdict.parts).splitlines():
            shown = textwrap.fill(line, console.width, initial_indent="    ", subsequent_indent="      ")
            console.print(shown, highlight=False, markup=False)
    say = partial(console.print, highlight=False, soft_wrap=True)
    for why, count in untold.items():
        if count > 1:
            say(f"[{_MARKS[judged.UNDECIDED]}]{judged.UNDECIDED}[/]: {_counted(count, 'claim')} ({escape(why)})")
        if why == judged.TOO_FEW:
            say(escape(f"to add seeds: {seeds_hint}{judged.MIN_SEEDS}"))
    for warning in judged.warnings(verdicts):
        say(f"[yellow]careful[/]: {escape(warning)}")
    console.print()


def mask_densities(console: Console, table: pa.Table) -> None:
    """Print the density of each layer at the middle density of each panel; all densities would be too much to read."""
    rows = table.to_pylist()
    for panel in dict.fromkeys(row["panel"] for row in rows):
        lefts = sorted({row["left"] for row in rows if row["panel"] == panel}, reverse=True)
        mine = [row for row in rows if row["panel"] == panel and row["left"] == lefts[len(lefts) // 2]]
        where = f"% left of each layer where {results.pruned_percent(mine[0]['overall'])} % of all weights are pruned"
        cells = {(row["layer"], row["task"]): _fraction(row["density"], row["stderr"], 100, 2) for row in mine}
        _wide(console, panel, f"{where}, {_seeds(mine)}", "layer", cells)


def mask_overlaps(console: Console, table: pa.Table) -> None:
    """Print the overlaps of each panel and relation, with those expected by chance."""
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
    """Print cells by row and column, in as many tables as it takes to fit the width."""
    console.print(f"\n[bold]{escape(panel)}[/bold]{': ' if panel else ''}{escape(title)}", highlight=False)
    columns = [*dict.fromkeys(column for _, column in cells)]
    widest = 2 + max(map(len, cells.values()))
    fit = max(1, (console.width - 2 - max(len(corner), *(len(row) for row, _ in cells))) // widest)
    for at in range(0, min(len(columns), MAX_COLUMNS), fit):
        show(console, _crossed(corner, columns[at : at + fit], cells), keep_first=True)
    if len(columns) > MAX_COLUMNS:
        console.print(f"{_counted(len(columns) - MAX_COLUMNS, 'more column')}: see the table's file", highlight=False)


def _fraction(value: float, error: float | None, scale: int = 1, digits: int = 3) -> str:
    return " ± ".join(f"{scale * part:.{digits}f}" for part in (value, error) if part is not None)


def _seeds(rows: Sequence[Row]) -> str:
    counts = sorted({row["n"] for row in rows})
    return f"n = {counts[0]}" + (f" to {counts[-1]}" if len(counts) > 1 else "")


MAX_COLUMNS = 8
"""Maximum number of columns that are printed."""
