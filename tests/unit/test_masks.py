"""Masks against plain Python: sorted lists, loops, and numpy's packbits."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils import prune as torch_prune

from raysslprune import criteria, masks
from raysslprune.spec import NATURAL_SPARSITIES, survivors

TINY = 2.0**-149
"""The smallest float32 above 0: a denormal."""

Lists = dict[str, list[float]]


def tensors(lists: Lists) -> dict[str, Tensor]:
    return {name: torch.tensor(values, dtype=torch.float32) for name, values in lists.items()}


def all_left(weights: dict[str, Tensor]) -> masks.Mask:
    return {name: torch.ones_like(w, dtype=torch.bool) for name, w in weights.items()}


def plain(mask: masks.Mask) -> dict[str, list[bool]]:
    return {name: m.flatten().tolist() for name, m in mask.items()}


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def prune(
    weights: dict[str, Tensor], mask: masks.Mask, keep: float, scope: Iterable[str] | None = None, seed: int = 0
) -> masks.Mask:
    return masks.prune(weights, mask, keep, seeded(seed), scope).mask


def by_position(
    weights: dict[str, Tensor], mask: masks.Mask, keep: float, scope: Iterable[str]
) -> tuple[dict[str, list[bool]], int]:
    """The rule up to version 0.1: sort what is left in scope by (|w|, position) and drop from the front.

    Also the number of weights that have the magnitude at which it cuts, if some of these stay and some go.
    """
    stays = plain(mask)
    scope = set(scope)
    entries: list[tuple[float, int, str, int]] = []
    for name in mask:
        for i, w in enumerate(weights[name].flatten().tolist()):
            if name in scope and stays[name][i]:
                entries.append((abs(w), len(entries), name, i))
    entries.sort()
    gone = len(entries) - round(len(entries) * keep)
    for _, _, name, i in entries[:gone]:
        stays[name][i] = False
    sizes = [size for size, *_ in entries]
    decided = 0 < gone < len(entries) and sizes[gone - 1] == sizes[gone]
    return stays, sizes.count(sizes[gone]) if decided else 0


def naive_prune(
    weights: dict[str, Tensor], mask: masks.Mask, keep: float, scope: Iterable[str], seed: int = 0
) -> dict[str, list[bool]]:
    """The definition: as by position, but where the cut divides equal magnitudes, those that stay are drawn."""
    scope = set(scope)
    stays, tied = by_position(weights, mask, keep, scope)
    if tied:
        inside = [(abs(w), name, i) for name in mask for i, w in enumerate(weights[name].flatten().tolist())]
        inside = [(w, name, i) for w, name, i in inside if name in scope and mask[name].flatten()[i]]
        cut = min(w for w, name, i in inside if stays[name][i])
        ties = [(name, i) for w, name, i in inside if w == cut]
        kept = sum(stays[name][i] for name, i in ties)
        for (name, i), place in zip(ties, torch.randperm(tied, generator=seeded(seed)).tolist(), strict=True):
            stays[name][i] = place < kept
    return stays


TIED = st.sampled_from([0.0, -0.0, TINY, -TINY, 3 * TINY, 0.5, -0.5, 1.0, -1.0, math.inf, -math.inf])
ANY = st.floats(width=32, allow_nan=False)
KEEP = st.floats(0.01, 0.99)


@st.composite
def networks(draw: st.DrawFn) -> tuple[dict[str, Tensor], masks.Mask]:
    """One to three layers of weights, many of them equal, and a mask that may already have holes."""
    names = ["first", "second", "third"][: draw(st.integers(1, 3))]
    weights: Lists = {}
    mask: masks.Mask = {}
    for name in names:
        weights[name] = draw(st.lists(TIED | ANY, min_size=1, max_size=30))
        count = len(weights[name])
        mask[name] = torch.tensor(draw(st.lists(st.booleans(), min_size=count, max_size=count)))
    return tensors(weights), mask


# ------------------------------------------------------------------------------------- magnitude pruning


@given(network=networks(), keep=KEEP, seed=st.integers(0, 2**62))
@settings(max_examples=200, suppress_health_check=[HealthCheck.too_slow])
def test_prune_is_the_definition(network: tuple[dict[str, Tensor], masks.Mask], keep: float, seed: int) -> None:
    weights, mask = network
    made, tied = masks.prune(weights, mask, keep, seeded(seed))
    assert plain(made) == naive_prune(weights, mask, keep, weights, seed)
    assert tied == by_position(weights, mask, keep, weights)[1]


@given(network=networks(), keep=KEEP, seed=st.integers(0, 2**62))
@settings(max_examples=100, suppress_health_check=[HealthCheck.too_slow])
def test_masks_without_ties_are_those_by_position(
    network: tuple[dict[str, Tensor], masks.Mask], keep: float, seed: int
) -> None:
    """With any seed, so masks that are stored need not be made again; equal weights away from the cut do no harm."""
    weights, mask = network
    older, tied = by_position(weights, mask, keep, weights)
    assume(not tied)
    assert plain(prune(weights, mask, keep, seed=seed)) == older


@given(network=networks(), keep=KEEP)
@settings(max_examples=50, suppress_health_check=[HealthCheck.too_slow])
def test_prune_in_scope_is_the_definition(network: tuple[dict[str, Tensor], masks.Mask], keep: float) -> None:
    weights, mask = network
    scope = list(weights)[:2]
    assert plain(prune(weights, mask, keep, scope)) == naive_prune(weights, mask, keep, scope)


@given(network=networks(), keep=KEEP)
@settings(max_examples=50, suppress_health_check=[HealthCheck.too_slow])
def test_masks_only_lose_weights_and_by_the_stated_count(
    network: tuple[dict[str, Tensor], masks.Mask], keep: float
) -> None:
    weights, mask = network
    for _ in range(3):
        before = plain(mask)
        mask = prune(weights, mask, keep)
        after = plain(mask)
        assert not any(a and not b for name in after for a, b in zip(after[name], before[name], strict=True))
        left = sum(map(sum, before.values()))
        assert sum(map(sum, after.values())) == round(left * keep)


def test_200_of_300_exact_zeros_go_and_nothing_else() -> None:
    """Natural sparsity: a threshold rule would prune all 300, or none."""
    rng = np.random.default_rng(0)
    values = rng.uniform(0.1, 1.0, 1000)
    zeros = np.sort(rng.permutation(1000)[:300])
    values[zeros] = 0.0
    values[zeros[::2]] *= -1  # a negative zero is as small as a positive one
    weights = {"a": torch.tensor(values[:400]).float().view(20, 20), "b": torch.tensor(values[400:]).float()}
    made, tied = masks.prune(weights, all_left(weights), 0.8, seeded(0))
    gone = np.flatnonzero(~np.concatenate([made["a"].flatten().numpy(), made["b"].numpy()]))
    assert (len(gone), tied) == (200, 300)
    assert set(gone) <= set(zeros)


LAYERS, ZEROS = [f"layer{number}" for number in range(20)], 845
"""Twenty layers of 1,000 weights, of which so many are exactly 0: the 84.5% that VGG-19 has in the paper."""


def net_of_zeros() -> dict[str, Tensor]:
    rng = np.random.default_rng(2)
    values = rng.uniform(0.1, 1, (len(LAYERS), 1000)).astype(np.float32)
    for layer in values:
        layer[rng.permutation(1000)[:ZEROS]] = 0
    return dict(zip(LAYERS, torch.from_numpy(values), strict=True))


def test_no_layer_loses_its_zeros_first() -> None:
    """By position the first layers lost all zeros, and the last ones none; by a draw, all lose the same share."""
    weights = net_of_zeros()
    mask = all_left(weights)
    for seed in range(4):
        mask = prune(weights, mask, 0.8, seed=seed)
    older, _ = by_position(weights, all_left(weights), 0.8**4, weights)
    assert sum(map(sum, plain(mask).values())) == sum(map(sum, older.values())) == 8_192
    for stays in (older, plain(mask)):
        assert all(bit for name in LAYERS for bit, w in zip(stays[name], weights[name].tolist(), strict=True) if w)
    zeros_left = [sum(older[name]) - (1000 - ZEROS) for name in LAYERS]
    assert zeros_left[:13] == [0] * 13
    assert zeros_left[-6:] == [ZEROS] * 6
    share = (8_192 - 20 * (1000 - ZEROS)) / (20 * ZEROS)
    for name in LAYERS:
        drawn = int(mask[name].sum()) - (1000 - ZEROS)
        assert abs(drawn - share * ZEROS) < 5 * math.sqrt(ZEROS * share * (1 - share))


def test_pruned_weights_do_not_compete_with_zeros_that_are_left() -> None:
    """They are exactly 0, too."""
    weights = tensors({"a": [0.0, 0.0, 0.0, 0.0, 1.0], "b": [0.0] * 5})
    mask = {"a": torch.tensor([False, False, True, True, True]), "b": torch.tensor([True, False, False, False, True])}
    kept = [plain(prune(weights, mask, 0.6, seed=seed)) for seed in range(40)]
    assert all(made["a"][4] and sum(made["a"]) + sum(made["b"]) == 3 for made in kept)
    pairs = {(*made["a"][:4], *made["b"]) for made in kept}
    assert len(pairs) == 6, "any two of the four zeros that are left"
    assert not any(pair[i] for pair in pairs for i in (0, 1, 5, 6, 7))


def test_tied_weights_stay_equally_often_and_in_every_combination() -> None:
    """Two of five, over three layers: each of the ten pairs as often as any other."""
    weights = tensors({"a": [0.5, 2.0, -0.5], "b": [0.5], "c": [0.1, 0.5, -0.5, 3.0]})
    draws = 1000
    made = [plain(prune(weights, all_left(weights), 0.5, seed=seed)) for seed in range(draws)]
    pairs = Counter((*m["a"], *m["b"], *m["c"]) for m in made)
    assert len(pairs) == 10
    assert sum((count - draws / 10) ** 2 / (draws / 10) for count in pairs.values()) < 33.7  # 9 degrees, p = 1e-4


def test_a_draw_depends_on_its_generator_alone() -> None:
    weights = net_of_zeros()
    one, other = prune(weights, all_left(weights), 0.8, seed=1), prune(weights, all_left(weights), 0.8, seed=2)
    before, threads = torch.get_rng_state(), torch.get_num_threads()
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            torch.rand(3)
            assert plain(prune(weights, all_left(weights), 0.8, seed=1)) == plain(one)
    finally:
        torch.set_num_threads(threads)
        torch.set_rng_state(before)
    unlike = sum(int((one[name] != other[name]).sum()) for name in LAYERS)
    zeros, gone = 16_900, 4_000
    assert abs(unlike / (2 * gone * (zeros - gone) / zeros) - 1) < 0.05, "as many as two independent draws"


def test_the_layout_of_the_weights_does_not_matter() -> None:
    """Channels-last weights have another order in memory."""
    weights = {"a": torch.zeros(4, 6, 3, 3), "b": torch.zeros(8, 4, 3, 3)}
    last = {name: weight.to(memory_format=torch.channels_last) for name, weight in weights.items()}
    assert plain(prune(last, all_left(weights), 0.5)) == plain(prune(weights, all_left(weights), 0.5))


def test_denormals_are_told_apart() -> None:
    weights = tensors({"a": [3 * TINY, -TINY, 0.0, 2 * TINY]})
    assert plain(prune(weights, all_left(weights), 0.5)) == {"a": [True, False, False, True]}
    assert plain(prune(weights, all_left(weights), 0.75)) == {"a": [True, True, False, True]}


def test_infinities_are_the_largest_and_tie_with_each_other() -> None:
    weights = tensors({"a": [math.inf, 3e38, -math.inf, math.inf]})
    assert plain(prune(weights, all_left(weights), 0.75)) == {"a": [True, False, True, True]}
    one = [plain(prune(weights, all_left(weights), 0.25, seed=seed))["a"] for seed in range(30)]
    assert {tuple(map(bool, made)) for made in one} == {tuple(i == j for i in range(4)) for j in (0, 2, 3)}


@pytest.mark.parametrize(("keep", "stays"), [(0.8, True), (0.4, False)])
def test_one_weight(keep: float, stays: bool) -> None:
    weights = tensors({"a": [0.3]})
    assert plain(prune(weights, all_left(weights), keep)) == {"a": [stays]}


def test_nothing_left() -> None:
    weights = tensors({"a": [1.0, 2.0], "b": [3.0]})
    nothing = {name: torch.zeros_like(w, dtype=torch.bool) for name, w in weights.items()}
    assert plain(prune(weights, nothing, 0.5)) == {"a": [False, False], "b": [False]}


@pytest.mark.parametrize("position", [0, 7])
def test_a_weight_that_is_no_number_is_refused(position: int) -> None:
    weights = {"a": torch.arange(8.0)}
    weights["a"][position] = math.nan
    with pytest.raises(ValueError, match="NaN"):
        prune(weights, all_left(weights), 0.8)


def test_what_is_out_of_scope_is_neither_counted_nor_pruned() -> None:
    weights = tensors({"a": [5.0, 6.0, 7.0, 8.0], "b": [0.0] * 4, "c": [1.0, 2.0, 3.0, 4.0]})
    made = prune(weights, all_left(weights), 0.5, ["a", "c"])
    assert plain(made) == {"a": [True] * 4, "b": [True] * 4, "c": [False] * 4}


def test_scope_may_be_any_iterable() -> None:
    weights = tensors({"a": [5.0, 6.0, 7.0, 8.0], "b": [0.0] * 4, "c": [1.0, 2.0, 3.0, 4.0]})
    made = prune(weights, all_left(weights), 0.5, (name for name in ("a", "c")))
    assert plain(made) == {"a": [True] * 4, "b": [True] * 4, "c": [False] * 4}


def test_prune_changes_neither_weights_nor_the_mask_it_is_given() -> None:
    weights = {"a": torch.randn(50, generator=torch.Generator().manual_seed(0)).requires_grad_()}
    mask = {"a": torch.arange(50) % 3 > 0}
    weights_before, mask_before = weights["a"].detach().clone(), mask["a"].clone()
    made = prune(weights, mask, 0.5)
    made["a"].fill_(True)
    assert torch.equal(weights["a"], weights_before)
    assert torch.equal(mask["a"], mask_before)


@pytest.mark.parametrize("seed", range(5))
def test_agrees_with_torch_where_nothing_ties(seed: int) -> None:
    """Two rounds of torch.nn.utils.prune with the amount as a count."""
    generator = torch.Generator().manual_seed(seed)
    layers = {"a": nn.Conv2d(3, 8, 3, bias=False), "b": nn.Linear(24, 10, bias=False)}
    total = sum(layer.weight.numel() for layer in layers.values())
    distinct = (torch.randperm(total, generator=generator) + 1) / total
    signed = distinct * (torch.randint(0, 2, (total,), generator=generator) * 2 - 1)
    for layer, values in zip(layers.values(), signed.split([216, 240]), strict=True):
        layer.weight.data.copy_(values.view(layer.weight.shape))
    weights = {name: layer.weight.detach().clone() for name, layer in layers.items()}
    mask, left = all_left(weights), total
    for _ in range(2):
        torch_prune.global_unstructured(
            [(layer, "weight") for layer in layers.values()],
            pruning_method=torch_prune.L1Unstructured,
            amount=left - round(left * 0.7),
        )
        mask, left = prune(weights, mask, 0.7), round(left * 0.7)
        for name, layer in layers.items():
            assert torch.equal(mask[name], layer.get_buffer("weight_mask").bool())


@pytest.mark.parametrize(
    ("left", "keep", "stay"),
    [(1000, 0.8, 800), (5, 0.5, 2), (7, 0.5, 4), (3, 0.8, 2), (2, 0.8, 2), (1, 0.8, 1), (1, 0.5, 0), (0, 0.5, 0)],
)
def test_survivors_round_to_nearest_and_ties_to_even(left: int, keep: float, stay: int) -> None:
    assert survivors(left, keep) == stay


# ------------------------------------------------------------------------------------- random masks

SHAPES = {"a": torch.Size((4, 5)), "b": torch.Size((30,)), "c": torch.Size((2, 5, 5))}


@pytest.mark.parametrize("count", [0, 1, 37, 99, 100])
def test_random_has_exactly_the_count(count: int) -> None:
    made = masks.random(SHAPES, count, torch.Generator().manual_seed(1))
    assert {name: m.shape for name, m in made.items()} == SHAPES
    assert sum(map(sum, plain(made).values())) == count


def test_random_is_fixed_by_its_generator_alone() -> None:
    first = masks.random(SHAPES, 50, torch.Generator().manual_seed(1))
    before = torch.get_rng_state()
    torch.rand(3)
    again = masks.random(SHAPES, 50, torch.Generator().manual_seed(1))
    other = masks.random(SHAPES, 50, torch.Generator().manual_seed(2))
    torch.set_rng_state(before)
    assert plain(first) == plain(again)
    assert plain(first) != plain(other)


def test_random_draws_over_all_layers_together() -> None:
    """Each weight stays equally often, and a layer's count is hypergeometric, not its fixed share."""
    generator = torch.Generator().manual_seed(0)
    draws = 2000
    made = [masks.random(SHAPES, 30, generator) for _ in range(draws)]
    flat = np.array([[bit for bits in plain(m).values() for bit in bits] for m in made])
    sigma = math.sqrt(0.3 * 0.7 / draws)
    assert np.abs(flat.mean(0) - 0.3).max() < 5 * sigma
    in_b = flat[:, 20:50].sum(1)
    variance = 30 * 0.3 * 0.7 * (100 - 30) / (100 - 1)
    assert abs(in_b.var() / variance - 1) < 0.2


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("count", [0, 1, 37, 100])
def test_random_over_everything_draws_as_it_always_has(count: int, seed: int) -> None:
    """Stored random masks were drawn so: the first ``count`` places of one permutation of all weights."""
    order = torch.randperm(100, generator=torch.Generator().manual_seed(seed)).tolist()
    stays = [place in set(order[:count]) for place in range(100)]
    expected = {"a": stays[:20], "b": stays[20:50], "c": stays[50:]}
    assert plain(masks.random(SHAPES, count, torch.Generator().manual_seed(seed))) == expected
    named = masks.random(SHAPES, count, torch.Generator().manual_seed(seed), scope=["c", "a", "b"])
    assert plain(named) == expected
    assert list(named) == list(SHAPES)


