"""The verbs: iterative magnitude pruning, and what is trained from its masks, as builders of steps.

Pure functions from values to values: nothing is trained here. See the table in docs/design.md for
how each experiment of the paper is said in these words.
"""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral

from raysslprune.spec import SVM, Final, Init, Mask, Prune, RandomPrune, Recipe, Rewind, Shuffle, Start, Train

MAX_LEVELS = 10_000
"""Of a chain. No network has a weight left after so many."""


@dataclass(frozen=True, kw_only=True)
class Chain:
    """The rounds of iterative magnitude pruning on one task with one seed.

    rounds[n]: the training under the mask of level n; rounds[0] is the dense one.
    masks[n]: the mask of level n (n prunings); masks[0] is None. One more mask than rounds.
    """

    rounds: tuple[Train, ...]
    masks: tuple[Mask | None, ...]
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
) -> Chain:
    """Iterative magnitude pruning (paper 3.1) until there is a mask with ``levels`` prunings.

    Each round trains from the dense run's state after ``rewind`` samples and then drops all but ``keep``
    of the weights that were left in ``scope`` (as in Prune).

    start: of the dense run; drawn anew by default. With the final weights of a pretext task and labels as the task
        this is pruning during transfer (paper 4.1, Figure 2); with ``rewind=0``, from the same weights each round.
    """
    if not isinstance(levels, Integral) or not 0 <= levels <= MAX_LEVELS:
        raise ValueError(f"levels is a whole number from 0 to {MAX_LEVELS:,}, not {levels!r:.80}")
    start = start or Init(seed=seed)
    dense = Train(task=task, data=data, arch=arch, recipe=recipe, seed=seed, start=start)
    rounds: list[Train] = [dense]
    masks: list[Mask | None] = [None]
    for level in range(1, levels + 1):
        masks.append(Prune(of=rounds[-1], keep=keep, scope=scope))
        if level < levels:
            rounds.append(rewound(masks[-1], to=dense, samples=rewind, task=task, recipe=recipe))
    return Chain(rounds=tuple(rounds), masks=tuple(masks), rewind=rewind)


def winning_ticket(chain: Chain, level: int, *, task: str, recipe: Recipe, data: str | None = None) -> Train:
    """The subnetwork of ``level``, reset to the chain's early weights and trained on ``task`` (Frankle et al.).

    On the chain's own task and data this *is* the chain's round of that level, so it is never trained twice.
    data: what it is trained on; the chain's by default, which may be a part of what there are labels for.
    """
    data = data or chain.dense.data
    if not 0 <= level < len(chain.masks):
        raise ValueError(f"the chain has levels 0 to {len(chain.masks) - 1}, not {level}")
    if level == 0 and (task, recipe, data) == (chain.dense.task, chain.dense.recipe, chain.dense.data):
        return chain.dense
    return rewound(chain.masks[level], to=chain.dense, samples=chain.rewind, task=task, recipe=recipe, data=data)


def rewound(mask: Mask | None, *, to: Train, samples: int, task: str, recipe: Recipe, data: str | None = None) -> Train:
    """Any mask, one from elsewhere too, on the weights that training ``to`` had after ``samples``, trained on ``task``.

    data: what it is trained on; that of ``to`` by default.
    """
    start = Rewind(of=to, samples=samples)
    return Train(task=task, data=data or to.data, arch=to.arch, recipe=recipe, seed=to.seed, start=start, mask=mask)


def random_reinit(mask: Mask | None, *, like: Train, task: str, recipe: Recipe) -> Train:
    """The mask alone: weights drawn anew, trained from the start (Liu et al.). ``like`` gives data, net and seed."""
    start = Init(seed=like.seed, draw=1)
    return Train(task=task, data=like.data, arch=like.arch, recipe=recipe, seed=like.seed, start=start, mask=mask)


def random_prune(
    *, like: Train, keep: float, level: int, scope: str = "all", nonzero: Train | None = None
) -> RandomPrune:
    """The baseline: a random mask with as many weights as ``level`` rounds of pruning leave.

    nonzero: a dense training whose natural zeros are not among them (paper 4.3, the adjusted baseline).
    """
    return RandomPrune(
        arch=like.arch, data=like.data, keep=keep, level=level, seed=like.seed, scope=scope, nonzero=nonzero
    )


def linear(of: Train, *, data: str, recipe: Recipe | SVM) -> Train:
    """How good a training's features are: a linear classifier on them, frozen (paper 4.1, Figure 1)."""
    return _transferred(of, data=data, recipe=recipe, start=Final(of=of), trunk_frozen=True)


def untrained(of: Train, *, data: str, recipe: Recipe | SVM) -> Train:
    """The control beside :func:`linear`: weights that were never trained, under the same mask."""
    return _transferred(of, data=data, recipe=recipe, start=Init(seed=of.seed), trunk_frozen=True)


def finetune(of: Train, *, data: str, recipe: Recipe) -> Train:
    """All of a training's network, under its mask, trained further on labels (paper 4.1, Figure 2)."""
    return _transferred(of, data=data, recipe=recipe, start=Final(of=of), trunk_frozen=False)


def shuffled(chain: Chain, level: int) -> Shuffle:
    """The control: the chain's mask of ``level``, permuted within each layer."""
    mask = chain.masks[level] if 0 < level < len(chain.masks) else None
    if mask is None:
        raise ValueError(f"the chain has masks at levels 1 to {len(chain.masks) - 1}, not {level}")
    return Shuffle(of=mask, seed=chain.dense.seed)


def _transferred(of: Train, *, data: str, recipe: Recipe | SVM, start: Start, trunk_frozen: bool) -> Train:
    return Train(
        task="labels",
        data=data,
        arch=of.arch,
        recipe=recipe,
        seed=of.seed,
        start=start,
        mask=of.mask,
        trunk_frozen=trunk_frozen,
    )
