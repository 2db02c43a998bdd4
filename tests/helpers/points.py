"""Points of small sweeps, and records of their steps."""

from __future__ import annotations

import runpy
from collections.abc import Callable, Iterable

from raysslprune.lottery import (
    Chain,
    finetune,
    imp,
    linear,
    random_prune,
    random_reinit,
    shuffled,
    untrained,
    winning_ticket,
)
from raysslprune.spec import SVM, Final, Mask, Recipe, Shuffle, Train
from raysslprune.store.record import File, Record
from raysslprune.sweepfile import Point
from tests.helpers import CHECKOUT

RECIPE = Recipe(samples=2400, batch=64, lr=0.05)
LONG = Recipe(samples=4800, batch=64, lr=0.05)
MACHINES = SVM(costs=(0.1, 1.0))


def chain(
    task: str = "labels", seed: int = 0, levels: int = 3, keep: float = 0.5, rewind: int = 1200, arch: str = "conv4"
) -> Chain:
    return imp(task=task, data="digits", arch=arch, recipe=RECIPE, seed=seed, levels=levels, keep=keep, rewind=rewind)


def drawn(mask: Mask | None, like: Train, recipe: Recipe = RECIPE) -> Train:
    return random_reinit(mask, like=like, task="labels", recipe=recipe)


def points(steps: Iterable[Train]) -> list[Point]:
    return [Point(step=step, task="labels", init="any", level=n, seed=0) for n, step in enumerate(steps)]


def made_up(seed: int = 0) -> list[Point]:
    """A sweep with every kind of step: tickets on two tasks, drawn weights, random and shuffled masks."""
    labels, rotnet = chain(seed=seed), chain("rotnet", seed=seed)
    dense = labels.dense
    random = random_prune(like=dense, keep=0.5, level=2)
    permuted = Shuffle(of=random, seed=seed + 1)
    return points(
        [
            winning_ticket(rotnet, 3, task="labels", recipe=RECIPE),
            drawn(permuted, dense),
            drawn(random, dense),
            drawn(random, dense, LONG),
            winning_ticket(labels, 2, task="labels", recipe=RECIPE),
            drawn(shuffled(labels, 3), dense),
            drawn(labels.masks[1], dense),
            drawn(shuffled(rotnet, 1), dense),
            dense,
        ]
    )


def judged(seed: int = 0) -> list[Point]:
    """Figures 1 and 2 and the adjusted baseline: linear classifiers, SVMs and fine-tuning at every level of a chain."""
    rotnet = chain("rotnet", seed=seed)
    dense = rotnet.dense
    during = imp(
        task="labels",
        data="digits",
        arch="conv4",
        recipe=RECIPE,
        seed=seed,
        levels=2,
        keep=0.5,
        rewind=0,
        start=Final(of=dense),
    )
    adjusted = random_prune(like=dense, keep=0.5, level=2, nonzero=dense)
    steps: list[Train] = []
    for of in rotnet.rounds:
        steps += [make(of, data="digits", recipe=r) for make in (linear, untrained) for r in (LONG, MACHINES)]
        steps.append(finetune(of, data="digits", recipe=RECIPE))
    return points(
        [
            drawn(Shuffle(of=adjusted, seed=4), dense),
            *during.rounds,
            drawn(adjusted, dense),
            drawn(random_prune(like=dense, keep=0.5, level=2, scope="convs:2", nonzero=rotnet.rounds[1]), dense),
            *steps,
        ]
    )


FIG3 = runpy.run_path(str(CHECKOUT / "sweeps/fig3.py"))["points"]


def fig3(scale: str, seeds: int) -> list[Point]:
    return [point for seed in range(seeds) for point in FIG3(scale, seed)]


SWEEPS = {
    "fig3 laptop": fig3("laptop", 2),
    "fig3 smoke": fig3("smoke", 2),
    "made up": [*made_up(), *made_up(1)],
    "judged": [*judged(), *judged(1)],
}
WEIGHTS = "weights.safetensors"


def record(step_id: str, files: Iterable[str] = (WEIGHTS,), speed: float = 1000.0, device: str = "cpu") -> Record:
    return Record(
        step=step_id,
        metrics={},
        facts={"images_per_second": speed, "device": device},
        files={name: File(size=1, sha256="") for name in files},
    )


def wide(limit: int) -> Callable[[int], int]:
    """As many workers as a job has parts, but at most so many."""
    return lambda parts: min(parts, limit)