@given(
    seed=st.integers(0, 1 << 30),
    count=st.integers(0, 120),
    scope=st.none() | st.sets(st.sampled_from(list(SHAPES)), min_size=1),
    share=st.none() | st.floats(0, 1),
)
@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow])
def test_random_keeps_what_is_out_of_scope_and_an_exact_number_of_what_is_eligible(
    seed: int, count: int, scope: set[str] | None, share: float | None
) -> None:
    rng, inside = np.random.default_rng(seed), set(SHAPES) if scope is None else scope
    eligible = None
    if share is not None:
        eligible = {name: torch.from_numpy(rng.random(tuple(shape)) < share) for name, shape in SHAPES.items()}
    given_scope = None if scope is None else iter(sorted(scope))
    made = masks.random(SHAPES, count, torch.Generator().manual_seed(seed), given_scope, eligible)
    assert list(made) == list(SHAPES)
    assert {name: m.shape for name, m in made.items()} == SHAPES
    able = 0
    for name in SHAPES:
        bits, may = plain(made)[name], plain(eligible)[name] if eligible else [True] * SHAPES[name].numel()
        if name in inside:
            able += sum(may)
            assert not any(bit and not ok for bit, ok in zip(bits, may, strict=True)), "an ineligible weight stays"
        else:
            assert all(bits)
    assert sum(sum(plain(made)[name]) for name in inside) == min(count, able)


