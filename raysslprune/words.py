"""Say in words what steps, recipes and results are; write durations and sizes as people read them."""

from __future__ import annotations

import math
import re
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import fields
from typing import Any

from raysslprune.catalogue import data_parts, main_metric, sized
from raysslprune.paper.experiments import TITLES
from raysslprune.paper.scales import images_of
from raysslprune.spec import (
    SVM,
    WITH_GRADIENTS,
    External,
    Final,
    Imported,
    ImportedWeights,
    Init,
    Mask,
    Prune,
    RandomPrune,
    Recipe,
    Rewind,
    Shuffle,
    Step,
    Train,
)
from raysslprune.store.record import TIED, Record

# ------------------------------------------------------------------------------------- steps by name


def title(step: Train) -> str:
    """Title of a training, for people: task, seed, mask, and origin of the weights."""
    match step.start:
        case Final(of=of):
            weights = f"from {_source(of)}"
        case Rewind():
            weights = "rewound"
        case Init():
            weights = "drawn"
    return f"{_task(step)} seed {step.seed}, {describe(step.mask)}, {weights}"


def titles(trainings: Iterable[Train]) -> dict[str, str]:
    """Titles by id, made unique by facts in which trainings of the same title differ."""
    alike: dict[str, list[Train]] = {}
    for step in trainings:
        alike.setdefault(title(step), []).append(step)
    named: dict[str, str] = {}
    for shared, steps in alike.items():
        named |= told_apart(shared, {step.id: _facts(step) for step in steps} if len(steps) > 1 else {steps[0].id: {}})
    return named


