"""What the masks behind a sweep keep of each layer, and how much they share.

It reads the masks that a sweep has made, and trains nothing. Their tables and figures stand beside the sweep's own.

Two masks share weights by chance too, and the more the fewer layers these are crowded in. So each overlap (Jaccard
index: of the weights that either mask keeps, the fraction that both keep) stands beside that expected of random masks.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
from safetensors.numpy import load as from_safetensors

from raysslprune import results
from raysslprune.spec import Imported, Mask, Prune, Rewind, Shuffle, target_density
from raysslprune.store.record import MASK
from raysslprune.store.steps import Store
from raysslprune.sweepfile import Point


def _field(name: str, type_: pa.DataType, about: str, *, nullable: bool = False) -> pa.Field:
    """A column; what it means stays with it, in Parquet too, as in the tables of results."""
    return pa.field(name, type_, nullable, {"about": about})


_PANEL, _LEVEL, _SEED = (results.SCHEMA.field(name) for name in ("panel", "level", "seed"))
_TASK = _field(
    "task", pa.string(), "what the mask was pruned on; with its init or rewind, where these tell masks apart"
)
_LAYER = _field("layer", pa.string(), "name of the weight; a mask's rows are in the network's order")

LAYERS = pa.schema(
    [
        _PANEL,
        _TASK,
        _LEVEL,
        _SEED,
        _LAYER,
        _field("kept", pa.int64(), "weights of the layer that stay"),
        _field("of", pa.int64(), "weights of the layer"),
        _field("density", pa.float64(), "kept / of"),
        _field("mask", pa.string(), "id of the mask: its folder under steps/ of the root"),
    ]
)
"""A row for each layer of each mask, of the layers that were to be pruned."""

OVERLAPS = pa.schema(
    [
        _PANEL,
        _LEVEL,
        *(field.with_name(f"{field.name}_{side}") for side in "ab" for field in (_TASK, _SEED)),
        _field("layer", pa.string(), "name of the weight; null: all layers together", nullable=True),
        _field("of", pa.int64(), "weights"),
        _field("kept_a", pa.int64(), "of them, that one mask keeps"),
        _field("kept_b", pa.int64(), "that the other keeps"),
        _field("intersection", pa.int64(), "that both keep"),
        _field("union", pa.int64(), "that either keeps"),
        _field("jaccard", pa.float64(), "intersection / union; null: neither keeps anything", nullable=True),
        _field("chance", pa.float64(), "jaccard expected of random masks as dense in each layer", nullable=True),
        _field("chance_sd", pa.float64(), "standard deviation of theirs", nullable=True),
        _field("chance_overall", pa.float64(), "jaccard expected of random masks as dense in all", nullable=True),
        _field("mask_a", pa.string(), "id of the one mask"),
        _field("mask_b", pa.string(), "id of the other"),
    ]
)
"""For each two masks of a panel and density a row of all layers together, and one of each. level: of the one mask."""

DENSITIES = pa.schema(
    [
        _PANEL,
        _TASK,
        _LEVEL,
        _LAYER,
        _field("density", pa.float64(), "mean over seeds of the fraction of the layer that is left"),
        _field("stderr", pa.float64(), "sample standard deviation / sqrt(n); null for one seed", nullable=True),
        _field("n", pa.int64(), "seeds"),
        _field("overall", pa.float64(), "mean over seeds of the fraction of all these layers that is left"),
        _field("left", pa.float64(), "the same of all masks that count as equally dense"),
    ]
)
"""What :func:`densities` gives."""

SAME_SEED, SAME_TASK, NEITHER = (
    "different tasks, same seed",
    "same task, different seeds",
    "different tasks, different seeds",
)
"""What two masks have in common. Chains of one seed begin with the same weights."""

SUMMARY = pa.schema(
    [
        _PANEL,
        _field("relation", pa.string(), "what the masks have in common"),
        *(_TASK.with_name(f"task_{side}") for side in "ab"),
        _LEVEL,
        _field("density", pa.float64(), "fraction left, mean over the pairs' masks"),
        _field("jaccard", pa.float64(), "mean over pairs"),
        _field("stderr", pa.float64(), "jackknife over seeds; null: too few", nullable=True),
        _field("n", pa.int64(), "seeds"),
        _field("chance", pa.float64(), "mean of those expected of random masks as dense in each layer"),
        _field("chance_overall", pa.float64(), "the same, as dense in all"),
    ]
)
"""What :func:`summary` gives."""


@dataclass(frozen=True, kw_only=True)
class Placed:
    """A mask, and where it stands in a sweep.

    task: what it was pruned on; with the points' init or rewind, where one task has several masks told apart by these.
    """

    panel: str
    task: str
    level: int
    seed: int
    mask: Mask

    def __str__(self) -> str:
        return f"{self.task}, level {self.level}, seed {self.seed}"


# ------------------------------------------------------------------------------------- which masks


def placed(points: Iterable[Point]) -> list[Placed]:
    """The masks behind points, each once a panel; by panel, task, level and seed. Panels with the same masks are one.

    Raises ValueError where masks can't be told apart.
    """
    panels: dict[str, dict[str, list[Point]]] = {}
    for point in points:
        if point.step.mask is not None:
            panels.setdefault(point.panel, {}).setdefault(point.task, []).append(point)
    alike: dict[tuple[Placed, ...], list[str]] = {}
    for panel, tasks in panels.items():
        masks = [mask for some in tasks.values() for mask in _told_apart(some)]
        order = [*dict.fromkeys(mask.task for mask in masks)]
        masks.sort(key=lambda mask: (order.index(mask.task), mask.level, mask.seed))
        alike.setdefault(tuple(masks), []).append(panel)
    if len(alike) == 1 and len(panels) > 1:
        return [*next(iter(alike))]
    return [replace(mask, panel=" / ".join(titles)) for masks, titles in alike.items() for mask in masks]


def _told_apart(points: Sequence[Point]) -> list[Placed]:
    """The masks of one task and panel, by as few words as it takes."""

    def rewind(point: Point) -> str:
        start = point.step.start
        return f"rewound to {start.samples:,}" if isinstance(start, Rewind) else ""

    ways: tuple[Callable[[Point], tuple[str, ...]], ...] = (
        lambda _: (),
        lambda point: (point.init,),
        lambda point: (rewind(point),),
        lambda point: (point.init, rewind(point)),
    )
    for way in ways:
        masks: dict[tuple[str, int, int], set[Mask]] = {}
        for point in points:
            task = ", ".join(filter(None, (point.task, *way(point))))
            masks.setdefault((task, point.level, point.seed), set()).update(filter(None, [point.step.mask]))
        if all(len(found) == 1 for found in masks.values()):
            return [
                Placed(panel="", task=task, level=level, seed=seed, mask=mask)
                for (task, level, seed), (mask,) in masks.items()
            ]
    raise ValueError(f"points of {points[0].task} have several masks at one level, by which they can't be told apart")


# ------------------------------------------------------------------------------------- what they keep, and share


@dataclass(frozen=True)
class _Packed:
    """A mask's layers, of those that it was to prune: how many weights they have, how many stay, and which (bits)."""

    of: dict[str, int]
    kept: dict[str, int]
    bits: dict[str, np.ndarray]


