"""The recipes against what docs/design.md, section 7, says of each scale."""

from __future__ import annotations

from dataclasses import fields
from decimal import ROUND_HALF_EVEN, Decimal
from fractions import Fraction

import pytest

from raysslprune.recipes import NETS, SETTINGS
from raysslprune.spec import Recipe, survivors

LAPTOP = SETTINGS["laptop"]
LAYERS = {"conv1": 1 * 16 * 9, "conv2": 16 * 32 * 9, "conv3": 32 * 32 * 9, "conv4": 32 * 64 * 9}
PRUNABLE = 32_400


def exactly_left(level: int) -> int:
    """Weights after that many prunings to four fifths, each rounded to a whole number, in exact arithmetic."""
    left = PRUNABLE
    for _ in range(level):
        left = round(Fraction(left * 4, 5))
    return left


def test_laptop_is_the_designs_recipe() -> None:
    expected = {
        "samples": 12 * 1_200,
        "batch": 64,
        "lr": 0.05,
        "optimizer": "sgd",
        "momentum": 0.9,
        "nesterov": True,
        "weight_decay": 5e-4,
        "schedule": "cosine",
        "decay_at": (),
        "warmup": 0,
        "pad": 1,
        "flip": False,
    }
    assert set(expected) == {field.name for field in fields(Recipe)}
    for task in ("labels", "rotnet"):
        recipe = LAPTOP.recipes[task]
        assert {name: getattr(recipe, name) for name in expected} == expected
        assert LAPTOP.rewind[task] == 1_200
    assert (LAPTOP.data, LAPTOP.arch, LAPTOP.keep) == ("digits", "conv4", 0.8)


def test_laptop_levels_give_the_percentages_of_the_design() -> None:
    """The design's table is headed 48.8, 79.0, 89.3, 95.6, 98.2, 99.1, 99.5 % pruned."""
    shown = []
    for level in LAPTOP.levels:
        pruned = 100 - Decimal(100 * exactly_left(level)) / PRUNABLE
        shown.append(str(pruned.quantize(Decimal("0.1"), ROUND_HALF_EVEN)))
    assert shown == ["48.8", "79.0", "89.3", "95.6", "98.2", "99.1", "99.5"]


def test_counts_in_floats_are_the_exact_ones() -> None:
    left = PRUNABLE
    for level in range(1, max(LAPTOP.levels) + 1):
        left = survivors(left, LAPTOP.keep)
        assert left == exactly_left(level)


def test_the_net_is_the_designs() -> None:
    assert NETS["conv4"].prunable == sum(LAYERS.values()) == PRUNABLE
    batch_norm = 2 * (16 + 32 + 32 + 64)
    head = 64 * 10 + 10
    assert NETS["conv4"].parameters == PRUNABLE + batch_norm + head


@pytest.mark.parametrize("scale", SETTINGS)
def test_every_setting_can_be_run(scale: str) -> None:
    setting = SETTINGS[scale]
    assert set(setting.recipes) == set(setting.rewind) >= {"labels", "rotnet"}
    assert setting.arch in NETS
    assert list(setting.levels) == sorted(set(setting.levels))
    assert setting.levels[0] > 0
    assert 0 < setting.keep < 1
    assert setting.seeds >= 1
    for task, recipe in setting.recipes.items():
        assert 0 < setting.rewind[task] < recipe.samples
        assert setting.rewind[task] % 1_200 == 0


def test_smoke_takes_a_fraction_of_laptop() -> None:
    smoke = SETTINGS["smoke"]
    assert 5 * smoke.recipes["labels"].samples < LAPTOP.recipes["labels"].samples
    assert 5 * max(smoke.levels) < max(LAPTOP.levels)
