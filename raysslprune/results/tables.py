"""Results of a sweep as one typed Arrow table, made from its points and the store's records; means over seeds.

The table is derived from the store: if it is deleted, it can be made again. Its values depend on the steps alone,
so the same sweep gives the same bytes. When, where and how fast each step ran is in :func:`provenance`.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from safetensors.numpy import load as from_safetensors

from raysslprune.catalogue import label_samples
from raysslprune.results import chance
from raysslprune.spec import Train, closure
from raysslprune.store.record import WEIGHTS, Record
from raysslprune.store.steps import Store, read_parquet
from raysslprune.sweepfile import Listing, Point


def column(name: str, type_: pa.DataType, about: str, *, nullable: bool = False) -> pa.Field:
    """Return an Arrow field that documents itself, in Parquet too: its metadata has ``about``."""
    return pa.field(name, type_, nullable, {"about": about})


SCHEMA = pa.schema(
    [
        column("figure", pa.string(), "the sweep, as in the command"),
        column("scale", pa.string(), "as in the command"),
        column("panel", pa.string(), "part of the figure: a data set, a network, a depth, what judges features"),
        column("task", pa.string(), "what the mask was pruned on"),
        column("init", pa.string(), "the weights that the masked network was trained from"),
        column("level", pa.int32(), "number of prunings; 0: the dense network"),
        column("density", pa.float64(), "fraction left of the weights that were to be pruned"),
        column("density_of_all", pa.float64(), "the same of all prunable weights of the network"),
        column("rewind", pa.int64(), "samples seen by the state it starts from; null: not rewound", nullable=True),
        column(
            "label_samples",
            pa.int64(),
            "samples with labels that its last training and what this starts from have seen; null: not known",
            nullable=True,
        ),
        column("seed", pa.int32(), "0 to N-1"),
        column("metric", pa.string(), "what was measured: top1 and map (mean average precision) are in percent"),
        column("value", pa.float64(), "what came out"),
        column("collapsed_layers", pa.int32(), "layers with no weight left"),
        column("data", pa.string(), "what it was trained on last"),
        column("arch", pa.string(), "the network"),
        column("step", pa.string(), "id of the training: its folder under steps/ of the root"),
        column("design", pa.int32(), "2; 1: an earlier design, whose comparisons may be unfair"),
    ]
)
"""Columns of a sweep's results: a row for each point."""

DESIGN = 2
"""Design of the experiments in new tables. Tables of design 1 lack the columns ``label_samples`` and ``design``."""

EARLIER_DESIGN = (
    "an earlier design, in which tickets of another task or of few labels saw fewer labels than what they were "
    "compared with, and untrained weights had no statistics of their images"
)
"""Description of design 1."""

PROVENANCE = pa.schema(
    [
        column("step", pa.string(), "id of the training: its folder under steps/ of the root"),
        column("trained_on", pa.string(), "its own task: what this training was for"),
        column("data", pa.string(), "its images"),
        column("arch", pa.string(), "the network"),
        column("seconds", pa.float64(), "wall time in the training loop and the evaluation"),
        column("images_per_second", pa.float64(), "speed of the training loop"),
        column("begun", pa.timestamp("ms", tz="UTC"), "when"),
        column("host", pa.string(), "where"),
        column("device", pa.string(), "the kind of processor or GPU"),
        column("workers", pa.int32(), "processes that shared the training"),
        column("resumed_at", pa.int64(), "samples seen where a kill ended it; seconds are since", nullable=True),
        column("raysslprune", pa.string(), "version"),
        column("torch", pa.string(), "version"),
        column("numpy", pa.string(), "version"),
        column("python", pa.string(), "version"),
    ]
)
"""Columns of a sweep's runs: a row for each training behind its results."""

MAGNITUDES = pa.schema(
    [
        *(SCHEMA.field(name) for name in ("panel", "task", "init", "seed")),
        column("rank", pa.float64(), "0: the smallest weight, 1: the largest"),
        column("magnitude", pa.float64(), "absolute value of the weight of that rank"),
        column("sparsity", pa.float64(), "natural zeros in percent"),
    ]
)
"""Columns of :func:`magnitudes`."""

