"""Where a number comes from: a row of a table traced to its step, and that to everything that it was made from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from rich.console import Console
from rich.text import Text

from raysslprune import words
from raysslprune.catalogue import shown_metrics
from raysslprune.spec import (
    Mask,
    Step,
    Train,
    closure,
)
from raysslprune.store.record import Record
from raysslprune.store.steps import Store
from raysslprune.sweepfile import Point
from raysslprune.words import how_made, metric_value, recipe_in_words, result_of, run_of, size

MIN_ID = 4
"""Of an id that begins with so many decimal digits alone: fewer are a row's number, or nothing."""


def explain(
    console: Console, name: str, points: Sequence[Point], row: str, records: Mapping[str, Record], store: Store
) -> None:
    """Print what a row of the sweep ``name`` is: its step, all steps behind it in the order in which they are made.

    row: the number of a row of its table, from 0; or the beginning of a step's id, also of one that is in no row.
    Raises ValueError, with a sentence, where that names nothing, or several steps.
    """
    rows = [p for p in points if p.step.id in records and p.metric in records[p.step.id].metrics]
    step, found = _find(name, points, rows, row)
    say = _printer(console)
    for number in found:
        point = rows[number]
        say(f"{name}, row {number}: {_where(point)}", style="bold")
        say(f"    {metric_value(point.metric, records[point.step.id].metrics[point.metric])}")
    if not found:
        say(f"{name}: a step that none of the rows shows", style="bold")
    say(f"step {step.id}: {_title(step)}", style="bold")
    if step.id in records:
        say("    " + ", ".join(metric_value(*item) for item in shown_metrics(records[step.id].metrics).items()))
        for file, facts in records[step.id].files.items():
            say(f"    {store.path(f'steps/{step.id}/{file}')}  {size(facts.size)}")
    else:
        say("    not done")
    _chain(say, closure([step]), records, store)


def _find(name: str, points: Sequence[Point], rows: Sequence[Point], text: str) -> tuple[Step, list[int]]:
    """The step, and the numbers of the rows that are meant: one, or all that show a step given by its id."""
    if text.isdecimal() and len(text) < 16 and int(text) < len(rows):
        return rows[int(text)].step, [int(text)]
    may_be_an_id = bool(text) and (len(text) >= MIN_ID or not text.isdecimal())
    steps = closure(point.step for point in points) if may_be_an_id else []
    steps = [step for step in steps if step.id.startswith(text.lower())]
    if len(steps) > 1:
        ids = ", ".join(step.id for step in steps[:3]) + (", ..." if len(steps) > 3 else "")
        raise ValueError(f"{len(steps)} steps of {name} begin with {text!r}: {ids}")
    if not steps:
        has = f"its rows are 0 to {len(rows) - 1}" if rows else "it has no rows yet"
        has += f", since {len(rows)} of {len(points)} points are done" if 0 < len(rows) < len(points) else ""
        raise ValueError(f"{name} has no row and no step {text!r:.40}; {has}")
    return steps[0], [number for number, point in enumerate(rows) if point.step == steps[0]]


def _chain(say: Callable[..., None], steps: Sequence[Step], records: Mapping[str, Record], store: Store) -> None:
    """A line for each step; recipes and runs, each once, under the names that the lines give them."""
    number = {step: f"#{n}" for n, step in enumerate(steps, 1)}
    recipes: dict[str, str] = {}
    runs: dict[str, str] = {}
    lines: list[tuple[str, ...]] = [("", "step", "what", "result", "left", "took", "begun (UTC)", "run", "files")]
    for step in steps:
        recipe = ""
        if isinstance(step, Train):
            recipe = recipes.setdefault(recipe_in_words(step), f"R{len(recipes) + 1}")
        record = records.get(step.id)
        done = ("not done", "", "", "", "", "")
        if record is not None:
            run = runs.setdefault(run_of(record), f"run {len(runs) + 1}")
            done = (*result_of(record), run, _files(record))
        lines.append((number[step], step.id, how_made(step, number, recipe), *done))
    say("\nwhat it is made from, in order", style="bold")
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        say("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    say(f"files: {store.path('steps')}/STEP/")
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
    assert isinstance(step, Mask)
    return words.describe(step)


def _files(record: Record) -> str:
    files = {name.removesuffix(".safetensors"): file for name, file in record.files.items() if name != "spec.json"}
    return ", ".join(f"{name} {size(file.size)}" for name, file in files.items())


def _printer(console: Console) -> Callable[..., None]:
    """Of whole lines: a terminal breaks them, a file or a pipe gets them as they are."""
    return lambda line, style="": console.print(Text(line, style=style), soft_wrap=True, highlight=False)
