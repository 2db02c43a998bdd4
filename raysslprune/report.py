"""What a person reads on the terminal: the plan, the table, the claims."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from raysslprune import claims as judged
from raysslprune import plan, results
from raysslprune.progress import duration, size
from raysslprune.recipes import NETS
from raysslprune.spec import Figure
from raysslprune.store import Damaged, Record, Store

_MARKS = {judged.HOLDS: "green", judged.FAILS: "red", judged.FEW: "yellow"}


def dry_run(
    console: Console,
    store: Store,
    graph: plan.Plan,
    records: Mapping[str, Record],
    damaged: Sequence[Damaged],
    missing: Sequence[str],
    cores: int,
) -> None:
    """What a sweep would do, and what it would cost on this machine."""
    pending = graph.pending(records)
    cost = plan.cost(graph.jobs.values(), records, NETS)
    seconds = sum(cost.seconds[job.id] for job in pending)
    longest = plan.Schedule(pending, cost.seconds).longest_path
    wall = max(seconds / cores, longest) + (plan.START if pending else 0)
    masks = sum(mask.id not in records for job in pending for mask in job.masks)
    trainings, steps, left = len(graph.jobs), len(graph.ids), graph.trainings_left(records)
    grid = Table.grid(padding=(0, 2))
    grid.add_row("root", escape(store.path("")))
    grid.add_row("points", f"{len(graph.points):,}")
    grid.add_row("unique steps", f"{steps:,} ({trainings:,} trainings, {steps - trainings:,} masks)")
    grid.add_row("done", f"{trainings - left:,} trainings")
    grid.add_row("will run", f"{left:,} trainings, {masks:,} masks")
    if damaged:
        grid.add_row("damaged", f"{len(damaged):,} of the steps, to be set aside and made again")
    for sentence in missing:
        grid.add_row("data", escape(sentence))
    grid.add_row("without sharing", f"{graph.trainings_without_sharing():,} trainings")
    grid.add_row("time", f"about {duration(wall)} on {cores} cores ({duration(seconds)} of training)")
    grid.add_row("disk", f"about {size(cost.disk)} when all is done")
    console.print(grid, highlight=False)


def table(console: Console, figure: Figure, values: pa.Table) -> None:
    """Mean ± standard error over seeds: for each panel, a row for each density and a column for each task."""
    means = results.summary(values).to_pylist()
    dense = [
        r for r in means if (r["task"], r["init"], r["level"]) == (figure.reference.task, figure.reference.init, 0)
    ]
    console.print(
        f"\n[bold]{escape(figure.title)}[/bold]: {escape(figure.y_label)}, mean ± standard error over n seeds"
    )
    if dense:
        console.print(f"dense: {_cell(dense[0])}, n = {dense[0]['n']}", highlight=False)
    for panel in figure.panels:
        mine = [r for r in means if r["init"] == panel and r["level"] > 0]
        if not mine:
            continue
        tasks = list(dict.fromkeys(r["task"] for r in mine))
        counts = {r["n"] for r in mine}
        n = f"n = {counts.pop()}" if len(counts) == 1 else "n in brackets"
        grid = Table(box=None, padding=(0, 2, 0, 0))
        for heading in ("% pruned", *tasks):
            grid.add_column(escape(heading), justify="right")
        rows: dict[str, dict[str, Any]] = {}
        for row in sorted(mine, key=lambda r: -r["density"]):
            rows.setdefault(results.pruned_percent(row["density"]), {})[row["task"]] = row
        for pruned, cells in rows.items():
            texts = [_cell(cells[task], n == "n in brackets") if task in cells else "" for task in tasks]
            grid.add_row(pruned, *texts)
        console.print(f"\n[bold]{escape(panel)}[/bold], {n}", highlight=False)
        console.print(grid, highlight=False)
    collapsed = [r for r in means if r["collapsed_layers"]]
    if collapsed:
        where = sorted({f"{r['task']} at {results.pruned_percent(r['density'])} %" for r in collapsed})
        console.print(f"\nlayers with no weight left in at least one seed: {escape(', '.join(where))}", highlight=False)


def claims(console: Console, verdicts: Sequence[judged.Verdict]) -> None:
    """Each claim of the paper with its verdict, the numbers, and the test."""
    if verdicts:
        console.print("\n[bold]Claims of the paper[/bold]")
    for verdict in verdicts:
        said = escape(f"{verdict.claim.says} ({verdict.claim.source})")
        console.print(f"[{_MARKS[verdict.verdict]}]{verdict.verdict}[/]: {said}", highlight=False)
        console.print(f"    {verdict.numbers}", highlight=False, markup=False)
    if any(verdict.verdict == judged.FEW for verdict in verdicts):
        console.print(
            f"verdicts need {judged.LEAST_SEEDS} seeds: run again with --seeds {judged.LEAST_SEEDS}", highlight=False
        )
    console.print()


def _cell(row: Mapping[str, Any], with_n: bool = False) -> str:
    error = "" if row["stderr"] is None else f" ± {row['stderr']:.1f}"
    return f"{row['mean']:.1f}{error}" + (f" ({row['n']})" if with_n else "")