KEYS = ("panel", "task", "init", "level", "rewind", "metric")
"""Columns that identify a row of a figure, except for its seed."""

MEANS = pa.schema(
    [
        *(SCHEMA.field(name) for name in ("figure", "scale", *KEYS, "label_samples", "design")),
        column("density", pa.float64(), "fraction left of the weights that were to be pruned"),
        column("mean", pa.float64(), "of the values"),
        column("sd", pa.float64(), "sample standard deviation of the values; null for one seed", nullable=True),
        column("stderr", pa.float64(), "sd / sqrt(n); null for one seed", nullable=True),
        column("median", pa.float64(), "of the values"),
        column("n", pa.int64(), "seeds"),
        column("collapsed_layers", pa.int32(), "layers with no weight left, in the worst seed"),
        column("collapsed", pa.int64(), "seeds in which a layer has no weight left"),
    ]
)
"""Columns of :func:`means`."""

RANKS = 1001
"""Number of ranks, evenly spaced, at which a figure of magnitudes keeps the sorted weights."""


LOOKS = b"looks"
"""Metadata key of the numbers of seeds at which claims are judged, if seeds are added until these are decided."""


def table(
    figure: str, scale: str, points: Iterable[Point], records: Mapping[str, Record], looks: Sequence[int] = ()
) -> pa.Table:
    """Return the results (SCHEMA): a row for each point whose training is done, in the order of the points.

    A point whose training lacks its metric has no row (see :func:`unmeasured`). Nor has one whose mask was damaged and
    has not been made again yet, because the mask's density is part of the row. looks: those of :class:`Sweep`.
    """
    rows: list[dict[str, Any]] = []
    points = list(points)
    for point in points:
        step, mask, record = point.step, point.step.mask, records.get(point.step.id)
        if record is None or point.metric not in record.metrics or (mask is not None and mask.id not in records):
            continue
        rows.append(
            {name: getattr(point, name) for name in ("panel", "task", "init", "level", "seed", "metric")}
            | {
                "figure": figure,
                "scale": scale,
                "density": 1.0 if mask is None else records[mask.id].metrics["density_in_scope"],
                "density_of_all": record.metrics["density"],
                "rewind": step.rewind,
                "label_samples": label_samples(step),
                "value": record.metrics[point.metric],
                "collapsed_layers": int(record.metrics["collapsed_layers"]),
                "data": step.data,
                "arch": step.arch,
                "step": step.id,
                "design": DESIGN,
            }
        )
    found = pa.Table.from_pylist(rows, schema=SCHEMA)
    more = chance.measured(points, records) | ({LOOKS: json.dumps([*looks]).encode()} if looks else {})
    return found.replace_schema_metadata(more) if more else found


def looks_of(table: pa.Table) -> tuple[int, ...]:
    """Return the looks that :func:`table` was given."""
    return tuple(json.loads((table.schema.metadata or {}).get(LOOKS, b"[]")))


def unmeasured(points: Iterable[Point], records: Mapping[str, Record]) -> str:
    """Return a sentence on the points whose trainings are done but lack their metric; empty if there are none."""
    lacking = [p for p in points if p.step.id in records and p.metric not in records[p.step.id].metrics]
    if not lacking:
        return ""
    first, known = lacking[0], ", ".join(sorted(records[lacking[0].step.id].metrics))
    more = f", and {len(lacking) - 1} more points lack theirs" if len(lacking) > 1 else ""
    have = f"trainings on {first.step.task} have no metric {first.metric!r}, only {known}{more}"
    return f"{have}; these points are left out of the table"


def provenance(points: Iterable[Point], records: Mapping[str, Record]) -> pa.Table:
    """Return when, where, how fast and with which versions trainings ran (PROVENANCE); it joins on ``step``.

    A row for each finished training of the points and of their ancestors, parents first.
    """
    rows: list[dict[str, Any]] = []
    for step in closure(point.step for point in points):
        if not isinstance(step, Train) or step.id not in records:
            continue
        facts = records[step.id].facts
        rows.append(
            {name: facts[name] for name in ("seconds", "images_per_second", "host", "device")}
            | {"step": step.id, "trained_on": step.task, "data": step.data, "arch": step.arch}
            | {"begun": int(facts["begun"] * 1000), "workers": facts.get("workers", 1)}
            | {"resumed_at": facts.get("resumed_at"), **facts["versions"]}
        )
    return pa.Table.from_pylist(rows, schema=PROVENANCE)


