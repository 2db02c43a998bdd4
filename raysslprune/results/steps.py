"""All steps behind a sweep's results as one table: what each of them is, how it was trained, and what came out.

It has a row for each finished training and mask. Besides the columns of STEPS it has one for each option of a task,
``option_NAME``, and one for each metric.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, fields
from typing import Any

import pyarrow as pa

from raysslprune import catalogue
from raysslprune.results.tables import PROVENANCE, SCHEMA, column
from raysslprune.spec import SVM, Imported, ImportedWeights, Mask, Option, RandomPrune, Recipe, Step, Train, closure
from raysslprune.spec import is_whole as is_int64
from raysslprune.store.record import CURVE, LAYERS, MULTIPLY_ADDS, Record
from raysslprune.sweepfile import Point

_TYPES = {
    "int": pa.int64(),
    "float": pa.float64(),
    "str": pa.string(),
    "bool": pa.bool_(),
    "tuple[int, ...]": pa.list_(pa.field("element", pa.int64())),  # Parquet's name, so that the type survives it
    "tuple[float, ...]": pa.list_(pa.field("element", pa.float64())),
}
"""Types of columns by the annotation of a recipe's field."""

_ABOUT = {
    "samples": "length of the recipe in samples seen",
    "batch": "samples in an update",
    "lr": "learning rate",
    "optimizer": "sgd, adam or adamw",
    "momentum": "of SGD",
    "nesterov": "whether the momentum is Nesterov's",
    "weight_decay": "L2, or decoupled for adamw",
    "schedule": "of the learning rate: constant, cosine, linear or steps",
    "decay_at": "samples seen at which schedule steps divides the rate by 10",
    "warmup": "samples over which the learning rate rises",
    "bn_batch": "samples that share BatchNorm statistics; 0: the batch",
    "pad": "random shift by up to so many pixels",
    "flip": "whether images are flipped at random",
    "crop": "least area of a random crop, as a fraction; 0: none",
    "angle": "random rotation by up to so many degrees",
    "jitter": "strengths of brightness, contrast, saturation and hue",
    "grayscale": "probability of a grey view",
    "precision": "float32, tf32 or bf16",
    "costs": "of linear SVMs, among which cross-validation chooses",
    "folds": "of the SVMs' cross-validation",
    "positive_weight": "of a sample of an SVM's class",
    "tolerance": "at which an SVM's fit ends",
    "iterations": "of an SVM's fit, at most",
}
"""Meaning of each field of a recipe, except for the task's options."""


_POINT = pa.struct([("samples", pa.int64()), ("metric", pa.string()), ("value", pa.float64())])
"""Type of a metric at a point of a learning curve."""


def _optional(name: str, type_: pa.DataType, about: str) -> pa.Field:
    return column(name, type_, about, nullable=True)


STEPS = pa.schema(
    [
        column("step", pa.string(), "id of the step: its folder under steps/ of the root"),
        column("kind", pa.string(), "Train; a mask: Prune, RandomPrune, Shuffle or Imported; or ImportedWeights"),
        _optional(
            "task", pa.string(), "what is trained, or what the mask was pruned on; null: no task, here and below"
        ),
        _optional("data", pa.string(), "the images"),
        column("arch", pa.string(), "the network"),
        _optional("seed", pa.int64(), "of the training, or of a random or shuffled mask"),
        column("parents", pa.list_(pa.field("element", pa.string())), "ids of the steps that it was made from"),
        _optional("start", pa.string(), "where the weights are from: Init (drawn), Rewind or Final"),
        _optional("rewind", pa.int64(), "samples seen by the state it starts from; null: not rewound"),
        _optional("trunk_frozen", pa.bool_(), "whether only the head was trained"),
        _optional("mask", pa.string(), "id of the mask that it was trained under"),
        _optional("level", pa.int64(), "number of prunings; 0: the dense network; null: not known of an imported mask"),
        _optional("keep", pa.float64(), "fraction that one pruning leaves"),
        _optional("scope", pa.string(), "the layers that were to be pruned: all, convs, or convs:d"),
        _optional("density", SCHEMA.field("density").type, "fraction left of the weights that were to be pruned"),
        _optional("density_of_all", pa.float64(), "the same of all prunable weights of the network"),
        _optional(
            "layers",
            pa.map_(pa.string(), pa.float64()),
            "fraction left of each layer, by the name of its weight; null: made before version 0.2",
        ),
        _optional(
            MULTIPLY_ADDS,
            pa.int64(),
            "for one image, without those of pruned weights, head included; null: a mask, or made before version 0.2",
        ),
        _optional(
            CURVE,
            pa.list_(pa.field("element", _POINT)),
            "metrics in the course of the training, of a sweep with --curve-points: unnest(curve, recursive := true)",
        ),
        *(
            _optional(one.name, _TYPES[str(one.type)], _ABOUT[one.name])
            for one in (*fields(Recipe), *fields(SVM))
            if one.name != "options"
        ),
        *(
            PROVENANCE.field(name).with_nullable(True)
            for name in PROVENANCE.names
            if name not in ("step", "trained_on", "data", "arch")
        ),
    ]
)
"""Columns that every table of steps has, in this order. Options and metrics follow, each sorted by name."""