@pytest.mark.parametrize("scope", [None, ["a", "c"]])
def test_random_draws_every_eligible_weight_equally_often(scope: list[str] | None) -> None:
    """And the layers together: how many fall into one is hypergeometric."""
    rng = np.random.default_rng(3)
    flat = np.zeros(100, dtype=bool)
    flat[[0, 19, 20, 49, 50, 99]] = True  # the ends of every layer
    flat[rng.permutation(np.flatnonzero(~flat))[:54]] = True
    eligible = {"a": torch.from_numpy(flat[:20]), "b": torch.from_numpy(flat[20:50]), "c": torch.from_numpy(flat[50:])}
    eligible = {name: eligible[name].view(shape) for name, shape in SHAPES.items()}
    inside = flat.copy()
    if scope:
        inside[20:50] = False
    places = int(inside.sum())
    generator, draws, count = torch.Generator().manual_seed(5), 3000, places // 3
    drawn = [masks.random(SHAPES, count, generator, scope, eligible) for _ in range(draws)]
    bits = np.array([[bit for layer in plain(m).values() for bit in layer] for m in drawn])
    assert not bits[:, ~flat & (inside | (scope is None))].any()
    share = count / places
    observed = bits[:, inside].sum(0)
    # a sum of squares of nearly independent standard normal deviates, one fewer than places as the count is fixed
    chi_square = ((observed - draws * share) ** 2).sum() / (draws * share * (1 - share)) * (places - 1) / places
    assert abs(chi_square - (places - 1)) < 5 * math.sqrt(2 * (places - 1))
    in_a = int(inside[:20].sum())
    of_a = bits[:, :20][:, inside[:20]].sum(1)
    variance = count * in_a / places * (1 - in_a / places) * (places - count) / (places - 1)
    assert abs(of_a.mean() - count * in_a / places) < 5 * math.sqrt(variance / draws)
    assert abs(of_a.var() / variance - 1) < 0.2


