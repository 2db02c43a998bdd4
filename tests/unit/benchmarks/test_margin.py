"""The margin of a scale, from twins."""

from __future__ import annotations

import math

import numpy as np
import pytest

from benchmarks import margin


def test_the_margin_is_twice_the_deviation_rounded_up_to_half_a_point() -> None:
    found = margin.summary({0.5: [0.3, -0.3], 0.1: [0.9, -0.9]})
    assert found["standard deviation at 50.00% left"] == pytest.approx(0.3)
    assert found["standard deviation"] == pytest.approx(math.sqrt((0.09 + 0.81) / 2))
    assert (found["margin"], found["seeds"]) == (1.5, 2)


def test_it_finds_the_deviation_of_made_up_twins() -> None:
    draws = np.random.default_rng(0).normal(90, 0.5, (2, 4, 4000))
    found = margin.summary(dict(enumerate((draws[0] - draws[1]).tolist())))
    assert found["standard deviation"] == pytest.approx(0.5 * math.sqrt(2), rel=0.02)
    assert found["margin"] == 1.5


def test_twins_differ_in_the_draw_alone_and_use_seeds_of_no_sweep() -> None:
    points = list(margin.twins("laptop", 1_003))
    assert [point.level for point in points] == [3, 3, 7, 7, 10, 10, 14, 14]  # 51.2 to 4.4 % left
    for one, other in zip(points[::2], points[1::2], strict=True):
        differing = {
            name for name in one.step.__dataclass_fields__ if getattr(one.step, name) != getattr(other.step, name)
        }
        assert differing == {"start"}
        assert one.step.start != other.step.start
        assert one.step.mask is not None
        assert one.step.seed == 1_003
