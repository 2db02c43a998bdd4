"""The verbs: iterative magnitude pruning, and what is trained from its masks, as builders of steps.

Pure functions from values to values: nothing is trained here. The table in docs/design.md builds
each experiment of the paper from these functions.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from numbers import Integral
from typing import Any

from raysslprune.spec import (
    SVM,
    Final,
    ImportedWeights,
    Init,
    Mask,
    Prune,
    RandomPrune,
    Recipe,
    Rewind,
    Shuffle,
    Start,
    Train,
)

MAX_LEVELS = 10_000
"""Maximum levels of a chain. No network has a weight left after so many."""


@dataclass(frozen=True, kw_only=True)
class Chain:
    """The rounds of iterative magnitude pruning on one task with one seed.

    rounds[n]: the training under the mask of level n; rounds[0] is the dense one.
    masks[n]: the mask of level n (n prunings); masks[0] is None. One more mask than rounds.
    """

    rounds: tuple[Train, ...]
    masks: tuple[Prune | None, ...]
    rewind: int

    @property
    def dense(self) -> Train:
        return self.rounds[0]


def imp(
    *,
    task: str,
    data: str,
    arch: str,
    recipe: Recipe,
    seed: int,
    levels: int,
    keep: float,
    rewind: int,
    scope: str = "all",
    start: Start | None = None,
    **pruning: Any,
) -> Chain:
    """Iterative magnitude pruning (paper 3.1) up to a mask with ``levels`` prunings, or pruning by another criterion.

    Each round trains from the dense run's state after ``rewind`` samples and then keeps the fraction ``keep``
    of the weights left in ``scope`` (as in Prune).

    task, data, arch, recipe: of all trainings. seed: of the initial weights and of the order of images.
    levels: number of prunings. keep: fraction of the remaining weights that each pruning keeps.
    rewind: samples that the dense training has seen at the state that each round starts from. scope: layers that are
        pruned.
    start: start of the dense run; drawn anew by default. The final weights of a pretext task, with labels as the task,
        give pruning during transfer (paper 4.1, Figure 2); with ``rewind=0`` every round starts from them.
    pruning: more fields of each Prune, such as ``criterion`` or ``at``. Movement is counted from the rewind point, if
        ``since`` does not say otherwise.
    """
    if not isinstance(levels, Integral) or not 0 <= levels <= MAX_LEVELS:
        raise ValueError(f"levels must be a whole number from 0 to {MAX_LEVELS:,}, not {levels!r:.80}")
    start = start or Init(seed=seed)
    dense = Train(task=task, data=data, arch=arch, recipe=recipe, seed=seed, start=start)
    rounds: list[Train] = [dense]
    masks: list[Prune | None] = [None]
    for level in range(1, levels + 1):
        of, how = rounds[-1], dict(pruning)
        if how.get("criterion") == "movement" and not of.is_start(rewind):
            how.setdefault("since", rewind)
        masks.append(Prune(of=of, keep=keep, scope=scope, **how))
        if level < levels:
            rounds.append(rewound(masks[-1], to=dense, samples=rewind, task=task, recipe=recipe))
    return Chain(rounds=tuple(rounds), masks=tuple(masks), rewind=rewind)


def winning_ticket(chain: Chain, level: int, *, task: str, recipe: Recipe, data: str | None = None) -> Train:
    """The subnetwork of ``level``, reset to the chain's early weights and trained on ``task`` (Frankle et al.).

    On the chain's own task and data this *is* the chain's round of that level, so it is never trained twice.
    data: training data, by default the chain's, which may be a subset. Raises ValueError for a level out of range.
    """
    data = data or chain.dense.data
    if not 0 <= level < len(chain.masks):
        raise ValueError(f"the chain has levels 0 to {len(chain.masks) - 1}, not {level}")
    if level == 0 and (task, recipe, data) == (chain.dense.task, chain.dense.recipe, chain.dense.data):
        return chain.dense
    return rewound(chain.masks[level], to=chain.dense, samples=chain.rewind, task=task, recipe=recipe, data=data)


def rewound(mask: Mask | None, *, to: Train, samples: int, task: str, recipe: Recipe, data: str | None = None) -> Train:
    """A training on ``task`` from the weights of ``to`` after ``samples``, under any mask, imported ones included.

    On the task and data of ``to`` it goes on from there (Frankle et al.'s practice). On another task or other data it
    has a new head, and the recipe from its beginning: as many samples as a training from drawn weights.

    data: training data; that of ``to`` by default.
    """
    data = data or to.data
    goes_on = samples == 0 or (task, data) == (to.task, to.data)
    return Train(
        task=task,
        data=data,
        arch=to.arch,
        recipe=recipe,
        seed=to.seed,
        start=Rewind(of=to, samples=samples),
        mask=mask,
        first_sample=None if goes_on else 0,
    )


def from_start(mask: Mask | None, *, of: Train, task: str, recipe: Recipe) -> Train:
    """A training under the mask from the weights with which ``of`` begins. Of drawn ones, only the trunk is the same.

    Unlike a ticket that is rewound to 0, this needs no training of ``of``: a mask that judges these weights costs none.
    """
    return Train(task=task, data=of.data, arch=of.arch, recipe=recipe, seed=of.seed, start=of.start, mask=mask)


def random_reinit(mask: Mask | None, *, like: Train, task: str, recipe: Recipe) -> Train:
    """A training under the mask from newly drawn weights (Liu et al.). ``like`` gives data, architecture and seed."""
    start = Init(seed=like.seed, draw=1)
    return Train(task=task, data=like.data, arch=like.arch, recipe=recipe, seed=like.seed, start=start, mask=mask)


def random_prune(
    *,
    like: Train,
    keep: float,
    level: int,
    scope: str = "all",
    nonzero: Train | None = None,
    allocation: str = "global",
) -> RandomPrune:
    """The baseline: a random mask with as many weights as ``level`` rounds of pruning leave.

    nonzero: a dense training whose natural zeros are all pruned (paper 4.3, the adjusted baseline).
    allocation: how many weights stay in each layer, as in RandomPrune.
    """
    return RandomPrune(
        arch=like.arch,
        data=like.data,
        keep=keep,
        level=level,
        seed=like.seed,
        scope=scope,
        nonzero=nonzero,
        allocation=allocation,
    )


def linear(
    of: Train | ImportedWeights, *, data: str, recipe: Recipe | SVM, seed: int | None = None, mask: Mask | None = None
) -> Train:
    """A linear classifier on frozen features, to measure their quality (paper 4.1, Figure 1).

    of: the training whose final weights give the features, or imported weights. seed, mask: those of the training by
    default; imported weights need a seed. Raises ValueError without one.
    """
    return _from_final(of, data, recipe, seed, mask, trunk_frozen=True)


def untrained(of: Train, *, data: str, recipe: Recipe | SVM, draw: int = 0) -> Train:
    """The control for :func:`linear`: a linear classifier on features of untrained weights under the same mask.

    Their BatchNorm statistics are those of ``data``. draw: 0 for the weights that the chain began with, from which its
    mask was chosen; others are drawn anew.
    """
    start = Init(seed=of.seed, draw=draw)
    return _transferred(of, data=data, recipe=recipe, start=start, trunk_frozen=True, calibrated=True)


def finetune(
    of: Train | ImportedWeights, *, data: str, recipe: Recipe, seed: int | None = None, mask: Mask | None = None
) -> Train:
    """Fine-tuning of a whole network on labels, under its mask (paper 4.1, Figure 2). Arguments as of :func:`linear`.

    Raises ValueError as :func:`linear` does.
    """
    return _from_final(of, data, recipe, seed, mask, trunk_frozen=False)


def shuffled(chain: Chain, level: int) -> Shuffle:
    """The control: the chain's mask of ``level``, permuted within each layer. Raises ValueError if there is no mask."""
    mask = chain.masks[level] if 0 < level < len(chain.masks) else None
    if mask is None:
        raise ValueError(f"the chain has masks at levels 1 to {len(chain.masks) - 1}, not {level}")
    return Shuffle(of=mask, seed=chain.dense.seed)


def _from_final(
    of: Train | ImportedWeights,
    data: str,
    recipe: Recipe | SVM,
    seed: int | None,
    mask: Mask | None,
    *,
    trunk_frozen: bool,
) -> Train:
    given: dict[str, Any] = {name: value for name, value in (("seed", seed), ("mask", mask)) if value is not None}
    fixed: dict[str, Any] = {"data": data, "recipe": recipe, "start": Final(of=of), "trunk_frozen": trunk_frozen}
    if isinstance(of, Train):
        return _transferred(of, **fixed, **given)
    if seed is None:
        raise ValueError("imported weights have no seed: give one, as in linear(WEIGHTS, ..., seed=seed)")
    return Train(task="labels", arch=of.arch, **fixed, **given)


def _transferred(of: Train, **changes: Any) -> Train:
    return replace(of, task="labels", **{"first_sample": None, "calibrated": False, **changes})
