"""Inference: what the paired differences of a few seeds say about a relation between two curves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import mean, stdev

LEVEL = 0.05
"""Probability that a word is wrong: of each word alone, over all claims of a sweep."""

CONFIDENCE = 1 - 2 * LEVEL
"""Confidence of an interval. Each of its ends alone is a bound at 95%, as in the one-sided tests."""

POWER = 0.8


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """Differences of ``n`` seeds, in points, and two tests: that the relation is true, and that it is false.

    low, high: interval of the mean difference, with a confidence of 90%.
    p_true: p-value of the relation; its null hypothesis is that the relation is false.
    p_false: p-value of the opposite; its null hypothesis is that the relation is true.
    detectable: smallest effect that the test of ``p_true`` finds with a power of 80%, at this n and standard deviation;
        for ``equal`` and ``not worse`` the smallest margin within which it finds curves that do not differ.
    """

    n: int
    effect: float
    sd: float
    low: float
    high: float
    p_true: float
    p_false: float
    detectable: float


def weigh(differences: Sequence[float], relation: str, margin: float = 0.0) -> Evidence:
    """Test a relation by Student's t on paired differences, one for each of at least two seeds.

    ``above``: the mean is above 0. ``below``: it is below 0. ``not worse``: it is above ``-margin``. ``equal``: it is
    within the margin (two one-sided tests); its opposite is that it is outside, on either side, so that this p-value is
    doubled.
    """
    n, effect, sd = len(differences), mean(differences), stdev(differences)
    error = sd / math.sqrt(n)
    half = error * _quantile(n, 1 - LEVEL)
    if relation == "equal":
        p_true = max(_p_above(effect + margin, error, n), _p_above(margin - effect, error, n))
        p_false = min(1.0, 2 * min(_p_above(effect - margin, error, n), _p_above(-margin - effect, error, n)))
    else:
        above = -effect if relation == "below" else effect + (margin if relation == "not worse" else 0.0)
        p_true, p_false = _p_above(above, error, n), _p_above(-above, error, n)
    return Evidence(
        n=n,
        effect=effect,
        sd=sd,
        low=effect - half,
        high=effect + half,
        p_true=p_true,
        p_false=p_false,
        detectable=error * _noncentrality(n, 1 - (1 - POWER) / 2 if relation == "equal" else POWER),
    )


def at_each(evidence: Sequence[Evidence]) -> Evidence:
    """Combine the evidence at several densities: the relation is true if it is true at each of them.

    The largest p-value tests this (an intersection-union test, which needs no correction); the smallest, times their
    number, tests the opposite. The other numbers are those of the density with the weakest evidence.
    """
    weakest = max(evidence, key=lambda one: (one.p_true, -one.p_false))
    return replace(weakest, p_false=min(1.0, len(evidence) * min(one.p_false for one in evidence)))


def holm(ps: Sequence[float]) -> list[float]:
    """Adjust p-values so that all those under a level are true together but for that probability (Holm 1979)."""
    adjusted, largest = [0.0] * len(ps), 0.0
    for rank, i in enumerate(sorted(range(len(ps)), key=ps.__getitem__)):
        largest = adjusted[i] = min(1.0, max(largest, (len(ps) - rank) * ps[i]))
    return adjusted


def benjamini_hochberg(ps: Sequence[float]) -> list[float]:
    """Adjust p-values so that among those under a level this share is false on average (Benjamini, Hochberg 1995)."""
    adjusted, smallest = [0.0] * len(ps), 1.0
    for rank, i in sorted(enumerate(sorted(range(len(ps)), key=ps.__getitem__), start=1), reverse=True):
        smallest = adjusted[i] = min(smallest, len(ps) / rank * ps[i])
    return adjusted


def _p_above(effect: float, error: float, n: int) -> float:
    """Return the one-sided p-value for a mean above 0, by Student's t with n - 1 degrees of freedom."""
    if error == 0:
        return 0.0 if effect > 0 else 1.0
    from scipy.special import stdtr  # scipy.stats, which has this as t.sf, takes more than a second to import

    return float(stdtr(n - 1, -effect / error))


def _quantile(n: int, probability: float) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(n - 1, probability))


def _noncentrality(n: int, power: float) -> float:
    """Return the mean, in standard errors, that the one-sided test finds with this power."""
    from scipy.special import nctdtrinc

    return float(nctdtrinc(n - 1, 1 - power, _quantile(n, 1 - LEVEL)))
