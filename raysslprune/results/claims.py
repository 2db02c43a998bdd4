"""The paper's sentences as tests on a table, paired over seeds."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import mean, stdev
from typing import Any

import pyarrow as pa

from raysslprune.results import pruned_percent
from raysslprune.sweepfile import Claim, Curve, Dense

HOLDS, FAILS, FEW = "holds", "does not hold", "too few seeds"
MIN_SEEDS = 3
LEVEL = 0.05
"""Of significance, for each test alone."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """verdict: HOLDS, FAILS or FEW. numbers: the effect and the test, in words. panel: where, if there are several."""

    claim: Claim
    verdict: str
    numbers: str
    panel: str = ""


def judge(claims: Iterable[Claim], results: pa.Table) -> list[Verdict]:
    """Each claim against the rows of ``results.table``: once, or in each panel that has its curves.

    Where a panel's points have several metrics it is the first that counts.
    """
    rows = results.to_pylist()
    metrics: dict[str, str] = {}
    rows = [row for row in rows if metrics.setdefault(row["panel"], row["metric"]) == row["metric"]]
    verdicts: list[Verdict] = []
    for claim in claims:
        if claim.along == "panels":
            verdicts.append(_verdict(claim, *along_panels(claim, rows), ""))
            continue
        named = all(curve.panel is not None for curve in claim.curves)
        panels = [""] if named else _panels_with(claim.curves, rows)
        shown = not named and len({row["panel"] for row in rows}) > 1
        verdicts += [_verdict(claim, *paired(claim, rows, panel), panel if shown else "") for panel in panels]
        if not panels:
            verdicts.append(_verdict(claim, [], [], ""))
    return verdicts


def _verdict(claim: Claim, differences: list[float], densities: list[float], panel: str) -> Verdict:
    def verdict(word: str, numbers: str) -> Verdict:
        return Verdict(claim=claim, verdict=word, numbers=numbers, panel=panel)

    if not densities:
        return verdict(FEW, "no density at which both curves have points for every seed")
    pruned = ", ".join(pruned_percent(density) for density in densities)
    n, effect = len(differences), mean(differences)
    what = "change of the difference" if claim.relation in ("widens", "narrows") else "mean difference"
    numbers = f"{what} {effect:+.2f} points at {pruned} % pruned, n = {n}"
    if n < MIN_SEEDS:
        return verdict(FEW, f"{numbers}; a verdict needs {MIN_SEEDS} seeds")
    error = stdev(differences) / math.sqrt(n)
    if claim.relation == "equal":
        p = max(_p_above(effect + claim.margin, error, n), _p_above(claim.margin - effect, error, n))
        test = f"two one-sided paired t-tests against ±{claim.margin:g}"
    else:
        p = _p_above(-effect if claim.relation == "narrows" else effect, error, n)
        test = "one-sided paired t-test"
    return verdict(HOLDS if p < LEVEL else FAILS, f"{numbers}, standard error {error:.2f}; {test}: p = {p:.3g}")


Rows = list[dict[str, Any]]
Gap = dict[float, float]
"""Density to a value of one seed, or to a difference of two."""
Side = Curve | Dense | float


def paired(claim: Claim, rows: Rows, panel: str) -> tuple[list[float], list[float]]:
    """higher minus lower for each seed that both curves have in range, and the densities at which they are compared.

    Points are compared at the same density (to 1%), whatever their levels, and only at densities that every seed has
    on both curves; two curves not at the dense network, where nothing is pruned. ``above`` and ``equal``: the mean over
    those in range. ``widens`` and ``narrows``: the sparsest minus the densest.
    """
    gaps = list(_gaps(claim, rows, panel).values())
    shared = _shared(gaps)
    if claim.relation not in ("widens", "narrows"):
        return ([mean(_at(gap, density) for density in shared) for gap in gaps] if shared else []), shared
    if len(shared) < 2:
        return [], []
    densest, sparsest = shared[0], shared[-1]
    return [_at(gap, sparsest) - _at(gap, densest) for gap in gaps], [densest, sparsest]


def along_panels(claim: Claim, rows: Rows) -> tuple[list[float], list[float]]:
    """The difference in the last panel that has both curves minus that in the first, for each seed, and the densities.

    In each panel it is the mean over the levels that both panels and every seed have in range. Levels, not densities:
    a layer of a hundred weights can't be pruned to the same density as a network.
    """
    panels = _panels_with(claim.curves, rows)
    if len(panels) < 2:
        return [], []
    first, last = (_gaps_by_level(claim, rows, panel) for panel in (panels[0], panels[-1]))
    seeds = sorted(first.keys() & last.keys())
    gaps = [side[seed] for side in (first, last) for seed in seeds]
    shared = sorted(set.intersection(*(set(gap) for gap in gaps))) if gaps else []
    if not shared:
        return [], []
    differences = [mean(last[seed][n][1] - first[seed][n][1] for n in shared) for seed in seeds]
    return differences, [last[seeds[0]][n][0] for n in shared]


def _gaps_by_level(claim: Claim, rows: Rows, panel: str) -> dict[int, dict[int, tuple[float, float]]]:
    """Seed to level to density, and higher minus lower, in range."""
    higher, lower = (
        {(r["seed"], r["level"]): r for r in rows if r["panel"] == panel and (r["task"], r["init"]) == (c.task, c.init)}
        for c in claim.curves
    )
    gaps: dict[int, dict[int, tuple[float, float]]] = {}
    for (seed, level), row in higher.items():
        at = gaps.setdefault(seed, {})
        if level and (seed, level) in lower and claim.within[0] <= row["density"] <= claim.within[1]:
            at[level] = (row["density"], row["value"] - lower[seed, level]["value"])
    return gaps


def _panels_with(curves: Iterable[Curve], rows: Rows) -> list[str]:
    """The panels, in the order of the rows, that have all of the curves."""
    panels = dict.fromkeys(row["panel"] for row in rows)
    return [panel for panel in panels if all(_values(curve, rows, panel) for curve in curves)]


def _gaps(claim: Claim, rows: Rows, panel: str) -> dict[int, Gap]:
    """Seed to the differences in range, for the seeds that both sides have."""
    higher, lower = (_values(_curve(side), rows, panel) for side in (claim.higher, claim.lower))
    low, high = claim.within
    gaps: dict[int, Gap] = {}
    for seed in sorted(higher.keys() & lower.keys()) if higher and lower else sorted(higher or lower):
        sides = [(claim.higher, higher.get(seed, {})), (claim.lower, lower.get(seed, {}))]
        densities = next(values for side, values in sides if isinstance(side, Curve))
        gaps[seed] = {}
        for density in densities:
            above, below = (_side(side, values, density) for side, values in sides)
            pruned = density < 1 or isinstance(claim.lower, float | int)
            if low <= density <= high and pruned and above is not None and below is not None:
                gaps[seed][density] = above - below
    return gaps


def _curve(side: Side) -> Curve | None:
    return side.curve if isinstance(side, Dense) else side if isinstance(side, Curve) else None


def _side(side: Side, values: Gap, density: float) -> float | None:
    """What one side of a claim has at a density, where a seed has these values."""
    if isinstance(side, Curve):
        return next((values[d] for d in _near(density, values)), None)
    return values.get(1.0) if isinstance(side, Dense) else float(side)


def _values(curve: Curve | None, rows: Rows, panel: str) -> dict[int, Gap]:
    """Seed to density to value, in the curve's own panel or else in this one."""
    values: dict[int, Gap] = {}
    for row in rows if curve else ():
        at = Curve(task=row["task"], init=row["init"], panel=row["panel"])
        if curve and curve.covers(at) and (curve.panel is not None or row["panel"] == panel):
            values.setdefault(row["seed"], {})[row["density"]] = row["value"]
    return values


def _shared(gaps: Sequence[Gap]) -> list[float]:
    """The densities that all have, densest first."""
    return sorted((d for d in gaps[0] if all(_near(d, gap) for gap in gaps)), reverse=True) if gaps else []


def _at(gap: Gap, density: float) -> float:
    return gap[_near(density, gap)[0]]


def _near(density: float, values: Iterable[float]) -> list[float]:
    """The one of ``values`` that is the same density, counts being whole numbers; none or one."""
    return sorted((d for d in values if abs(d - density) <= 0.01 * density), key=lambda d: abs(d - density))[:1]


def _p_above(effect: float, error: float, n: int) -> float:
    """One-sided p-value that the mean, ``effect``, is above 0, by Student's t with n - 1 degrees of freedom."""
    if error == 0:
        return 0.0 if effect > 0 else 1.0
    from scipy.special import stdtr  # scipy.stats, which has this as t.sf, takes a second and more to import

    return float(stdtr(n - 1, -effect / error))
