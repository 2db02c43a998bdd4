"""What the masks behind a sweep keep of each layer, and how much they overlap.

The masks are read from the store, and nothing is trained. Their tables and figures are written beside the sweep's own.

Two masks share weights by chance too, and more of them if they keep many weights of few layers. So each overlap is
given with its expectation for random masks. Overlap means the Jaccard index: of the weights that at least one of the
masks keeps, the fraction that both keep.
"""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from safetensors.numpy import load as from_safetensors

from raysslprune import results
from raysslprune.results.tables import column
from raysslprune.spec import Imported, Mask, Prune, Shuffle
from raysslprune.store.record import MASK
from raysslprune.store.steps import Store
from raysslprune.sweepfile import Point

_PANEL, _LEVEL, _SEED = (results.SCHEMA.field(name) for name in ("panel", "level", "seed"))
_TASK = column(
    "task", pa.string(), "what the mask was pruned on; with its init or rewind, where these tell masks apart"
)
_LAYER = column("layer", pa.string(), "name of the weight; a mask's rows are in the network's order")

LAYERS = pa.schema(
    [
        _PANEL,
        _TASK,
        _LEVEL,
        _SEED,
        _LAYER,
        column("kept", pa.int64(), "weights of the layer that stay"),
        column("of", pa.int64(), "weights of the layer"),
        column("density", pa.float64(), "kept / of"),
        column("mask", pa.string(), "id of the mask: its folder under steps/ of the root"),
    ]
)
"""Columns of a table with a row for each prunable layer of each mask."""

OVERLAPS = pa.schema(
    [
        _PANEL,
        _LEVEL,
        *(field.with_name(f"{field.name}_{side}") for side in "ab" for field in (_TASK, _SEED)),
        column("layer", pa.string(), "name of the weight; null: all layers together", nullable=True),
        column("of", pa.int64(), "weights"),
        column("kept_a", pa.int64(), "of them, that one mask keeps"),
        column("kept_b", pa.int64(), "that the other keeps"),
        column("intersection", pa.int64(), "that both keep"),
        column("union", pa.int64(), "that either keeps"),
        column("jaccard", pa.float64(), "intersection / union; null: neither keeps anything", nullable=True),
        column("chance", pa.float64(), "jaccard expected of random masks as dense in each layer", nullable=True),
        column("chance_sd", pa.float64(), "standard deviation of theirs", nullable=True),
        column("chance_overall", pa.float64(), "jaccard expected of random masks as dense in all", nullable=True),
        column("mask_a", pa.string(), "id of the one mask"),
        column("mask_b", pa.string(), "id of the other"),
    ]
)
"""Columns of a table with a row for each pair of masks of a panel and density, and one for each of their layers.

The column level is that of the first mask."""

DENSITIES = pa.schema(
    [
        _PANEL,
        _TASK,
        _LEVEL,
        _LAYER,
        column("density", pa.float64(), "mean over seeds of the fraction of the layer that is left"),
        column("stderr", pa.float64(), "sample standard deviation / sqrt(n); null for one seed", nullable=True),
        column("n", pa.int64(), "seeds"),
        column("overall", pa.float64(), "mean over seeds of the fraction of all these layers that is left"),
        column("left", pa.float64(), "the same of all masks that count as equally dense"),
    ]
)
"""Columns of :func:`densities`."""

SAME_SEED = "different tasks, same seed"
SAME_TASK = "same task, different seeds"
NEITHER = "different tasks, different seeds"
"""Relations of two masks. Chains of one seed start from the same weights."""

SUMMARY = pa.schema(
    [
        _PANEL,
        column("relation", pa.string(), "what the masks have in common"),
        *(_TASK.with_name(f"task_{side}") for side in "ab"),
        _LEVEL,
        column("density", pa.float64(), "fraction left, mean over the pairs' masks"),
        column("jaccard", pa.float64(), "mean over pairs"),
        column("stderr", pa.float64(), "jackknife over seeds; null: too few", nullable=True),
        column("n", pa.int64(), "seeds"),
        column("chance", pa.float64(), "mean of those expected of random masks as dense in each layer"),
        column("chance_overall", pa.float64(), "the same, as dense in all"),
    ]
)
"""Columns of :func:`summary`."""


