"""The paper's sentences as tests on a table, paired over seeds."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import mean, stdev

import pyarrow as pa

from raysslprune.spec import Claim, Curve

HOLDS, FAILS, FEW = "holds", "does not hold", "too few seeds"
LEAST_SEEDS = 3
LEVEL = 0.05
"""Of significance, for each test alone."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """verdict: HOLDS, FAILS or FEW. numbers: the effect and the test, in words."""

    claim: Claim
    verdict: str
    numbers: str


def judge(claims: Iterable[Claim], results: pa.Table) -> list[Verdict]:
    """Each claim against the rows of ``results.table``."""
    return [_judge(claim, results) for claim in claims]


def _judge(claim: Claim, results: pa.Table) -> Verdict:
    differences, levels = paired(claim, results)
    if not levels:
        return Verdict(claim=claim, verdict=FEW, numbers="no level at which both curves have points")
    pruned = ", ".join(f"{100 * (1 - density):.1f}" for density in levels)
    n, effect = len(differences), mean(differences)
    what = "change of the difference" if claim.relation == "widens" else "mean difference"
    numbers = f"{what} {effect:+.2f} points at {pruned} % pruned, n = {n}"
    if n < LEAST_SEEDS:
        return Verdict(claim=claim, verdict=FEW, numbers=f"{numbers}; a verdict needs {LEAST_SEEDS} seeds")
    error = stdev(differences) / math.sqrt(n)
    if claim.relation == "equal":
        p = max(_p_above(effect + claim.margin, error, n), _p_above(claim.margin - effect, error, n))
        test = f"two one-sided paired t-tests against ±{claim.margin:g}"
    else:
        p = _p_above(effect, error, n)
        test = "one-sided paired t-test"
    verdict = HOLDS if p < LEVEL else FAILS
    return Verdict(claim=claim, verdict=verdict, numbers=f"{numbers}, standard error {error:.2f}; {test}: p = {p:.3g}")


def paired(claim: Claim, results: pa.Table) -> tuple[list[float], list[float]]:
    """higher minus lower for each seed that has both curves, and the densities compared.

    ``above`` and ``equal``: the mean over the levels in range. ``widens``: the sparsest level minus the densest.
    """
    low, high = claim.within
    upper, lower = _values(claim.higher, results), _values(claim.lower, results)
    seeds = sorted({seed for seed, _ in upper} & {seed for seed, _ in lower})
    shared = (
        set.intersection(*({lv for s, lv in upper if s == seed and (seed, lv) in lower} for seed in seeds))
        if seeds
        else set()
    )
    levels = sorted(level for level in shared if low <= upper[seeds[0], level][1] <= high)
    if claim.relation == "widens":
        levels = [levels[0], levels[-1]] if len(levels) > 1 else []
    if not levels:
        return [], []
    differences = []
    for seed in seeds:
        gaps = [upper[seed, level][0] - lower[seed, level][0] for level in levels]
        differences.append(gaps[-1] - gaps[0] if claim.relation == "widens" else mean(gaps))
    return differences, [upper[seeds[0], level][1] for level in levels]


def _values(curve: Curve, results: pa.Table) -> dict[tuple[int, int], tuple[float, float]]:
    """(seed, level) to (value, density)."""
    return {
        (row["seed"], row["level"]): (row["value"], row["density"])
        for row in results.to_pylist()
        if (row["task"], row["init"]) == (curve.task, curve.init)
    }


def _p_above(effect: float, error: float, n: int) -> float:
    """One-sided p-value that the mean, ``effect``, is above 0, by Student's t with n - 1 degrees of freedom."""
    if error == 0:
        return 0.0 if effect > 0 else 1.0
    from scipy.stats import t  # half a second to import, and most calls are with too few seeds

    return float(t.sf(effect / error, n - 1))
