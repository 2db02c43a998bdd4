"""What masks keep and share, against other libraries, naive counting and random draws."""

from __future__ import annotations

import itertools
import math
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from matplotlib.figure import Figure as Canvas
from matplotlib.lines import Line2D
from safetensors.torch import save as to_safetensors
from scipy import signal, stats
from sklearn.metrics import jaccard_score

from raysslprune import analysis, figures, masks, models
from raysslprune.analysis import NEITHER, SAME_SEED, SAME_TASK, Placed, chance, densities, measure, placed, summary
from raysslprune.command import FAILED, USAGE
from raysslprune.loader import load
from raysslprune.lottery import Chain, imp, random_prune, random_reinit, shuffled, winning_ticket
from raysslprune.masks import Mask as Bits
from raysslprune.spec import Imported, Mask, RandomPrune, Recipe, Shuffle, seed_of
from raysslprune.store import MASK, Store
from raysslprune.sweepfile import Point

RECIPE = Recipe(samples=640, batch=64, lr=0.05)
Row = dict[str, Any]


def chain(task: str, seed: int, levels: int = 2, **more: Any) -> Chain:
    said = {"data": "digits", "arch": "conv4", "recipe": RECIPE, "keep": 0.5, "rewind": 0, **more}
    return imp(task=task, seed=seed, levels=levels, **said)


def points_of(task: str, some: Chain, levels: Iterable[int] = (0, 1, 2), **more: Any) -> list[Point]:
    """Winning tickets of a chain."""
    seed = some.dense.seed
    steps = {level: winning_ticket(some, level, task="labels", recipe=RECIPE) for level in levels}
    said = {"init": "winning ticket", **more}
    return [Point(step=step, task=task, level=level, seed=seed, **said) for level, step in steps.items()]


def shapes(arch: str = "conv4", channels: int = 1) -> dict[str, Any]:
    return {name: weight.shape for name, weight in models.prunable(models.trunk(arch, channels)).items()}


def made_up(step: Mask, of: dict[str, Any] | None = None) -> Bits:
    """A mask of its own for each step, of another density in each layer."""
    rng = np.random.default_rng(seed_of(step.id))
    bits = {name: rng.random(tuple(shape)) < rng.uniform(0.1, 0.9) for name, shape in (of or shapes()).items()}
    import torch

    return {name: torch.from_numpy(np.asarray(kept)) for name, kept in bits.items()}


def fill(store: Store, steps: Iterable[Mask], bits_of: Callable[[Mask], Bits] = made_up) -> dict[str, Bits]:
    """Commit masks as a sweep does; by their ids."""
    store.create()
    made = {step.id: bits_of(step) for step in steps}
    for step in dict.fromkeys(steps):
        store.commit(step, {MASK: to_safetensors(masks.pack(made[step.id]))}, {}, {})
    return made


def drawn(density: float, seed: int) -> Bits:
    """A mask that keeps this fraction of each layer."""
    import torch

    order = np.random.default_rng(seed).permutation
    kept = {
        name: order(np.arange(math.prod(shape)) < round(density * math.prod(shape))) for name, shape in shapes().items()
    }
    return {name: torch.from_numpy(bits).reshape(shapes()[name]) for name, bits in kept.items()}


def rows_of_pairs(found: Sequence[Placed], store: Store) -> tuple[list[Row], list[Row]]:
    """Of all layers together; and the table of layers."""
    layers, overlaps = measure(found, store)
    return [row for row in overlaps.to_pylist() if row["layer"] is None], layers.to_pylist()


def flat(bits: Bits) -> np.ndarray:
    return np.concatenate([kept.numpy().ravel() for kept in bits.values()])


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "runs"))


# ------------------------------------------------------------------------------------- counts


def test_counts_are_those_of_other_libraries(store: Store) -> None:
    points = [
        point
        for task, seed in itertools.product(("labels", "rotnet"), (0, 1))
        for point in points_of(task, chain(task, seed))
    ]
    found = placed(points)
    made = fill(store, [mask.mask for mask in found])
    layers, overlaps = measure(found, store)
    assert (layers.schema, overlaps.schema) == (analysis.LAYERS, analysis.OVERLAPS)

    counted = [
        {
            "panel": "",
            "task": mask.task,
            "level": mask.level,
            "seed": mask.seed,
            "layer": name,
            "kept": sum(kept.flatten().tolist()),
            "of": kept.numel(),
            "density": sum(kept.flatten().tolist()) / kept.numel(),
            "mask": mask.mask.id,
        }
        for mask in sorted(found, key=lambda mask: mask.level)
        for name, kept in made[mask.mask.id].items()
    ]
    assert layers.to_pylist() == counted
    assert [row["layer"] for row in counted[:4]] == [f"layers.conv{n}.weight" for n in (1, 2, 3, 4)]

    rows = overlaps.to_pylist()
    assert len(rows) == 2 * 6 * (1 + 4)  # levels, pairs of four masks, all layers together and each
    for row in rows:
        a, b = made[row["mask_a"]], made[row["mask_b"]]
        one, other = (flat(bits) if row["layer"] is None else bits[row["layer"]].numpy().ravel() for bits in (a, b))
        assert row["jaccard"] == pytest.approx(jaccard_score(one, other), abs=1e-12)
        assert row["intersection"] == sum(one & other)
        assert row["union"] == sum(one | other)
        assert (row["kept_a"], row["kept_b"], row["of"]) == (sum(one), sum(other), len(one))
        assert (row["chance_overall"] is None) == (row["layer"] is not None)


