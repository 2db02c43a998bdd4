"""The recipes and grids of each scale, as literal tables to hold against the paper's Appendix D by eye.

Lengths are in samples seen; ``n * DIGITS`` reads as n epochs of digits.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from raysslprune.spec import Recipe

DIGITS = 1_200
"""Training images of scikit-learn's digits in our split."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What a figure is made with at one scale.

    recipes, rewind: by task; rewind in samples seen. levels: the numbers of prunings that are drawn, each leaving
    the fraction ``keep`` of what was left. seeds: how many by default.
    """

    data: str
    arch: str
    recipes: Mapping[str, Recipe]
    rewind: Mapping[str, int]
    keep: float
    levels: tuple[int, ...]
    seeds: int


@dataclass(frozen=True, kw_only=True)
class Net:
    """What a network costs before anything was measured. images_per_second: trained, on one worker."""

    parameters: int
    prunable: int
    images_per_second: float


_LAPTOP = Recipe(
    samples=12 * DIGITS,
    batch=64,
    lr=0.05,
    momentum=0.9,
    nesterov=True,
    weight_decay=5e-4,
    schedule="cosine",
    pad=1,
)
_SMOKE = Recipe(samples=2 * DIGITS, batch=64, lr=0.05, momentum=0.9, nesterov=True, weight_decay=5e-4, pad=1)

SETTINGS: dict[str, Setting] = {
    # Weights left at levels 3, 7, 10, 14, 18, 21, 24: 51.2, 21.0, 10.7, 4.4, 1.8, 0.92, 0.47 %.
    "laptop": Setting(
        data="digits",
        arch="conv4",
        recipes={"labels": _LAPTOP, "rotnet": _LAPTOP},
        rewind={"labels": 1 * DIGITS, "rotnet": 1 * DIGITS},
        keep=0.8,
        levels=(3, 7, 10, 14, 18, 21, 24),
        seeds=1,
    ),
    # Shows that everything works, in seconds; its numbers mean nothing.
    "smoke": Setting(
        data="digits",
        arch="conv4",
        recipes={"labels": _SMOKE, "rotnet": _SMOKE},
        rewind={"labels": 1 * DIGITS, "rotnet": 1 * DIGITS},
        keep=0.4,
        levels=(1, 3),
        seeds=1,
    ),
}

NETS: dict[str, Net] = {
    # images/s on one core of a two-core virtual machine, 2026-11
    "conv4": Net(parameters=33_338, prunable=32_400, images_per_second=14_000),
}
