"""Summaries of measurements."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import mean, median, stdev


def spread(values: Sequence[float]) -> dict[str, float]:
    return {"median": median(values), "lowest": min(values), "highest": max(values), "n": len(values)}


def over_seeds(values: Sequence[float]) -> dict[str, float]:
    error = stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return {"mean": mean(values), "standard error": error, "n": len(values)}