def measure(masks: Iterable[Placed], store: Store) -> tuple[pa.Table, pa.Table]:
    """What each mask keeps of each layer (LAYERS), and how much each two of a panel and density share (OVERLAPS).

    Rows go by panel, density (the densest first), task and seed. Only layers that were to be pruned count, and only
    masks over the same ones are compared. Raises Damaged for a mask that can't be read.
    """
    kept: list[dict[str, Any]] = []
    shared: list[dict[str, Any]] = []
    for group in _equally_dense(masks, store):
        read = [(mask, _read(mask.mask, store)) for mask in group]
        for mask, packed in read:
            place = {"panel": mask.panel, "task": mask.task, "level": mask.level, "seed": mask.seed}
            place["mask"] = mask.mask.id
            for layer, of in packed.of.items():
                count = packed.kept[layer]
                kept.append({**place, "layer": layer, "kept": count, "of": of, "density": count / of})
        for (a, first), (b, second) in itertools.combinations(read, 2):
            if first.of == second.of and (a.task, a.seed) != (b.task, b.seed):  # else of one chain, nested
                place = {"panel": a.panel, "level": a.level, "mask_a": a.mask.id, "mask_b": b.mask.id}
                place |= {"task_a": a.task, "seed_a": a.seed, "task_b": b.task, "seed_b": b.seed}
                shared += [{**place, **row} for row in _shared(first, second)]
    return pa.Table.from_pylist(kept, schema=LAYERS), pa.Table.from_pylist(shared, schema=OVERLAPS)


_Key = TypeVar("_Key")

ALIKE = 0.01
"""Of a density, by which another may differ from it and count as the same: each pruning rounds to whole weights."""


def by_density(densities: Mapping[_Key, float]) -> list[list[_Key]]:
    """Those that count as equally dense, the densest first; in each group in the order given."""
    groups: list[dict[_Key, None]] = []
    densest = math.inf
    for one in sorted(densities, key=lambda one: -densities[one]):
        if densities[one] < (1 - ALIKE) * densest:
            groups.append({})
            densest = densities[one]
        groups[-1][one] = None
    return [[one for one in densities if one in group] for group in groups]