def magnitudes(points: Iterable[Point], store: Store) -> pa.Table:
    """Return the sorted magnitudes (MAGNITUDES) of the prunable weights of the points' trainings, at RANKS ranks.

    A training whose weights were not kept has no rows. Raises Damaged for weights that can't be read.
    """
    parts = [MAGNITUDES.empty_table()]
    for *labels, step_id in dict.fromkeys((p.panel, p.task, p.init, p.seed, p.step.id) for p in points):
        record = store.record(step_id)
        if record is None or WEIGHTS not in record.files:
            continue
        weights = from_safetensors(store.artefact(step_id, WEIGHTS))
        # Weights of convolutions and linear layers are those of the trunk that have more than one dimension
        prunable = [w.ravel() for name, w in weights.items() if name.startswith("trunk.") and w.ndim > 1]
        ordered = np.sort(np.abs(np.concatenate(prunable)))
        ranks = np.linspace(0, 1, min(RANKS, len(ordered)))
        chosen = ordered[np.round(ranks * (len(ordered) - 1)).astype(int)]
        *labels, sparsity = (pa.repeat(value, len(ranks)) for value in (*labels, record.metrics["natural_sparsity"]))
        columns = zip(MAGNITUDES.names, (*labels, ranks, chosen.astype(np.float64), sparsity), strict=True)
        parts.append(pa.Table.from_pydict(dict(columns), schema=MAGNITUDES))
    return pa.concat_tables(parts)


def stored_rows(store: Store, scale: str, figure: str) -> list[tuple[int, str, int]]:
    """Return seed, step and design of each row of a sweep's results in the root; empty if the table is unreadable."""
    try:
        table = from_parquet(store.read(f"results/{scale}/{figure}.parquet"))
        return list(zip(*(table[name].to_pylist() for name in ("seed", "step", "design")), strict=True))
    except (OSError, KeyError, pa.ArrowException):
        return []


def stored_looks(store: Store, scale: str, figure: str) -> tuple[int, ...]:
    """Return the looks of a sweep's results in the root; empty if there are none, or the table is unreadable."""
    try:
        return looks_of(from_parquet(store.read(f"results/{scale}/{figure}.parquet")))
    except (OSError, pa.ArrowException):
        return ()


def left_out(path: str, rows: Iterable[tuple[int, str, int]], points: Iterable[Point]) -> str:
    """Return a sentence on rows of an earlier design that a sweep no longer has; empty if there are none.

    path: file of the rows, for the sentence. rows: as :func:`stored_rows` returns them. points: those of the sweep;
    rows of other seeds do not count.
    """
    rows, points = list(rows), list(points)
    steps, seeds = {point.step.id for point in points}, {point.seed for point in points}
    gone = sum(design < DESIGN and seed in seeds and step not in steps for seed, step, design in rows)
    if not gone:
        return ""
    has = f"{gone} of {len(rows)} rows of {path} are of {EARLIER_DESIGN}"
    return f"{has}; they are left out; run its sweep again to make them anew"


def listing(drawing: Listing, rows: Sequence[Sequence[Any]]) -> pa.Table:
    """Return the rows as an Arrow table, with the types of their values."""
    return pa.table({name: [row[number] for row in rows] for number, name in enumerate(drawing.columns)})