def test_each_pair_of_a_level_stands_once_with_its_tasks_in_order(store: Store) -> None:
    points = [point for seed in (0, 1) for task in ("rotnet", "labels") for point in points_of(task, chain(task, seed))]
    found = placed(points)
    fill(store, [mask.mask for mask in found])
    rows = [row for row in measure(found, store)[1].to_pylist() if row["layer"] is None]
    pairs = [(row["task_a"], row["seed_a"], row["task_b"], row["seed_b"]) for row in rows if row["level"] == 2]
    assert pairs == [
        ("rotnet", 0, "rotnet", 1),
        ("rotnet", 0, "labels", 0),
        ("rotnet", 0, "labels", 1),
        ("rotnet", 1, "labels", 0),
        ("rotnet", 1, "labels", 1),
        ("labels", 0, "labels", 1),
    ]
    assert {row["level"] for row in rows} == {1, 2}


@pytest.mark.parametrize(("scope", "count"), [("convs:2", 2), ("convs", 5)])
def test_only_layers_that_were_to_be_pruned_count(scope: str, count: int, store: Store) -> None:
    """In the order of the network, whichever the file has."""
    some = [chain("labels", seed, scope=scope, arch="alexnet8") for seed in (0, 1)]
    found = placed(point for one in some for point in points_of("labels", one, levels=(1,)))
    of = shapes("alexnet8")
    backwards = {name: of[name] for name in reversed(of)}
    fill(store, [mask.mask for mask in found], lambda step: made_up(step, backwards))
    layers, overlaps = measure(found, store)
    assert [row["layer"] for row in layers.to_pylist()] == 2 * [*of][:count]
    (whole, *each) = overlaps.to_pylist()
    assert [row["layer"] for row in each] == [*of][:count]
    assert whole["of"] == sum(of[name].numel() for name in [*of][:count])
    assert whole["intersection"] == sum(row["intersection"] for row in each)


def test_the_data_need_not_be_there_to_know_the_network(store: Store) -> None:
    """CIFAR-10 has colours, and is not on this machine."""
    dense = chain("labels", 0, data="cifar10", arch="resnet18-cifar").dense
    mask = random_prune(like=dense, keep=0.5, level=1)
    of = shapes("resnet18-cifar", 3)
    fill(store, [mask], lambda step: made_up(step, of))
    layers, _ = measure([Placed(panel="", task="random", level=1, seed=0, mask=mask)], store)
    assert dict(zip(*(layers[name].to_pylist() for name in ("layer", "of")), strict=True)) == {
        name: shape.numel() for name, shape in of.items()
    }


def test_a_mask_from_elsewhere_is_compared_too(store: Store) -> None:
    mine = chain("labels", 0).masks[1]
    assert mine is not None
    theirs = Imported(arch="conv4", channels=1, digest=64 * "0")
    other = Imported(arch="conv4", channels=1, digest=64 * "1")
    densities: dict[Mask, float] = {theirs: 0.502, other: 0.6}
    made = fill(store, [mine, theirs, other], lambda step: drawn(densities.get(step, 0.5), seed_of(step.id)))
    (row, *_), _ = rows_of_pairs(
        [
            Placed(panel="", task=task, level=1, seed=0, mask=mask)
            for task, mask in (("labels", mine), ("theirs", theirs), ("other", other))
        ],
        store,
    )
    assert (row["task_a"], row["task_b"]) == ("labels", "theirs"), "which alone is as dense"
    assert row["jaccard"] == pytest.approx(jaccard_score(flat(made[mine.id]), flat(made[theirs.id])))


BITES = {"keep 50 %": (0.5, (2, 4, 6)), "keep 25 %": (0.25, (1, 2, 3))}


def bites(seeds: int = 2) -> list[Placed]:
    """As in the README's example."""
    return placed(
        point
        for seed in range(seeds)
        for task, (keep, levels) in BITES.items()
        for point in points_of(task, chain("labels", seed, max(levels), keep=keep), levels)
    )


def test_masks_are_compared_at_one_density_whatever_their_level(store: Store) -> None:
    """Natural zeros make masks sparser than they were to be, and the second of each seed is."""
    found = bites()
    lefts = {mask.mask: BITES[mask.task][0] ** mask.level * (1 - 0.1 * (mask.seed == 1)) for mask in found}
    fill(store, lefts, lambda step: drawn(lefts[step], seed_of(step.id)))
    pairs, layers = rows_of_pairs(found, store)
    one, other = BITES
    assert [(row["task_a"], row["seed_a"], row["task_b"], row["seed_b"], row["level"]) for row in pairs] == [
        (*who, BITES[who[0]][1][nth])
        for nth in range(3)
        for who in (
            (one, 0, one, 1),
            (one, 0, other, 0),
            (one, 0, other, 1),
            (one, 1, other, 0),
            (one, 1, other, 1),
            (other, 0, other, 1),
        )
    ]
    shown, overlaps = analysis.shown(found, *measure(found, store))
    rows = shown.to_pylist()
    assert {row["task"] for row in rows} == {*BITES}
    assert [*dict.fromkeys(row["left"] for row in rows)] == pytest.approx(
        [0.95 * left for left in (1 / 4, 1 / 16, 1 / 64)], rel=0.02
    )
    assert len(layers) == 2 * 6 * 4
    canvas = figures.layer_densities("Bites", shown)
    assert legend(canvas) == ["24% left (n=2)", "5.9% left (n=2)", "1.5% left (n=2)"]
    first, second = ([(line.get_color(), line.get_marker()) for line in ax.lines] for ax in canvas.axes)
    assert first == second, "equally dense masks look the same"
    assert len(overlaps) == 3 * 3


def test_masks_of_one_chain_are_not_compared(store: Store) -> None:
    """Though two levels be as dense as each other, nearly."""
    found = placed(points_of("labels", chain("labels", 0, keep=0.995)))
    fill(store, [mask.mask for mask in found])
    assert rows_of_pairs(found, store)[0] == []


