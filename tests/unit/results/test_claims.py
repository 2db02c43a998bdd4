"""Verdicts on the paper's sentences, against scipy's tests and by hand."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from scipy import stats

from raysslprune import results
from raysslprune.results.claims import FAILS, FEW, HOLDS, Verdict, judge
from raysslprune.sweepfile import Claim, Curve, Dense

TICKET, REINIT = "winning ticket", "random re-init"
UPPER, LOWER = Curve(task="labels", init=TICKET), Curve(task="rotnet", init=TICKET)
DENSITY = {3: 0.512, 7: 0.2097152, 10: 0.107374, 14: 0.0439805, 18: 0.018014}
Values = Mapping[int, Mapping[int, float]]  # seed to level to value


def table(curves: Mapping[Curve, Values], densities: Mapping[int, float] = DENSITY) -> pa.Table:
    rows = [
        {
            "figure": "f",
            "scale": "s",
            "panel": curve.panel or "",
            "task": curve.task,
            "init": curve.init,
            "level": level,
            "density": densities[level],
            "seed": seed,
            "metric": "top1",
            "value": value,
            "collapsed_layers": 0,
            "step": "x",
        }
        for curve, seeds in curves.items()
        for seed, levels in seeds.items()
        for level, value in levels.items()
    ]
    return pa.Table.from_pylist(rows, schema=results.SCHEMA)


def claim(relation: str, margin: float = 0.0, within: tuple[float, float] = (0.0, 1.0)) -> Claim:
    return Claim(says="so", source="there", higher=UPPER, lower=LOWER, relation=relation, margin=margin, within=within)


def verdict(of: Claim, upper: Values, lower: Values) -> Verdict:
    (one,) = judge([of], table({UPPER: upper, LOWER: lower}))
    assert one.claim is of
    return one


def constant(*gaps: float, level: int = 7) -> tuple[Values, Values]:
    """A seed for each gap between the curves, at one level."""
    return {s: {level: 50 + gap} for s, gap in enumerate(gaps)}, {s: {level: 50.0} for s in range(len(gaps))}


def drawn(rng: np.random.Generator, shift: float) -> tuple[dict[int, dict[int, float]], dict[int, dict[int, float]]]:
    """Both curves at three to ten seeds and all levels, with the noise of a seed shared between them."""
    seeds = range(int(rng.integers(3, 11)))
    common = {seed: rng.normal(90, 3) for seed in seeds}
    lower = {seed: {level: common[seed] + rng.normal() for level in DENSITY} for seed in seeds}
    upper = {seed: {level: common[seed] + rng.normal(shift) for level in DENSITY} for seed in seeds}
    return upper, lower


def gaps(upper: Values, lower: Values) -> np.ndarray:
    """Seeds x levels."""
    return np.array([[upper[seed][level] - lower[seed][level] for level in DENSITY] for seed in upper])


def p_of(one: Verdict) -> float:
    found = re.search(r"p = (\S+)$", one.numbers)
    assert found, one.numbers
    return float(found.group(1))


def n_of(one: Verdict) -> int:
    found = re.search(r"n = (\d+)", one.numbers)
    assert found, one.numbers
    return int(found.group(1))


def p_paired(upper: Any, lower: Any) -> float:
    """That ``upper`` is above ``lower``, by scipy."""
    result: Any = stats.ttest_rel(upper, lower, alternative="greater")
    return float(result.pvalue)


def p_mean(values: Any, mean: float, alternative: str = "greater") -> float:
    """That the mean of ``values`` is above ``mean``, or below it, by scipy."""
    result: Any = stats.ttest_1samp(values, mean, alternative=alternative)
    return float(result.pvalue)


def check(one: Verdict, p: float, n: int) -> None:
    assert p_of(one) == pytest.approx(p, rel=6e-3)  # three digits are shown
    assert n_of(one) == n
    assert one.verdict == (HOLDS if p < 0.05 else FAILS)


# ------------------------------------------------------------------ against scipy


@pytest.mark.parametrize("shift", [-0.5, 0.0, 0.5, 1.0])
def test_above_is_a_one_sided_paired_t_test_on_means_over_levels(shift: float) -> None:
    rng, verdicts = np.random.default_rng(1), set()
    for _ in range(40):
        upper, lower = drawn(rng, shift)
        means = [[np.mean(list(levels.values())) for levels in curve.values()] for curve in (upper, lower)]
        one = verdict(claim("above"), upper, lower)
        check(one, p_paired(*means), len(upper))
        verdicts.add(one.verdict)
    assert verdicts == {HOLDS, FAILS} or shift < 0


@pytest.mark.parametrize("shift", [0.0, 0.8, -0.8, 3.0])
def test_equal_is_two_one_sided_t_tests_against_the_margin(shift: float) -> None:
    rng, verdicts = np.random.default_rng(2), set()
    for _ in range(40):
        upper, lower = drawn(rng, shift)
        differences = gaps(upper, lower).mean(axis=1)
        expected = max(p_mean(differences, -1.0), p_mean(differences, 1.0, "less"))
        one = verdict(claim("equal", margin=1.0), upper, lower)
        check(one, expected, len(upper))
        verdicts.add(one.verdict)
    assert verdicts == ({FAILS} if shift == 3 else {HOLDS, FAILS})


@pytest.mark.parametrize("slope", [0.0, 2.0, -2.0])
def test_widens_is_a_one_sided_t_test_on_sparsest_minus_densest(slope: float) -> None:
    rng, verdicts = np.random.default_rng(3), set()
    for _ in range(40):
        upper, lower = drawn(rng, 0.0)
        for levels in upper.values():
            levels[18] += slope
            levels[10] += 100  # what lies between does not count
        all_gaps = gaps(upper, lower)
        change = all_gaps[:, -1] - all_gaps[:, 0]
        one = verdict(claim("widens"), upper, lower)
        check(one, p_mean(change, 0.0), len(upper))
        verdicts.add(one.verdict)
    assert HOLDS in verdicts or slope <= 0
    assert FAILS in verdicts or slope > 0


def test_above_by_hand() -> None:
    """Gaps 1, 2, 3: mean 2, standard error 1 / sqrt(3), t = 3.464 with two degrees of freedom."""
    one = verdict(claim("above"), *constant(1.0, 2.0, 3.0))
    assert "+2.00 points" in one.numbers
    assert "79.0 % pruned" in one.numbers
    assert "standard error 0.58" in one.numbers
    t = 2 * math.sqrt(3)
    by_hand = 0.5 * (1 - t / math.sqrt(2 + t * t))  # Student's t with two degrees of freedom, in closed form
    check(one, by_hand, 3)
    assert one.verdict == HOLDS


def test_pairing_takes_the_noise_of_a_seed_away() -> None:
    noise = [0.0, 10.0, -20.0, 30.0]
    upper = {s: {7: 50 + x + 1 + s / 10} for s, x in enumerate(noise)}
    lower = {s: {7: 50 + x} for s, x in enumerate(noise)}
    assert verdict(claim("above"), upper, lower).verdict == HOLDS


def test_below_is_not_above() -> None:
    one = verdict(claim("above"), *constant(-1.0, -2.0, -3.0))
    assert one.verdict == FAILS
    assert p_of(one) > 0.95
    assert "-2.00 points" in one.numbers


# ------------------------------------------------------------------ too few seeds


@pytest.mark.parametrize("relation", ["above", "equal", "widens"])
def test_fewer_than_three_seeds_have_no_verdict(relation: str) -> None:
    of = claim(relation, margin=1.0 if relation == "equal" else 0.0)
    rng = np.random.default_rng(4)
    for count in (1, 2):
        upper = {seed: {level: 90 + rng.normal() for level in DENSITY} for seed in range(count)}
        lower = {seed: {level: 10 + rng.normal() for level in DENSITY} for seed in range(count)}
        one = verdict(of, upper, lower)
        assert one.verdict == FEW
        assert n_of(one) == count
        assert "p =" not in one.numbers


@pytest.mark.parametrize("relation", ["above", "equal", "widens"])
def test_missing_curves_have_no_verdict(relation: str) -> None:
    of = claim(relation, margin=1.0 if relation == "equal" else 0.0)
    some = {seed: dict.fromkeys(DENSITY, 90.0 + seed) for seed in range(5)}
    apart = {seed + 5: levels for seed, levels in some.items()}
    for upper, lower in (({}, some), (some, {}), ({}, {}), (some, apart)):
        assert verdict(of, upper, lower).verdict == FEW
    for curve in (Curve(task="labels", init=REINIT), Curve(task="random", init=TICKET)):
        (one,) = judge([of], table({UPPER: some, curve: some}))
        assert one.verdict == FEW


def test_no_claims_no_verdicts() -> None:
    assert judge([], table({UPPER: {0: {3: 1.0}}})) == []


def test_verdicts_stand_in_the_order_of_the_claims() -> None:
    upper, lower = constant(1.0, 1.5, 2.0)
    claims = [claim("above"), claim("equal", margin=1.0), claim("widens"), claim("equal", margin=9.0)]
    verdicts = judge(claims, table({UPPER: upper, LOWER: lower}))
    assert [one.claim for one in verdicts] == claims
    assert [one.verdict for one in verdicts] == [HOLDS, FAILS, FEW, HOLDS]


def test_one_level_cannot_widen() -> None:
    assert verdict(claim("widens"), *constant(1.0, 2.0, 3.0, 4.0)).verdict == FEW


# ------------------------------------------------------------------ what is compared


def test_seeds_without_a_partner_are_dropped() -> None:
    upper, lower = drawn(np.random.default_rng(5), 1.0)
    expected = verdict(claim("above"), upper, lower)
    more = {**upper, 100: dict.fromkeys(DENSITY, 0.0)}, {**lower, 200: dict.fromkeys(DENSITY, 99.0)}
    assert verdict(claim("above"), *more) == expected


def test_the_order_of_the_rows_does_not_matter() -> None:
    upper, lower = drawn(np.random.default_rng(6), 1.0)
    whole = table({UPPER: upper, LOWER: lower})
    shuffled = whole.take(np.random.default_rng(0).permutation(len(whole)))
    for of in (claim("above"), claim("equal", margin=1.0), claim("widens")):
        assert judge([of], shuffled) == judge([of], whole)


def test_other_curves_do_not_matter() -> None:
    upper, lower = drawn(np.random.default_rng(7), 1.0)
    others = {Curve(task=task, init=REINIT): {s: dict.fromkeys(DENSITY, 1.0) for s in range(9)} for task in "ab"}
    others[Curve(task="labels", init=REINIT)] = {0: {3: 0.0}}
    (one,) = judge([claim("above")], table({**others, UPPER: upper, LOWER: lower}))
    assert one == verdict(claim("above"), upper, lower)


@pytest.mark.parametrize("relation", ["above", "equal", "widens"])
def test_levels_outside_of_the_range_are_ignored(relation: str) -> None:
    of = claim(relation, margin=1.0 if relation == "equal" else 0.0, within=(0.04, 0.3))  # levels 7, 10, 14
    upper, lower = drawn(np.random.default_rng(8), 0.7)
    expected = verdict(of, upper, lower)
    assert "79.0" in expected.numbers
    assert "95.6" in expected.numbers
    for level in (3, 18):
        for seed in upper:
            upper[seed][level] += 1000 * (seed + 1)
    assert verdict(of, upper, lower) == expected
    for seed in upper:
        del upper[seed][3], lower[seed][18]
    assert verdict(of, upper, lower) == expected
    inside = [n for n, level in enumerate(DENSITY) if 0.04 <= DENSITY[level] <= 0.3]
    columns = gaps({s: {**v, 3: 0.0} for s, v in upper.items()}, {s: {**v, 18: 0.0} for s, v in lower.items()})
    columns = columns[:, inside]
    differences = columns[:, -1] - columns[:, 0] if relation == "widens" else columns.mean(axis=1)
    assert f"{differences.mean():+.2f} points" in expected.numbers


def test_both_ends_of_the_range_belong_to_it() -> None:
    upper, lower = drawn(np.random.default_rng(9), 0.7)
    exactly = verdict(claim("above", within=(DENSITY[14], DENSITY[7])), upper, lower)
    assert exactly.numbers == verdict(claim("above", within=(0.04, 0.3)), upper, lower).numbers


def test_a_range_without_points_has_no_verdict() -> None:
    upper, lower = drawn(np.random.default_rng(10), 0.7)
    assert verdict(claim("above", within=(0.6, 1.0)), upper, lower).verdict == FEW


def test_a_level_that_one_curve_lacks_is_not_compared() -> None:
    upper, lower = drawn(np.random.default_rng(11), 0.7)
    for seed in lower:
        del lower[seed][10]
        upper[seed][10] += 1000 * seed
    one = verdict(claim("above"), upper, lower)
    kept = [[np.mean([curve[s][lv] for lv in DENSITY if lv != 10]) for s in curve] for curve in (upper, lower)]
    check(one, p_paired(*kept), len(upper))
    assert "89.3" not in one.numbers


def test_a_level_that_one_seed_lacks_is_compared_for_none() -> None:
    """Each seed's mean is over the same levels: else the seeds would differ by which levels they have."""
    upper, lower = drawn(np.random.default_rng(12), 0.7)
    whole = verdict(claim("above", within=(0.0, 0.4)), upper, lower)
    del upper[1][3]
    one = verdict(claim("above"), upper, lower)
    assert one.numbers == whole.numbers
    assert n_of(one) == len(upper)


