"""The numbers of docs/science.md, by simulation."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from raysslprune.paper.scales import SETTINGS

TEXT = (Path(__file__).parents[2] / "docs/science.md").read_text()


def test_the_margin_is_that_of_the_twins() -> None:
    (row,) = re.findall(r"^\| deviation of twins \|(.*)\|$", TEXT, re.M)
    *by_density, overall, margin = (float(cell) for cell in row.split("|"))
    assert overall == pytest.approx(np.sqrt(np.mean(np.square(by_density))), abs=0.01)
    assert SETTINGS["laptop"].margin == margin == np.ceil(4 * overall) / 2


def test_the_power_of_three_seeds() -> None:
    deviations, shown = (
        [float(cell) for cell in re.findall(r"[\d.]+", line)]
        for line in re.findall(r"^\| (?:standard deviation|probability).*$", TEXT, re.M)
    )
    assert len(deviations) == len(shown) == 4
    for deviation, power in zip(deviations, shown, strict=True):
        d = np.random.default_rng(0).normal(0, deviation, (100_000, 3))
        half = stats.t.isf(0.05, 2) * d.std(axis=1, ddof=1) / 3**0.5
        within = (d.mean(axis=1) - half > -2) & (d.mean(axis=1) + half < 2)
        assert within.mean() == pytest.approx(power, abs=0.01)