@pytest.mark.parametrize(
    ("densities", "groups"),
    [
        ({}, []),
        ({"a": 0.5, "b": 0.25, "c": 0.4951, "d": 0.494}, [["a", "c"], ["d"], ["b"]]),
        ({"a": 0.498, "b": 0.5, "c": 0.0, "d": 0.0}, [["a", "b"], ["c", "d"]]),
    ],
)
def test_what_counts_as_equally_dense(densities: dict[str, float], groups: list[list[str]]) -> None:
    """Within 1% of the densest, so that many small steps do not make one large one."""
    assert analysis.by_density(densities) == groups


def test_masks_of_other_networks_are_not_compared(store: Store) -> None:
    """Nor those that were to prune other layers."""
    some = {
        "one": chain("labels", 0),
        "other": chain("labels", 0, arch="conv5"),
        "less": chain("labels", 0, scope="convs:1"),
    }
    found = placed(point for task, one in some.items() for point in points_of(task, one, levels=(1,)))
    networks = {mask: one.dense.arch for one in some.values() if (mask := one.masks[1])}
    fill(store, networks, lambda step: made_up(step, shapes(networks[step])))
    layers, overlaps = measure(found, store)
    assert {row["task"] for row in layers.to_pylist()} == some.keys()
    assert len(overlaps) == 0


def test_a_mask_of_another_network_than_it_says_is_refused(store: Store) -> None:
    found = placed(points_of("labels", chain("labels", 0), levels=(1,)))
    fill(store, [mask.mask for mask in found], lambda step: made_up(step, shapes("resnet8")))
    with pytest.raises(ValueError, match="another network than 'conv4'"):
        measure(found, store)


# ------------------------------------------------------------------------------------- chance


def exact(kept_a: Sequence[int], kept_b: Sequence[int], of: Sequence[int]) -> tuple[float, float]:
    """Mean and standard deviation of the Jaccard index from the whole distribution of the intersection."""
    likely = np.ones(1)
    for a, b, n in zip(kept_a, kept_b, of, strict=True):
        likely = signal.fftconvolve(likely, stats.hypergeom.pmf(np.arange(min(a, b) + 1), n, a, b))
    shared = np.arange(len(likely))
    index = shared / (sum(kept_a) + sum(kept_b) - shared)
    mean = float(likely @ index)
    return mean, math.sqrt(float(likely @ (index - mean) ** 2))


@pytest.mark.parametrize(
    ("kept_a", "kept_b", "of"),
    [
        ([72, 2_300, 4_600, 9_200], [60, 2_500, 4_500, 9_000], [144, 4_608, 9_216, 18_432]),  # half of conv4
        ([68, 350, 782, 225], [66, 308, 716, 335], [144, 4_608, 9_216, 18_432]),  # 4.4%
        ([27, 30, 88, 6], [16, 25, 105, 7], [144, 4_608, 9_216, 18_432]),  # 0.47%
        ([10], [300], [1_000]),
    ],
)
def test_chance_is_that_of_the_whole_distribution(kept_a: list[int], kept_b: list[int], of: list[int]) -> None:
    mean, deviation = chance(*map(np.array, (kept_a, kept_b, of)))
    assert (mean, deviation) == pytest.approx(exact(kept_a, kept_b, of), rel=0.005)


def test_chance_by_drawing() -> None:
    """Random masks of given counts in each layer, by thousands."""
    rng = np.random.default_rng(0)
    kept_a, kept_b, of = np.array([40, 30, 5]), np.array([20, 60, 9]), np.array([60, 200, 300])

    def drawn(kept: np.ndarray) -> np.ndarray:
        """4,000 masks."""
        return np.concatenate(
            [rng.permuted(np.tile(np.arange(n) < k, (4_000, 1)), axis=1) for k, n in zip(kept, of, strict=True)], axis=1
        )

    a, b = drawn(kept_a), drawn(kept_b)
    index = (a & b).sum(axis=1) / (a | b).sum(axis=1)
    mean, deviation = chance(kept_a, kept_b, of)
    assert mean == pytest.approx(index.mean(), abs=4 * index.std() / math.sqrt(4_000))
    assert deviation == pytest.approx(index.std(), rel=0.05)


def test_chance_by_hand() -> None:
    """Half of two layers of 100: of 100 that each keeps 50 are shared, of 150 that either keeps; one layer full, one
    empty: all are shared."""
    half, mean = np.array([50, 50]), 50 / 150
    of = np.array([100, 100])
    variance = 2 * 50 * 50 * 50 * 50 / (100 * 100 * 99)
    assert chance(half, half, of) == pytest.approx((mean + 200 * variance / 150**3, 200 * math.sqrt(variance) / 150**2))
    assert chance(np.array([100, 0]), np.array([100, 0]), of) == (1.0, 0.0)
    assert chance(np.array([100, 0]), np.array([0, 100]), of) == (0.0, 0.0)
    assert all(map(math.isnan, chance(np.array([0, 0]), np.array([0, 0]), of)))
    assert chance(np.array([1]), np.array([1]), np.array([1])) == (1.0, 0.0)


def test_chance_in_the_table_is_that_of_each_layer_and_of_all(store: Store) -> None:
    found = placed(point for seed in (0, 1) for point in points_of("labels", chain("labels", seed), levels=(1,)))
    made = fill(store, [mask.mask for mask in found])
    (a, b) = ({name: int(kept.sum()) for name, kept in made[mask.mask.id].items()} for mask in found)
    of = {name: shape.numel() for name, shape in shapes().items()}
    whole, *each = measure(found, store)[1].to_pylist()
    counts = [[*of_layer.values()] for of_layer in (a, b, of)]
    assert (whole["chance"], whole["chance_sd"]) == pytest.approx(exact(*counts), rel=1e-3)
    assert whole["chance_overall"] == pytest.approx(exact(*([sum(count)] for count in counts))[0], rel=1e-3)
    for row in each:
        name = row["layer"]
        assert (row["chance"], row["chance_sd"]) == pytest.approx(exact([a[name]], [b[name]], [of[name]]), rel=0.02)


