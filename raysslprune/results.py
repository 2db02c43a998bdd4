"""From points and records to one typed Arrow table a sweep, and from that to means over seeds.

The table is a view of the store: it can be deleted and is made again. It holds only what depends on the steps,
so the same sweep gives the same bytes; when, where and how fast a step ran is in :func:`provenance`.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from raysslprune.spec import Point
from raysslprune.store import Record

SCHEMA = pa.schema(
    [
        pa.field("figure", pa.string(), nullable=False),
        pa.field("scale", pa.string(), nullable=False),
        pa.field("task", pa.string(), nullable=False),  # what the mask was pruned on
        pa.field("init", pa.string(), nullable=False),  # the weights that the masked network was trained from
        pa.field("level", pa.int32(), nullable=False),  # number of prunings
        pa.field("density", pa.float64(), nullable=False),  # fraction of the prunable weights that is left
        pa.field("seed", pa.int32(), nullable=False),
        pa.field("metric", pa.string(), nullable=False),
        pa.field("value", pa.float64(), nullable=False),
        pa.field("collapsed_layers", pa.int32(), nullable=False),  # layers with no weight left
        pa.field("step", pa.string(), nullable=False),  # id: the folder under <root>/steps
    ]
)

PROVENANCE = pa.schema(
    [
        pa.field("step", pa.string(), nullable=False),
        pa.field("seconds", pa.float64(), nullable=False),  # in the training loop and the evaluation
        pa.field("images_per_second", pa.float64(), nullable=False),
        pa.field("begun", pa.timestamp("ms", tz="UTC"), nullable=False),
        pa.field("host", pa.string(), nullable=False),
        pa.field("device", pa.string(), nullable=False),
        pa.field("raysslprune", pa.string(), nullable=False),
        pa.field("torch", pa.string(), nullable=False),
        pa.field("numpy", pa.string(), nullable=False),
        pa.field("python", pa.string(), nullable=False),
    ]
)


def table(figure: str, scale: str, points: Iterable[Point], records: Mapping[str, Record]) -> pa.Table:
    """A row for each point whose training is done, in the order of the points. A missing point has no row.

    Raises ValueError for a metric that a training does not have.
    """
    rows: list[dict[str, Any]] = []
    for point in points:
        record = records.get(point.step.id)
        if record is None:
            continue
        if point.metric not in record.metrics:
            known = ", ".join(sorted(record.metrics))
            raise ValueError(f"trainings on {point.step.task} have no metric {point.metric!r}, only {known}")
        rows.append(
            {
                "figure": figure,
                "scale": scale,
                "task": point.task,
                "init": point.init,
                "level": point.level,
                "density": record.metrics["density"],
                "seed": point.seed,
                "metric": point.metric,
                "value": record.metrics[point.metric],
                "collapsed_layers": int(record.metrics["collapsed_layers"]),
                "step": point.step.id,
            }
        )
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def provenance(points: Iterable[Point], records: Mapping[str, Record]) -> pa.Table:
    """When, where, how fast and with which versions each of the points' trainings ran; joins on ``step``."""
    rows = []
    for step_id in dict.fromkeys(point.step.id for point in points):
        if step_id in records:
            facts = records[step_id].facts
            row = {name: facts[name] for name in ("seconds", "images_per_second", "host", "device")}
            rows.append({"step": step_id, "begun": int(facts["begun"] * 1000), **row, **facts["versions"]})
    return pa.Table.from_pylist(rows, schema=PROVENANCE)


def summary(results: pa.Table) -> pa.Table:
    """Over seeds: ``mean``, ``stderr`` (sample standard deviation / sqrt(n); null for one seed) and ``n``.

    Grouped by task, init, level and metric, in the order in which they first appear.
    """
    keys = ["task", "init", "level", "metric"]
    grouped = results.group_by(keys, use_threads=False).aggregate(
        [
            ("density", "mean"),
            ("value", "mean"),
            ("value", "stddev", pc.VarianceOptions(ddof=1)),
            ("value", "count"),
            ("collapsed_layers", "max"),
        ]
    )
    deviation = grouped["value_stddev"].to_numpy()  # NaN for one seed
    stderr = deviation / np.sqrt(grouped["value_count"].to_numpy())
    return pa.table(
        {
            **{key: grouped[key] for key in keys},
            "density": grouped["density_mean"],
            "mean": grouped["value_mean"],
            "stderr": pa.array(stderr, from_pandas=True),
            "n": grouped["value_count"],
            "collapsed_layers": grouped["collapsed_layers_max"],
        }
    )


def to_parquet(results: pa.Table) -> bytes:
    """The same bytes for the same table."""
    buffer = io.BytesIO()
    pq.write_table(results, buffer, compression="zstd")
    return buffer.getvalue()


def pruned_percent(density: float) -> str:
    """How much is pruned, in percent, for people: to two digits of what is left, as 48.8, 95.6, 99.53."""
    left = 100 * density
    digits = max(1, 1 - math.floor(math.log10(left))) if left > 0 else 1
    return f"{100 - left:.{digits}f}"