OPTION = "option_"
"""Prefix of the columns of options."""

_TAKEN = {name.lower() for name in STEPS.names}
"""Names that no metric's column may have. SQL ignores case."""

_DENSITIES = ("density", "density_in_scope")
"""Metrics whose columns are in STEPS."""


def steps(points: Iterable[Point], records: Mapping[str, Record]) -> pa.Table:
    """Return a row for each finished step of the points and their ancestors, parents first: STEPS, options, metrics."""
    found = [step for step in closure(point.step for point in points) if step.id in records]
    options = [{f"{OPTION}{name}": value for name, value in _options(step).items()} for step in found]
    metrics = [_metrics(records[step.id]) for step in found]
    table = pa.Table.from_pylist([_row(step, records) for step in found], schema=STEPS)
    for more, about in ((options, "option of the task"), (metrics, "metric")):
        for name in sorted({name for row in more for name in row}):
            table = table.append_column(*_column(name, [row.get(name) for row in more], about))
    return table


def _row(step: Step, records: Mapping[str, Record]) -> dict[str, Any]:
    record = records[step.id]
    facts = record.facts
    row = {"step": step.id, "kind": type(step).__name__, "parents": [parent.id for parent in step.parents]}
    row |= {name: facts.get(name) for name in ("seconds", "images_per_second", "host", "device", MULTIPLY_ADDS)}
    row |= {CURVE: _curve(facts[CURVE]) if CURVE in facts else None}
    row |= {"layers": None if LAYERS not in facts else [*facts[LAYERS].items()]}
    row |= {"begun": int(facts["begun"] * 1000) if "begun" in facts else None, "resumed_at": facts.get("resumed_at")}
    row |= {"density_of_all": record.metrics.get("density"), **facts.get("versions", {})}
    if isinstance(step, Train):
        return row | _training(step, records) | {"workers": facts.get("workers", 1)}
    if isinstance(step, ImportedWeights):
        return row | {"arch": step.arch}
    assert isinstance(step, Mask)
    return row | _mask(step) | {"density": record.metrics.get("density_in_scope")}


def _curve(points: Iterable[tuple[int, Mapping[str, float]]]) -> list[dict[str, Any]]:
    return [
        {"samples": samples, "metric": name, "value": value}
        for samples, metrics in points
        for name, value in metrics.items()
    ]


def _training(step: Train, records: Mapping[str, Record]) -> dict[str, Any]:
    mask, recipe = step.mask, step.recipe
    row = {name: getattr(step, name) for name in ("task", "data", "arch", "seed", "rewind", "trunk_frozen")}
    row |= {one.name: getattr(recipe, one.name) for one in fields(recipe) if one.name != "options"}
    row |= {"start": type(step.start).__name__, "mask": mask and mask.id, "scope": mask and mask.scope}
    known = mask and records.get(mask.id)
    density = 1.0 if mask is None else known.metrics.get("density_in_scope") if known else None
    return row | {"level": level(mask), "density": density}


