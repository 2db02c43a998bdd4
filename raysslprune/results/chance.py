"""Chance: what guessing gives, and which networks are hardly better, so that pruning them shows little."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa

from raysslprune.catalogue import VALIDATION, data_parts
from raysslprune.store.record import CHANCE, Record
from raysslprune.sweepfile import Point

CLASSES = {"digits": 10, "cifar10": 10, "cifar100": 100, "imagenet": 1000, "places205": 205}
"""Number of classes of the package's data sets with one label for each image; the classes are about equally large."""

NEAR = 0.1
"""A network is near chance if it gains less than this part of the way from guessing to 100%. Chosen, not measured."""

KEY = b"chance"
"""Metadata key of what guessing gives in a table of results, by data and metric, for data sets not in CLASSES."""


def of_data(data: str, metric: str) -> float | None:
    """Return what guessing gives in percent on a data set of the package; None if it is not known.

    Guesses are right for one of the classes in top1; their mean average precision is the share of a class. A subset of
    the classes has fewer.
    """
    source, _, subsets = data_parts(data)
    metric = metric.removesuffix(VALIDATION)
    if metric == "rotation_top1":
        return 25.0
    if source not in CLASSES or metric not in ("top1", "map"):
        return None
    classes = CLASSES[source]
    for subset in filter(None, subsets.split(":")):
        share, _, kind = subset.partition("%")
        classes = max(1, round(classes * int(share) / 100)) if kind == "-of-classes" else classes
    return 100 / classes


def measured(points: Iterable[Point], records: Mapping[str, Record]) -> dict[bytes, bytes]:
    """Return metadata for a table of results: what guessing gives on data sets that are not the package's."""
    found: dict[str, dict[str, float]] = {}
    for point in points:
        record = records.get(point.step.id)
        if record and CHANCE in record.facts and data_parts(point.step.data)[0] not in CLASSES:
            found[point.step.data] = record.facts[CHANCE]
    return {KEY: json.dumps(found, sort_keys=True).encode()} if found else {}


class Chance:
    """What guessing gives, for the rows of a table of results."""

    def __init__(self, table: pa.Table) -> None:
        self._measured = json.loads((table.schema.metadata or {}).get(KEY, b"{}"))

    def of(self, row: Mapping[str, Any]) -> float | None:
        """Return what guessing gives of the metric of a row, in percent; None if it is not known."""
        if (known := of_data(row["data"] or "", row["metric"])) is not None:
            return known
        return self._measured.get(row["data"], {}).get(row["metric"].removesuffix(VALIDATION))


def is_near(value: float, chance: float) -> bool:
    """Return whether a value in percent is near chance."""
    return value - chance < NEAR * (100 - chance)