# ------------------------------------------------------------------ no variance


def test_equal_gaps_above_zero_hold() -> None:
    one = verdict(claim("above"), *constant(0.5, 0.5, 0.5))
    assert (one.verdict, p_of(one)) == (HOLDS, 0.0)


@pytest.mark.parametrize("gap", [0.0, -0.5])
def test_equal_gaps_not_above_zero_do_not_hold(gap: float) -> None:
    one = verdict(claim("above"), *constant(gap, gap, gap))
    assert (one.verdict, p_of(one)) == (FAILS, 1.0)


@pytest.mark.parametrize(
    ("gap", "expected"), [(0.0, HOLDS), (0.5, HOLDS), (-0.5, HOLDS), (1.0, FAILS), (-1.0, FAILS), (1.5, FAILS)]
)
def test_equal_gaps_are_equal_strictly_within_the_margin(gap: float, expected: str) -> None:
    one = verdict(claim("equal", margin=1.0), *constant(gap, gap, gap))
    assert (one.verdict, p_of(one)) == (expected, 0.0 if expected == HOLDS else 1.0)


@pytest.mark.parametrize(("change", "expected"), [(2.0, HOLDS), (0.0, FAILS), (-2.0, FAILS)])
def test_equal_changes_widen_by_their_sign(change: float, expected: str) -> None:
    upper = {seed: {3: 60.0, 14: 60.0 + change} for seed in range(3)}
    lower = {seed: {3: 50.0, 14: 50.0} for seed in range(3)}
    assert verdict(claim("widens"), upper, lower).verdict == expected


