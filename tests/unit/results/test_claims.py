"""Verdicts on the paper's sentences, against scipy's tests and by hand."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from scipy import stats

from raysslprune import results
from raysslprune.results import claims
from raysslprune.results.chance import KEY
from raysslprune.results.claims import CONTRADICTED, HOLDS, UNDECIDED, Verdict, judge
from raysslprune.results.tables import LOOKS
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
    """The p-value of the relation, which is printed unless that of its opposite is smaller."""
    assert one.evidence is not None
    found = re.search(r": (of the opposite, )?p = (\S+) ", one.numbers)
    assert found, one.numbers
    shown = one.evidence.p_false if found.group(1) else one.evidence.p_true
    assert float(found.group(2)) == pytest.approx(shown, rel=6e-3)  # three digits are shown
    return one.evidence.p_true


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


def check(one: Verdict, p: float, opposite: float, n: int) -> None:
    """Compare with p-values by scipy, of the relation and of its opposite."""
    assert one.evidence is not None
    assert (p_of(one), one.evidence.p_false) == (pytest.approx(p), pytest.approx(opposite))
    assert n_of(one) == one.seeds == n
    assert one.verdict == (HOLDS if p < 0.05 else CONTRADICTED if opposite < 0.05 else UNDECIDED)


# ------------------------------------------------------------------ against scipy


@pytest.mark.parametrize("shift", [-0.5, 0.0, 0.5, 1.0])
def test_above_is_a_one_sided_paired_t_test_on_means_over_levels(shift: float) -> None:
    rng, verdicts = np.random.default_rng(1), set()
    for _ in range(40):
        upper, lower = drawn(rng, shift)
        means = [[np.mean(list(levels.values())) for levels in curve.values()] for curve in (upper, lower)]
        one = verdict(claim("above"), upper, lower)
        check(one, p_paired(*means), p_paired(*means[::-1]), len(upper))
        verdicts.add(one.verdict)
    assert {-0.5: CONTRADICTED, 0.0: UNDECIDED, 0.5: HOLDS, 1.0: HOLDS}[shift] in verdicts


@pytest.mark.parametrize("shift", [0.0, 0.8, -0.8, 3.0])
def test_equal_is_two_one_sided_t_tests_against_the_margin(shift: float) -> None:
    rng, verdicts = np.random.default_rng(2), set()
    for _ in range(40):
        upper, lower = drawn(rng, shift)
        differences = gaps(upper, lower).mean(axis=1)
        expected = max(p_mean(differences, -1.0), p_mean(differences, 1.0, "less"))
        opposite = min(1.0, 2 * min(p_mean(differences, 1.0), p_mean(differences, -1.0, "less")))
        one = verdict(claim("equal", margin=1.0), upper, lower)
        check(one, expected, opposite, len(upper))
        verdicts.add(one.verdict)
    assert (CONTRADICTED if shift == 3 else HOLDS) in verdicts


@pytest.mark.parametrize("shift", [-2.0, -1.0, 0.0])
def test_not_worse_is_a_one_sided_t_test_against_minus_the_margin(shift: float) -> None:
    rng, verdicts = np.random.default_rng(13), set()
    for _ in range(40):
        upper, lower = drawn(rng, shift)
        differences = gaps(upper, lower).mean(axis=1)
        one = verdict(claim("not worse", margin=1.0), upper, lower)
        check(one, p_mean(differences, -1.0), p_mean(differences, -1.0, "less"), len(upper))
        verdicts.add(one.verdict)
    assert {-2.0: CONTRADICTED, -1.0: UNDECIDED, 0.0: HOLDS}[shift] in verdicts


@pytest.mark.parametrize("relation", ["above", "not worse", "equal"])
def test_at_each_density_the_weakest_decides(relation: str) -> None:
    """It holds if all do, by the largest p-value; it is contradicted if one is, by the smallest times their number."""
    margin = 0.0 if relation == "above" else 1.5
    of = replace(claim(relation, margin=margin), at="each")
    rng = np.random.default_rng(14)
    for _ in range(20):
        upper, lower = drawn(rng, rng.normal())
        ones = [
            verdict(replace(of, at="mean", within=(0.99 * density, 1.01 * density)), upper, lower).evidence
            for density in DENSITY.values()
        ]
        true, false = [one.p_true for one in ones if one], [one.p_false for one in ones if one]
        assert len(true) == len(DENSITY)
        check(verdict(of, upper, lower), max(true), min(1.0, len(DENSITY) * min(false)), len(upper))


def test_a_gain_at_other_densities_does_not_hide_a_loss() -> None:
    """+1.5, +1.5 and -3: their mean is 0."""
    lower = {seed: {3: 90.0, 7: 90.0, 10: 90.0} for seed in range(4)}
    upper = {seed: {3: 91.5 + seed / 99, 7: 91.5 - seed / 99, 10: 87.0 + seed / 99} for seed in lower}
    of = claim("not worse", margin=2.0)
    assert verdict(of, upper, lower).verdict == HOLDS
    each = verdict(replace(of, at="each"), upper, lower)
    assert each.verdict == CONTRADICTED
    assert "weakest difference -2.9" in each.numbers


def test_verdicts_are_corrected_for_their_number() -> None:
    """Alone, p = 0.02 holds; beside claims that can't be tested, Holm's correction multiplies it by their number."""
    upper, lower = constant(1.0, 1.6, 2.6)
    alone = judge([claim("above")], table({UPPER: upper, LOWER: lower}))[0]
    assert 0.02 < p_of(alone) < 0.05
    assert (alone.verdict, alone.holm) == (HOLDS, p_of(alone))
    missing = replace(claim("above"), higher=Curve(task="exemplar", init=TICKET))
    first, *rest = judge([claim("above"), missing, missing], table({UPPER: upper, LOWER: lower}))
    assert (first.verdict, first.evidence) == (UNDECIDED, alone.evidence)
    assert (first.holm, first.benjamini_hochberg) == (pytest.approx(3 * alone.holm), pytest.approx(3 * alone.holm))
    assert [one.verdict for one in rest] == [UNDECIDED, UNDECIDED]


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
        check(one, p_mean(change, 0.0), p_mean(change, 0.0, "less"), len(upper))
        verdicts.add(one.verdict)
    assert {0.0: UNDECIDED, 2.0: HOLDS, -2.0: CONTRADICTED}[slope] in verdicts


def test_above_by_hand() -> None:
    """Gaps 1, 2, 3: mean 2, standard error 1 / sqrt(3), t = 3.464 with two degrees of freedom."""
    one = verdict(claim("above"), *constant(1.0, 2.0, 3.0))
    assert "+2.00 points" in one.numbers
    assert "79.0 % pruned" in one.numbers
    assert "(90% interval +0.31 to +3.69)" in one.numbers  # 2.92 standard errors on either side
    t = 2 * math.sqrt(3)
    by_hand = 0.5 * (1 - t / math.sqrt(2 + t * t))  # Student's t with two degrees of freedom, in closed form
    check(one, by_hand, 1 - by_hand, 3)
    assert one.verdict == HOLDS


def test_pairing_takes_the_noise_of_a_seed_away() -> None:
    noise = [0.0, 10.0, -20.0, 30.0]
    upper = {s: {7: 50 + x + 1 + s / 10} for s, x in enumerate(noise)}
    lower = {s: {7: 50 + x} for s, x in enumerate(noise)}
    assert verdict(claim("above"), upper, lower).verdict == HOLDS


def test_below_is_not_above() -> None:
    one = verdict(claim("above"), *constant(-1.0, -2.0, -3.0))
    assert one.verdict == CONTRADICTED
    assert p_of(one) > 0.95
    assert "of the opposite, p = 0.03" in one.numbers
    assert "-2.00 points" in one.numbers


# ------------------------------------------------------------------ the table


def test_a_row_for_each_claim_and_panel_with_the_numbers_that_scipy_gives() -> None:
    rng = np.random.default_rng(21)
    sides = [Curve(task=task, init=TICKET, panel=panel) for panel in "ab" for task in ("labels", "rotnet")]
    values = {side: {seed: {7: rng.normal(90), 10: rng.normal(80)} for seed in range(6)} for side in sides}
    values[sides[3]] = {seed: values[sides[3]][seed] for seed in range(2)}
    above, dense = claim("above"), replace(claim("above"), higher=UPPER, lower=96.5)
    equal = replace(claim("equal", margin=1.5, within=(0.2, 0.3)), source="section 4")
    made = claims.table(judge([above, equal, dense], table(values)))
    assert made.schema.equals(claims.CLAIMS)
    rows = made.to_pylist()
    assert [(row["relation"], row["panel"]) for row in rows] == [
        *(("above", "a"), ("above", "b"), ("equal", "a"), ("equal", "b"), ("above", "a"), ("above", "b"))
    ]
    assert [row["lower"] for row in rows] == ["rotnet winning ticket"] * 4 + ["96.5"] * 2
    assert {row["higher"] for row in rows} == {"labels winning ticket"}
    assert [row["n"] for row in rows] == [6, 2, 6, 2, 6, 6]
    assert [row["margin"] for row in rows] == [None, None, 1.5, 1.5, None, None]
    assert [row["source"] for row in rows] == ["there", "there", "section 4", "section 4", "there", "there"]
    few = [row for row in rows if row["n"] == 2]
    for row in few:
        assert row["verdict"] == UNDECIDED
        assert row["effect"] is not None
        assert {row[name] for name in NEEDS_SEEDS} == {None}
    ps = []
    for row in (row for row in rows if row["n"] == 6):
        levels = [level for level in (7, 10) if DENSITY[level] in row["densities"]]
        assert levels == ([7] if row["relation"] == "equal" else [7, 10])
        of = [side for side in sides if side.panel == row["panel"]]
        lower = {s: dict.fromkeys(levels, 96.5) for s in range(6)} if row["lower"] == "96.5" else values[of[1]]
        gaps = np.array([np.mean([values[of[0]][s][n] - lower[s][n] for n in levels]) for s in range(6)])
        low, high = stats.t.interval(0.9, 5, gaps.mean(), stats.sem(gaps))
        assert (row["effect"], row["sd"]) == (pytest.approx(gaps.mean()), pytest.approx(gaps.std(ddof=1)))
        assert (row["low"], row["high"]) == (pytest.approx(low), pytest.approx(high))
        p, opposite = p_mean(gaps, 0), p_mean(gaps, 0, "less")
        if row["relation"] == "equal":
            p = max(p_mean(gaps, -1.5), p_mean(gaps, 1.5, "less"))
            opposite = min(1.0, 2 * min(p_mean(gaps, 1.5), p_mean(gaps, -1.5, "less")))
        assert (row["p_true"], row["p_false"]) == (pytest.approx(p), pytest.approx(opposite))
        assert row["verdict"] == (
            "undecided" if row["holm"] >= row["level"] else "holds" if p < 0.5 else "contradicted"
        )
        ps.append((row, p, opposite))
    assert {row["verdict"] for row, *_ in ps} == {UNDECIDED, CONTRADICTED}
    for row, p, opposite in ps:  # six claims, of which two can't be tested
        smaller, side = (p, 1) if p <= opposite else (opposite, 2)
        others = sorted([one[side] for one in ps] + [1.0, 1.0])
        adjusted = [min(1.0, (6 - rank) * other) for rank, other in enumerate(others)]
        assert row["holm"] == pytest.approx(
            max(a for a, other in zip(adjusted, others, strict=True) if other <= smaller)
        )
        rates = [min(1.0, 6 / (rank + 1) * other) for rank, other in enumerate(others) if other >= smaller]
        assert row["benjamini_hochberg"] == pytest.approx(min(rates))


NEEDS_SEEDS = ("sd", "low", "high", "p_true", "p_false", "holm", "benjamini_hochberg", "detectable")


def test_the_table_of_verdicts_survives_parquet_and_may_be_empty() -> None:
    for verdicts in ([], judge([claim("above"), claim("widens")], table({UPPER: {0: {3: 1.0}}}))):
        made = claims.table(verdicts)
        back = results.from_parquet(results.to_parquet(made))
        assert back.equals(made)
        assert back.schema.equals(claims.CLAIMS)
        assert len(back) == len(verdicts)
        assert all(field.metadata[b"about"] for field in back.schema)
    assert [(row["densities"], row["n"], row["effect"]) for row in made.to_pylist()] == [([], 0, None)] * 2


# ------------------------------------------------------------------ too few seeds


@pytest.mark.parametrize("relation", ["above", "equal", "widens"])
def test_fewer_than_three_seeds_have_no_verdict(relation: str) -> None:
    of = claim(relation, margin=1.0 if relation == "equal" else 0.0)
    rng = np.random.default_rng(4)
    for count in (1, 2):
        upper = {seed: {level: 90 + rng.normal() for level in DENSITY} for seed in range(count)}
        lower = {seed: {level: 10 + rng.normal() for level in DENSITY} for seed in range(count)}
        one = verdict(of, upper, lower)
        assert one.verdict == UNDECIDED
        assert n_of(one) == count
        assert "p =" not in one.numbers
        assert "too few seeds" in one.numbers


@pytest.mark.parametrize("relation", ["above", "equal", "widens"])
def test_missing_curves_have_no_verdict(relation: str) -> None:
    of = claim(relation, margin=1.0 if relation == "equal" else 0.0)
    some = {seed: dict.fromkeys(DENSITY, 90.0 + seed) for seed in range(5)}
    apart = {seed + 5: levels for seed, levels in some.items()}
    for upper, lower in (({}, some), (some, {}), ({}, {}), (some, apart)):
        assert verdict(of, upper, lower).verdict == UNDECIDED
    for curve in (Curve(task="labels", init=REINIT), Curve(task="random", init=TICKET)):
        (one,) = judge([of], table({UPPER: some, curve: some}))
        assert one.verdict == UNDECIDED


def test_no_claims_no_verdicts() -> None:
    assert judge([], table({UPPER: {0: {3: 1.0}}})) == []


def test_verdicts_stand_in_the_order_of_the_claims() -> None:
    upper, lower = constant(1.0, 1.1, 1.2)
    some = [claim("above"), claim("equal", margin=1.0), claim("widens"), claim("equal", margin=9.0)]
    verdicts = judge(some, table({UPPER: upper, LOWER: lower}))
    assert [one.claim for one in verdicts] == some
    assert [one.verdict for one in verdicts] == [HOLDS, UNDECIDED, UNDECIDED, HOLDS]


def test_one_level_cannot_widen() -> None:
    assert verdict(claim("widens"), *constant(1.0, 2.0, 3.0, 4.0)).verdict == UNDECIDED


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
    assert verdict(claim("above", within=(0.6, 1.0)), upper, lower).verdict == UNDECIDED


def test_a_level_that_one_curve_lacks_is_not_compared() -> None:
    upper, lower = drawn(np.random.default_rng(11), 0.7)
    for seed in lower:
        del lower[seed][10]
        upper[seed][10] += 1000 * seed
    one = verdict(claim("above"), upper, lower)
    kept = [[np.mean([curve[s][lv] for lv in DENSITY if lv != 10]) for s in curve] for curve in (upper, lower)]
    check(one, p_paired(*kept), p_paired(*kept[::-1]), len(upper))
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
    assert (one.verdict, p_of(one)) == (CONTRADICTED if gap else UNDECIDED, 1.0)


@pytest.mark.parametrize(
    ("gap", "expected"),
    [(0.0, HOLDS), (0.5, HOLDS), (-0.5, HOLDS), (1.0, UNDECIDED), (-1.0, UNDECIDED), (1.5, CONTRADICTED)],
)
def test_equal_gaps_are_equal_strictly_within_the_margin(gap: float, expected: str) -> None:
    one = verdict(claim("equal", margin=1.0), *constant(gap, gap, gap))
    assert (one.verdict, p_of(one)) == (expected, 0.0 if expected == HOLDS else 1.0)


@pytest.mark.parametrize(("change", "expected"), [(2.0, HOLDS), (0.0, UNDECIDED), (-2.0, CONTRADICTED)])
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
    check(one, p_mean([1.5, 2.5, 3.5], 0.0), p_mean([1.5, 2.5, 3.5], 0.0, "less"), 3)


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
    assert [(v.panel, v.verdict) for v in found] == [("one", HOLDS), ("two", CONTRADICTED)]
    assert "+10.00 points" in found[0].numbers
    assert "-10.00 points" in found[1].numbers


def test_a_claim_may_compare_two_panels() -> None:
    high, low = (Curve(task="labels", init=TICKET, panel=panel) for panel in ("one", "two"))
    values = {high: {s: {7: 60.0 + s} for s in range(3)}, low: {s: {7: 50.0 + s * 1.5} for s in range(3)}}
    (one,) = judge([Claim(says="x", source="y", higher=high, lower=low, relation="above")], table(values))
    assert (one.panel, one.verdict) == ("", HOLDS)
    check(one, p_paired([60, 61, 62], [50, 51.5, 53]), p_paired([50, 51.5, 53], [60, 61, 62]), 3)


@pytest.mark.parametrize(("relation", "holds"), [("above", UNDECIDED), ("equal", HOLDS)])
def test_against_the_dense_network_of_the_same_seed(relation: str, holds: str) -> None:
    dense = {0: 90.0, 1: 92.0, 2: 91.0}
    pruned = {0: 89.9, 1: 92.2, 2: 90.8}
    values = {UPPER: {s: {0: dense[s], 7: pruned[s], 10: pruned[s] - 0.1} for s in dense}}
    margin = 1.0 if relation == "equal" else 0.0
    of = Claim(says="x", source="y", higher=Dense(curve=UPPER), lower=UPPER, relation=relation, margin=margin)
    (one,) = judge([of], rows_of(values))
    assert one.verdict == holds
    differences = [dense[s] - (pruned[s] - 0.05) for s in dense]
    assert f"{np.mean(differences):+.2f} points (" in one.numbers
    assert ") at 79.0, 89.3 % pruned, n = 3" in one.numbers


def test_against_a_number_at_the_dense_network_too() -> None:
    values = {UPPER: {s: {0: 80.0 + s} for s in range(3)}}
    of = Claim(says="x", source="y", higher=UPPER, lower=80.0, relation="equal", margin=5.0)
    (one,) = judge([of], rows_of(values))
    assert one.verdict == HOLDS
    expected = stats.ttest_1samp([1.0, 2.0, 3.0], 6, alternative="less")[1]
    below = stats.ttest_1samp([0.0, 1.0, 2.0], 5, alternative="less")[1]
    assert below == pytest.approx(expected)
    assert p_of(one) == pytest.approx(below, rel=0.01)


def test_a_dense_network_against_a_number() -> None:
    values = {UPPER: {s: {0: 80.0 + s, 7: 20.0} for s in range(3)}}
    of = Claim(says="x", source="y", higher=Dense(curve=UPPER), lower=78.0, relation="above")
    (one,) = judge([of], rows_of(values))
    check(one, p_mean([80.0, 81.0, 82.0], 78.0), p_mean([80.0, 81.0, 82.0], 78.0, "less"), 3)


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
    assert "+8.00 points (90% interval +8.00 to +8.00) at 79.0 % pruned, n = 3" in one.numbers


def test_one_panel_is_nothing_to_go_along() -> None:
    of = Claim(says="x", source="y", higher=UPPER, lower=LOWER, relation="widens", along="panels")
    (one,) = judge([of], table(dict(zip((UPPER, LOWER), constant(1.0, 2.0, 3.0), strict=True))))
    assert one.verdict == UNDECIDED


def test_only_a_panels_first_metric_counts() -> None:
    upper, lower = constant(1.0, 1.1, 1.2)
    good = table({UPPER: upper, LOWER: lower}).to_pylist()
    other = [{**row, "metric": "other", "value": -1000.0} for row in good if row["task"] == "labels"]
    (one,) = judge([claim("above")], pa.Table.from_pylist([*good, *other], schema=results.SCHEMA))
    assert one.verdict == HOLDS


# ------------------------------------------------------------------ labels seen


def seen(rows: pa.Table, *, of: Claim, upper: int | None, lower: int | None, panel: str | None = None) -> str:
    """What the verdict says after its numbers, if the curves have seen these samples with labels, there or anywhere."""
    (one,) = judge([of], rows)
    counted = [
        row | {"label_samples": upper if (row["task"], row["panel"]) in (("labels", panel or row["panel"]),) else lower}
        for row in rows.to_pylist()
    ]
    (other,) = judge([of], pa.Table.from_pylist(counted, schema=results.SCHEMA))
    assert (other.verdict, other.panel) == (one.verdict, one.panel)
    assert other.numbers.startswith(one.numbers)
    return other.numbers.removeprefix(one.numbers)


@pytest.mark.parametrize("relation", ["above", "equal", "narrows"])
def test_a_verdict_says_if_its_sides_have_seen_different_numbers_of_labels(relation: str) -> None:
    rows = table(dict(zip((UPPER, LOWER), drawn(np.random.default_rng(2), 0.5), strict=True)))
    of = claim(relation, margin=2.0 if relation == "equal" else 0.0)
    assert seen(rows, of=of, upper=15_600, lower=14_400) == "; the sides saw 15,600 and 14,400 samples with labels"
    for upper, lower in ((14_400, 14_400), (0, 0), (None, 14_400), (14_400, None), (None, None)):
        assert seen(rows, of=of, upper=upper, lower=lower) == ""


def test_labels_seen_are_those_of_the_points_compared() -> None:
    """A point outside the range, or without its like, does not count; several numbers are a range."""
    rows = table(dict(zip((UPPER, LOWER), drawn(np.random.default_rng(3), 0.5), strict=True))).to_pylist()
    counts = {3: 1, 7: 14_400, 10: 15_600, 14: 14_400, 18: 14_400}
    for row in rows:
        row["label_samples"] = counts[row["level"]] if row["task"] == "labels" else 14_400

    def says(rows: list[dict[str, Any]], within: tuple[float, float]) -> str:
        (one,) = judge([claim("above", within=within)], pa.Table.from_pylist(rows, schema=results.SCHEMA))
        return one.numbers.partition("; the sides saw ")[2]

    assert says(rows, (0.15, 0.3)) == says(rows, (0.01, 0.1)) == ""
    assert says(rows, (0.01, 0.3)) == "14,400 to 15,600 and 14,400 samples with labels"
    assert says(rows, (0.01, 1.0)) == "1 to 15,600 and 14,400 samples with labels"
    lacking = [row for row in rows if (row["task"], row["level"]) != ("rotnet", 10)]
    assert says(lacking, (0.01, 0.3)) == ""


def test_a_dense_network_is_a_side_and_a_number_is_none() -> None:
    densities = {0: 1.0, 7: 0.21}
    upper = {UPPER: {seed: {0: 97.0 + seed, 7: 96.0} for seed in range(3)}}
    rows = table(upper, densities).to_pylist()
    for row in rows:
        row["label_samples"] = 14_400 if row["level"] else 20_000
    made = pa.Table.from_pylist(rows, schema=results.SCHEMA)
    dense = Claim(says="", source="", higher=Dense(curve=UPPER), lower=UPPER, relation="above", within=(0.0, 0.5))
    assert judge([dense], made)[0].numbers.endswith("; the sides saw 20,000 and 14,400 samples with labels")
    ten = Claim(says="", source="", higher=UPPER, lower=10.0, relation="above")
    assert "the sides saw" not in judge([ten], made)[0].numbers


def test_labels_seen_along_panels() -> None:
    curves = {
        Curve(task=task, init=TICKET, panel=panel): {s: {7: 50 + s + (task == "labels")} for s in range(3)}
        for panel in ("one", "two")
        for task in ("labels", "rotnet")
    }
    of = Claim(says="x", source="y", higher=UPPER, lower=LOWER, relation="widens", along="panels")
    rows = table(curves)
    assert seen(rows, of=of, upper=15_600, lower=14_400) == "; the sides saw 15,600 and 14,400 samples with labels"
    last = seen(rows, of=of, upper=15_600, lower=14_400, panel="two")
    assert last == "; the sides saw 14,400 to 15,600 and 14,400 samples with labels"
    assert seen(rows, of=of, upper=14_400, lower=14_400) == ""


# ------------------------------------------------------------------------------------- looks


def looked(curves: Mapping[Curve, Values], *looks: int) -> pa.Table:
    return table(curves).replace_schema_metadata({LOOKS: json.dumps(looks).encode()})


def some_seeds(gaps: np.ndarray, count: int, first: int = 0) -> dict[Curve, Values]:
    return {
        UPPER: {seed: {7: 50 + gaps[seed]} for seed in range(first, count)},
        LOWER: {seed: {7: 50.0} for seed in range(first, count)},
    }


def test_each_look_has_its_share_of_the_level() -> None:
    """p = 0.037 holds alone, and not at the first of four looks."""
    curves = some_seeds(np.array([1.0, 2.0, 3.0]), 3)
    (alone,), (first,) = judge([claim("above")], table(curves)), judge([claim("above")], looked(curves, 3, 6, 12, 24))
    assert (alone.verdict, first.verdict) == (HOLDS, UNDECIDED)
    assert (alone.holm, first.holm, first.level) == (alone.holm, alone.holm, 0.0125)
    assert "at a level of 0.0125" in first.numbers
    assert "at a level" not in alone.numbers


def test_a_claim_keeps_the_verdict_of_the_look_that_decided_it() -> None:
    """More seeds, trained for other claims, do not take it back."""
    gaps = np.array([1.0, 1.01, 0.99, -5.0, -6.0, -7.0])
    early, late = (judge([claim("above")], looked(some_seeds(gaps, n), 3, 6)) for n in (3, 6))
    assert early == late
    assert (late[0].verdict, late[0].seeds) == (HOLDS, 3)


def test_a_look_waits_for_all_of_its_seeds() -> None:
    gaps = np.array([1.0, -1.0, 0.5, 4.0, 4.1, 4.0, 4.0, 4.1])
    for count, seeds, verdict in ((3, 3, UNDECIDED), (7, 7, UNDECIDED), (8, 8, HOLDS)):
        (one,) = judge([claim("above")], looked(some_seeds(gaps, count), 3, 8))
        assert (one.seeds, one.verdict) == (seeds, verdict), count


@pytest.mark.parametrize(("relation", "mean"), [("above", 0.0), ("not worse", -1.0), ("equal", 1.0), ("equal", -1.0)])
def test_over_four_looks_each_word_is_wrong_in_at_most_one_of_twenty_sweeps(relation: str, mean: float) -> None:
    """At the border between true and false, where an error is likeliest."""
    of = claim(relation, margin=0.0 if relation == "above" else 1.0)
    rng, samples = np.random.default_rng(0), 400
    sweeps = [looked(some_seeds(rng.normal(mean, 1, 24), 24), 3, 6, 12, 24) for _ in range(samples)]
    words = [judge([of], sweep)[0].verdict for sweep in sweeps]
    limit = 0.05 + 3 * math.sqrt(0.05 * 0.95 / samples)
    assert words.count(HOLDS) / samples < limit
    assert words.count(CONTRADICTED) / samples < limit
    assert words.count(UNDECIDED) < samples


def test_looks_find_what_is_there() -> None:
    rng = np.random.default_rng(1)
    sweeps = [looked(some_seeds(rng.normal(1.5, 1, 24), 24), 3, 6, 12, 24) for _ in range(50)]
    ends = [judge([claim("above")], sweep)[0] for sweep in sweeps]
    assert [one.verdict for one in ends] == [HOLDS] * 50
    assert {one.seeds for one in ends} > {6, 12}


# ------------------------------------------------------------------ near chance


def dense_at(value: float, of: Curve = UPPER, data: str = "digits", metric: str = "top1") -> pa.Table:
    """Two curves over three seeds, and the dense network of one of them."""
    pruned = {seed: dict.fromkeys(DENSITY, 50.0 + seed) for seed in range(3)}
    made = table(
        {UPPER: pruned, LOWER: pruned, of: {seed: {0: value} | pruned[seed] for seed in range(3)}}, DENSITY | {0: 1.0}
    )
    more = {"data": data, "metric": metric, "density_of_all": 1.0, "arch": "conv4", "design": results.DESIGN}
    rows = [row | more for row in made.to_pylist()]
    return pa.Table.from_pylist(rows, schema=results.SCHEMA)


@pytest.mark.parametrize(
    ("value", "data", "metric", "chance"),
    [
        (18.9, "digits", "top1", 10),  # a tenth of the way from 10 to 100 is 19
        (19.1, "digits", "top1", None),
        (54.9, "cifar10:20%-of-classes", "top1", 50),
        (55.1, "cifar10:20%-of-classes:10%-of-images", "top1", None),
        (10.8, "cifar100:10%-of-images", "map", 1),
        (10.0, "imagenet:25%-held-out", "top1_validation", 0.1),
        (10.2, "imagenet", "top1_validation", None),
        (32.0, "folder/pets", "rotation_top1", 25),
        (1.0, "folder/pets", "top1", None),  # not known
        (1.0, "digits", "natural_sparsity", None),
    ],
)
def test_a_dense_network_near_chance_is_warned_of(value: float, data: str, metric: str, chance: float | None) -> None:
    (one,) = judge([claim("above")], dense_at(value, data=data, metric=metric))
    near = f"near chance: {value:.1f}%, where guessing gives {chance or 0:.1f}%"
    said = f"the dense network (labels winning ticket) is {near}"
    assert one.warning == ("" if chance is None else said)
    (row,) = claims.table([one]).to_pylist()
    assert row["warning"] == one.warning
    assert one.warning not in one.numbers or not one.warning
    assert claims.warnings([one]) == (
        [] if chance is None else [f"{said}; 1 verdict on what is pruned from it means little"]
    )
    if chance is not None:
        assert claims.warnings([one, one])[0].endswith("; 2 verdicts on what is pruned from it mean little")


def test_the_best_dense_network_counts_and_that_of_the_claims_own_curves_first() -> None:
    other = Curve(task="exemplar", init=TICKET)
    near, far = dense_at(12.0), dense_at(80.0, of=other)
    (alone,) = judge([claim("above")], pa.concat_tables([near, far]))
    assert "(labels winning ticket) is near chance: 12.0%" in alone.warning, "exemplar is in no claim"
    (both,) = judge([claim("above")], pa.concat_tables([near, dense_at(80.0, of=LOWER)]))
    assert both.warning == ""
    (stranger,) = judge([claim("above")], dense_at(12.0, of=other))
    assert "(exemplar winning ticket)" in stranger.warning, "of tickets of any mask, the network trained on labels"


def test_chance_on_data_of_ones_own_is_that_of_its_trainings() -> None:
    """Measured when they trained, and kept in the table: a folder with nine cats for each dog."""
    made = dense_at(90.5, data="folder/pets")
    known = made.replace_schema_metadata({KEY: json.dumps({"folder/pets": {"top1": 90.0, "map": 50.0}}).encode()})
    for one in (known, results.from_parquet(results.to_parquet(known))):
        (found,) = judge([claim("above")], one)
        assert "is near chance: 90.5%, where guessing gives 90.0%" in found.warning
    (unknown,) = judge([claim("above")], made)
    assert unknown.warning == ""
