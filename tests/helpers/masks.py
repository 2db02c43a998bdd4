"""Chains, and made-up masks of their steps in a store."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from safetensors.torch import save as to_safetensors

from raysslprune import masks, models
from raysslprune.lottery import Chain, imp, winning_ticket
from raysslprune.masks import Mask as Bits
from raysslprune.spec import Mask, Recipe, seed_of
from raysslprune.store.record import MASK
from raysslprune.store.steps import Store
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
