"""From points and records to one typed Arrow table a sweep, and from that to means over seeds.

The table is a view of the store: it can be deleted and is made again. It holds only what depends on the steps,
so the same sweep gives the same bytes; when, where and how fast a step ran is in :func:`provenance`.
"""

from __future__ import annotations

import hashlib
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from safetensors.numpy import load as from_safetensors

from raysslprune.spec import Rewind, Train, closure
from raysslprune.store.record import WEIGHTS, Record
from raysslprune.store.steps import Store, read_parquet
from raysslprune.sweepfile import Listing, Point


def _field(name: str, type_: pa.DataType, about: str, *, nullable: bool = False) -> pa.Field:
    """A column; what it means stays with it, in Parquet too, as its metadata ``about``."""
    return pa.field(name, type_, nullable, {"about": about})


SCHEMA = pa.schema(
    [
        _field("figure", pa.string(), "the sweep, as in the command"),
        _field("scale", pa.string(), "as in the command"),
        _field("panel", pa.string(), "part of the figure: a data set, a network, a depth, what judges features"),
        _field("task", pa.string(), "what the mask was pruned on"),
        _field("init", pa.string(), "the weights that the masked network was trained from"),
        _field("level", pa.int32(), "number of prunings; 0: the dense network"),
        _field("density", pa.float64(), "fraction left of the weights that were to be pruned"),
        _field("density_of_all", pa.float64(), "the same of all prunable weights of the network"),
        _field("rewind", pa.int64(), "samples seen by the state it starts from; null: not rewound", nullable=True),
        _field("seed", pa.int32(), "0 to N-1"),
        _field("metric", pa.string(), "what was measured: top1 and map (mean average precision) are in percent"),
        _field("value", pa.float64(), "what came out"),
        _field("collapsed_layers", pa.int32(), "layers with no weight left"),
        _field("data", pa.string(), "what it was trained on last"),
        _field("arch", pa.string(), "the network"),
        _field("step", pa.string(), "id of the training: its folder under steps/ of the root"),
    ]
)
"""Of a sweep's results: a row for each point."""

PROVENANCE = pa.schema(
    [
        _field("step", pa.string(), "id of the training: its folder under steps/ of the root"),
        _field("trained_on", pa.string(), "its own task: what this training was for"),
        _field("data", pa.string(), "its images"),
        _field("arch", pa.string(), "the network"),
        _field("seconds", pa.float64(), "wall time in the training loop and the evaluation"),
        _field("images_per_second", pa.float64(), "speed of the training loop"),
        _field("begun", pa.timestamp("ms", tz="UTC"), "when"),
        _field("host", pa.string(), "where"),
        _field("device", pa.string(), "the kind of processor or GPU"),
        _field("workers", pa.int32(), "processes that shared the training"),
        _field("resumed_at", pa.int64(), "samples seen where a kill ended it; seconds are since", nullable=True),
        _field("raysslprune", pa.string(), "version"),
        _field("torch", pa.string(), "version"),
        _field("numpy", pa.string(), "version"),
        _field("python", pa.string(), "version"),
    ]
)
"""Of a sweep's runs: a row for each training behind its results."""

MAGNITUDES = pa.schema(
    [
        *(SCHEMA.field(name) for name in ("panel", "task", "init", "seed")),
        _field("rank", pa.float64(), "0: the smallest weight, 1: the largest"),
        _field("magnitude", pa.float64(), "absolute value of the weight of that rank"),
        _field("sparsity", pa.float64(), "natural zeros in percent"),
    ]
)

KEYS = ("panel", "task", "init", "level", "rewind", "metric")
"""What tells the rows of a figure apart, but for their seeds."""

MEANS = pa.schema(
    [
        *(SCHEMA.field(name) for name in ("figure", "scale", *KEYS)),
        _field("density", pa.float64(), "fraction left of the weights that were to be pruned"),
        _field("mean", pa.float64(), "of the values"),
        _field("stderr", pa.float64(), "sample standard deviation / sqrt(n); null for one seed", nullable=True),
        _field("n", pa.int64(), "seeds"),
        _field("collapsed_layers", pa.int32(), "layers with no weight left, in the worst seed"),
    ]
)
"""What :func:`means` gives."""

RANKS = 1001
"""At which magnitudes are kept for a figure."""


def table(figure: str, scale: str, points: Iterable[Point], records: Mapping[str, Record]) -> pa.Table:
    """A row for each point whose training is done, in the order of the points.

    A missing point has no row, nor has one whose training does not have its metric (see :func:`unmeasured`).
    """
    rows: list[dict[str, Any]] = []
    for point in points:
        record = records.get(point.step.id)
        if record is None or (point.step.mask is not None and point.step.mask.id not in records):
            continue  # a mask that was damaged may not be made again yet, and its density is part of the row
        if point.metric not in record.metrics:
            continue
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


