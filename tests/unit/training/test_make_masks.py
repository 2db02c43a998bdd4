"""Masks that a job makes: scopes, natural zeros, shuffled, through the exchange."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save as to_safetensors
from torch import Tensor

from raysslprune.lottery import random_prune, random_reinit, shuffled
from raysslprune.spec import Mask, Prune, Train
from raysslprune.store.record import TIED, WEIGHTS
from raysslprune.store.steps import Store
from raysslprune.training.runner import Runner
from tests.helpers.chains import execute
from tests.helpers.runner import (
    CONVOLUTIONS,
    DURING,
    SHORT,
    STEPS,
    chain,
    drawn,
    job_of,
    left,
    made,
    mask_in,
    record,
    same,
    weights,
)


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """All of these, made once. Don't write to it."""
    return execute([*STEPS.values(), *DURING.rounds], tmp_path_factory.mktemp("run") / "runs", snapshots=[0])


def test_layerwise_pruning_leaves_the_other_layers_whole(tmp_path: Path) -> None:
    """Of 4,752 weights of two convolutions, by hand: 1,901, 760 and 304 are left."""
    deep = chain("labels", levels=3, scope="convs:2")
    like = deep.dense
    leaves = [
        random_reinit(mask, like=like, task="labels", recipe=SHORT)
        for mask in (
            deep.masks[3],
            random_prune(like=like, keep=0.4, level=3, scope="convs:2"),
            random_prune(like=like, keep=0.4, level=1, scope="convs:1"),
            random_prune(like=like, keep=0.4, level=1, scope="convs"),
        )
    ]
    store = execute(leaves, tmp_path)
    assert 16 * 9 + 32 * 16 * 9 == 4_752
    for mask, count in zip((*deep.masks[1:], leaves[1].mask), (1_901, 760, 304, 304), strict=True):
        stays = mask_in(store, mask)
        assert left(stays, 1, 2) == count
        assert left(stays, 3, 4) == 27_648
    assert left(mask_in(store, leaves[2].mask), 1) == 58
    assert left(mask_in(store, leaves[2].mask), 2, 3, 4) == 32_256
    assert left(mask_in(store, leaves[3].mask)) == 12_960
    for leaf, count in zip(leaves, (304, 304, 58, 12_960), strict=True):
        whole = {0: 27_648, 1: 27_648, 2: 32_256, 3: 0}[leaves.index(leaf)]
        assert record(store, leaf).metrics["density"] == pytest.approx((count + whole) / 32_400)
    for mask, shapes in zip(masks_of(leaves), ((1, 2), (1, 2), (1,), (1, 2, 3, 4)), strict=True):
        stays, metrics = mask_in(store, mask), record(store, mask).metrics
        weights_in = {n: math.prod(CONVOLUTIONS[f"layers.conv{n}.weight"]) for n in range(1, 5)}
        assert metrics["density"] == left(stays) / 32_400
        assert metrics["density_in_scope"] == left(stays, *shapes) / sum(weights_in[n] for n in shapes)
    # nested: what one round has pruned, none brings back
    rounds = [mask_in(store, mask) for mask in deep.masks[1:]]
    for earlier, later in pairwise(rounds):
        assert all((later[name] <= earlier[name]).all() for name in later)


def masks_of(steps: Iterable[Train]) -> list[Mask]:
    return [step.mask for step in steps if step.mask is not None]


def test_a_shuffled_mask_has_the_scope_of_what_it_is_shuffled_from(tmp_path: Path) -> None:
    deep = chain("labels", levels=1, scope="convs:2")
    permuted = shuffled(deep, 1)
    store = execute([random_reinit(permuted, like=deep.dense, task="labels", recipe=SHORT)], tmp_path)
    for mask in (deep.masks[1], permuted):
        assert mask is not None
        assert record(store, mask).metrics == {"density": (1_901 + 27_648) / 32_400, "density_in_scope": 1_901 / 4_752}


@pytest.mark.parametrize("make", [random_prune, None])
def test_a_scope_deeper_than_the_network_is_refused(make: Callable[..., Mask] | None, tmp_path: Path) -> None:
    deep = chain("labels", levels=1, scope="convs:5")
    mask = make(like=deep.dense, keep=0.4, level=1, scope="convs:5") if make else deep.masks[1]
    step = random_reinit(mask, like=deep.dense, task="labels", recipe=SHORT)
    with pytest.raises(ValueError, match=r"scope 'convs:5' is not .* with d from 1 to 4"):
        execute([step], tmp_path)


