"""Replays of the search against grids."""

from __future__ import annotations

import pytest

from benchmarks.rewind import replay
from raysslprune.plan import search
from tests.helpers.search import REWINDS, hill


def test_it_finds_the_top_of_smooth_hills_more_often_than_chance_would_and_with_fewer_trials_than_candidates() -> None:
    values = {("labels", top // 100): {r: hill(top)(r) for r in REWINDS} for top in range(20, 1600, 200)}
    found = replay(values, trials=6, sampler_seeds=range(10))
    assert all(one.trials <= 6 < one.candidates == len(REWINDS) for one in found)
    assert all(one.random_equal == pytest.approx(one.trials / 10) for one in found)
    mean = sum(one.equal for one in found) / len(found)
    assert mean > 0.85 > 0.6 >= sum(one.random_equal for one in found) / len(found)


def test_replay_counts_what_is_within_the_tolerance() -> None:
    key: search.Key = ("labels", 3)
    values: dict[search.Key, dict[int, float]] = {key: {r: 90.0 if r < 800 else 80.0 for r in REWINDS} | {0: 90.5}}
    (one,) = replay(values, trials=3, sampler_seeds=range(5), tolerance={key: 0.5})
    assert (one.task, one.level, one.trials, one.within) == ("labels", 3, 3, 1)
    assert one.random_equal == pytest.approx(3 / 10)
    assert one.random_within == pytest.approx(1 - (5 * 4 * 3) / (10 * 9 * 8))
    (one,) = replay(values, trials=99, sampler_seeds=range(5))
    assert one.equal == one.within
    assert one.trials <= 10