# ------------------------------------------------------------------ curves with other levels


def test_curves_are_compared_at_the_same_density_whatever_their_levels() -> None:
    """One prunes half a round, the other three quarters: level 2 of the one is level 1 of the other."""
    densities = {1: 0.5, 2: 0.25, 3: 0.125, 4: 0.0625}
    fine = {seed: {1: 0.0, 2: 90.0 + seed, 3: 0.0, 4: 80.0 + seed} for seed in range(3)}
    coarse = {seed: {2: 88.0, 4: 79.0} for seed in range(3)}
    whole = table({UPPER: fine, LOWER: coarse}, densities).to_pylist()
    for row in whole:
        if row["task"] == LOWER.task:
            row["level"] //= 2
    (one,) = judge([claim("above")], pa.Table.from_pylist(whole, schema=results.SCHEMA))
    assert "75.0" in one.numbers
    assert "50.0" not in one.numbers
    check(one, p_mean([1.5, 2.5, 3.5], 0.0), 3)


# ------------------------------------------------------------------------------------- panels, dense, numbers


def rows_of(curves: Mapping[Curve, Values]) -> pa.Table:
    """As table(), with level 0 the dense network."""
    return table(curves, {0: 1.0, **DENSITY})


def test_a_claim_is_judged_in_every_panel_that_has_both_curves() -> None:
    a, b, c = ({s: {7: base + s * s / 10} for s in range(4)} for base in (60, 50, 40))
    curves = {
        Curve(task="labels", init=TICKET, panel="one"): a,
        Curve(task="rotnet", init=TICKET, panel="one"): b,
        Curve(task="labels", init=TICKET, panel="two"): c,
        Curve(task="rotnet", init=TICKET, panel="two"): b,
        Curve(task="labels", init=TICKET, panel="three"): a,
    }
    found = judge([claim("above")], table(curves))
    assert [(v.panel, v.verdict) for v in found] == [("one", HOLDS), ("two", FAILS)]
    assert "+10.00 points" in found[0].numbers
    assert "-10.00 points" in found[1].numbers