def commit(store: Store, step: Train, state: Mapping[str, Tensor]) -> None:
    """Made-up weights, as if they had been trained."""
    store.commit(step, {WEIGHTS: to_safetensors(dict(state))}, {"density": 1.0}, {"images_per_second": 1.0})


def distinct_network() -> dict[str, Tensor]:
    """A network whose weights all differ in magnitude."""
    state = drawn(10)
    for number, name in enumerate(CONVOLUTIONS):
        like = state[f"trunk.{name}"]
        state[f"trunk.{name}"] = (torch.arange(like.numel()) * 4 + number + 1.0).view(like.shape)
    return state


def dead_network(share: float, zeros: Sequence[float] = (0.0, 1e-39, -1e-20, 2.0**-23)) -> dict[str, Tensor]:
    """A network with exactly that share of natural zeros in every layer: some exact, some tiny, by default."""
    rng, state = np.random.default_rng(0), drawn(10)
    for name in CONVOLUTIONS:
        flat = state[f"trunk.{name}"].flatten()
        flat[flat.abs() <= 1e-6] = 1e-6
        dead = rng.permutation(len(flat))[: round(share * len(flat))]
        flat[dead] = torch.from_numpy(rng.choice(zeros, len(dead))).float()
        state[f"trunk.{name}"] = flat.view(state[f"trunk.{name}"].shape)
    return state


def test_random_masks_adjusted_for_natural_zeros_keep_none(tmp_path: Path) -> None:
    """Where 60 % are zero: exactly as many as asked for, or all others where those are fewer."""
    dense, state = chain("labels").dense, dead_network(0.6)
    alive = {name: (state[f"trunk.{name}"].double().abs() > 2.0**-23) for name in CONVOLUTIONS}
    assert left(alive) == 32_400 - sum(round(0.6 * math.prod(shape)) for shape in CONVOLUTIONS.values()) == 12_960
    runner = made(tmp_path)
    commit(runner.store, dense, state)
    steps = {level: random_prune(like=dense, keep=0.8, level=level, nonzero=dense) for level in (1, 4, 5, 9)}
    leaf = random_reinit(steps[9], like=dense, task="labels", recipe=SHORT)
    runner.run(job_of(leaf))
    for level, count in {1: 12_960, 4: 12_960, 5: 10_617, 9: 4_349}.items():
        runner.masks.get(steps[level])
        stays = mask_in(runner.store, steps[level])
        assert left(stays) == count
        assert all((stays[name] <= alive[name]).all() for name in stays)
    final = weights(runner.store, leaf)
    for name, stays in mask_in(runner.store, steps[9]).items():
        assert torch.equal(final[f"trunk.{name}"] != 0, stays)
    assert record(runner.store, leaf).metrics["density"] == 4_349 / 32_400


def test_ties_fall_by_a_draw_of_the_steps_own_and_are_recorded(tmp_path: Path) -> None:
    """On a network with 60% of exact zeros in each layer: pruned to 80% and again, and in a scope."""
    two = chain("labels", levels=2)
    state = dead_network(0.6, [0.0])
    zero = {name: state[f"trunk.{name}"] == 0 for name in CONVOLUTIONS}
    count = left(zero)
    first, second, shallow = (
        Prune(of=two.dense, keep=0.8),
        Prune(of=two.dense, keep=0.81),
        Prune(of=two.dense, keep=0.8, scope="convs:2"),
    )
    outcomes = []
    for folder in ("one", "other"):
        runner = made(tmp_path / folder)
        commit(runner.store, two.dense, state)
        for step in (first, second, shallow):
            runner.masks.get(step)
        outcomes.append({step.id: mask_in(runner.store, step) for step in (first, second, shallow)})
        assert record(runner.store, first).facts[TIED] == record(runner.store, second).facts[TIED] == count
        assert record(runner.store, shallow).facts[TIED] == left(zero, 1, 2)
        dead = replace(two.rounds[1], mask=first)
        commit(runner.store, dead, {name: tensor * (tensor != 0) for name, tensor in state.items()})
        again = Prune(of=dead, keep=0.8)
        runner.masks.get(again)
        assert record(runner.store, again).facts[TIED] == count - 6_480, "those pruned before do not count"
        stays = mask_in(runner.store, again)
        assert all((stays[name] <= outcomes[0][first.id][name]).all() for name in CONVOLUTIONS)
        dense = chain("rotnet").dense
        plain = Prune(of=dense, keep=0.8)
        commit(runner.store, dense, distinct_network())
        runner.masks.get(plain)
        assert record(runner.store, plain).facts[TIED] == 0
    one, other = outcomes
    assert all(same(one[step.id], other[step.id]) for step in (first, second, shallow)), (
        "a draw is not a matter of luck"
    )
    assert left(one[first.id]) == 25_920
    assert left(one[second.id]) == 26_244
    assert left(one[shallow.id], 1, 2) == 3_802
    gone = {name: ~one[first.id][name] for name in CONVOLUTIONS}
    both = left({name: gone[name] & ~one[second.id][name] for name in CONVOLUTIONS})
    assert abs(both - 6_480 * 6_156 / count) < 200, "two steps draw independently; the same draw would share 6,156"
    share = 6_480 / count
    for name in CONVOLUTIONS:
        assert not (gone[name] & ~zero[name]).any()
        mean = share * int(zero[name].sum())
        assert abs(int(gone[name].sum()) - mean) < 5 * math.sqrt(mean * (1 - share))


