"""``raysslprune tune labels --over lr=0.01..0.3 batch=32,64``: choose a task's recipe by images that are held out.

The trials are dense trainings on the other training images, steps like any others. Optuna draws their recipes and
records them; which of them are trained with more seeds is decided by successive halving, as in the rewind study.
"""

from __future__ import annotations

import argparse
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from difflib import get_close_matches
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any

from raysslprune import catalogue
from raysslprune.commands.common import Parser, count, reports_errors, wrong_calls
from raysslprune.experiment import Experiment, Failed
from raysslprune.messages import UserError, note
from raysslprune.paper import scalefile
from raysslprune.paper.scales import SETTINGS, Net
from raysslprune.spec import Recipe, Train, seed_of, value_of, with_values
from raysslprune.sweepfile import PILOT_SEED, Point, Tuning

if TYPE_CHECKING:
    from raysslprune.plan.search import Range, Study

TRIALS, SEEDS = 16, 4
"""Defaults of ``--trials`` and ``--seeds``."""

PARSERS = {
    "int": (int, r"[0-9]{1,18}"),
    "float": (float, r"[0-9]*\.?[0-9]+([eE]-?[0-9]{1,3})?"),
    "bool": ({"true": True, "false": False}.__getitem__, "true|false"),
    "str": (str, ".+"),
}
"""Parsers of values, and patterns of what they take, by the type of the recipe's field or the task's option."""


@reports_errors(stopped="stopped; finished trainings are kept; run the same command again to resume")
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return the exit code."""
    options = _parser().parse_args(arguments)
    with wrong_calls():
        scale = scalefile.scale(options.scale, options.set)
        net = SETTINGS[scale].net
        recipes = _recipes(net, options.task, options.over, options.trials)
    experiment = _experiment(net.held_out, recipes, scale, options)
    if options.dry_run:
        experiment.plan()
        return 0
    try:
        experiment.run()
        chosen = _chosen(experiment, options.task)
    except Failed as failed:
        chosen = _chosen(experiment, options.task)
        if not chosen:
            raise
        note(str(failed))  # that a rate is too high is a result, too
    print("\n".join(chosen))
    return 0


def _recipes(net: Net, task: str, over: Sequence[str], trials: int) -> list[Recipe]:
    """Return the recipes to try. Raises ValueError for a wrong task, field, value or combination of values."""
    from raysslprune.plan.search import candidates  # imports Optuna, which takes a second

    if task not in list(net.recipes):
        raise ValueError(f"this scale has no recipe for {task!r:.80}, only for {', '.join(net.recipes)}")
    recipe, kind = net.recipes[task], catalogue.OPTIONS.get(task.partition(":")[0])
    types = {field.name: str(field.type) for field in fields(Recipe)}
    types |= {f"options.{field.name}": type(field.default).__name__ for field in fields(kind or Recipe) if kind}
    space = dict(_parsed(text, types) for text in over)
    found = [with_values(recipe, values) for values in candidates(space, trials)]
    for one in found:
        if kind:
            catalogue.made(task, kind, one.options)
    return found


def _parsed(text: str, types: Mapping[str, str]) -> tuple[str, Range | list[Any]]:
    """Parse ``lr=0.01..0.3`` or ``batch=32,64``. Raises ValueError."""
    from raysslprune.plan.search import Range

    name, _, values = text.partition("=")
    known = [field for field, kind in types.items() if kind in PARSERS]
    if name not in known:
        near = get_close_matches(name, known, 1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ValueError(f"--over {text!r:.80}: {name!r:.40} is not one of {', '.join(known)}{hint}")
    parse, pattern = PARSERS[types[name]]
    ends = re.fullmatch(rf"({pattern})\.\.({pattern})", values) if types[name] in ("int", "float") else None
    parts = [ends[1], ends[ends.re.groups // 2 + 1]] if ends else values.split(",")
    if not all(re.fullmatch(pattern, part) for part in parts):
        forms = "a..b or a,b,c" if types[name] in ("int", "float") else "a,b,c"
        raise ValueError(f"--over {text!r:.80}: write the values of {name}, of type {types[name]}, as {forms}")
    found = [parse(part) for part in parts]
    if not ends:
        return name, list(dict.fromkeys(found))
    if found[0] >= found[1]:
        raise ValueError(f"--over {text!r:.80}: the first end must be below the second")
    return name, Range(found[0], found[1])


def _experiment(net: Net, recipes: Sequence[Recipe], scale: str, options: argparse.Namespace) -> Experiment:
    """Return the trials as a sweep, named after the task and a digest of the trials."""

    def step(recipe: Recipe, seed: int) -> Train:
        tried = replace(net, recipes={options.task: recipe}, rewind={options.task: 0})
        return tried.imp(options.task, seed=seed, levels=0, keep=0.5).dense

    first = [step(recipe, PILOT_SEED) for recipe in recipes]
    metric = next((one for one in catalogue.metrics(first[0]) if one.endswith(catalogue.VALIDATION)), None)
    if metric is None:
        raise UserError(f"no metric of task {options.task} on held-out images is known, so its recipe can't be tuned")

    def points(_: str, seed: int) -> list[Point]:
        return [
            Point(step=step(recipe, seed), task=options.task, init=str(number), level=0, seed=seed, metric=metric)
            for number, recipe in enumerate(recipes)
        ]

    over = tuple(text.partition("=")[0] for text in options.over)
    task = re.sub(r"\W+", "_", options.task)
    loaded = Experiment.of(
        points,
        Tuning(title=f"Recipe of {options.task}", objective=metric, over=over),
        name=f"tune_{task}_{seed_of(*(one.id for one in first)) % 16**8:08x}",
        scale=scale,
        seeds=range(PILOT_SEED, PILOT_SEED + options.seeds),
        root=options.root,
        data=options.data,
    )
    return replace(loaded, seeds_hint="--seeds ")


def _chosen(experiment: Experiment, task: str) -> list[str]:
    """Return the best recipe as lines of a scale file, below comments on how it was chosen; [] if all have failed.

    All trainings have ended, so those without a record have failed.
    """
    from raysslprune.plan.search import Study, by_recipe  # imports Optuna, which takes a second

    drawing, points = experiment.sweep.drawing, experiment.sweep.points
    assert isinstance(drawing, Tuning)
    records = {} if experiment.store.is_new() else experiment.store.survey({point.step.id for point in points})[0]
    (tried,) = by_recipe(points).values()

    def look(candidate: int, number: int) -> float:
        record = records.get(tried[candidate][number].step.id)
        return math.nan if record is None else record.metrics.get(drawing.objective, math.nan)

    def recipe(candidate: int) -> list[str]:
        return [f"{name} = {_toml(value_of(tried[candidate][0].step.recipe, name))}" for name in drawing.over]

    study = Study(drawing.title, list(tried), len(tried[0]))
    study.advance(look)
    ranked = sorted(study.values, key=lambda candidate: (-study.values[candidate], candidate))
    if not ranked:
        return []
    how = [
        f"chosen by {drawing.objective} on {points[0].step.data}: on training images that are held out, not on test "
        "images",
        f"the best of {len(tried)} trials by successive halving: {_halving(study)}",
        "each with its one seed"
        if study.seeds == 1
        else f"of the best: the mean over {study.seeds} seeds, the sample standard deviation, and each seed",
    ]
    for candidate in ranked:
        values = [look(candidate, number) for number in range(study.seeds)]
        how.append(f"    {fmean(values):.2f}{_spread(values)}  {', '.join(recipe(candidate))}")
    section = task if re.fullmatch(r"[\w-]+", task) else json.dumps(task)
    return [*(f"# {line}" for line in how), f"[recipes.{section}]", *recipe(ranked[0])]


def _halving(study: Study) -> str:
    """Say how many trials were trained with how many seeds, and what the first seed's values were."""
    known = [trial.means for trial in study.trials.values() if trial.means]
    first, failed = [means[0] for means in known], len(study.trials) - len(known)
    counts = sorted({len(means) for means in known})
    rungs = ", ".join(f"{sum(len(means) >= count for means in known)} with {count}" for count in counts)
    lost = f"; {failed} failed" if failed else ""
    return f"{rungs} seed{'s' * (counts[-1] > 1)}, from {min(first):.2f} to {max(first):.2f} with the first{lost}"