def _equally_dense(masks: Iterable[Placed], store: Store) -> Iterator[list[Placed]]:
    """In groups by panel and density, each by task and seed.

    The density is what a mask was pruned to, whatever its level and without natural zeros; if that is not known, as of
    an imported one, what it keeps.
    """
    panels: dict[str, list[Placed]] = {}
    for mask in masks:
        panels.setdefault(mask.panel, []).append(mask)
    for some in panels.values():
        pruned_to = {mask: target_density(mask.mask) for mask in some}
        for mask in (mask for mask, density in pruned_to.items() if math.isnan(density)):
            packed = _read(mask.mask, store)
            pruned_to[mask] = sum(packed.kept.values()) / sum(packed.of.values())
        tasks = [*dict.fromkeys(mask.task for mask in some)]
        for group in by_density(pruned_to):
            yield sorted(group, key=lambda mask: (tasks.index(mask.task), mask.seed))


def _shared(a: _Packed, b: _Packed) -> Iterator[dict[str, Any]]:
    """A row for all layers together, then one for each."""
    of, kept_a, kept_b = (np.array([*counts.values()]) for counts in (a.of, a.kept, b.kept))
    both = np.array([int(np.bitwise_count(a.bits[layer] & b.bits[layer]).sum()) for layer in a.of])
    for layer, some in ((None, slice(None)), *((layer, slice(i, i + 1)) for i, layer in enumerate(a.of))):
        n, one, other, common = (counts[some] for counts in (of, kept_a, kept_b, both))
        union = int((one + other - common).sum())
        mean, deviation = chance(one, other, n)
        overall = chance(*(counts.sum(keepdims=True) for counts in (one, other, n)))[0] if layer is None else math.nan
        yield {
            "layer": layer,
            "of": int(n.sum()),
            "kept_a": int(one.sum()),
            "kept_b": int(other.sum()),
            "intersection": int(common.sum()),
            "union": union,
            "jaccard": int(common.sum()) / union if union else None,
            "chance": _known(mean),
            "chance_sd": _known(deviation),
            "chance_overall": _known(overall),
        }


def chance(kept_a: np.ndarray, kept_b: np.ndarray, of: np.ndarray) -> tuple[float, float]:
    """Mean and standard deviation of the Jaccard index of two masks that are drawn at random, independently.

    Of each layer's ``of`` weights one keeps ``kept_a`` and the other ``kept_b``. Their intersection I is a sum over the
    layers of hypergeometric variables, with mean m = sum(kept_a kept_b / of). The index is I / (K - I), where K is the
    number of weights that both keep, added up. To second order around m, which is close where K is not tiny:
    mean m / (K - m) + K var(I) / (K - m)^3, standard deviation K sd(I) / (K - m)^2. NaN where nothing is kept.
    """
    a, b, n = (np.asarray(counts, np.float64) for counts in (kept_a, kept_b, of))
    total, mean = float((a + b).sum()), float((a * b / n).sum())
    variance = float((a * b * (n - a) * (n - b) / (n * n * np.maximum(n - 1, 1))).sum())
    union = total - mean
    if not union:
        return math.nan, math.nan
    return mean / union + total * variance / union**3, total * math.sqrt(variance) / union**2


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value


def _read(step: Mask, store: Store) -> _Packed:
    bits = from_safetensors(store.artefact(step.id, MASK))
    origin: Mask = step
    while isinstance(origin, Shuffle):
        origin = origin.of
    arch = origin.of.arch if isinstance(origin, Prune) else origin.arch
    scope = "all" if isinstance(origin, Imported) else origin.scope
    sizes = _sizes(arch, scope, tuple((name, len(packed)) for name, packed in sorted(bits.items())))
    kept = {name: int(np.bitwise_count(bits[name]).sum()) for name in sizes}
    return _Packed(sizes, kept, bits)


MAX_CHANNELS = 16
"""Of images, that are tried: a mask does not say how many its network's have, and the data need not be here."""


