"""Where a number comes from: a row of a table traced to its step, and that to everything that it was made from."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

from raysslprune import plan
from raysslprune.options import main_metric, told
from raysslprune.progress import duration, size
from raysslprune.scales import images_of
from raysslprune.spec import (
    SVM,
    Final,
    Imported,
    Init,
    Mask,
    Prune,
    RandomPrune,
    Recipe,
    Rewind,
    Shuffle,
    Step,
    Train,
    closure,
)
from raysslprune.store import Record, Store
from raysslprune.sweepfile import Point

LEAST = 4
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
        say(f"    {_number(point.metric, records[point.step.id].metrics[point.metric])}")
    if not found:
        say(f"{name}: a step that none of the rows shows", style="bold")
    say(f"step {step.id}: {_title(step)}", style="bold")
    if step.id in records:
        say("    " + ", ".join(_number(*item) for item in told(records[step.id].metrics).items()))
        for file, facts in records[step.id].files.items():
            say(f"    {store.path(f'steps/{step.id}/{file}')}  {size(facts.size)}")
    else:
        say("    not done")
    _chain(say, closure([step]), records, store)


def _find(name: str, points: Sequence[Point], rows: Sequence[Point], text: str) -> tuple[Step, list[int]]:
    """The step, and the numbers of the rows that are meant: one, or all that show a step given by its id."""
    if text.isdecimal() and len(text) < 16 and int(text) < len(rows):
        return rows[int(text)].step, [int(text)]
    may_be_an_id = bool(text) and (len(text) >= LEAST or not text.isdecimal())
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
        return f"{plan.title(step)}; {plan.what(step)}"
    assert isinstance(step, Mask)
    return plan.describe(step)


def how_made(step: Step, number: Mapping[Step, str], recipe: str) -> str:
    """How a step is made from those before it, by their numbers."""
    match step:
        case Train(start=start, seed=seed, mask=mask):
            under = f", under mask {number[mask]}" if mask is not None else ""
            match start:
                case Init(draw=draw):
                    begins = f"drawn from seed {start.seed}" + (f", draw {draw}" if draw else "")
                case Rewind(of=of, samples=samples):
                    begins = f"from {number[of]} at {samples:,}"
                case Final(of=of):
                    begins = f"from {number[of]}"
            return f"train {step.task} {recipe}, seed {seed}, {begins}{under}"
        case Prune(of=of, keep=keep, scope=scope):
            return f"prune {number[of]}: {100 * keep:g}% of {scope} stay"
        case RandomPrune(keep=keep, level=level, seed=seed, scope=scope, nonzero=nonzero):
            but = f", none that is 0 in {number[nonzero]}" if nonzero is not None else ""
            return f"random mask: {100 * keep:g}% of {scope} stay, {level} times, seed {seed}{but}"
        case Imported(arch=arch, digest=digest):
            return f"mask of {arch} from elsewhere, digest {digest[:8]}"
        case Shuffle(of=of, seed=seed):
            return f"shuffle {number[of]} in each layer, seed {seed}"
    raise AssertionError(step)


def recipe_in_words(step: Train) -> str:
    """In full: what differs from the defaults; the length in epochs as well, where the size of the data is known."""
    recipe = step.recipe
    if isinstance(recipe, SVM):
        return f"{plan.what(step)}: {_options(recipe)}"
    try:
        epochs = f" (epochs: {recipe.samples / images_of(step.data):.4g})"
    except (KeyError, ValueError):
        epochs = ""
    return f"{plan.what(step)}: samples {recipe.samples:,}{epochs}, {_options(recipe, without=('samples',))}"


def _options(recipe: Recipe | SVM, without: Iterable[str] = ()) -> str:
    fields = [field for field in dataclasses.fields(recipe) if field.name not in without]
    values = ((field.name, getattr(recipe, field.name)) for field in fields)
    chosen = [(name, value) for (name, value), field in zip(values, fields, strict=True) if value != field.default]
    return ", ".join(f"{name} {_value(value)}".removesuffix(" True") for name, value in chosen)


def _value(value: Any) -> str:
    if isinstance(value, tuple):
        return "(" + " ".join(_value(part) for part in value) + ")"
    return f"{value:,}" if type(value) is int else f"{value:g}" if isinstance(value, float) else str(value)


def result_of(record: Record) -> tuple[str, str, str, str]:
    """A training's main metric, the fraction of weights left, how long it took, and when."""
    main = main_metric(record.metrics)
    left = record.metrics.get("density")
    facts = record.facts
    return (
        _number(main, record.metrics[main]) if main else "",
        "" if left is None else f"{100 * left:.4g}%",
        duration(facts["seconds"]) if "seconds" in facts else "",
        time.strftime("%Y-%m-%d %H:%M", time.gmtime(facts["begun"])) if "begun" in facts else "",
    )


def run_of(record: Record) -> str:
    """Where, and with which versions. A mask says only with which: it is made beside a training, or elsewhere."""
    facts = record.facts
    made = f"masks of {facts['source']}" if "source" in facts else "masks, made beside trainings"
    place = f"{facts['host']}, {facts['device']}" if "host" in facts else made
    return f"{place}; " + ", ".join(f"{name} {version}" for name, version in facts.get("versions", {}).items())


def _files(record: Record) -> str:
    files = {name.removesuffix(".safetensors"): file for name, file in record.files.items() if name != "spec.json"}
    return ", ".join(f"{name} {size(file.size)}" for name, file in files.items())


def _number(metric: str, value: float) -> str:
    return f"{metric} {value:.6g}"


def _printer(console: Console) -> Callable[..., None]:
    """Of whole lines: a terminal breaks them, a file or a pipe gets them as they are."""
    return lambda line, style="": console.print(Text(line, style=style), soft_wrap=True, highlight=False)