def unmeasured(points: Iterable[Point], records: Mapping[str, Record]) -> str:
    """A sentence on the points whose trainings are done, but do not have their metric; empty where there are none."""
    lacking = [p for p in points if p.step.id in records and p.metric not in records[p.step.id].metrics]
    if not lacking:
        return ""
    (first, *others), known = lacking, ", ".join(sorted(records[lacking[0].step.id].metrics))
    more = f", nor have {len(others)} more points theirs" if others else ""
    return (
        f"trainings on {first.step.task} have no metric {first.metric!r}, only {known}{more}; the table is without them"
    )


def _density(step: Train, records: Mapping[str, Record]) -> float:
    """Of the weights in the mask's scope."""
    return 1.0 if step.mask is None else records[step.mask.id].metrics["density_in_scope"]


def provenance(points: Iterable[Point], records: Mapping[str, Record]) -> pa.Table:
    """When, where, how fast and with which versions the points' trainings and those behind them ran; joins on ``step``.

    A row for each training that is done, parents first.
    """
    rows: list[dict[str, Any]] = []
    for step in closure(point.step for point in points):
        if not isinstance(step, Train) or step.id not in records:
            continue
        facts = records[step.id].facts
        rows.append(
            {
                "step": step.id,
                "trained_on": step.task,
                "data": step.data,
                "arch": step.arch,
                **{name: facts[name] for name in ("seconds", "images_per_second", "host", "device")},
                "begun": int(facts["begun"] * 1000),
                "workers": facts.get("workers", 1),
                "resumed_at": facts.get("resumed_at"),
                **facts["versions"],
            }
        )
    return pa.Table.from_pylist(rows, schema=PROVENANCE)


def magnitudes(points: Iterable[Point], store: Store) -> pa.Table:
    """The sorted magnitudes of the prunable weights of the points' trainings, at RANKS ranks from smallest to largest.

    Raises Damaged where weights can't be read. A training whose weights were not kept has no rows.
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


def stored_rows(store: Store, scale: str, figure: str) -> list[tuple[int, str]]:
    """Seed and step of each row of the results that the root has of a sweep; empty if the table is unreadable."""
    path = f"results/{scale}/{figure}.parquet"
    try:
        table = from_parquet(store.read(path))
        return list(zip(*(table[name].to_pylist() for name in ("seed", "step")), strict=True))
    except (OSError, KeyError, pa.ArrowException):
        return []


def listing(drawing: Listing, rows: Sequence[Sequence[Any]]) -> pa.Table:
    """Rows as an Arrow table, with the types of their values."""
    return pa.table({name: [row[number] for row in rows] for number, name in enumerate(drawing.columns)})


def summary(results: pa.Table) -> pa.Table:
    """Over seeds: ``mean``, ``stderr`` (sample standard deviation / sqrt(n); null for one seed) and ``n``.

    Grouped by KEYS, in the order in which they first appear.
    """
    return _over_seeds(results, KEYS)


def means(results: pa.Table) -> pa.Table:
    """:func:`summary` of each figure at each scale."""
    return _over_seeds(results, ("figure", "scale", *KEYS)).cast(MEANS)


def _over_seeds(results: pa.Table, keys: Sequence[str]) -> pa.Table:
    grouped = results.group_by(list(keys), use_threads=False).aggregate(
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


DIGEST = b"sha256"
"""Under which a file says what its table's digest is: Parquet itself would give wrong numbers for some flipped bits."""


def to_parquet(results: pa.Table) -> bytes:
    """The same bytes for the same table."""
    buffer = io.BytesIO()
    sealed = results.replace_schema_metadata({**(results.schema.metadata or {}), DIGEST: _digest(results)})
    pq.write_table(sealed, buffer, compression="zstd")
    return buffer.getvalue()


def from_parquet(data: bytes) -> pa.Table:
    """The inverse of :func:`to_parquet`. Raises pa.ArrowException or OSError for what is not whole.

    A table without a digest, from elsewhere, is taken as it is.
    """
    found = read_parquet(data)
    metadata = dict(found.schema.metadata or {})
    digest = metadata.pop(DIGEST, None)
    table = found.replace_schema_metadata(metadata or None)
    try:
        whole = digest in (None, _digest(table))
    except (ValueError, OverflowError):  # text that is not UTF-8, a time that can't be
        whole = False
    if not whole:
        raise pa.ArrowInvalid("it does not match its checksum")
    return table


def _digest(table: pa.Table) -> bytes:
    """Of names, types and values, whatever their layout in memory."""
    found = hashlib.sha256()
    for name, column in zip(table.schema.names, table.columns, strict=True):
        found.update(repr((name, str(column.type), column.to_pylist())).encode())
    return found.hexdigest().encode()


def pruned_percent(density: float) -> str:
    """How much is pruned, in percent, for people: to two digits of what is left, as 48.8, 95.6, 99.53."""
    left = 100 * density
    digits = max(1, 1 - math.floor(math.log10(left))) if left > 0 else 1
    return f"{100 - left:.{digits}f}"
