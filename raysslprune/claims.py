"""The paper's sentences as tests on a table, paired over seeds."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import mean, stdev

import pyarrow as pa

from raysslprune.results import pruned_percent
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
    differences, densities = paired(claim, results)
    if not densities:
        return Verdict(claim=claim, verdict=FEW, numbers="no density at which both curves have points for every seed")
    pruned = ", ".join(pruned_percent(density) for density in densities)
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
    """higher minus lower for each seed that both curves have in range, and the densities at which they are compared.

    The dense network is left out: nothing is pruned there. Points are compared at the same density (to 1%), whatever
    their levels, and only at densities that every seed has on both curves. ``above`` and ``equal``: the mean over those
    in range. ``widens``: the sparsest minus the densest.
    """
    upper, lower = _values(claim.higher, results), _values(claim.lower, results)
    low, high = claim.within
    gaps = [
        gap
        for seed in sorted(upper.keys() & lower.keys())
        if (gap := {d: g for d, g in _gaps(upper[seed], lower[seed]).items() if low <= d <= high and d < 1})
    ]
    shared = [d for d in gaps[0] if all(_near(d, gap) for gap in gaps)] if gaps else []
    shared.sort(reverse=True)
    if claim.relation == "widens":
        shared = [shared[0], shared[-1]] if len(shared) > 1 else []
    if not shared:
        return [], []
    differences = []
    for gap in gaps:
        at = [gap[d] for density in shared for d in _near(density, gap)]
        differences.append(at[-1] - at[0] if claim.relation == "widens" else mean(at))
    return differences, shared


def _values(curve: Curve, results: pa.Table) -> dict[int, dict[float, float]]:
    """Seed to density to value."""
    values: dict[int, dict[float, float]] = {}
    for row in results.to_pylist():
        if (row["task"], row["init"]) == (curve.task, curve.init):
            values.setdefault(row["seed"], {})[row["density"]] = row["value"]
    return values


def _gaps(upper: dict[float, float], lower: dict[float, float]) -> dict[float, float]:
    """Density to upper minus lower, where both have that density."""
    return {density: value - lower[d] for density, value in upper.items() for d in _near(density, lower)}


def _near(density: float, values: Iterable[float]) -> list[float]:
    """The one of ``values`` that is the same density, counts being whole numbers; none or one."""
    return sorted((d for d in values if abs(d - density) <= 0.01 * density), key=lambda d: abs(d - density))[:1]


def _p_above(effect: float, error: float, n: int) -> float:
    """One-sided p-value that the mean, ``effect``, is above 0, by Student's t with n - 1 degrees of freedom."""
    if error == 0:
        return 0.0 if effect > 0 else 1.0
    from scipy.stats import t  # half a second to import, and most calls are with too few seeds

    return float(t.sf(effect / error, n - 1))