@dataclass(frozen=True, kw_only=True)
class Placed:
    """A mask and its place in a sweep.

    task: what it was pruned on, followed by the points' init or rewind if a task has several masks that differ in it.
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
    """Return the masks behind points, each once in a panel, sorted by panel, task, level and seed.

    Panels with the same masks are merged. Raises ValueError for masks that no label distinguishes.
    """
    panels: dict[str, dict[str, list[Point]]] = {}
    for point in points:
        if point.step.mask is not None:
            panels.setdefault(point.panel, {}).setdefault(point.task, []).append(point)
    merged: dict[tuple[Placed, ...], list[str]] = {}
    for panel, tasks in panels.items():
        masks = [mask for some in tasks.values() for mask in _labelled(some)]
        order = [*dict.fromkeys(mask.task for mask in masks)]
        masks.sort(key=lambda mask: (order.index(mask.task), mask.level, mask.seed))
        merged.setdefault(tuple(masks), []).append(panel)
    if len(merged) == 1 and len(panels) > 1:
        return [*next(iter(merged))]
    return [replace(mask, panel=" / ".join(titles)) for masks, titles in merged.items() for mask in masks]


def _labelled(points: Sequence[Point]) -> list[Placed]:
    """Return the masks of one task and panel, with the shortest labels that distinguish them."""
    for facts in ((), ("init",), ("rewind",), ("init", "rewind")):
        masks: dict[tuple[str, int, int], set[Mask]] = {}
        for point in points:
            rewind = point.step.rewind
            known = {"init": point.init, "rewind": "" if rewind is None else f"rewound to {rewind:,}"}
            label = ", ".join(filter(None, (point.task, *(known[fact] for fact in facts))))
            masks.setdefault((label, point.level, point.seed), set()).update(filter(None, [point.step.mask]))
        if all(len(found) == 1 for found in masks.values()):
            return [Placed(panel="", task=t, level=n, seed=s, mask=mask) for (t, n, s), (mask,) in masks.items()]
    raise ValueError(
        f"points of {points[0].task} have several masks at one level, and neither init nor rewind distinguishes them"
    )


# ------------------------------------------------------------------------------------- kept weights, and overlaps


@dataclass(frozen=True)
class _Packed:
    """The prunable layers of a mask: number of weights, number of kept weights, and packed bits."""

    of: dict[str, int]
    kept: dict[str, int]
    bits: dict[str, np.ndarray]


def measure(masks: Iterable[Placed], store: Store) -> tuple[pa.Table, pa.Table]:
    """Return what each mask keeps of each layer (LAYERS), and pairs' overlaps (OVERLAPS) by panel and density.

    Rows are sorted by panel, density (the densest first), task and seed. Only prunable layers count, and only masks
    over the same layers are compared. Raises Damaged for a mask that can't be read.
    """
    kept: list[dict[str, Any]] = []
    shared: list[dict[str, Any]] = []
    for group in _equally_dense(masks, store):
        read = [(mask, _read(mask.mask, store)) for mask in group]
        for mask, packed in read:
            place = {"panel": mask.panel, "task": mask.task, "level": mask.level, "seed": mask.seed}
            for layer, of in packed.of.items():
                count = packed.kept[layer]
                row = {"mask": mask.mask.id, "layer": layer, "kept": count, "of": of, "density": count / of}
                kept.append(place | row)
        for (a, first), (b, second) in itertools.combinations(read, 2):
            if first.of == second.of and (a.task, a.seed) != (b.task, b.seed):  # masks of one chain are nested
                place = {"panel": a.panel, "level": a.level, "mask_a": a.mask.id, "mask_b": b.mask.id}
                place |= {"task_a": a.task, "seed_a": a.seed, "task_b": b.task, "seed_b": b.seed}
                shared += [place | row for row in _shared(first, second)]
    return pa.Table.from_pylist(kept, schema=LAYERS), pa.Table.from_pylist(shared, schema=OVERLAPS)


_Key = TypeVar("_Key")

ALIKE = 0.01
"""Relative difference up to which two densities count as equal: each pruning rounds to whole weights."""


def by_density(densities: Mapping[_Key, float]) -> list[list[_Key]]:
    """Group keys of equal density, the densest group first; within a group the given order stays."""
    groups: list[list[_Key]] = []
    for key in sorted(densities, key=lambda key: -densities[key]):
        if not groups or densities[key] < (1 - ALIKE) * densities[groups[-1][0]]:
            groups.append([])
        groups[-1].append(key)
    place = {key: number for number, key in enumerate(densities)}
    return [sorted(group, key=place.__getitem__) for group in groups]


def _equally_dense(masks: Iterable[Placed], store: Store) -> Iterator[list[Placed]]:
    """Yield groups of masks of one panel and density, each sorted by task and seed."""
    panels: dict[str, list[Placed]] = {}
    for mask in masks:
        panels.setdefault(mask.panel, []).append(mask)
    for some in panels.values():
        tasks = [*dict.fromkeys(mask.task for mask in some)]
        for group in by_density({mask: _density(mask.mask, store) for mask in some}):
            yield sorted(group, key=lambda mask: (tasks.index(mask.task), mask.seed))


def _density(step: Mask, store: Store) -> float:
    """Return the density that a mask was pruned to; the density that it has, if it was imported."""
    if not math.isnan(step.target_density):
        return step.target_density
    packed = _read(step, store)
    return sum(packed.kept.values()) / sum(packed.of.values())


def _shared(a: _Packed, b: _Packed) -> Iterator[dict[str, Any]]:
    """Yield a row for all layers together, then one for each layer."""
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
            "chance": _or_none(mean),
            "chance_sd": _or_none(deviation),
            "chance_overall": _or_none(overall),
        }


def chance(kept_a: np.ndarray, kept_b: np.ndarray, of: np.ndarray) -> tuple[float, float]:
    """Return mean and standard deviation of the Jaccard index of two independent random masks; NaN if both are empty.

    Of the ``of`` weights of each layer, one mask keeps ``kept_a`` and the other ``kept_b``. Their intersection I is a
    sum of hypergeometric variables, one for each layer, with mean m = sum(kept_a kept_b / of). The index is
    I / (K - I), where K = sum(kept_a + kept_b). To second order around m, which is accurate unless K is tiny, its mean
    is m / (K - m) + K var(I) / (K - m)^3 and its standard deviation K sd(I) / (K - m)^2.
    """
    a, b, n = (np.asarray(counts, np.float64) for counts in (kept_a, kept_b, of))
    total, mean = float((a + b).sum()), float((a * b / n).sum())
    variance = float((a * b * (n - a) * (n - b) / (n * n * np.maximum(n - 1, 1))).sum())
    union = total - mean
    if not union:
        return math.nan, math.nan
    return mean / union + total * variance / union**3, total * math.sqrt(variance) / union**2


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else value


def _read(step: Mask, store: Store) -> _Packed:
    bits = from_safetensors(store.artefact(step.id, MASK))
    sizes = _sizes(step.arch, step.scope, tuple((name, len(packed)) for name, packed in sorted(bits.items())))
    return _Packed(sizes, {name: int(np.bitwise_count(bits[name]).sum()) for name in sizes}, bits)


MAX_CHANNELS = 16
"""Largest number of image channels to try: a mask does not say how many its network has, and the data may be absent."""


@cache
def _sizes(arch: str, scope: str, lengths: tuple[tuple[str, int], ...]) -> dict[str, int]:
    """Return the number of weights of each layer in the scope, in network order.

    lengths: layer and bytes of each packed mask.
    """
    from raysslprune import masks, models  # imports torch, which takes seconds

    for channels in range(1, MAX_CHANNELS + 1):
        trunk = models.trunk(arch, channels)
        sizes = {name: weight.numel() for name, weight in models.prunable(trunk).items()}
        if {name: -(-size // 8) for name, size in sizes.items()} == dict(lengths):
            return {name: sizes[name] for name in masks.scope_names(scope, sizes, models.convolutions(trunk))}
    raise ValueError(f"a mask does not fit network {arch!r}")


# ------------------------------------------------------------------------------------- over seeds


def densities(layers: pa.Table, masks: Iterable[Placed] = ()) -> pa.Table:
    """Return the mean density of each layer over seeds (DENSITIES), in the order of the rows given.

    masks: those of the rows. Their target densities decide which are equally dense; without one, the mean density does.
    """
    wholes: dict[tuple[Any, ...], list[float]] = defaultdict(list)
    found: dict[tuple[Any, ...], list[float]] = defaultdict(list)
    whole = layers.group_by(["panel", "task", "level", "seed"], use_threads=False)
    for row in whole.aggregate([("kept", "sum"), ("of", "sum")]).to_pylist():
        wholes[row["panel"], row["task"], row["level"]].append(row["kept_sum"] / row["of_sum"])
    for row in layers.to_pylist():
        found[row["panel"], row["task"], row["level"], row["layer"]].append(row["density"])
    overall = {key: _mean(some) for key, some in wholes.items()}
    targets = {(mask.panel, mask.task, mask.level): mask.mask.target_density for mask in masks}
    known = {key: target for key, target in targets.items() if key in overall and not math.isnan(target)}
    left = {key: _mean([overall[one] for one in group]) for group in by_density(overall | known) for key in group}
    rows = [
        {
            **dict(zip(("panel", "task", "level", "layer"), key, strict=True)),
            "density": _mean(values),
            "stderr": float(np.std(values, ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else None,
            "n": len(values),
            "overall": overall[key[:3]],
            "left": left[key[:3]],
        }
        for key, values in found.items()
    ]
    return pa.Table.from_pylist(rows, schema=DENSITIES)


def summary(overlaps: pa.Table) -> pa.Table:
    """Return the mean Jaccard index of pairs of masks, over all layers (SUMMARY), by panel, relation, tasks and level.

    ``stderr`` is the jackknife's over seeds, because pairs that share a seed are not independent; null if a seed is in
    every pair. If no two pairs share a seed, it is the ordinary error. Pairs that keep nothing are left out.
    """
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = defaultdict(list)
    for row in overlaps.to_pylist():
        if row["layer"] is None and row["jaccard"] is not None:
            groups[row["panel"], _relation(row), row["task_a"], row["task_b"], row["level"]].append(row)
    order = (SAME_SEED, SAME_TASK, NEITHER)
    panels = [*dict.fromkeys(key[0] for key in groups)]
    rows: list[dict[str, Any]] = []
    for key in sorted(groups, key=lambda key: (panels.index(key[0]), order.index(key[1]))):
        pairs = groups[key]
        rows.append(
            {
                **dict(zip(("panel", "relation", "task_a", "task_b", "level"), key, strict=True)),
                "density": _mean([(pair["kept_a"] + pair["kept_b"]) / (2 * pair["of"]) for pair in pairs]),
                **{name: _mean([pair[name] for pair in pairs]) for name in ("jaccard", "chance", "chance_overall")},
                "stderr": _jackknife(pairs),
                "n": len({pair[seed] for pair in pairs for seed in ("seed_a", "seed_b")}),
            }
        )
    return pa.Table.from_pylist(rows, schema=SUMMARY)


def _relation(row: Mapping[str, Any]) -> str:
    if row["seed_a"] == row["seed_b"]:
        return SAME_SEED
    return SAME_TASK if row["task_a"] == row["task_b"] else NEITHER


def _jackknife(pairs: Sequence[Mapping[str, Any]]) -> float | None:
    """Return the standard error of the mean index, by leaving out each seed in turn with all pairs that have it."""
    seeds = {pair[seed] for pair in pairs for seed in ("seed_a", "seed_b")}
    without = [[p["jaccard"] for p in pairs if seed not in (p["seed_a"], p["seed_b"])] for seed in seeds]
    if not all(without):
        return None
    return math.sqrt((len(seeds) - 1) * float(np.var([_mean(some) for some in without])))


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values))


def shown(masks: Iterable[Placed], layers: pa.Table, overlaps: pa.Table) -> tuple[pa.Table, pa.Table]:
    """Return the part of the measurements that is shown to people, as DENSITIES and SUMMARY.

    The densities of shuffled masks are left out, since they are those of the masks before the shuffle. So are the
    overlaps of random masks, and of masks with neither task nor seed in common: chance alone gives these.
    """
    masks = list(masks)
    shuffled = pa.array({mask.task for mask in masks if isinstance(mask.mask, Shuffle)}, pa.string())
    pruned = pa.array({mask.task for mask in masks if isinstance(mask.mask, Prune | Imported)}, pa.string())
    of_pruned = pc.field("task_a").isin(pruned) & pc.field("task_b").isin(pruned)
    return (
        densities(layers, masks).filter(~pc.field("task").isin(shuffled)),
        summary(overlaps).filter(of_pruned & (pc.field("relation") != NEITHER)),
    )
