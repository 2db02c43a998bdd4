"""What masks keep and share, against other libraries, naive counting and random draws."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from matplotlib.figure import Figure as Canvas
from scipy import signal, stats
from sklearn.metrics import jaccard_score

from raysslprune import masks
from raysslprune.figures import masks as figures_masks
from raysslprune.lottery import random_prune, random_reinit, shuffled
from raysslprune.masks import Mask as Bits
from raysslprune.results import overlap as overlap_module
from raysslprune.results.overlap import (
    NEITHER,
    SAME_SEED,
    SAME_TASK,
    Placed,
    chance,
    densities,
    measure,
    placed,
    summary,
)
from raysslprune.spec import Imported, Mask, RandomPrune, Shuffle, seed_of
from raysslprune.store.steps import Store
from raysslprune.sweep_loader import load
from raysslprune.sweepfile import Point
from tests.helpers.masks import RECIPE, Row, chain, drawn, fill, made_up, overlap, points_of, shapes


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
    assert (layers.schema, overlaps.schema) == (overlap_module.LAYERS, overlap_module.OVERLAPS)

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
    shown, overlaps = overlap_module.shown(found, *measure(found, store))
    rows = shown.to_pylist()
    assert {row["task"] for row in rows} == {*BITES}
    assert [*dict.fromkeys(row["left"] for row in rows)] == pytest.approx(
        [0.95 * left for left in (1 / 4, 1 / 16, 1 / 64)], rel=0.02
    )
    assert len(layers) == 2 * 6 * 4
    canvas = figures_masks.layer_densities("Bites", shown)
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
    assert overlap_module.by_density(densities) == groups


def test_masks_of_other_networks_are_not_compared(store: Store) -> None:
    """Nor those that were to prune other layers."""
    some = {
        "one": chain("labels", 0),
        "other": chain("labels", 0, arch="conv5"),
        "less": chain("labels", 0, scope="convs:1"),
    }
    found = placed(point for task, one in some.items() for point in points_of(task, one, levels=(1,)))
    networks: dict[Mask, str] = {mask: one.dense.arch for one in some.values() if (mask := one.masks[1])}
    fill(store, networks, lambda step: made_up(step, shapes(networks[step])))
    layers, overlaps = measure(found, store)
    assert {row["task"] for row in layers.to_pylist()} == some.keys()
    assert len(overlaps) == 0


def test_a_mask_of_another_network_than_it_says_is_refused(store: Store) -> None:
    found = placed(points_of("labels", chain("labels", 0), levels=(1,)))
    fill(store, [mask.mask for mask in found], lambda step: made_up(step, shapes("resnet8")))
    with pytest.raises(ValueError, match="a mask does not fit network 'conv4'"):
        measure(found, store)


def exact(kept_a: Sequence[int], kept_b: Sequence[int], of: Sequence[int]) -> tuple[float, float]:
    """Mean and standard deviation of the Jaccard index from the whole distribution of the intersection."""
    likely = np.ones(1)
    for a, b, n in zip(kept_a, kept_b, of, strict=True):
        likely = signal.fftconvolve(likely, stats.hypergeom.pmf(np.arange(min(a, b) + 1), n, a, b))
    shared = np.arange(len(likely))
    index = shared / (sum(kept_a) + sum(kept_b) - shared)
    mean = float(likely @ index)
    return mean, math.sqrt(float(likely @ (index - mean) ** 2))


# ------------------------------------------------------------------------------------- chance


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


def named(found: Iterable[Placed]) -> list[tuple[str, str, int, int]]:
    return [(mask.panel, mask.task, mask.level, mask.seed) for mask in found]


# ------------------------------------------------------------------------------------- which masks


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


def summarised(*rows: Row) -> list[Row]:
    return summary(pa.Table.from_pylist([*rows], schema=overlap_module.OVERLAPS)).to_pylist()


# ------------------------------------------------------------------------------------- over seeds


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


def legend(canvas: Canvas) -> list[str]:
    (one,) = canvas.legends
    return [text.get_text() for text in one.get_texts()]