def test_a_claim_may_compare_two_panels() -> None:
    high, low = (Curve(task="labels", init=TICKET, panel=panel) for panel in ("one", "two"))
    values = {high: {s: {7: 60.0 + s} for s in range(3)}, low: {s: {7: 50.0 + s * 1.5} for s in range(3)}}
    (one,) = judge([Claim(says="x", source="y", higher=high, lower=low, relation="above")], table(values))
    assert (one.panel, one.verdict) == ("", HOLDS)
    check(one, p_paired([60, 61, 62], [50, 51.5, 53]), 3)


@pytest.mark.parametrize(("relation", "holds"), [("above", FAILS), ("equal", HOLDS)])
def test_against_the_dense_network_of_the_same_seed(relation: str, holds: str) -> None:
    dense = {0: 90.0, 1: 92.0, 2: 91.0}
    pruned = {0: 89.9, 1: 92.2, 2: 90.8}
    values = {UPPER: {s: {0: dense[s], 7: pruned[s], 10: pruned[s] - 0.1} for s in dense}}
    margin = 1.0 if relation == "equal" else 0.0
    of = Claim(says="x", source="y", higher=Dense(curve=UPPER), lower=UPPER, relation=relation, margin=margin)
    (one,) = judge([of], rows_of(values))
    assert one.verdict == holds
    differences = [dense[s] - (pruned[s] - 0.05) for s in dense]
    assert f"{np.mean(differences):+.2f} points at 79.0, 89.3 % pruned, n = 3" in one.numbers


