"""The margin of a scale: the difference between two networks that does not matter (``Setting.margin``).

Twins have the same mask and data and differ only in the draw of their weights, so neither is better. A difference that
a new draw alone can make does not matter: the margin is twice the standard deviation of the
difference between twins, over seeds and over the densities at which masks are said to be as good as each other, rounded
up to half a point. The pilot seeds begin at 1,000; sweeps begin at 0, so no test uses them.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from statistics import mean
from typing import Any

from raysslprune.commands.common import count, scale
from raysslprune.lottery import random_reinit
from raysslprune.messages import SCALE
from raysslprune.paper import scalefile
from raysslprune.paper.scales import SETTINGS
from raysslprune.spec import Init
from raysslprune.sweepfile import PILOT_SEED, Point

WITHIN = (0.02, 0.6)
"""Densities at which figures compare masks that must be as good as each other."""


def arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--scale", type=scale, default=SCALE, help="a scale, or a scale file (default: %(default)s)")
    add("--data", default="", metavar="DIR", help="folder of its data set")
    add("--seeds", type=count, default=16, help="number of pilot seeds (default: %(default)s)")
    add("--root", default="runs", help="where the trainings are kept (default: ./runs)")


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Train twins of masks pruned on labels. Returns their differences in points at each density, and the margin."""
    from benchmarks.trained import trained

    seeds, of = range(PILOT_SEED, PILOT_SEED + options.seeds), scalefile.scale(options.scale)
    points = [point for seed in seeds for point in twins(of, seed)]
    values: dict[str, dict[tuple[float, int], float]] = {}
    for row in trained("margin", of, points, options.root, options.data).to_pylist():
        values.setdefault(row["init"], {})[row["density"], row["seed"]] = row["value"]
    first, second = values.values()
    differences: dict[float, list[float]] = {}
    for (density, seed), value in first.items():
        differences.setdefault(density, []).append(value - second[density, seed])
    return summary(differences)


def twins(scale: str, seed: int) -> Iterator[Point]:
    """Yield two re-trainings of each mask, from different draws."""
    setting = SETTINGS[scale]
    levels = [level for level in setting.levels if WITHIN[0] <= setting.keep**level <= WITHIN[1]]
    chain = setting.imp("labels", seed=seed, levels=max(levels), keep=setting.keep)
    for level in levels:
        twin = random_reinit(chain.masks[level], like=chain.dense, task="labels", recipe=setting.recipes["labels"])
        other = replace(twin, start=Init(seed=seed, draw=2))
        for number, step in enumerate((twin, other), 1):
            yield Point(step=step, task="labels", init=f"draw {number}", level=level, seed=seed)


def summary(differences: Mapping[float, Sequence[float]]) -> dict[str, Any]:
    """Return the standard deviation at each density and over all, and the margin. The true mean of all is 0."""
    deviations = {f"standard deviation at {density:.2%} left": _rms(values) for density, values in differences.items()}
    overall = _rms([value for values in differences.values() for value in values])
    n = min(map(len, differences.values()))
    return {**deviations, "standard deviation": overall, "seeds": n, "margin": math.ceil(4 * overall) / 2}


def _rms(values: Sequence[float]) -> float:
    return math.sqrt(mean(value**2 for value in values))
