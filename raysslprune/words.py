"""Say in words what steps, recipes and results are; write durations and sizes as people read them."""

from __future__ import annotations

import dataclasses
import math
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any

from raysslprune.catalogue import main_metric
from raysslprune.paper.scales import images_of
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
    prunings,
    target_density,
)
from raysslprune.store.record import Record

# ------------------------------------------------------------------------------------- steps by name


def title(step: Train) -> str:
    """For people: task, level of pruning, where its weights come from, seed."""
    start = step.start
    begins = (
        f"from {start.of.task}" if isinstance(start, Final) else "rewound" if isinstance(start, Rewind) else "drawn"
    )
    return f"{_task(step)} seed {step.seed}, {describe(step.mask)}, {begins}"


def titles(trainings: Iterable[Train]) -> dict[str, str]:
    """Titles by id. Disambiguate equal ones by what their trainings differ in."""
    alike: dict[str, list[Train]] = {}
    for step in trainings:
        alike.setdefault(title(step), []).append(step)
    named: dict[str, str] = {}
    for shared, steps in alike.items():
        named |= told_apart(shared, {step.id: _facts(step) for step in steps} if len(steps) > 1 else {steps[0].id: {}})
    return named


def told_apart(shared: str, facts: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """Names for steps, by id, that all begin with ``shared`` and go on with the first facts that tell them apart.

    facts: of each step, by kinds; the most telling kinds come first. Steps that differ in nothing of that get their
    ids, which ``--explain`` takes.
    """
    named = dict.fromkeys(facts, shared)
    for kind in dict.fromkeys(kind for some in facts.values() for kind in some):
        longer = {i: ", ".join(filter(None, (name, facts[i].get(kind, "")))) for i, name in named.items()}
        if len(set(longer.values())) > len(set(named.values())):
            named = longer
    counts = Counter(named.values())
    return {i: name if counts[name] == 1 else f"{name}, step {i[:8]}" for i, name in named.items()}


def _facts(step: Train) -> dict[str, str]:
    """What a title leaves out: of the training, of the one that it starts from, and of the one that its mask is of."""
    density, start = target_density(step.mask), step.start
    facts = {
        "rewind": f"to {start.samples:,}" if isinstance(start, Rewind) else "",
        "left": "" if math.isnan(density) else f"{100 * density:.3g}% left",
        "arch": step.arch,
        "data": step.data,
        "scope": _scope(step.mask),
        "begins": begins(step),
        **recipe_facts(step),
    }
    origins = {"from": None if isinstance(start, Init) else start.of, "mask of": _dense(step.mask)}
    for word, origin in origins.items():
        if origin is not None and origin is not step:
            told = {"task": origin.task, "data": origin.data, "begins": begins(origin), **recipe_facts(origin)}
            facts |= {f"{word} {kind}": f"{word} {fact}" for kind, fact in told.items()}
    return facts


def begins(step: Train) -> str:
    """On what a network was trained first of all, and from which draw of its weights."""
    while not isinstance(step.start, Init):
        step = step.start.of
    return f"begun on {step.task}" + (f", draw {step.start.draw}" if step.start.draw else "")


def recipe_facts(step: Train) -> dict[str, str]:
    """A training's length and all else of its recipe, by fields."""
    values = {field.name: getattr(step.recipe, field.name) for field in fields(step.recipe)}
    options = dict(values.pop("options", ()))
    samples = {"samples": f"{values.pop('samples'):,} samples"} if "samples" in values else {}
    return samples | {name: f"{name} {value}" for name, value in {**options, **values}.items()}


def _scope(mask: Mask | None) -> str:
    while isinstance(mask, Shuffle):
        mask = mask.of
    return mask.scope if isinstance(mask, Prune | RandomPrune) else ""


def _dense(mask: Mask | None) -> Train | None:
    """The dense training that a mask was first pruned from."""
    while isinstance(mask, Shuffle):
        mask = mask.of
    if isinstance(mask, Prune):
        return prunings(mask)[-1].of
    return mask.nonzero if isinstance(mask, RandomPrune) else None


def _task(step: Train) -> str:
    """What is trained, where the task alone does not say it."""
    return ("linear SVMs" if isinstance(step.recipe, SVM) else "linear") if step.trunk_frozen else step.task


def what(step: Train) -> str:
    """As ``rotnet on imagenet, resnet50``."""
    return f"{_task(step)} on {step.data}, {step.arch}"


def describe(mask: Mask | None) -> str:
    """As ``dense``, ``rotnet mask 7``, ``random mask 3``, ``imported mask 1a2b3c4d``, ``shuffled labels mask 2``."""
    if mask is None:
        return "dense"
    if isinstance(mask, RandomPrune):
        return f"random mask {mask.level}"
    if isinstance(mask, Imported):
        return f"imported mask {mask.digest[:8]}"
    if isinstance(mask, Shuffle):
        return f"shuffled {describe(mask.of)}"
    behind = prunings(mask)
    return f"{behind[-1].of.task} mask {len(behind)}"


# ------------------------------------------------------------------------------------- how they were made


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
        return f"{what(step)}: {_options(recipe)}"
    try:
        epochs = f" (epochs: {recipe.samples / images_of(step.data):.4g})"
    except (KeyError, ValueError):
        epochs = ""
    return f"{what(step)}: samples {recipe.samples:,}{epochs}, {_options(recipe, without=('samples',))}"


def _options(recipe: Recipe | SVM, without: Iterable[str] = ()) -> str:
    fields = [field for field in dataclasses.fields(recipe) if field.name not in without]
    values = ((field.name, getattr(recipe, field.name)) for field in fields)
    chosen = [(name, value) for (name, value), field in zip(values, fields, strict=True) if value != field.default]
    return ", ".join(f"{name} {_value(value)}".removesuffix(" True") for name, value in chosen)


def _value(value: Any) -> str:
    if isinstance(value, tuple):
        return "(" + " ".join(_value(part) for part in value) + ")"
    return f"{value:,}" if type(value) is int else f"{value:g}" if isinstance(value, float) else str(value)


# ------------------------------------------------------------------------------------- what came out


def result_of(record: Record) -> tuple[str, str, str, str]:
    """A training's main metric, the fraction of weights left, how long it took, and when."""
    main = main_metric(record.metrics)
    left = record.metrics.get("density")
    facts = record.facts
    return (
        metric_value(main, record.metrics[main]) if main else "",
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


def metric_value(metric: str, value: float) -> str:
    return f"{metric} {value:.6g}"


# ------------------------------------------------------------------------------------- units


def duration(seconds: float) -> str:
    """As 42 s, 3:07 min, 2:15 h, 4.2 days."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02} min"
    if whole < 48 * 3600:
        return f"{whole // 3600}:{whole % 3600 // 60:02} h"
    return f"{whole / 86400:.1f} days"


def left_in_words(seconds: float, guess: bool) -> str:
    """As ``3:07 min left``, or ``about 3:07 min left, a guess``."""
    return f"about {duration(seconds)} left, a guess" if guess else f"{duration(seconds)} left"


def size(count: float) -> str:
    """Bytes as 340 kB, 2.9 MB, 1.2 TB."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 999.5:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"


def stamp() -> str:
    """The time now, for a file's name."""
    return time.strftime("%Y%m%d-%H%M%S")