def test_random_and_shuffled_masks_share_what_chance_says(store: Store) -> None:
    """Those that the package draws, within four standard deviations."""
    import torch

    dense = [chain("labels", seed) for seed in (0, 1)]
    steps: list[Mask] = [random_prune(like=one.dense, keep=0.5, level=2) for one in dense]
    steps += [mask for one in dense for mask in (one.masks[2], shuffled(one, 2)) if mask]
    pruned = made_up(steps[2])

    def bits_of(step: Mask) -> Bits:
        generator = torch.Generator().manual_seed(seed_of(step.id))
        if isinstance(step, RandomPrune):
            return masks.random(shapes(), 4_050, generator)
        return masks.shuffle(pruned, generator) if isinstance(step, Shuffle) else pruned

    fill(store, steps, bits_of)
    found = [Placed(panel="", task=f"{n}", level=1, seed=0, mask=step) for n, step in enumerate(steps)]
    rows = {(r["task_a"], r["task_b"]): r for r in measure(found, store)[1].to_pylist() if r["layer"] is None}
    for pair in (("0", "1"), ("2", "3"), ("2", "5"), ("3", "5"), ("0", "2"), ("1", "5")):
        row = rows[pair]
        assert abs(row["jaccard"] - row["chance"]) < 4 * row["chance_sd"], pair
    assert rows["2", "4"]["jaccard"] == 1.0  # made up to be the same
    by_layer, overall = rows["2", "3"]["chance"], rows["2", "3"]["chance_overall"]
    assert by_layer - overall > 4 * rows["2", "3"]["chance_sd"]  # crowded in some layers
    assert rows["0", "1"]["chance"] == pytest.approx(rows["0", "1"]["chance_overall"], abs=0.01)


def test_masks_that_keep_nothing_have_no_index(store: Store) -> None:
    found = placed(point for seed in (0, 1) for point in points_of("labels", chain("labels", seed), levels=(1,)))
    fill(
        store, [mask.mask for mask in found], lambda step: {name: kept & False for name, kept in made_up(step).items()}
    )
    layers, overlaps = measure(found, store)
    assert {row["density"] for row in layers.to_pylist()} == {0.0}
    for row in overlaps.to_pylist():
        assert (row["union"], row["jaccard"], row["chance"], row["chance_sd"]) == (0, None, None, None)
    assert len(summary(overlaps)) == 0
    assert {row["density"] for row in densities(layers).to_pylist()} == {0.0}


# ------------------------------------------------------------------------------------- which masks


def named(found: Iterable[Placed]) -> list[tuple[str, str, int, int]]:
    return [(mask.panel, mask.task, mask.level, mask.seed) for mask in found]


def test_a_mask_that_several_points_have_stands_once() -> None:
    some = chain("labels", 0)
    again = [
        Point(
            step=random_reinit(some.masks[level], like=some.dense, task="labels", recipe=RECIPE),
            task="labels",
            init="random re-init",
            level=level,
            seed=0,
        )
        for level in (1, 2)
    ]
    assert named(placed([*points_of("labels", some), *again])) == [("", "labels", 1, 0), ("", "labels", 2, 0)]


def test_masks_that_differ_by_init_or_rewind_are_told_apart() -> None:
    early, late = (chain("labels", 0, rewind=rewind) for rewind in (64, 320))
    by_init = [*points_of("labels", early, init="early"), *points_of("labels", late, init="late")]
    assert len({mask.mask for mask in placed(by_init)}) == 3  # the first is of the dense network, before any rewind
    assert [mask.task for mask in placed(by_init)] == ["labels, early"] * 2 + ["labels, late"] * 2
    by_rewind = [*points_of("labels", early, (2,)), *points_of("labels", late, (2,))]
    assert [mask.task for mask in placed(by_rewind)] == ["labels, rewound to 64", "labels, rewound to 320"]
    both = [
        *by_rewind,
        *points_of("labels", early, (2,), init="other"),
        *points_of("labels", chain("labels", 0, keep=0.3, rewind=320), (2,), init="other"),
    ]
    with pytest.raises(ValueError, match="labels have several masks"):
        placed([*by_rewind, *points_of("labels", chain("labels", 0, keep=0.3, rewind=64), (2,))])
    assert len({mask.task for mask in placed(both)}) == 4


def test_panels_with_the_same_masks_are_one() -> None:
    one, other = points_of("labels", chain("labels", 0)), points_of("rotnet", chain("rotnet", 0))
    first, second = ([replace(point, panel=panel) for point in one] for panel in ("left", "right"))
    assert named(placed([*first, *second])) == [("", "labels", 1, 0), ("", "labels", 2, 0)]
    third = [replace(point, panel="third") for point in other]
    assert {mask.panel for mask in placed([*first, *second, *third])} == {"left / right", "third"}
    assert {mask.panel for mask in placed(first)} == {"left"}


@pytest.mark.parametrize("name", ["fig1", "fig2", "fig3", "fig4", "fig5", "fig7", "fig8", "fig9", "rewind"])
def test_all_masks_behind_the_papers_figures_are_found(name: str) -> None:
    for scale in ("laptop", "paper"):
        points = load(name, scale, 2).points
        found = placed(points)
        assert {mask.mask for mask in found} == {point.step.mask for point in points} - {None}
        places = named(found)
        assert len(set(places)) == len(places)
        assert places == sorted(places, key=lambda place: [p[0] for p in places].index(place[0]))


# ------------------------------------------------------------------------------------- over seeds


