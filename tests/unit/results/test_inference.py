"""Tests and intervals, against scipy's, and error rates of their words where the truth is known."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy import stats

from raysslprune.results.inference import Evidence, at_each, benjamini_hochberg, holm, weigh

SEEDS = (3, 6, 24)
RELATIONS = ("above", "below", "not worse", "equal")
MARGIN = 2.0


def drawn(n: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng([n, seed])
    return rng.normal(rng.normal(0, 2), rng.uniform(0.1, 3), n)


def scipys(d: np.ndarray, relation: str) -> tuple[float, float]:
    """P-values of a relation and its opposite."""

    def p(popmean: float, alternative: str) -> float:
        found: Any = stats.ttest_1samp(d, popmean, alternative=alternative)
        return float(found.pvalue)

    match relation:
        case "above":
            return p(0, "greater"), p(0, "less")
        case "below":
            return p(0, "less"), p(0, "greater")
        case "not worse":
            return p(-MARGIN, "greater"), p(-MARGIN, "less")
        case _:
            inside = max(p(-MARGIN, "greater"), p(MARGIN, "less"))
            return inside, min(1.0, 2 * min(p(MARGIN, "greater"), p(-MARGIN, "less")))


def measured(d: np.ndarray, relation: str) -> Evidence:
    return weigh(d.tolist(), relation, MARGIN if relation in ("not worse", "equal") else 0.0)


@pytest.mark.parametrize("relation", RELATIONS)
@pytest.mark.parametrize("n", [2, *SEEDS])
def test_p_values_and_intervals_are_scipys(n: int, relation: str) -> None:
    for seed in range(50):
        d = drawn(n, seed)
        found = measured(d, relation)
        assert (found.p_true, found.p_false) == pytest.approx(scipys(d, relation), rel=1e-9, abs=1e-15)
        interval = stats.ttest_1samp(d, 0).confidence_interval(0.9)
        assert (found.low, found.high) == pytest.approx((interval.low, interval.high), rel=1e-9)
        assert (found.n, found.effect, found.sd) == pytest.approx((n, d.mean(), d.std(ddof=1)))


def test_differences_that_are_all_the_same() -> None:
    one = weigh([1.5, 1.5, 1.5], "above")
    assert (one.p_true, one.p_false, one.low, one.high, one.detectable) == (0.0, 1.0, 1.5, 1.5, 0.0)
    assert weigh([0.0, 0.0, 0.0], "above").p_true == 1.0
    assert weigh([0.0, 0.0, 0.0], "equal", 1.0).p_true == 0.0
    assert weigh([3.0, 3.0, 3.0], "equal", 1.0).p_false == 0.0


# ------------------------------------------------------------------------------------- power


@pytest.mark.parametrize("n", SEEDS)
def test_the_detectable_effect_is_found_in_four_of_five_samples(n: int) -> None:
    """By simulation, for a known standard deviation of 1."""
    d = np.random.default_rng(n).normal(size=(20_000, n))
    unit = weigh((d[0] / d[0].std(ddof=1)).tolist(), "above").detectable
    assert np.mean(p_above(d + unit) < 0.05) == pytest.approx(0.8, abs=0.02)


@pytest.mark.parametrize("n", SEEDS)
def test_curves_without_a_difference_are_equal_within_the_detectable_margin(n: int) -> None:
    d = np.random.default_rng(n).normal(size=(20_000, n))
    unit = weigh((d[0] / d[0].std(ddof=1)).tolist(), "equal", 1.0).detectable
    power = np.mean((p_above(d + unit) < 0.05) & (p_above(unit - d) < 0.05))
    assert 0.79 < power < 0.85
    assert unit > weigh((d[0] / d[0].std(ddof=1)).tolist(), "not worse", 1.0).detectable


def p_above(d: np.ndarray) -> np.ndarray:
    found: Any = stats.ttest_1samp(d, 0, axis=1, alternative="greater")
    return np.asarray(found.pvalue)


# ------------------------------------------------------------------------------------- error rates

SAMPLES = 1_000
AT_MOST = 0.05 + 3 * (0.05 * 0.95 / SAMPLES) ** 0.5
"""5%, and three standard errors of a share in this many samples."""

BORDERS = {"above": (0.0,), "below": (0.0,), "not worse": (-MARGIN,), "equal": (-MARGIN, MARGIN)}
"""Means between those where a relation is true and those where it is false: an error is likeliest there."""


def share(n: int, mean: float, sd: float, word: Callable[[Evidence], bool], relation: str) -> float:
    d = np.random.default_rng([n, round(100 * sd)]).normal(mean, sd, (SAMPLES, n))
    return float(np.mean([word(measured(one, relation)) for one in d]))


@pytest.mark.parametrize("relation", RELATIONS)
@pytest.mark.parametrize("n", SEEDS)
@pytest.mark.parametrize("sd", [0.5, 5.0])
def test_each_word_is_wrong_in_at_most_one_of_twenty_samples(n: int, relation: str, sd: float) -> None:
    for mean in BORDERS[relation]:
        assert share(n, mean, sd, lambda e: e.p_true < 0.05, relation) < AT_MOST, mean
        assert share(n, mean, sd, lambda e: e.p_false < 0.05, relation) < AT_MOST, mean


@pytest.mark.parametrize("relation", RELATIONS)
def test_each_word_is_found_where_it_is_true(relation: str) -> None:
    """The error rates above are not those of a test that never says a word."""
    inside = {"above": 2.0, "below": -2.0, "not worse": 0.0, "equal": 0.0}[relation]
    outside = {"above": -2.0, "below": 2.0, "not worse": -4.0, "equal": 4.0}[relation]
    assert share(6, inside, 0.5, lambda e: e.p_true < 0.05, relation) > 0.9
    assert share(6, outside, 0.5, lambda e: e.p_false < 0.05, relation) > 0.9


def several(rng: np.random.Generator, means: tuple[float, ...]) -> Evidence:
    """Densities share the noise of a seed."""
    seeds = rng.normal(0, 1, 6)
    return at_each([weigh((seeds + rng.normal(mean, 1, 6)).tolist(), "not worse", MARGIN) for mean in means])


@pytest.mark.parametrize("sparsest", [-MARGIN, -3.0])
def test_a_gain_elsewhere_does_not_hide_a_density_that_is_worse(sparsest: float) -> None:
    """+1.5, +1.5 and -3 have a mean of 0, which is not worse by 2."""
    rng = np.random.default_rng(0)
    words = [several(rng, (1.5, 1.5, sparsest)).p_true < 0.05 for _ in range(SAMPLES)]
    assert np.mean(words) < AT_MOST
    hidden = np.random.default_rng(0).normal((1.5 + 1.5 + sparsest) / 3, 1, (SAMPLES, 6))
    assert np.mean([measured(d, "not worse").p_true < 0.05 for d in hidden]) > 0.8


def test_several_densities_that_are_not_worse_are_not_called_worse() -> None:
    rng = np.random.default_rng(1)
    words = [several(rng, (-MARGIN, -MARGIN, -MARGIN)).p_false < 0.05 for _ in range(SAMPLES)]
    assert np.mean(words) < AT_MOST


def test_the_weakest_density_is_shown() -> None:
    strong, weak = weigh([3.0, 3.5, 4.0], "above"), weigh([-0.5, -2.5, 0.3], "above")
    both = at_each([strong, weak])
    assert (both.effect, both.low, both.p_true) == (weak.effect, weak.low, weak.p_true)
    assert both.p_false == pytest.approx(2 * weak.p_false)


# ------------------------------------------------------------------------------------- many at once


def test_adjusted_p_values_by_hand() -> None:
    ps = [0.04, 0.01, 0.03, 0.005]
    assert holm(ps) == pytest.approx([0.06, 0.03, 0.06, 0.02])
    assert benjamini_hochberg(ps) == pytest.approx([0.04, 0.02, 0.04, 0.02])
    assert (holm([]), benjamini_hochberg([])) == ([], [])


def test_adjusted_p_values_by_their_definitions() -> None:
    """Rejecting those under a level is Holm's step down, and Benjamini's and Hochberg's step up."""
    rng = np.random.default_rng(0)
    for _ in range(200):
        ps = np.round(rng.random(rng.integers(1, 9)) ** 3, 2)
        order, m = np.argsort(ps, kind="stable"), len(ps)
        for level in (0.011, 0.053, 0.307):
            down = 0
            while down < m and ps[order[down]] * (m - down) < level:
                down += 1
            assert sum(p < level for p in holm(ps.tolist())) == down
            up = max([k for k in range(1, m + 1) if ps[order[k - 1]] * m / k < level], default=0)
            assert sum(p < level for p in benjamini_hochberg(ps.tolist())) == up
        theirs = stats.false_discovery_control(ps, method="bh")
        assert benjamini_hochberg(ps.tolist()) == pytest.approx(theirs.tolist())


def test_any_of_many_claims_is_called_true_wrongly_in_at_most_one_of_twenty_sweeps() -> None:
    """Six claims on the same six seeds, of which two are true."""
    rng = np.random.default_rng(0)
    truths, wrong, found = [3.0] * 2 + [0.0] * 4, 0, 0
    for _ in range(SAMPLES):
        seeds = rng.normal(0, 0.5, 6)
        words = [
            p < 0.05 for p in holm([weigh((seeds + rng.normal(m, 1, 6)).tolist(), "above").p_true for m in truths])
        ]
        wrong, found = wrong + any(words[2:]), found + all(words[:2])
    assert wrong / SAMPLES < AT_MOST
    assert found / SAMPLES > 0.3