def summary(results: pa.Table, keys: Sequence[str] = KEYS) -> pa.Table:
    """Return ``mean``, ``sd`` (the sample standard deviation), ``stderr`` (sd / sqrt(n)) and ``n`` over seeds.

    ``sd`` and ``stderr`` are null for one seed. Also ``median``; ``collapsed_layers``, that of the worst seed; and
    ``collapsed``, the number of seeds in which a layer has no weight left. One row for each combination of values in
    the columns ``keys``, in the order in which these first appear.
    """
    emptied = pa.array([int(layers > 0) for layers in results["collapsed_layers"].to_pylist()], pa.int64())
    grouped = (
        results.append_column("emptied", emptied)
        .group_by([*keys], use_threads=False)
        .aggregate(
            [
                ("density", "mean"),
                ("value", "mean"),
                ("value", "stddev", pc.VarianceOptions(ddof=1)),
                ("value", "count"),
                ("value", "list"),  # Arrow has only an approximate median of groups
                ("collapsed_layers", "max"),
                ("emptied", "sum"),
            ]
        )
    )
    n = grouped["value_count"]
    sd = grouped["value_stddev"].to_numpy()  # NaN for one seed
    return pa.table(
        {
            **{key: grouped[key] for key in keys},
            "density": grouped["density_mean"],
            "mean": grouped["value_mean"],
            "sd": pa.array(sd, from_pandas=True),
            "stderr": pa.array(sd / np.sqrt(n.to_numpy()), from_pandas=True),
            "median": pa.array(map(median, grouped["value_list"].to_pylist()), pa.float64()),
            "n": n,
            "collapsed_layers": grouped["collapsed_layers_max"],
            "collapsed": grouped["emptied_sum"],
        }
    )


def means(results: pa.Table) -> pa.Table:
    """Return the :func:`summary` of each figure at each scale (MEANS)."""
    return summary(results, ("figure", "scale", *KEYS, "label_samples", "design")).cast(MEANS)


DIGEST = b"sha256"
"""Metadata key of the digest of a table's values. Parquet alone returns wrong numbers for some flipped bits."""


def to_parquet(results: pa.Table) -> bytes:
    """Return a table as Parquet with a digest: the same bytes for the same table."""
    buffer = pa.BufferOutputStream()
    sealed = results.replace_schema_metadata({**(results.schema.metadata or {}), DIGEST: _digest(results)})
    pq.write_table(sealed, buffer, compression="zstd")
    return buffer.getvalue().to_pybytes()


def from_parquet(data: bytes) -> pa.Table:
    """Return the table that :func:`to_parquet` wrote. Raises pa.ArrowException or OSError if it is damaged.

    A table without a digest, from another program, is accepted as it is. Results of design 1 get the columns that they
    lack: ``label_samples`` is null.
    """
    found = read_parquet(data)
    metadata = dict(found.schema.metadata or {})
    digest = metadata.pop(DIGEST, None)
    table = found.replace_schema_metadata(metadata or None)
    try:
        whole = digest in (None, _digest(table))
    except (ValueError, OverflowError):  # text that is not UTF-8, or a time out of range
        whole = False
    if not whole:
        raise pa.ArrowInvalid("it does not match its checksum")
    return _with_design(table)


def _with_design(table: pa.Table) -> pa.Table:
    """Add the columns that results of design 1 lack. Other tables stay as they are."""
    names, rows = table.schema.names, len(table)
    if [name for name in SCHEMA.names if name not in names] != ["label_samples", "design"]:
        return table
    made = {"label_samples": pa.nulls(rows, pa.int64()), "design": pa.repeat(pa.scalar(1, pa.int32()), rows)}
    added = [SCHEMA.field(name) if name in made else table.schema.field(name) for name in SCHEMA.names]
    schema = pa.schema([*added, *(field for field in table.schema if field.name not in SCHEMA.names)])
    columns = [made[name] if name in made else table[name] for name in schema.names]
    return pa.Table.from_arrays(columns, schema=schema)


def _digest(table: pa.Table) -> bytes:
    """Hash names, types and values, independently of the layout in memory."""
    found = hashlib.sha256()
    for name, values in zip(table.schema.names, table.columns, strict=True):
        found.update(repr((name, _type_name(values.type), values.to_pylist())).encode())
    return found.hexdigest().encode()


def _type_name(kind: pa.DataType) -> str:
    """Name a type; of a map without the name of its entries, which Parquet changes."""
    return f"map<{kind.key_type}, {kind.item_type}>" if isinstance(kind, pa.MapType) else str(kind)


def pruned_percent(density: float) -> str:
    """Format the pruned fraction in percent, with two significant digits of what is left: 48.8, 95.6, 99.53."""
    left = 100 * density
    digits = max(1, 1 - math.floor(math.log10(left))) if left > 0 else 1
    return f"{100 - left:.{digits}f}"
