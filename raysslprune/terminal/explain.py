"""Trace a row of a table to its step, and the step to everything that it was made from."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence

from rich.console import Console
from rich.text import Text

from raysslprune import words
from raysslprune.catalogue import label_samples, shown_metrics
from raysslprune.spec import ImportedWeights, Mask, Prune, Step, Train, closure, not_read
from raysslprune.store.record import EMPTIED, MULTIPLY_ADDS, TIED, Record
from raysslprune.store.steps import Store
from raysslprune.sweepfile import Point
from raysslprune.table import Table, lines
from raysslprune.words import how_made, metric_value, recipe_in_words, result_of, run_of, size

MIN_ID = 4
"""Minimum number of decimal digits that may begin an id; fewer can only be the number of a row."""


def explain(
    console: Console, name: str, points: Sequence[Point], row: str, records: Mapping[str, Record], store: Store
) -> None:
    """Print a row of the sweep ``name``: its step, and all steps behind it in the order in which they are made.

    row: number of a row of its table, from 0; or the beginning of the id of any of its steps. Raises ValueError, with a
    sentence, if there is no such row or step, or several.
    """
    rows = [p for p in points if p.step.id in records and p.metric in records[p.step.id].metrics]
    step, found = _find(name, points, rows, row)

    def say(line: str, style: str = "") -> None:  # only a terminal wraps long lines, not a file or pipe
        console.print(Text(line, style=style), soft_wrap=True, highlight=False)

    for number in found:
        point = rows[number]
        say(f"{name}, row {number}: {_where(point)}", style="bold")
        say(f"    {metric_value(point.metric, records[point.step.id].metrics[point.metric])}")
    if not found:
        say(f"{name}: a step without a row", style="bold")
    say(f"step {step.id}: {_title(step)}", style="bold")
    if record := records.get(step.id):
        say("    " + ", ".join(metric_value(*item) for item in shown_metrics(record.metrics).items()))
        for file, facts in record.files.items():
            say(f"    {store.path(f'steps/{step.id}/{file}')}  {size(facts.size)}")
    else:
        say("    not done")
    if isinstance(step, Train) and (seen := label_samples(step)) is not None:
        say(f"    samples with labels seen by it and by what it starts from: {seen:,}")
    if record and (left := record.facts.get(MULTIPLY_ADDS)) is not None:
        say(f"    multiply-adds for one image, without those of pruned weights: {left:,}")
    _chain(say, closure([step]), records, store)


def _find(name: str, points: Sequence[Point], rows: Sequence[Point], text: str) -> tuple[Step, list[int]]:
    """Return the step that the text names, and its rows: one if the text is a row's number, all if it is an id."""
    if text.isdecimal() and len(text) < 16 and int(text) < len(rows):
        return rows[int(text)].step, [int(text)]
    may_be_an_id = bool(text) and (len(text) >= MIN_ID or not text.isdecimal())
    every = closure(point.step for point in points) if may_be_an_id else []
    steps = [step for step in every if step.id.startswith(text.lower())]
    if len(steps) > 1:
        ids = ", ".join(step.id for step in steps[:3]) + (", ..." if len(steps) > 3 else "")
        raise ValueError(f"{len(steps)} steps of {name} begin with {text!r}: {ids}")
    if not steps:
        has = f"its rows are 0 to {len(rows) - 1}" if rows else "it has no rows yet"
        has += f", since {len(rows)} of {len(points)} points are done" if 0 < len(rows) < len(points) else ""
        raise ValueError(f"{name} has no row and no step {text!r:.40}; {has}")
    return steps[0], [number for number, point in enumerate(rows) if point.step == steps[0]]


def _chain(say: Callable[..., None], steps: Sequence[Step], records: Mapping[str, Record], store: Store) -> None:
    """Print a line for each step; then the recipes and the runs that these lines name, each once."""
    number = {step: f"#{n}" for n, step in enumerate(steps, 1)}
    recipes: dict[str, str] = defaultdict(lambda: f"R{len(recipes) + 1}")
    runs: dict[str, str] = defaultdict(lambda: f"run {len(runs) + 1}")
    rows: list[tuple[str, ...]] = []
    unread = {of for step in steps for of in not_read(step)}
    for step in steps:
        made = how_made(step, number, recipes[recipe_in_words(step)] if isinstance(step, Train) else "")
        record = records.get(step.id)
        lacking = "not needed" if step in unread else "not done"
        done = (lacking, *[""] * 5) if record is None else (*result_of(record), runs[run_of(record)], _files(record))
        rows.append((number[step], step.id, made, *done))
    say("\nhow it is made, in order", style="bold")
    columns = ("", "step", "what", "result", "left", "took", "begun (UTC)", "run", "files")
    for line in lines(Table.of(columns, rows)):
        say(line)
    say(f"files: {store.path('steps')}/STEP/")
    pruned = {number[s]: records[s.id].facts for s in steps if isinstance(s, Prune) and s.id in records}
    if any(facts.get(TIED) for facts in pruned.values()):
        say("ties: weights of equal magnitude; which of them stay was drawn, with a seed from the step's id")
    for key, facts in pruned.items():
        if emptied := facts.get(EMPTIED):
            say(f"{key} leaves layers without any weight: {', '.join(emptied)}")
    if older := [key for key, facts in pruned.items() if TIED not in facts]:
        say(f"made before ties were drawn: {', '.join(older)}; of weights of equal magnitude, if any, the last stayed")
    for title, named in (("\nrecipes", recipes), ("\nruns", runs)):
        say(title, style="bold")
        for what, key in named.items():
            say(f"{key}: {what}")


def _where(point: Point) -> str:
    panel = f"{point.panel}, " if point.panel else ""
    return f"{panel}{point.task}, {point.init}, level {point.level}, seed {point.seed}"


def _title(step: Step) -> str:
    if isinstance(step, Train):
        return f"{words.title(step)}; {words.what(step)}"
    if isinstance(step, ImportedWeights):
        return words.how_made(step, {}, "")
    assert isinstance(step, Mask)
    return words.describe(step)


def _files(record: Record) -> str:
    files = {name.removesuffix(".safetensors"): file for name, file in record.files.items() if name != "spec.json"}
    return ", ".join(f"{name} {size(file.size)}" for name, file in files.items())