def told_apart(shared: str, facts: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """Unique names of steps, by id: ``shared``, and then the first facts in which they differ.

    facts: facts of each step by kind, the most informative kinds first. If steps differ in no fact, their names
    include their ids, which ``--explain`` accepts.
    """
    named = dict.fromkeys(facts, shared)
    for kind in dict.fromkeys(kind for some in facts.values() for kind in some):
        longer = {i: ", ".join(filter(None, (name, facts[i].get(kind, "")))) for i, name in named.items()}
        if len(set(longer.values())) > len(set(named.values())):
            named = longer
    counts = Counter(named.values())
    return {i: name if counts[name] == 1 else f"{name}, step {i[:8]}" for i, name in named.items()}


def _facts(step: Train) -> dict[str, str]:
    """Facts that a title omits: on the training, the training that it starts from, and the origin of its mask."""
    density, start = step.target_density, step.start
    facts = {
        "rewind": "" if step.rewind is None else f"to {step.rewind:,}",
        "left": "" if math.isnan(density) else f"{100 * density:.3g}% left",
        "arch": step.arch,
        "data": step.data,
        "scope": _scope(step.mask),
        "begins": begins(step),
        **recipe_facts(step),
    }
    if step.mask is not None and isinstance(origin := step.mask.origin, Prune):
        facts["judged"] = judged(origin).removeprefix(", ")
    origins = {"from": None if isinstance(start, Init) else start.of, "mask of": _dense(step.mask)}
    for word, origin in origins.items():
        if isinstance(origin, ImportedWeights):
            facts[f"{word} digest"] = f"{word} {_source(origin)}"
        elif origin is not None and origin is not step:
            more = {"task": origin.task, "data": origin.data, "begins": begins(origin), **recipe_facts(origin)}
            facts |= {f"{word} {kind}": f"{word} {fact}" for kind, fact in more.items()}
    return facts


def begins(step: Train) -> str:
    """The task that a network was first trained on, and the draw of its initial weights."""
    while not isinstance(step.start, Init):
        if isinstance(step.start.of, ImportedWeights):
            return f"first {_source(step.start.of)}"
        step = step.start.of
    return f"first trained on {step.task}" + (f", draw {step.start.draw}" if step.start.draw else "")


def recipe_facts(step: Train) -> dict[str, str]:
    """Descriptions of a recipe's fields and options, by name, the length first."""
    values = {field.name: getattr(step.recipe, field.name) for field in fields(step.recipe)}
    options = dict(values.pop("options", ()))
    samples = {"samples": f"{values.pop('samples'):,} samples"} if "samples" in values else {}
    return samples | {name: f"{name} {value}" for name, value in {**options, **values}.items()}


def _scope(mask: Mask | None) -> str:
    return "" if mask is None or isinstance(mask.origin, Imported) else mask.scope


def _source(of: Train | ImportedWeights) -> str:
    """Origin of final weights: their task, or the digest of imported ones."""
    return of.task if isinstance(of, Train) else f"imported weights {of.digest[:8]}"


def _dense(mask: Mask | None) -> Train | ImportedWeights | None:
    """The dense training, or the imported weights, that a mask was first pruned from."""
    origin = mask and mask.origin
    if isinstance(origin, Prune):
        return origin.rounds[-1].of
    return origin.nonzero if isinstance(origin, RandomPrune) else None


def _task(step: Train) -> str:
    """The task; on a frozen trunk, the kind of classifier."""
    if not step.trunk_frozen:
        return step.task
    return "linear SVMs" if isinstance(step.recipe, SVM) else "linear"


def what(step: Train) -> str:
    """Describe a training in brief, such as ``rotnet on imagenet, resnet50``."""
    return f"{_task(step)} on {step.data}, {step.arch}"


DATA_NAMES = {
    "cifar10": "CIFAR-10",
    "cifar100": "CIFAR-100",
    "imagenet": "ImageNet",
    "places205": "Places205",
    "voc07": "VOC07",
}
"""Names of data sets, for people."""


def setting(step: Train) -> str:
    """Name a training's data and network for a title: ``photos32, Mobile`` for parquet/photos32, mobile:Mobile."""
    source, argument, subsets = data_parts(step.data)
    own = argument.partition(":")[0] if source in ("folder", "parquet") else source.rpartition(":")[2]
    size = sized(argument)[1] if source == "folder" else None
    parts = [f"{size} pixels"] if size else []
    parts += [part.replace("-of-", " of the ").replace("-", " ") for part in subsets.split(":") if part]
    return ", ".join([DATA_NAMES.get(own, own), *parts, TITLES.get(step.arch) or step.arch.rpartition(":")[2]])


def describe(mask: Mask | None) -> str:
    """Describe a mask in brief, such as ``dense``, ``rotnet mask 7``, ``random mask 3``, ``shuffled labels mask 2``."""
    if mask is None:
        return "dense"
    if isinstance(mask, RandomPrune):
        return f"random{_allocation(mask)} mask {mask.level}"
    if isinstance(mask, Imported):
        return f"imported mask {mask.digest[:8]}"
    if isinstance(mask, Shuffle):
        return f"shuffled {describe(mask.of)}"
    behind = mask.rounds
    by = "" if mask.criterion == "magnitude" else f" {mask.criterion}"
    whole = " filter" if mask.unit == "filter" else ""
    return f"{_source(behind[-1].of)}{by}{_allocation(mask)}{whole} mask {len(behind)}"


def _allocation(mask: RandomPrune | Prune) -> str:
    name = mask.allocation if mask.allocation == "uniform" else mask.allocation.upper()
    return "" if mask.allocation == "global" else f" {name}"


def judged(mask: Prune) -> str:
    """Say by what a pruning chooses, such as ``, by snip on 512 samples at 0``; '' for global magnitude pruning."""
    by = [] if mask.criterion == "magnitude" else [f"by {mask.criterion}"]
    if mask.criterion in WITH_GRADIENTS or ":" in mask.criterion:
        by.append(f"on {mask.samples:,} samples")
    numbers = {"since": mask.since, "at": mask.at, "passes": mask.passes}
    by += [f"{name} {number:,}" for name, number in numbers.items() if number is not None]
    parts = [" ".join(by)] if by else []
    if mask.allocation != "global":
        parts.append(f"allocation {mask.allocation}")
    if mask.unit == "filter":
        parts.append("whole filters")
    return "".join(f", {part}" for part in parts)


# ------------------------------------------------------------------------------------- how they were made


def how_made(step: Step, number: Mapping[Step, str], recipe: str) -> str:
    """Describe how a step is made from earlier steps, which are named by their numbers."""
    match step:
        case Train(start=start, seed=seed, mask=mask):
            under = f", under mask {number[mask]}" if mask is not None else ""
            match start:
                case Init(draw=draw):
                    begins = f"drawn from seed {start.seed}" + (f", draw {draw}" if draw else "")
                case Rewind(of=of, samples=samples):
                    whole = "" if step.first_sample is None else f", the recipe from {step.first_sample:,} on"
                    begins = f"from {number[of]} at {samples:,}{whole}"
                case Final(of=of):
                    begins = f"from {number[of]}"
            return f"train {step.task} {recipe}, seed {seed}, {begins}{under}"
        case Prune(of=of, keep=keep, scope=scope):
            return f"prune {number[of]}: {100 * keep:g}% of {scope} stay{judged(step)}"
        case RandomPrune(keep=keep, level=level, seed=seed, scope=scope, nonzero=nonzero):
            name = f"random{_allocation(step)} mask"
            but = f", without weights that are 0 in {number[nonzero]}" if nonzero is not None else ""
            return f"{name}: {100 * keep:g}% of {scope} stay, {level} times, seed {seed}{but}"
        case External(arch=arch, digest=digest):
            return f"imported {step.CONTENT} of {arch}, digest {digest[:8]}"
        case Shuffle(of=of, seed=seed):
            return f"shuffle {number[of]} in each layer, seed {seed}"
    raise AssertionError(step)


def recipe_in_words(step: Train) -> str:
    """Describe a recipe by its fields that differ from their defaults, with epochs if the data set's size is known."""
    recipe = step.recipe
    chosen = {one.name: value for one in fields(recipe) if (value := getattr(recipe, one.name)) != one.default}
    words = [f"{name} {_value(value)}".removesuffix(" True") for name, value in chosen.items()]
    if isinstance(recipe, Recipe):
        with suppress(KeyError, ValueError):
            words[0] += f" (epochs: {recipe.samples / images_of(step.data):.4g})"
    return f"{what(step)}: {', '.join(words)}"


def _value(value: Any) -> str:
    if isinstance(value, tuple):
        return "(" + " ".join(_value(part) for part in value) + ")"
    if isinstance(value, float):
        return f"{value:g}"
    return f"{value:,}" if type(value) is int else str(value)


# ------------------------------------------------------------------------------------- what came out


def result_of(record: Record) -> tuple[str, str, str, str]:
    """A training's main metric, the fraction of weights left, its duration and its date; '' for unknown ones.

    For a mask that depends on a draw among weights of equal magnitude, the number of these takes the metric's place.
    """
    main = main_metric(record.metrics)
    tied = record.facts.get(TIED)
    left = record.metrics.get("density")
    facts = record.facts
    return (
        metric_value(main, record.metrics[main]) if main else f"draw among {tied:,} ties" if tied else "",
        "" if left is None else f"{100 * left:.4g}%",
        duration(facts["seconds"]) if "seconds" in facts else "",
        time.strftime("%Y-%m-%d %H:%M", time.gmtime(facts["begun"])) if "begun" in facts else "",
    )


def run_of(record: Record) -> str:
    """Place and versions of a step's run. Masks, and what is imported, have no place."""
    facts = record.facts
    made = f"imported from {facts['source']}" if "source" in facts else "masks, made in the processes of trainings"
    place = ", ".join([facts["host"], facts["device"], *facts.get("rounding", ())]) if "host" in facts else made
    return f"{place}; " + ", ".join(f"{name} {version}" for name, version in facts.get("versions", {}).items())


def metric_value(metric: str, value: float) -> str:
    return f"{metric} {value:.6g}"


# ------------------------------------------------------------------------------------- units


def duration(seconds: float) -> str:
    """A duration for people, such as 42 s, 3:07 min, 2:15 h, 4.2 days."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02} min"
    if whole < 48 * 3600:
        return f"{whole // 3600}:{whole % 3600 // 60:02} h"
    return f"{whole / 86400:.1f} days"


def left_in_words(seconds: float, guess: bool, starting: bool = False) -> str:
    """The remaining time for people: ``3:07 min left``, or ``about 3:07 min left, a guess``.

    starting: no training runs yet, and the time is from then on: ``3:07 min once trainings begin``.
    """
    since = "once trainings begin" if starting else "left"
    if seconds < 1:
        return f"less than 1 s {since}"
    return f"about {duration(seconds)} {since}, a guess" if guess else f"{duration(seconds)} {since}"


def size(count: float) -> str:
    """A number of bytes for people, such as 340 kB, 2.9 MB, 1.2 TB."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 999.5:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"


def file_name(text: str) -> str:
    """The text as a name of a file or folder that needs no quotes in a shell: other characters become hyphens."""
    return re.sub("[^A-Za-z0-9._]+", "-", text).strip("-")


def stamp() -> str:
    """Current local time for a file's name, such as 20201231-235959."""
    return time.strftime("%Y%m%d-%H%M%S")