def test_such_a_mask_in_a_scope(tmp_path: Path) -> None:
    """Natural zeros of the other layers stay: nothing is pruned there."""
    dense, state = chain("labels").dense, dead_network(0.6)
    runner = made(tmp_path)
    commit(runner.store, dense, state)
    step = random_prune(like=dense, keep=0.4, level=2, scope="convs:2", nonzero=dense)
    runner.masks.get(step)
    stays = mask_in(runner.store, step)
    assert left(stays, 1, 2) == 760
    assert left(stays, 3, 4) == 27_648
    for number in (1, 2):
        name = f"layers.conv{number}.weight"
        assert (state[f"trunk.{name}"][stays[name]].abs() > 2.0**-23).all()


def test_erk_masks_of_a_network_and_of_a_scope(tmp_path: Path) -> None:
    """By hand: sums of shapes 23, 54, 70, 102 of conv4's 144 + 4,608 + 9,216 + 18,432 weights."""
    dense, runner = chain("labels").dense, made(tmp_path)
    commit(runner.store, dense, drawn(10))
    sparse, whole, scoped = (
        random_prune(like=dense, keep=0.4, level=level, scope=scope, allocation="erk")
        for level, scope in ((4, "all"), (1, "all"), (3, "convs:2"))
    )
    counts = {
        sparse: (77, 180, 233, 340),  # 830 stay, 3.33 times the sums
        whole: (144, 3_062, 3_970, 5_784),  # the first is dense; the others keep 12,816, 56.7 times their sums
        scoped: (91, 213, 9_216, 18_432),  # 304 stay in the scope
    }
    assert sum(counts[whole]) == 12_960
    for step, numbers in counts.items():
        runner.masks.get(step)
        stays = mask_in(runner.store, step)
        assert tuple(left(stays, n) for n in range(1, 5)) == numbers
        again = made(tmp_path / step.id)
        again.masks.get(step)
        assert same(mask_in(again.store, step), stays), "a mask is a function of its step"


class Board:
    """Masks in a dictionary, in the place of Ray's object store."""

    def __init__(self) -> None:
        self.masks: dict[str, dict[str, np.ndarray]] = {}
        self.hits = 0

    def put(self, mask_id: str, packed: dict[str, np.ndarray]) -> None:
        self.masks[mask_id] = packed

    def get(self, mask_id: str) -> dict[str, np.ndarray] | None:
        self.hits += mask_id in self.masks
        return self.masks.get(mask_id)


def test_masks_travel_by_the_exchange_and_by_their_files_alike(tmp_path: Path) -> None:
    made_chain, board = chain("labels"), Board()
    like = made_chain.dense
    step = random_reinit(shuffled(made_chain, 1), like=like, task="labels", recipe=SHORT)
    store = execute([step], tmp_path)
    runner = Runner(store=store, exchange=board)
    first = runner.masks.get(step.mask)
    assert board.hits == 0
    assert board.masks.keys() == {step.mask.id} if step.mask else False
    again = runner.masks.get(step.mask)
    assert board.hits == 1
    assert same(first, again)
    assert same(first, mask_in(store, step.mask))