def overlap(task_a: str, seed_a: int, task_b: str, seed_b: int, jaccard: float | None, **more: Any) -> Row:
    row = {
        "panel": "",
        "level": 1,
        "layer": None,
        "of": 100,
        "kept_a": 20,
        "kept_b": 30,
        "intersection": 0,
        "union": 50,
    }
    row |= {"chance": 0.1 + jaccard / 10 if jaccard else None, "chance_sd": 0.01, "chance_overall": 0.05}
    row |= {"task_a": task_a, "seed_a": seed_a, "task_b": task_b, "seed_b": seed_b, "jaccard": jaccard}
    return row | {"mask_a": "a", "mask_b": "b"} | more


def summarised(*rows: Row) -> list[Row]:
    return summary(pa.Table.from_pylist([*rows], schema=analysis.OVERLAPS)).to_pylist()


def test_pairs_of_one_seed_have_the_ordinary_standard_error() -> None:
    values = [0.3, 0.5, 0.45, 0.38]
    (row,) = summarised(*(overlap("labels", seed, "rotnet", seed, value) for seed, value in enumerate(values)))
    assert row["relation"] == SAME_SEED
    assert row["jaccard"] == pytest.approx(np.mean(values))
    assert row["stderr"] == pytest.approx(stats.sem(values))
    assert row["n"] == 4
    assert row["density"] == pytest.approx(0.25)
    assert row["chance"] == pytest.approx(0.1 + np.mean(values) / 10)


def test_pairs_of_several_seeds_have_the_jackknifes_over_seeds() -> None:
    """Against leaving each seed out by hand, and against masks that differ by their seeds alone."""
    index = {(0, 1): 0.2, (0, 2): 0.3, (1, 2): 0.7}
    (row,) = summarised(*(overlap("labels", a, "labels", b, value) for (a, b), value in index.items()))
    left = np.array([0.7, 0.3, 0.2])  # without 0, 1, 2
    assert row["relation"] == SAME_TASK
    assert row["stderr"] == pytest.approx(math.sqrt(2 / 3 * ((left - left.mean()) ** 2).sum()))
    assert row["n"] == 3

    rng = np.random.default_rng(1)
    means, errors = [], []
    for _ in range(400):
        own = rng.normal(0.5, 0.05, 5)
        pairs = [overlap("a", i, "a", j, float((own[i] + own[j]) / 2)) for i, j in itertools.combinations(range(5), 2)]
        (row,) = summarised(*pairs)
        means.append(row["jaccard"])
        errors.append(row["stderr"] ** 2)
    assert np.mean(errors) == pytest.approx(np.var(means), rel=0.25)


def test_relations_and_what_stays_out() -> None:
    rows = summarised(
        overlap("labels", 0, "rotnet", 1, 0.2),
        overlap("labels", 1, "rotnet", 0, 0.4),
        overlap("labels", 0, "labels", 1, 0.3),
        overlap("labels", 0, "rotnet", 0, 0.6),
        overlap("labels", 1, "rotnet", 1, None),  # nothing kept
        overlap("labels", 0, "rotnet", 0, 0.9, layer="conv1"),
        overlap("labels", 0, "rotnet", 0, 0.5, level=2),
        overlap("labels", 0, "rotnet", 0, 0.7, panel="other"),
    )
    key = ("panel", "relation", "level", "jaccard", "stderr", "n")
    assert [tuple(row[name] for name in key) for row in rows] == [
        ("", SAME_SEED, 1, 0.6, None, 1),
        ("", SAME_SEED, 2, 0.5, None, 1),
        ("", SAME_TASK, 1, 0.3, None, 2),
        ("", NEITHER, 1, pytest.approx(0.3), None, 2),
        ("other", SAME_SEED, 1, 0.7, None, 1),
    ]


def test_densities_over_seeds(store: Store) -> None:
    found = placed(point for seed in (0, 1, 2) for point in points_of("labels", chain("labels", seed)))
    made = fill(store, [mask.mask for mask in found])
    rows = densities(measure(found, store)[0]).to_pylist()
    assert [(row["level"], row["layer"]) for row in rows] == [(level, name) for level in (1, 2) for name in shapes()]
    for row in rows:
        mine = [made[mask.mask.id] for mask in found if mask.level == row["level"]]
        values = [float(bits[row["layer"]].double().mean()) for bits in mine]
        assert row["density"] == pytest.approx(np.mean(values))
        assert row["stderr"] == pytest.approx(stats.sem(values))
        assert row["n"] == 3
        assert row["overall"] == pytest.approx(np.mean([flat(bits).mean() for bits in mine]))


def test_one_seed_has_no_standard_error(store: Store) -> None:
    found = placed(points_of("labels", chain("labels", 0)))
    fill(store, [mask.mask for mask in found])
    assert {row["stderr"] for row in densities(measure(found, store)[0]).to_pylist()} == {None}


# ------------------------------------------------------------------------------------- drawn


def densities_of(
    *tasks: str,
    panel: str = "",
    layers: Sequence[str] = ("a.conv1.weight", "a.conv2.weight"),
    levels: Sequence[int] = (3, 7),
    n: int = 3,
) -> list[Row]:
    """Of every layer, task and level another one."""
    return [
        {
            "panel": panel,
            "task": task,
            "level": level,
            "layer": layer,
            "density": 0.8**level / (1 + i + len(task) / 10),
            "stderr": 0.01 * 0.8**level if n > 1 else None,
            "n": n,
            "overall": 0.8**level,
            "left": 0.8**level,
        }
        for task in tasks
        for level in levels
        for i, layer in enumerate(layers)
    ]


def layers_drawn(rows: Sequence[Row], subtitle: str = "") -> Canvas:
    return figures.layer_densities(
        "A title", pa.Table.from_pylist([*rows], schema=analysis.DENSITIES), subtitle=subtitle
    )


def xs(line: Line2D) -> list[float]:
    return np.asarray(line.get_xdata(), dtype=float).tolist()