def naive_erk(shapes: dict[str, torch.Size], density: float) -> dict[str, float]:
    """Densities as Evci et al. (2020) find them, in floats: the layers most above 1 are made dense, one by one."""
    dense: set[str] = set()
    total = sum(math.prod(shape) for shape in shapes.values())
    while True:
        sparse = {name: shape for name, shape in shapes.items() if name not in dense}
        raw = {name: sum(shape) / math.prod(shape) for name, shape in sparse.items()}
        wanted = density * total - sum(math.prod(shapes[name]) for name in dense)
        scale = wanted / sum(raw[name] * math.prod(shape) for name, shape in sparse.items()) if sparse else 0.0
        worst = max(raw, key=lambda name: raw[name], default=None)
        if worst is None or scale * raw[worst] <= 1:
            return {name: 1.0 if name in dense else scale * raw[name] for name in shapes}
        dense.add(worst)


LAYER = st.one_of(
    st.tuples(st.integers(1, 64), st.integers(1, 64)),
    st.tuples(st.integers(1, 48), st.integers(1, 48), st.integers(1, 5), st.integers(1, 5)),
)


@given(layers=st.lists(LAYER, min_size=1, max_size=8), share=st.floats(0, 1))
@settings(max_examples=200)
def test_erk_gives_each_layer_the_papers_density_up_to_one_weight_and_the_exact_total(
    layers: list[tuple[int, ...]], share: float
) -> None:
    shapes = {f"layer {n}": torch.Size(layer) for n, layer in enumerate(layers)}
    total = sum(math.prod(layer) for layer in layers)
    count = round(share * total)
    kept = masks.erk(shapes, count)
    assert list(kept) == list(shapes)
    assert sum(kept.values()) == count
    for name, density in naive_erk(shapes, count / total).items():
        size = math.prod(shapes[name])
        assert 0 <= kept[name] <= size
        assert abs(kept[name] - density * size) < 1 + 1e-6


