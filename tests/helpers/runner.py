"""Small steps of every kind, and what a store has of them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load as from_safetensors
from torch import Tensor, nn

from raysslprune import models
from raysslprune.lottery import Chain, finetune, imp, linear, untrained
from raysslprune.paper.scales import SETTINGS
from raysslprune.spec import Final, Mask, Recipe, Step, Train, dump, seed_of
from raysslprune.store.record import WEIGHTS, Record
from raysslprune.store.steps import Store
from raysslprune.training.make_masks import NoExchange
from raysslprune.training.runner import Runner

SMOKE = SETTINGS["smoke"]
CONVOLUTIONS = {f"layers.conv{n}.weight": shape for n, shape in
                enumerate([(16, 1, 3, 3), (32, 16, 3, 3), (32, 32, 3, 3), (64, 32, 3, 3)], start=1)}  # fmt: skip
SEED = 3
SHORT = replace(SMOKE.recipes["labels"], samples=1_280)


def chain(task: str, levels: int = 2, scope: str = "all") -> Chain:
    recipe = SMOKE.recipes["s4l:10%-of-images" if task == "s4l" else task]
    recipe = replace(recipe, samples=1_280) if task in ("labels", "rotnet") else recipe
    return imp(
        task=task,
        data="digits",
        arch="conv4",
        recipe=recipe,
        seed=SEED,
        levels=levels,
        keep=0.4,
        rewind=120 if task == "s4l" else 640,
        scope=scope,
    )


ROTNET = chain("rotnet")
OF = ROTNET.rounds[1]
"""What is judged: RotNet under its first mask."""
CLASSIFIER, MACHINES = (probe.recipe for probe in SMOKE.linear)
assert isinstance(CLASSIFIER, Recipe)
LINEAR = replace(CLASSIFIER, samples=2_560)
TENTH = replace(SMOKE.recipes["labels:10%-of-images"], samples=480)
STEPS = {
    "linear": linear(OF, data="digits", recipe=LINEAR),
    "linear with views": linear(OF, data="digits", recipe=replace(LINEAR, samples=1_280, pad=1)),
    "untrained": untrained(OF, data="digits", recipe=LINEAR),
    "SVMs": linear(OF, data="digits", recipe=MACHINES),
    "SVMs, untrained": untrained(OF, data="digits", recipe=MACHINES),
    "fine-tuned": finetune(OF, data="digits", recipe=replace(SMOKE.finetune.recipe, samples=1_280, batch=64)),
    "fine-tuned on a tenth": finetune(OF, data="digits:10%-of-images", recipe=TENTH),
    "linear on three classes": linear(OF, data="digits:30%-of-classes", recipe=LINEAR),
}
DURING = imp(
    task="labels",
    data="digits",
    arch="conv4",
    recipe=SHORT,
    seed=SEED,
    levels=2,
    keep=0.4,
    rewind=0,
    start=Final(of=ROTNET.dense),
)
"""Pruning during transfer."""


def weights(store: Store, step: Train, name: str = WEIGHTS) -> dict[str, Tensor]:
    return from_safetensors(store.artefact(step.id, name))


def record(store: Store, step: Step) -> Record:
    found = store.record(step.id)
    assert found is not None
    return found


def mask_in(store: Store, step: Mask | None) -> dict[str, Tensor]:
    """As bool tensors, unpacked by numpy."""
    assert step is not None
    packed = from_safetensors(store.artefact(step.id, "mask.safetensors"))
    assert packed.keys() == CONVOLUTIONS.keys()
    unpacked = {n: np.unpackbits(bits.numpy(), count=math.prod(CONVOLUTIONS[n])) for n, bits in packed.items()}
    return {n: torch.from_numpy(bits.astype(bool)).view(CONVOLUTIONS[n]) for n, bits in unpacked.items()}


def left(mask: Mapping[str, Tensor], *numbers: int) -> int:
    """Weights that stay, in those convolutions."""
    names = [f"layers.conv{n}.weight" for n in numbers or (1, 2, 3, 4)]
    return sum(int(mask[name].sum()) for name in names)


def drawn(outputs: int) -> dict[str, Tensor]:
    """A network as drawn for SEED."""
    generator = torch.Generator().manual_seed(seed_of("init", SEED, 0))
    net = models.network("conv4", 1, lambda width: nn.Linear(width, outputs), generator, torch.device("cpu"))
    return net.state_dict()


def masked(state: Mapping[str, Tensor], mask: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: t * mask[name[6:]] if name[6:] in mask else t for name, t in state.items()}


def same(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) and a[name].dtype == b[name].dtype for name in a)


def made(root: Path, **options: Any) -> Runner:
    store = Store(str(root / "runs"))
    store.create()
    return Runner(store=store, exchange=NoExchange(), **options)


def job_of(step: Train, snapshots: tuple[int, ...] = (), **lists: list[str]) -> dict[str, Any]:
    plain = {"graph": dump([step]), "train": step.id, "snapshots": list(snapshots), "before": [], "after": []}
    return json.loads(json.dumps({**plain, "weights": False, "keep": True, **lists}))