def ys(line: Line2D) -> list[float]:
    return np.asarray(line.get_ydata(), dtype=float).tolist()


def legend(canvas: Canvas) -> list[str]:
    (one,) = canvas.legends
    return [text.get_text() for text in one.get_texts()]


def note(canvas: Canvas) -> str:
    (one,) = canvas.legends
    return one.get_title().get_text()


def test_a_line_of_layers_for_each_level_and_axes_for_each_task() -> None:
    rows = densities_of("labels", "rotnet")
    canvas = layers_drawn(rows, "digits, conv4")
    assert canvas.get_suptitle() == "A title (digits, conv4)"
    assert [ax.get_title() for ax in canvas.axes] == ["Labels", "RotNet"]
    assert legend(canvas) == ["51% left (n=3)", "21% left (n=3)"]
    assert note(canvas) == "Bars: ± one standard error."
    for ax, task in zip(canvas.axes, ("labels", "rotnet"), strict=True):
        assert ax.get_yscale() == "log"
        assert [label.get_text() for label in ax.get_xticklabels()] == ["conv1", "conv2"]
        for level, line, bars in zip((3, 7), ax.lines, ax.collections, strict=True):
            mine = [row for row in rows if (row["task"], row["level"]) == (task, level)]
            assert xs(line) == [1, 2]
            assert ys(line) == pytest.approx([100 * row["density"] for row in mine])
            for (low, high), row in zip(bars.get_segments(), mine, strict=True):  # pyright: ignore
                assert high[1] - low[1] == pytest.approx(200 * row["stderr"])
    (first, second) = ([line.get_color() for line in ax.lines] for ax in canvas.axes)
    assert first == second
    assert len({*first}) == 2


def test_an_empty_layer_is_a_circle_on_the_axis() -> None:
    rows = densities_of("labels")
    rows[2]["density"] = 0.0
    canvas = layers_drawn(rows)
    (ax,) = canvas.axes
    dense, sparse, circle = ax.lines
    assert not np.isnan(ys(dense)).any()
    assert [*np.isnan(ys(sparse))] == [True, False]
    assert (xs(circle), ys(circle)) == ([1], [ax.get_ylim()[0]])
    assert circle.get_color() == sparse.get_color()
    assert 0 < ax.get_ylim()[0] < 100 * min(row["density"] for row in rows if row["density"])
    assert "Circles on the axis: no weight is left" in note(canvas)


def test_panels_begin_rows_and_many_layers_are_numbered() -> None:
    deep = [f"layer{i // 6}.{i % 6}.conv.weight" for i in range(30)]
    rows = densities_of("labels", "rotnet", panel="small") + densities_of("labels", panel="deep", layers=deep)
    canvas = layers_drawn(rows)
    places = [(ax.get_subplotspec().rowspan.start, ax.get_subplotspec().colspan.start) for ax in canvas.axes]  # pyright: ignore
    assert places == [(0, 0), (0, 1), (1, 0)]
    assert [ax.get_ylabel() for ax in canvas.axes] == ["small\nWeights left (%)", "", "deep\nWeights left (%)"]
    small, _, large = canvas.axes
    assert large.get_xlabel() == "Layer"
    assert not small.get_xlabel()
    assert all(tick == int(tick) for tick in large.get_xticks())
    assert all(line.get_marker() == "" for line in large.lines)
    assert "Layers are numbered in the network's order." in note(canvas)
    assert small.get_ylim() == large.get_ylim()


def shared_by(pair: tuple[str, str], relation: str = SAME_SEED, panel: str = "", n: int = 3, **more: Any) -> list[Row]:
    return [
        {
            "panel": panel,
            "relation": relation,
            "task_a": pair[0],
            "task_b": pair[1],
            "level": level,
            "density": 0.8**level,
            "jaccard": 0.9**level,
            "stderr": 0.01 if n > 2 else None,
            "n": n,
            "chance": 0.85**level,
            "chance_overall": 0.75**level,
            **more,
        }
        for level in (3, 7, 14)
    ]


def overlaps_drawn(*rows: Row) -> Canvas:
    return figures.overlaps("A title", pa.Table.from_pylist([*rows], schema=analysis.SUMMARY))


def test_overlaps_stand_beside_what_chance_gives() -> None:
    rows = [*shared_by(("labels", "rotnet")), *shared_by(("labels", "labels"), SAME_TASK)]
    canvas = overlaps_drawn(*rows)
    assert [ax.get_title() for ax in canvas.axes] == ["Different tasks, same seed", "Same task, different seeds"]
    assert [ax.get_ylabel() for ax in canvas.axes] == ["Jaccard index", ""]
    for ax in canvas.axes:
        assert (ax.get_xlabel(), ax.get_yscale(), ax.get_xscale()) == ("Remaining weights (%)", "log", "log")
        assert ax.get_xlim()[0] > ax.get_xlim()[1]  # the sparsest to the right
        index, by_layer, overall = ax.lines
        for line, name in ((index, "jaccard"), (by_layer, "chance"), (overall, "chance_overall")):
            assert xs(line) == pytest.approx([100 * 0.8**level for level in (3, 7, 14)])
            assert ys(line) == pytest.approx([row[name] for row in rows[:3]])
        assert [line.get_linestyle() for line in ax.lines] == ["-", "--", ":"]
        assert by_layer.get_color() == index.get_color()
        (bars,) = ax.collections
        assert [high[1] - low[1] for low, high in bars.get_segments()] == pytest.approx([0.02] * 3)  # pyright: ignore
    assert legend(canvas) == [
        "Labels and RotNet (n=3)",
        "Labels (n=3)",
        "Chance, given each layer's density",
        "Chance, given the density",
    ]
    assert "jackknife over seeds" in note(canvas)