def test_erk_by_hand() -> None:
    """Sums of shapes 5, 22 and 30; 100 + 25 + 36 weights."""
    small, wide, kernel = torch.Size([3, 2]), torch.Size([20, 2]), torch.Size([4, 20, 3, 3])
    shapes = {"small": small, "wide": wide, "kernel": kernel}
    # 57 weights, as many as the sums of the shapes: a density of sum / product each
    assert masks.erk(shapes, 57) == {"small": 5, "wide": 22, "kernel": 30}
    # 100: small would keep 8.8 of 6, so it is dense; of the other 94, wide gets 22/52, 39.8, kernel 54.2
    assert masks.erk(shapes, 100) == {"small": 6, "wide": 40, "kernel": 54}
    # 110: then wide would keep 44 of 40, so it is dense too
    assert masks.erk(shapes, 110) == {"small": 6, "wide": 40, "kernel": 64}
    # 10: 0.877, 3.860 and 5.263: two are left after rounding down, for the largest fractions
    assert masks.erk(shapes, 10) == {"small": 1, "wide": 4, "kernel": 5}
    assert masks.erk(shapes, 0) == dict.fromkeys(shapes, 0)
    assert masks.erk(shapes, 766) == {"small": 6, "wide": 40, "kernel": 720}


def test_erk_gives_a_weight_between_equal_layers_to_the_first() -> None:
    shapes = {name: torch.Size([5, 5]) for name in "bac"}
    assert masks.erk(shapes, 10) == {"b": 4, "a": 3, "c": 3}
    assert masks.erk(shapes, 11) == {"b": 4, "a": 4, "c": 3}


def test_random_in_layers_draws_each_layers_number_equally_often_everywhere() -> None:
    counts, draws = {"a": 7, "c": 40}, 2000
    generator = torch.Generator().manual_seed(0)
    drawn = [plain(masks.random_in_layers(SHAPES, counts, generator)) for _ in range(draws)]
    assert all(all(one["b"]) for one in drawn), "a layer without a number is whole"
    for name, count in counts.items():
        bits = np.array([one[name] for one in drawn])
        assert {*bits.sum(1)} == {count}
        share = count / SHAPES[name].numel()
        assert np.abs(bits.mean(0) - share).max() < 5 * math.sqrt(share * (1 - share) / draws)
    mask = masks.random_in_layers(SHAPES, counts, generator)
    assert {name: m.shape for name, m in mask.items()} == SHAPES


def net_with_zeros(share: float) -> dict[str, Tensor]:
    """A made network of 1,000 weights, of which exactly that share is naturally zero."""
    rng = np.random.default_rng(1)
    values = rng.uniform(1e-6, 1, 1000) * rng.choice([-1, 1], 1000)
    zeros = rng.permutation(1000)[: round(1000 * share)]
    values[zeros] = rng.choice([0.0, -0.0, 1e-39, -1e-30, 1e-12, 2.0**-23, -(2.0**-23)], len(zeros))
    flat = torch.from_numpy(values).float()
    return {"conv": flat[:300].view(10, 30), "fc": flat[300:].view(70, 10)}


