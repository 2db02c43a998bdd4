"""Steps with made-up files, committed to a store."""

from __future__ import annotations

from pathlib import Path

import pytest

from raysslprune.spec import Init, Prune, Recipe, Step, Train
from raysslprune.store.record import MASK, WEIGHTS, Record, StoreError
from raysslprune.store.steps import Store

RECIPE = Recipe(samples=2400, batch=64, lr=0.05)
SNAPSHOT = "snapshot-1200.safetensors"
METRICS = {"top1": 98.5, "density": 1.0}
FACTS = {"seconds": 1.5, "versions": {"torch": "2"}, "resumed_at": None}


def train(seed: int = 0) -> Train:
    return Train(task="labels", data="digits", arch="conv4", recipe=RECIPE, seed=seed, start=Init(seed=seed))


def prune(seed: int = 0) -> Prune:
    return Prune(of=train(seed), keep=0.8)


def files_of(step: Step) -> dict[str, bytes]:
    """Files of the same sizes and other bytes for each step of a kind."""
    body = step.id.encode() * 64
    return {WEIGHTS: b"w" + body, SNAPSHOT: b"s" + body} if isinstance(step, Train) else {MASK: b"m" + body}


def commit(store: Store, step: Step) -> Record:
    return store.commit(step, files_of(step), METRICS, FACTS)


def made(root: Path | str) -> Store:
    store = Store(str(root))
    store.create()
    return store


def refusal(root: Path | str, make: bool = True) -> str:
    """The sentence with which a root is refused."""
    with pytest.raises(StoreError) as caught:
        made(root) if make else Store(str(root)).is_new()
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert str(root) in sentence
    assert "Traceback" not in sentence
    return sentence