def test_each_pair_looks_like_its_two_tasks() -> None:
    tasks = ("labels", "rotnet", "exemplar")
    pairs = [*itertools.combinations(tasks, 2), *((task, task) for task in tasks)]
    canvas = overlaps_drawn(*(row for pair in pairs for row in shared_by(pair)))
    (ax,) = canvas.axes
    found = {str(line.get_label()): line for line in ax.lines if not str(line.get_label()).startswith("_")}
    looks = {
        (str(line.get_color()), str(line.get_marker()), str(line.get_markerfacecolor())) for line in found.values()
    }
    assert len(looks) == len(pairs)
    mixed, first, second = (found[name] for name in ("Labels and RotNet", "Labels", "RotNet"))
    assert (mixed.get_color(), mixed.get_marker()) == (first.get_color(), second.get_marker())
    assert mixed.get_markerfacecolor() == second.get_color()


def test_two_seeds_have_no_bars_and_what_shares_nothing_is_a_circle() -> None:
    rows = shared_by(("labels", "labels"), SAME_TASK, n=2)
    rows[2]["jaccard"] = 0.0
    canvas = overlaps_drawn(*rows)
    (ax,) = canvas.axes
    assert [*np.isnan(ys(ax.lines[0]))] == [False, False, True]
    assert [ys(line)[0] for line in ax.lines if line.get_linestyle() == "None"] == [ax.get_ylim()[0]]
    assert note(canvas) == "n: seeds. Circles on the axis: nothing is shared."


@pytest.mark.parametrize("left", [0.9, 0.156, 0.0123])
def test_a_single_density_has_ticks_and_chance(left: float) -> None:
    rows = [row | {"density": left} for row in shared_by(("labels", "rotnet"))[:1]]
    canvas = overlaps_drawn(*rows)
    (ax,) = canvas.axes
    sparse, dense = sorted(ax.get_xlim())
    ticks = [tick for tick in ax.get_xticks() if sparse <= tick <= dense]
    assert ticks == [float(f"{tick:.1g}") for tick in ticks] != [], "round numbers"
    for line, name in zip(ax.lines[1:], ("chance", "chance_overall"), strict=True):
        one, other = xs(line)
        assert one > 100 * left > other, "a line, as the legend has it"
        assert ys(line) == [rows[0][name]] * 2


def test_pairs_beyond_ten_are_counted() -> None:
    pairs = [(f"task {a}", f"task {b}") for a, b in itertools.combinations(range(6), 2)]
    canvas = overlaps_drawn(*(row for pair in pairs for row in shared_by(pair)))
    assert len(legend(canvas)) == 10 + 2
    assert "5 more pairs are in the table only." in note(canvas)


def test_what_tells_masks_of_one_task_apart_is_their_name() -> None:
    canvas = overlaps_drawn(*shared_by(("rotnet, early", "rotnet, late")))
    assert legend(canvas)[0] == "Early and late (n=3)"
    canvas = overlaps_drawn(*shared_by(("rotnet, early", "labels, early")))
    assert legend(canvas)[0] == "RotNet, early and Labels, early (n=3)"


@pytest.mark.parametrize("kind", ["png", "pdf"])
def test_the_same_tables_give_the_same_files(kind: str) -> None:
    drawn = [figures.save(layers_drawn(densities_of("labels", "rotnet")), kind) for _ in range(2)]
    assert drawn[0] == drawn[1]
    drawn = [figures.save(overlaps_drawn(*shared_by(("labels", "rotnet"))), kind) for _ in range(2)]
    assert drawn[0] == drawn[1]


# ------------------------------------------------------------------------------------- the command


def run(root: Path, *arguments: str) -> int:
    return analysis.main([*arguments, "--scale", "smoke", "--root", str(root)])


@pytest.fixture
def fig3(store: Store) -> list[Placed]:
    """Made up, three seeds of them."""
    found = placed(load("fig3", "smoke", 3).points)
    fill(store, [mask.mask for mask in found])
    return found