@pytest.mark.parametrize(("level", "left"), [(2, 640), (4, 410), (5, 328), (8, 168), (20, 11)])
def test_random_adjusted_for_natural_zeros_never_keeps_one(level: int, left: int) -> None:
    """On a network with 60 % of zeros: as sparse as asked for, or as it is by itself, whichever is sparser."""
    weights = net_with_zeros(0.6)
    shapes = {name: w.shape for name, w in weights.items()}
    eligible = masks.nonzero(weights)
    alive = {name: [abs(x) > 2.0**-23 for x in w.flatten().tolist()] for name, w in weights.items()}
    assert plain(eligible) == alive
    assert sum(map(sum, alive.values())) == 400
    count = masks.left_after(1000, 0.8, level)
    assert count == left
    made = plain(masks.random(shapes, count, torch.Generator().manual_seed(level), eligible=eligible))
    assert sum(map(sum, made.values())) == min(left, 400)
    for name in shapes:
        assert not any(stays and not ok for stays, ok in zip(made[name], alive[name], strict=True))
    if left > 400:
        assert made == alive


def test_a_natural_zero_is_at_most_float32s_machine_precision() -> None:
    assert torch.finfo(torch.float32).eps == NATURAL_SPARSITIES["natural_sparsity"]
    edge = np.float32(2.0**-23)
    above = float(np.nextafter(edge, np.float32(1)))
    weights = {"a": torch.tensor([float(edge), above, -float(edge), -above, 0.0, -0.0, 1e-40, 1.0, -math.inf])}
    expected = [False, True, False, True, False, False, False, True, True]
    assert plain(masks.nonzero(weights)) == {"a": expected}
    assert masks.nonzero(weights)["a"].dtype == torch.bool


def test_shuffle_keeps_the_count_of_every_layer_and_nothing_else() -> None:
    counts = {"a": 3, "b": 30, "c": 11}
    mask = {name: torch.arange(shape.numel()).view(shape) < counts[name] for name, shape in SHAPES.items()}
    made = masks.shuffle(mask, torch.Generator().manual_seed(0))
    again = masks.shuffle(mask, torch.Generator().manual_seed(0))
    other = masks.shuffle(mask, torch.Generator().manual_seed(1))
    assert {name: m.shape for name, m in made.items()} == SHAPES
    assert {name: sum(bits) for name, bits in plain(made).items()} == counts
    assert plain(made) == plain(again)
    assert plain(made)["c"] != plain(other)["c"]
    assert plain(made)["c"] != plain(mask)["c"]


def test_shuffle_sends_an_entry_everywhere_equally_often() -> None:
    generator = torch.Generator().manual_seed(0)
    mask = {"a": torch.tensor([True, False, False, False, False])}
    places = [plain(masks.shuffle(mask, generator))["a"].index(True) for _ in range(2000)]
    assert np.abs(np.bincount(places, minlength=5) / 2000 - 0.2).max() < 5 * math.sqrt(0.2 * 0.8 / 2000)


# ------------------------------------------------------------------------------------- packing


@given(shape=st.lists(st.integers(1, 7), min_size=1, max_size=4), seed=st.integers(0, 1 << 30))
@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
def test_packed_bits_are_numpys_and_come_back(shape: list[int], seed: int) -> None:
    bits = np.random.default_rng(seed).random(shape) < 0.4
    mask = {"x": torch.from_numpy(bits), "y": torch.from_numpy(~bits)}
    packed = masks.pack(mask)
    assert packed["x"].dtype == torch.uint8
    assert np.array_equal(packed["x"].numpy(), np.packbits(bits))
    assert np.array_equal(packed["y"].numpy(), np.packbits(~bits))
    back = masks.unpack(packed, {name: m.shape for name, m in mask.items()})
    assert all(back[name].dtype == torch.bool and torch.equal(back[name], mask[name]) for name in mask)


def test_unpack_gives_the_order_of_the_network() -> None:
    packed = masks.pack({"b": torch.tensor([True]), "a": torch.tensor([False])})
    back = masks.unpack(packed, {"a": torch.Size((1,)), "b": torch.Size((1,))})
    assert list(back.items()) == [("a", torch.tensor([False])), ("b", torch.tensor([True]))]


@pytest.mark.parametrize("packed", [torch.zeros(1), torch.zeros(3), torch.zeros(0), torch.zeros(2, 1)])
def test_a_mask_of_other_sizes_is_refused(packed: Tensor) -> None:
    with pytest.raises(ValueError, match="sizes differ"):
        masks.unpack({"a": packed.to(torch.uint8)}, {"a": torch.Size((3, 4))})


@pytest.mark.parametrize("names", [["a"], ["a", "b", "c"], ["a", "c"], []])
def test_a_mask_with_other_layers_is_refused(names: list[str]) -> None:
    packed = {name: torch.zeros(1, dtype=torch.uint8) for name in names}
    with pytest.raises(ValueError, match="names differ"):
        masks.unpack(packed, {"a": torch.Size((8,)), "b": torch.Size((8,))})


# ------------------------------------------------------------------------------------- the rest