def _spread(values: Sequence[float]) -> str:
    shown = " ".join(f"{value:.2f}" for value in values)
    return f" ± {stdev(values):.2f} ({shown})" if len(values) > 1 else ""


def _toml(value: Any) -> str:
    return json.dumps(value) if isinstance(value, bool | str) else repr(value)


def _parser() -> Parser:
    parser = Parser(
        prog="raysslprune tune",
        description="Choose the recipe of a task by training images that are held out, and print it for a scale file. "
        "The same command again resumes.",
        examples=[
            "raysslprune tune labels --over lr=0.01..0.3 batch=32,64",
            "raysslprune tune npid --over lr=0.001..0.1 options.temperature=0.07..1 --trials 32 --seeds 8",
        ],
        codes="0 a recipe is chosen; 1 the trainings, the store, the data or Ray failed; 2 a wrong call",
    )
    parser.add_argument("task", metavar="TASK", help="as in the scale's recipes: labels, rotnet, labels:10%%-of-images")
    parser.add_scale("the recipe")
    over = "fields of the recipe: a range, as lr=0.01..0.3, or values, as batch=32,64; a task's option as options.NAME"
    parser.add_argument("--over", required=True, nargs="+", metavar="FIELD=VALUES", help=over)
    trials = f"how many recipes to try with one seed (default: {TRIALS})"
    parser.add_argument("--trials", type=count, default=TRIALS, metavar="N", help=trials)
    seeds = f"seeds that the last recipes have; the better half goes on after 1, 2, 4 ... seeds (default: {SEEDS})"
    parser.add_argument("--seeds", type=count, default=SEEDS, metavar="N", help=seeds)
    parser.add_root()
    parser.add_data("; digits come with the package")
    parser.add_argument("--dry-run", action="store_true", help="print what would run and what it would cost, and exit")
    return parser