def test_against_a_number_at_the_dense_network_too() -> None:
    values = {UPPER: {s: {0: 80.0 + s} for s in range(3)}}
    of = Claim(says="x", source="y", higher=UPPER, lower=80.0, relation="equal", margin=5.0)
    (one,) = judge([of], rows_of(values))
    assert one.verdict == HOLDS
    expected = stats.ttest_1samp([1.0, 2.0, 3.0], 6, alternative="less")[1]
    below = stats.ttest_1samp([0.0, 1.0, 2.0], 5, alternative="less")[1]
    assert below == pytest.approx(expected)
    assert p_of(one) == pytest.approx(below, rel=0.01)


@pytest.mark.parametrize(("relation", "sign"), [("widens", 1), ("narrows", -1)])
def test_along_the_panels_the_last_gap_is_compared_with_the_first(relation: str, sign: int) -> None:
    rng = np.random.default_rng(3)
    gap = {panel: rng.normal(base, 1, (5, 2)) for panel, base in (("a", 5), ("b", 100), ("c", 5 + 6 * sign))}
    curves: dict[Curve, Values] = {}
    for panel, gaps_ in gap.items():
        lower = rng.normal(50, 3, (5, 2))
        for task, values in (("labels", lower + gaps_), ("rotnet", lower)):
            at = {s: {7: float(values[s, 0]), 10: float(values[s, 1])} for s in range(5)}
            curves[Curve(task=task, init=TICKET, panel=panel)] = at
    of = Claim(says="x", source="y", higher=UPPER, lower=LOWER, relation=relation, along="panels")
    (one,) = judge([of], table(curves))
    change = gap["c"].mean(1) - gap["a"].mean(1)
    assert one.verdict == HOLDS
    expected = stats.ttest_1samp(sign * change, 0, alternative="greater")[1]
    assert p_of(one) == pytest.approx(expected, rel=0.01)
    assert f"{change.mean():+.2f} points" in one.numbers


def test_panels_are_compared_at_the_same_levels_whatever_their_densities() -> None:
    """A layer of ten weights has 0.5 left where a network has 0.512; and not at levels that one panel lacks."""
    small, large = {3: 0.5, 7: 0.2, 10: 0.1}, {3: 0.512, 7: 0.21, 14: 0.044}
    rows: list[dict[str, Any]] = []
    for panel, densities, gap in (("small", small, 1.0), ("large", large, 9.0)):
        curves = {
            Curve(task=task, init=TICKET, panel=panel): {
                s: {n: 50 + s / 9 + (gap + n if task == "labels" else 0) for n in densities} for s in range(3)
            }
            for task in ("labels", "rotnet")
        }
        rows += table(curves, densities).to_pylist()
    of = Claim(says="x", source="y", higher=UPPER, lower=LOWER, relation="widens", along="panels", within=(0.0, 0.3))
    (one,) = judge([of], pa.Table.from_pylist(rows, schema=results.SCHEMA))
    assert one.verdict == HOLDS
    assert "+8.00 points at 79.0 % pruned, n = 3" in one.numbers


def test_one_panel_is_nothing_to_go_along() -> None:
    of = Claim(says="x", source="y", higher=UPPER, lower=LOWER, relation="widens", along="panels")
    (one,) = judge([of], table(dict(zip((UPPER, LOWER), constant(1.0, 2.0, 3.0), strict=True))))
    assert one.verdict == FEW


def test_only_a_panels_first_metric_counts() -> None:
    upper, lower = constant(1.0, 1.1, 1.2)
    good = table({UPPER: upper, LOWER: lower}).to_pylist()
    other = [{**row, "metric": "other", "value": -1000.0} for row in good if row["task"] == "labels"]
    (one,) = judge([claim("above")], pa.Table.from_pylist([*good, *other], schema=results.SCHEMA))
    assert one.verdict == HOLDS