def test_the_command_writes_tables_and_figures(
    fig3: list[Placed], store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(Path(store.base), "fig3") == 0
    said = capsys.readouterr()
    assert not said.err
    folder = Path(store.base) / "results" / "smoke"
    files = [f"fig3-{name}.{kind}" for name in ("layers", "overlap") for kind in ("parquet", "png", "pdf")]
    assert {path.name for path in folder.iterdir()} == {*files}
    assert all(str(folder / name) in said.out for name in files)
    expected = measure(fig3, store)
    for name, schema, table in zip(("layers", "overlap"), (analysis.LAYERS, analysis.OVERLAPS), expected, strict=True):
        written = pq.read_table(folder / f"fig3-{name}.parquet")
        assert written.schema.equals(schema)
        assert written.equals(table)
    assert {row["seed"] for row in expected[0].to_pylist()} == {0, 1, 2}  # all that are there

    row = next(
        row
        for row in summary(expected[1]).to_pylist()
        if (row["relation"], row["task_a"], row["task_b"]) == (SAME_SEED, "labels", "rotnet")
    )
    assert f"{row['jaccard']:.3f} ± {row['stderr']:.3f} ({row['chance']:.3f})" in said.out
    assert "same task, different seeds" in said.out
    assert "random and" not in said.out
    assert "layers.conv1.weight" in said.out


def test_all_is_written_before_what_reads_has_had_enough(fig3: list[Placed], store: Store) -> None:
    words = [sys.executable, "-m", "raysslprune", "analysis", "fig3", "--scale", "smoke", "--root", store.base]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 0
    names = {path.name for path in (Path(store.base) / "results" / "smoke").iterdir()}
    assert names == {f"fig3-{name}.{kind}" for name in ("layers", "overlap") for kind in ("parquet", "png", "pdf")}


def test_a_figure_that_cannot_be_drawn_costs_nothing_else(
    fig3: list[Placed], store: Store, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("no font")

    monkeypatch.setattr(figures, "layer_densities", fail)
    assert run(Path(store.base), "fig3") == 1
    said = capsys.readouterr()
    assert "same task, different seeds" in said.out
    assert "layers.conv1.weight" in said.out
    sentence = "raysslprune: the figure of fig3-layers could not be drawn, all else is there: RuntimeError: no font; "
    assert said.err.startswith(sentence)
    assert said.err.count("\n") == 1
    names = {path.name for path in (Path(store.base) / "results" / "smoke").iterdir()}
    assert names == {"fig3-layers.parquet", *(f"fig3-overlap.{kind}" for kind in ("parquet", "png", "pdf"))}


def test_what_chance_explains_is_not_shown(fig3: list[Placed], store: Store) -> None:
    """It is in the tables."""
    layers, overlaps = measure(fig3, store)
    drawn, pairs = analysis.shown(fig3, layers, overlaps)
    tasks = ["labels", "rotnet", "exemplar", "random", "shuffled labels"]
    assert [*dict.fromkeys(layers["task"].to_pylist())] == tasks
    assert [*dict.fromkeys(drawn["task"].to_pylist())] == tasks[:4]
    rows = pairs.to_pylist()
    assert {row["relation"] for row in rows} == {SAME_SEED, SAME_TASK}
    assert {row["task_a"] for row in rows} | {row["task_b"] for row in rows} == {*tasks[:3]}
    assert {NEITHER} < {row["relation"] for row in summary(overlaps).to_pylist()}
    assert drawn.to_pylist() == [row for row in densities(layers, fig3).to_pylist() if row["task"] != tasks[4]]


def test_a_search_lacks_what_it_did_not_choose(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    found = placed(load("rewind", "smoke", 1).points)
    fill(store, [mask.mask for mask in found[: len(found) // 2]])
    assert run(Path(store.base), "rewind") == 0
    assert not capsys.readouterr().err


def test_missing_masks_are_said_in_a_sentence(
    fig3: list[Placed], store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    gone = next(mask for mask in fig3 if (mask.task, mask.seed) == ("exemplar", 1))
    store.remove(f"steps/{gone.mask.id}/SUCCESS")
    assert run(Path(store.base), "fig3", "--seeds", "4") == 0
    said = capsys.readouterr()
    wanted = placed(load("fig3", "smoke", 4).points)
    lacking = [mask for mask in wanted if mask.seed == 3 or mask == gone]
    assert said.err == (
        f"raysslprune: {len(lacking)} of {len(wanted)} masks are not there yet, the first of them {lacking[0]}; "
        f"this makes them: python -m raysslprune.sweep fig3 --scale smoke --seeds 4 --root {store.base}\n"
    )
    written = pq.read_table(Path(store.base) / "results/smoke/fig3-layers.parquet")
    assert {*written["mask"].to_pylist()} == {mask.mask.id for mask in fig3} - {gone.mask.id}


def test_a_damaged_mask_is_left_out(fig3: list[Placed], store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    bad = fig3[0].mask.id
    path = Path(store.base) / "steps" / bad / MASK
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    assert run(Path(store.base), "fig3", "--seeds", "1") == 0
    assert f"mask {bad}: {MASK} does not match its checksum; it is left out" in capsys.readouterr().err
    written = pq.read_table(Path(store.base) / "results/smoke/fig3-layers.parquet")
    assert bad not in written["mask"].to_pylist()
    assert {*written["seed"].to_pylist()} == {0}


def test_one_seed_of_one_task_has_nothing_to_compare(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "one.py"
    path.write_text(
        "from raysslprune.scales import SETTINGS\n"
        "from raysslprune.sweepfile import Figure, Point\n"
        "FIGURE = Figure(title='One')\n"
        "def points(scale, seed):\n"
        "    s = SETTINGS[scale]\n"
        "    chain = s.imp('labels', seed=seed, levels=2, keep=0.5)\n"
        "    for level in (0, 1, 2):\n"
        "        yield Point(step=s.ticket(chain, level), task='labels', init='ticket', level=level, seed=seed)\n"
    )
    store = Store(str(tmp_path / "runs"))
    fill(store, [mask.mask for mask in placed(load(str(path), "smoke", 1).points)])
    assert run(tmp_path / "runs", str(path)) == 0
    assert not capsys.readouterr().err
    names = {path.name for path in (tmp_path / "runs/results/smoke").iterdir()}
    assert names == {"one-layers.parquet", "one-layers.png", "one-layers.pdf", "one-overlap.parquet"}
    assert len(pq.read_table(tmp_path / "runs/results/smoke/one-overlap.parquet")) == 0


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["fig3"], 1, "no mask of fig3 is in {root} yet; this makes them: python -m raysslprune.sweep fig3 "),
        (["fig6"], 2, "there are no masks behind fig6: nothing is pruned for it"),
        (["table1"], 2, "there are no masks behind table1"),
        (["fig33"], 2, "there is no sweep 'fig33'; did you mean fig3?"),
    ],
)
def test_nothing_to_look_at_is_one_sentence(
    arguments: list[str], code: int, sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path / "new", *arguments) == code
    said = capsys.readouterr()
    assert said.err.startswith("raysslprune: " + sentence.format(root=tmp_path / "new"))
    assert said.err.count("\n") == 1
    assert not said.out
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("arguments", [[], ["fig3", "--seeds", "0"], ["fig3", "--scale", "huge"], ["fig3", "fig4"]])
def test_a_wrong_call_is_one_sentence(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        analysis.main(arguments)
    assert end.value.code == USAGE
    said = capsys.readouterr().err
    assert said.startswith("raysslprune: ")
    assert said.endswith("; see --help\n")
    assert said.count("\n") == 1


def test_somebody_elses_folder_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    assert run(tmp_path, "fig3") == FAILED
    assert "holds other files" in capsys.readouterr().err