NAMES = ["conv1", "conv2", "fc", "conv3"]
CONVOLUTIONS = ["conv1", "conv2", "conv3"]


@pytest.mark.parametrize(
    ("scope", "names"),
    [
        ("all", NAMES),
        ("convs", CONVOLUTIONS),
        ("convs:1", ["conv1"]),
        ("convs:2", ["conv1", "conv2"]),
        ("convs:3", CONVOLUTIONS),
    ],
)
def test_scope_names(scope: str, names: list[str]) -> None:
    assert masks.scope_names(scope, NAMES, CONVOLUTIONS) == names


@pytest.mark.parametrize(
    "scope",
    [
        "",
        "ALL",
        "all:1",
        "conv",
        "conv1",
        "convs:",
        "convs:0",
        "convs:4",
        "convs:-1",
        "convs:1.5",
        "convs:x",
        "convs:²",
    ],
)
def test_another_scope_is_refused_with_a_sentence(scope: str) -> None:
    with pytest.raises(ValueError, match=r"scope .* is not 'all'"):
        masks.scope_names(scope, NAMES, CONVOLUTIONS)


@given(total=st.integers(1, 100_000), keep=KEEP, level=st.integers(0, 30))
@settings(max_examples=50, suppress_health_check=[HealthCheck.too_slow])
def test_left_after_is_round_by_round(total: int, keep: float, level: int) -> None:
    left = total
    for _ in range(level):
        left = round(left * keep)
    assert masks.left_after(total, keep, level) == left


def test_left_after_by_hand() -> None:
    assert [masks.left_after(32_400, 0.8, level) for level in range(4)] == [32_400, 25_920, 20_736, 16_589]


def test_left_after_is_what_pruning_leaves() -> None:
    weights = {"a": torch.randn(1001, generator=torch.Generator().manual_seed(0))}
    mask = all_left(weights)
    for level in range(1, 25):
        mask = prune(weights, mask, 0.8)
        assert int(mask["a"].sum()) == masks.left_after(1001, 0.8, level)


@pytest.mark.parametrize("left", [0, 1, 50, 100])
def test_density(left: int) -> None:
    flat = torch.arange(100) < left
    mask = {"a": flat[:7], "b": flat[7:].view(31, 3)}
    assert masks.density(mask) == left / 100


def test_full_keeps_everything() -> None:
    made = masks.full(SHAPES)
    assert {name: m.shape for name, m in made.items()} == SHAPES
    assert all(m.dtype == torch.bool and bool(m.all()) for m in made.values())


def test_collapsed_layers_are_those_without_a_weight() -> None:
    mask = {"a": torch.tensor([False, False]), "b": torch.tensor([False, True]), "c": torch.zeros(2, 2).bool()}
    assert masks.metrics(mask) == {"density": 1 / 8, "collapsed_layers": 2.0}


def test_the_count_is_exact_for_tensors_of_several_dtypes() -> None:
    """0.1 in float32 is a little more than 0.1 in float64, unless one is rounded to the other's type."""
    weights = {"a": torch.tensor([0.1]), "b": torch.tensor([0.1], dtype=torch.float64)}
    pruned = prune(weights, masks.full({name: w.shape for name, w in weights.items()}), 0.5)
    assert {name: m.tolist() for name, m in pruned.items()} == {"a": [True], "b": [False]}


# ------------------------------------------------------------------------------------- any scores

SIGNED = st.sampled_from([0.0, -0.0, TINY, -TINY, 0.5, -0.5, 1.0, -1.0, -3e38, math.inf])


@st.composite
def scored(draw: st.DrawFn) -> tuple[dict[str, Tensor], masks.Mask]:
    """One to three layers of signed scores, many of them equal, some layers of one or no row, and a mask with holes."""
    scores: dict[str, Tensor] = {}
    mask: masks.Mask = {}
    for name in ["first", "second", "third"][: draw(st.integers(1, 3))]:
        shape = (draw(st.integers(1, 4)), draw(st.integers(1, 6)))
        count = math.prod(shape)
        scores[name] = torch.tensor(draw(st.lists(SIGNED, min_size=count, max_size=count))).view(shape)
        mask[name] = torch.tensor(draw(st.lists(st.booleans(), min_size=count, max_size=count))).view(shape)
    return scores, mask


def naive_best(
    scores: dict[str, Tensor], mask: masks.Mask, stay: int
) -> tuple[set[tuple[str, int]], set[tuple[str, int]]]:
    """Places that stay for certain, and those of which some do, by a sorted list."""
    places = [
        (float(s), name, i) for name in mask for i, s in enumerate(scores[name].flatten()) if mask[name].view(-1)[i]
    ]
    ordered = sorted((score for score, *_ in places), reverse=True)
    cut = ordered[stay - 1] if stay else math.inf
    sure = {(name, i) for score, name, i in places if score > cut}
    return sure, {(name, i) for score, name, i in places if score == cut} if stay else set()


@given(network=scored(), keep=KEEP, seed=st.integers(0, 99))
@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow])
def test_the_best_of_signed_scores_stay_and_exactly_so_many(
    network: tuple[dict[str, Tensor], masks.Mask], keep: float, seed: int
) -> None:
    scores, mask = network
    stay = round(masks.left(mask) * keep)
    made, tied = masks.best(scores, mask, stay, seeded(seed))
    stays = {(name, i) for name, m in made.items() for i, bit in enumerate(m.flatten().tolist()) if bit}
    sure, some = naive_best(scores, mask, stay)
    assert len(stays) == stay
    assert sure <= stays <= sure | some
    assert tied == (len(some) if stays < sure | some else 0)