@cache
def _sizes(arch: str, scope: str, lengths: tuple[tuple[str, int], ...]) -> dict[str, int]:
    """Weights of each layer in the scope, in network order. lengths: of packed masks, in bytes, by layer."""
    from raysslprune import masks, models  # imports torch, which takes seconds

    for channels in range(1, MAX_CHANNELS + 1):
        trunk = models.trunk(arch, channels)
        sizes = {name: weight.numel() for name, weight in models.prunable(trunk).items()}
        if {name: -(-size // 8) for name, size in sizes.items()} == dict(lengths):
            return {name: sizes[name] for name in masks.scope_names(scope, sizes, models.convolutions(trunk))}
    raise ValueError(f"a mask is of another network than {arch!r}")


# ------------------------------------------------------------------------------------- over seeds


def densities(layers: pa.Table, masks: Iterable[Placed] = ()) -> pa.Table:
    """Over seeds: mean density of each layer (DENSITIES), in the order of the rows given.

    masks: what the rows are of, which tells which of them are equally dense; without them it goes by what they keep.
    """
    overall: dict[tuple[Any, ...], list[float]] = {}
    found: dict[tuple[Any, ...], list[float]] = {}
    whole = layers.group_by(["panel", "task", "level", "seed"], use_threads=False)
    for row in whole.aggregate([("kept", "sum"), ("of", "sum")]).to_pylist():
        overall.setdefault((row["panel"], row["task"], row["level"]), []).append(row["kept_sum"] / row["of_sum"])
    for row in layers.to_pylist():
        found.setdefault((row["panel"], row["task"], row["level"], row["layer"]), []).append(row["density"])
    pruned_to = {key: _mean(some) for key, some in overall.items()}
    known = {(mask.panel, mask.task, mask.level): target_density(mask.mask) for mask in masks}
    pruned_to |= {key: known[key] for key in pruned_to if not math.isnan(known.get(key, math.nan))}
    alike = {key: _mean([_mean(overall[one]) for one in group]) for group in by_density(pruned_to) for key in group}
    rows = [
        {
            **dict(zip(("panel", "task", "level", "layer"), key, strict=True)),
            "density": float(np.mean(values)),
            "stderr": float(np.std(values, ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else None,
            "n": len(values),
            "overall": _mean(overall[key[:3]]),
            "left": alike[key[:3]],
        }
        for key, values in found.items()
    ]
    return pa.Table.from_pylist(rows, schema=DENSITIES)


def summary(overlaps: pa.Table) -> pa.Table:
    """Over pairs: mean Jaccard index of whole masks, by panel, relation, tasks and level (SUMMARY).

    ``stderr`` is the jackknife's over seeds, because pairs that share a seed are not independent; null where a seed
    is in every pair. Where every pair is of a seed of its own it is the ordinary one. A pair that keeps nothing is out.
    """
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in overlaps.to_pylist():
        if row["layer"] is None and row["jaccard"] is not None:
            same_task, same_seed = row["task_a"] == row["task_b"], row["seed_a"] == row["seed_b"]
            relation = SAME_SEED if same_seed else SAME_TASK if same_task else NEITHER
            key = (row["panel"], relation, row["task_a"], row["task_b"], row["level"])
            groups.setdefault(key, []).append(row)
    order = (SAME_SEED, SAME_TASK, NEITHER)
    panels = [*dict.fromkeys(key[0] for key in groups)]
    rows = []
    for key in sorted(groups, key=lambda key: (panels.index(key[0]), order.index(key[1]))):
        pairs = groups[key]
        seeds = {pair["seed_a"] for pair in pairs} | {pair["seed_b"] for pair in pairs}
        rows.append(
            {
                **dict(zip(("panel", "relation", "task_a", "task_b", "level"), key, strict=True)),
                "density": _mean([(pair["kept_a"] + pair["kept_b"]) / (2 * pair["of"]) for pair in pairs]),
                "jaccard": _mean([pair["jaccard"] for pair in pairs]),
                "stderr": _jackknife([({p["seed_a"], p["seed_b"]}, p["jaccard"]) for p in pairs]),
                "n": len(seeds),
                "chance": _mean([pair["chance"] for pair in pairs]),
                "chance_overall": _mean([pair["chance_overall"] for pair in pairs]),
            }
        )
    return pa.Table.from_pylist(rows, schema=SUMMARY)


def _jackknife(values: Sequence[tuple[set[int], float]]) -> float | None:
    """Standard error of the mean, from leaving out one seed after the other with all values that it is part of."""
    seeds = set[int]().union(*(seeds for seeds, _ in values))
    without = [[value for of, value in values if seed not in of] for seed in seeds]
    if not all(without):
        return None
    means = np.array([_mean(some) for some in without])
    return math.sqrt((len(seeds) - 1) * float(np.var(means)))


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values))


def shown(masks: Iterable[Placed], layers: pa.Table, overlaps: pa.Table) -> tuple[pa.Table, pa.Table]:
    """What people are shown of all that was measured, as DENSITIES and SUMMARY.

    Without the densities of shuffled masks, which are those of the masks that they were made from; and without the
    overlaps of random masks, and of those with neither task nor seed in common, which are what chance gives.
    """
    masks = list(masks)
    shuffled = {mask.task for mask in masks if isinstance(mask.mask, Shuffle)}
    found = {mask.task for mask in masks if isinstance(mask.mask, Prune | Imported)}
    return (
        _only(densities(layers, masks), lambda row: row["task"] not in shuffled),
        _only(summary(overlaps), lambda row: row["relation"] != NEITHER and {row["task_a"], row["task_b"]} <= found),
    )


def _only(table: pa.Table, wanted: Callable[[Mapping[str, Any]], bool]) -> pa.Table:
    return pa.Table.from_pylist([row for row in table.to_pylist() if wanted(row)], schema=table.schema)