def _mask(step: Mask) -> dict[str, Any]:
    origin = step.origin
    row = {"arch": step.arch, "scope": step.scope, "level": level(step)}
    row |= {name: getattr(step, name, None) for name in ("seed", "keep")}
    if isinstance(origin, RandomPrune):
        return row | {"data": origin.data, "keep": origin.keep}
    if isinstance(origin, Imported):
        return row
    if isinstance(origin.of, Train):
        row |= {"task": origin.of.task, "data": origin.of.data}
    return row | {"keep": origin.keep}


def level(mask: Mask | None) -> int | None:
    """Return the number of prunings that lead to a mask: 0 without a mask, None if an imported mask is among them."""
    if mask is None:
        return 0
    origin = mask.origin
    if isinstance(origin, Imported):
        return None
    if isinstance(origin, RandomPrune):
        return origin.level
    rounds = origin.rounds
    before = level(rounds[-1].of.mask)
    return None if before is None else before + len(rounds)


def _options(step: Step) -> dict[str, Option]:
    """Return the options of a training's task; those that the recipe leaves out have the package's defaults."""
    if not isinstance(step, Train) or not isinstance(step.recipe, Recipe):
        return {}
    given = dict(step.recipe.options)
    kind = catalogue.OPTIONS.get(step.task)
    return given if kind is None else asdict(kind(**given))


def _metrics(record: Record) -> dict[str, float]:
    return {_metric(name): value for name, value in record.metrics.items() if name not in _DENSITIES}


def _metric(name: str) -> str:
    """Return the name of a metric's column, which differs from all others'."""
    return f"metric_{name}" if name.lower() in _TAKEN or name.lower().startswith(OPTION) else name


def _column(name: str, values: Sequence[Any], about: str) -> tuple[pa.Field, pa.Array]:
    """Return a column of values whose types may differ, as those of an option that two tasks have."""
    known = [value for value in values if value is not None]
    kind: pa.DataType = pa.string()
    if all(isinstance(value, bool) for value in known):
        kind = pa.bool_()
    elif all(map(is_int64, known)):
        kind = pa.int64()
    elif all(isinstance(value, int | float) and not isinstance(value, bool) for value in known):
        kind = pa.float64()
    texts = [None if value is None else _text(value) for value in values]
    return _optional(name, kind, about), pa.array(texts if kind == pa.string() else values, kind)


def _text(value: Option) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


# ------------------------------------------------------------------------------------- of several sweeps


def is_steps(schema: pa.Schema) -> bool:
    """Return whether a schema is that of a table of steps, whatever its options and metrics."""
    return [*schema][: len(STEPS)] == [*STEPS]


def joined(tables: Sequence[pa.Table]) -> pa.Table:
    """Join the tables of several sweeps: each step once, by its last run. An option of several types becomes text."""
    kinds: dict[str, set[pa.DataType]] = {}
    for table in tables:
        for one in [*table.schema][len(STEPS) :]:
            kinds.setdefault(one.name, set()).add(one.type)
    texts = {name for name, found in kinds.items() if len(found) > 1 and not found <= {pa.int64(), pa.float64()}}
    whole = pa.concat_tables([_as_texts(table, texts) for table in tables], promote_options="permissive")
    begun = [0 if value is None else value for value in whole["begun"].cast(pa.int64()).to_pylist()]
    ids = whole["step"].to_pylist()
    last = {ids[row]: row for row in sorted(range(len(ids)), key=begun.__getitem__)}
    more = sorted({*whole.schema.names} - {*STEPS.names}, key=lambda name: (not name.startswith(OPTION), name))
    return whole.take(pa.array(sorted(last.values()), pa.int64())).select([*STEPS.names, *more])


def _as_texts(table: pa.Table, names: Iterable[str]) -> pa.Table:
    for name in names:
        if (place := table.schema.get_field_index(name)) >= 0:
            table = table.set_column(place, table.schema.field(name).with_type(pa.string()), table[name].cast("string"))
    return table
