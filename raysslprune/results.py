"""From points and records to one typed Arrow table a sweep, and from that to means over seeds.

The table is a view of the store: it can be deleted and is made again. It holds only what depends on the steps,
so the same sweep gives the same bytes; when, where and how fast a step ran is in :func:`provenance`.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from safetensors.numpy import load as from_safetensors

from raysslprune.spec import Rewind, Train
from raysslprune.store import WEIGHTS, Record, Store
from raysslprune.sweepfile import Listing, Point

SCHEMA = pa.schema(
    [
        pa.field("figure", pa.string(), nullable=False),
        pa.field("scale", pa.string(), nullable=False),
        pa.field("panel", pa.string(), nullable=False),  # the part of the figure: a data set, a network, a depth
        pa.field("task", pa.string(), nullable=False),  # what the mask was pruned on
        pa.field("init", pa.string(), nullable=False),  # the weights that the masked network was trained from
        pa.field("level", pa.int32(), nullable=False),  # number of prunings
        pa.field("density", pa.float64(), nullable=False),  # fraction left of the weights that were to be pruned
        pa.field("density_of_all", pa.float64(), nullable=False),  # the same of all prunable weights of the network
        pa.field("rewind", pa.int64()),  # samples seen by the state that it starts from; null: it starts from another
        pa.field("seed", pa.int32(), nullable=False),
        pa.field("metric", pa.string(), nullable=False),
        pa.field("value", pa.float64(), nullable=False),
        pa.field("collapsed_layers", pa.int32(), nullable=False),  # layers with no weight left
        pa.field("data", pa.string(), nullable=False),  # what it was trained on last
        pa.field("arch", pa.string(), nullable=False),
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


RANKS = 1001
"""At which magnitudes are kept for a figure."""

MAGNITUDES = pa.schema(
    [
        pa.field("panel", pa.string(), nullable=False),
        pa.field("task", pa.string(), nullable=False),
        pa.field("init", pa.string(), nullable=False),
        pa.field("seed", pa.int32(), nullable=False),
        pa.field("rank", pa.float64(), nullable=False),  # 0: the smallest weight, 1: the largest
        pa.field("magnitude", pa.float64(), nullable=False),
        pa.field("sparsity", pa.float64(), nullable=False),  # natural zeros in percent
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
                "panel": point.panel,
                "task": point.task,
                "init": point.init,
                "level": point.level,
                "density": _density(point.step, records),
                "density_of_all": record.metrics["density"],
                "rewind": start.samples if isinstance(start := point.step.start, Rewind) else None,
                "seed": point.seed,
                "metric": point.metric,
                "value": record.metrics[point.metric],
                "collapsed_layers": int(record.metrics["collapsed_layers"]),
                "data": point.step.data,
                "arch": point.step.arch,
                "step": point.step.id,
            }
        )
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def _density(step: Train, records: Mapping[str, Record]) -> float:
    """Of the weights in the mask's scope."""
    return 1.0 if step.mask is None else records[step.mask.id].metrics["density_in_scope"]


def provenance(points: Iterable[Point], records: Mapping[str, Record]) -> pa.Table:
    """When, where, how fast and with which versions each of the points' trainings ran; joins on ``step``."""
    rows = []
    for step_id in dict.fromkeys(point.step.id for point in points):
        if step_id in records:
            facts = records[step_id].facts
            row = {name: facts[name] for name in ("seconds", "images_per_second", "host", "device")}
            rows.append({"step": step_id, "begun": int(facts["begun"] * 1000), **row, **facts["versions"]})
    return pa.Table.from_pylist(rows, schema=PROVENANCE)


def magnitudes(points: Iterable[Point], store: Store) -> pa.Table:
    """The sorted magnitudes of the prunable weights of the points' trainings, at RANKS ranks from smallest to largest.

    Raises store.Damaged where weights can't be read. A training whose weights were not kept has no rows.
    """
    rows: list[pa.RecordBatch] = []
    seen: set[tuple[str, str, str, str]] = set()
    for point in points:
        key = (point.panel, point.task, point.init, point.step.id)
        record = store.record(point.step.id)
        if key in seen or record is None or WEIGHTS not in record.files:
            continue
        seen.add(key)
        weights = from_safetensors(store.artefact(point.step.id, WEIGHTS))
        # In a trunk, convolutions and linear layers are what has more than one dimension
        prunable = [w for name, w in weights.items() if name.startswith("trunk.") and w.ndim > 1]
        sorted_ = np.sort(np.abs(np.concatenate([w.ravel() for w in prunable])))
        ranks = np.linspace(0, 1, min(RANKS, len(sorted_)))
        columns = {
            "panel": [point.panel] * len(ranks),
            "task": [point.task] * len(ranks),
            "init": [point.init] * len(ranks),
            "seed": [point.seed] * len(ranks),
            "rank": ranks,
            "magnitude": sorted_[np.round(ranks * (len(sorted_) - 1)).astype(int)].astype(np.float64),
            "sparsity": [record.metrics["natural_sparsity"]] * len(ranks),
        }
        rows.append(pa.RecordBatch.from_pydict(columns, schema=MAGNITUDES))
    return pa.Table.from_batches(rows, schema=MAGNITUDES)


def listing(drawing: Listing, rows: Sequence[Sequence[Any]]) -> pa.Table:
    """Rows as an Arrow table, with the types of their values."""
    return pa.table({name: [row[number] for row in rows] for number, name in enumerate(drawing.columns)})


def summary(results: pa.Table) -> pa.Table:
    """Over seeds: ``mean``, ``stderr`` (sample standard deviation / sqrt(n); null for one seed) and ``n``.

    Grouped by panel, task, init, level, rewind and metric, in the order in which they first appear.
    """
    keys = ["panel", "task", "init", "level", "rewind", "metric"]
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