@given(network=scored(), keep=KEEP, allocation=st.sampled_from(["uniform", "erk", "lamp"]), seed=st.integers(0, 99))
@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow])
def test_every_allocation_keeps_exactly_so_many_of_the_best_in_each_layer(
    network: tuple[dict[str, Tensor], masks.Mask], keep: float, allocation: str, seed: int
) -> None:
    scores, mask = network
    stay = round(masks.left(mask) * keep)
    if allocation == "lamp":
        scores = {name: s.abs().clamp(max=4) for name, s in scores.items()}
        made, _ = masks.best(masks.lamp(scores, mask, seeded(seed)), mask, stay, seeded(seed))
    else:
        counts = criteria.counts(mask, list(mask), stay, allocation)
        made, _ = masks.best_in_layers(scores, mask, counts, seeded(seed))
        assert {name: int(m.sum()) for name, m in made.items()} == counts
    assert masks.left(made) == stay
    for name, m in made.items():
        assert not (m & ~mask[name]).any()
        if m.any() and (mask[name] & ~m).any():
            assert scores[name][m].min() >= scores[name][mask[name] & ~m].max()


def test_uniform_keeps_the_same_fraction_of_each_layer_by_hand() -> None:
    mask = {"a": torch.ones(10).bool(), "b": torch.arange(30) < 25, "c": torch.ones(3).bool()}
    # a quarter of 38 is 9.5, so 10 stay: 2.63, 6.58 and 0.79 of them; the largest remainders are of c and a
    assert criteria.counts(mask, ["a", "b", "c"], 10, "uniform") == {"a": 3, "b": 6, "c": 1}


def test_erk_keeps_no_more_than_is_left() -> None:
    """Of 20 weights by shape, 2 x 2 would get 5.7 but has 3 left; the others share what it can't take."""
    mask = {
        "small": torch.tensor([[True, True], [True, False]]),
        "a": torch.ones(5, 5).bool(),
        "b": torch.ones(5, 5).bool(),
    }
    assert criteria.counts(mask, list(mask), 34, "erk") == {"small": 3, "a": 16, "b": 15}


def test_lamp_by_loops() -> None:
    weights = {"a": torch.tensor([0.5, -2.0, 1.0, 3.0]), "b": torch.tensor([[0.1, -0.2], [0.0, 9.0]])}
    mask = {"a": torch.tensor([True, True, True, False]), "b": torch.ones(2, 2).bool()}
    scores = masks.lamp({name: w.abs() for name, w in weights.items()}, mask, seeded(0))
    for name, weight in weights.items():
        inside = [float(w) for w, m in zip(weight.flatten(), mask[name].flatten(), strict=True) if m]
        for score, w, m in zip(scores[name].flatten(), weight.flatten(), mask[name].flatten(), strict=True):
            larger = sum(v * v for v in inside if abs(v) >= abs(float(w)))
            assert float(score) == pytest.approx(float(w) ** 2 / larger if m else 0, rel=1e-6)


def test_lamp_orders_ties_by_a_draw_and_gives_each_layer_one_score_of_1() -> None:
    tied = {"a": torch.full((4,), 0.7)}
    orders = {tuple(masks.lamp(tied, full_of(tied), seeded(seed))["a"].tolist()) for seed in range(200)}
    assert len(orders) == 24
    assert all(sorted(order) == pytest.approx([1 / 4, 1 / 3, 1 / 2, 1]) for order in orders)


def test_lamp_of_a_layer_of_zeros_is_0() -> None:
    zeros = {"a": torch.zeros(3), "b": torch.ones(1)}
    assert {name: s.tolist() for name, s in masks.lamp(zeros, full_of(zeros), seeded(0)).items()} == {
        "a": [0, 0, 0],
        "b": [1],
    }


def full_of(weights: dict[str, Tensor]) -> masks.Mask:
    return {name: torch.ones(w.shape, dtype=torch.bool) for name, w in weights.items()}


@pytest.mark.parametrize("wrong", [math.nan, -1.0])
def test_lamp_needs_scores_that_are_not_negative(wrong: float) -> None:
    scores = {"a": torch.tensor([1.0, wrong])}
    with pytest.raises(ValueError, match="allocation 'lamp' needs scores of 0 or more, but a has others"):
        masks.lamp(scores, full_of(scores), seeded(0))


@pytest.mark.parametrize("wrong", [math.nan, -math.inf])
def test_scores_without_a_rank_are_refused_unless_they_are_pruned(wrong: float) -> None:
    scores = {"a": torch.tensor([1.0, wrong, 2.0])}
    with pytest.raises(ValueError, match="can't prune a: it has scores that are NaN or minus infinity"):
        masks.best(scores, full_of(scores), 1, seeded(0))
    made, _ = masks.best(scores, {"a": torch.tensor([True, False, True])}, 1, seeded(0))
    assert made["a"].tolist() == [False, False, True]


def test_more_than_is_left_can_not_stay() -> None:
    with pytest.raises(ValueError, match="can't keep 4 of 3 weights"):
        masks.best({"a": torch.ones(3)}, {"a": torch.ones(3).bool()}, 4, seeded(0))
