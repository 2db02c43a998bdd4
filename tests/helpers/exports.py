"""A root with small trainings of every kind, and what is exported of it."""

from __future__ import annotations

import dataclasses
import hashlib
import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from safetensors.torch import save as to_safetensors
from torch import Tensor, nn

from raysslprune import masks, models
from raysslprune.commands import export
from raysslprune.lottery import imp, linear, random_reinit, rewound
from raysslprune.paper.scales import SETTINGS
from raysslprune.spec import Init, RandomPrune, Recipe, Shuffle, Step, Train
from raysslprune.store.record import MASK, WEIGHTS
from raysslprune.store.steps import Store
from tests.helpers import CHECKOUT
from tests.helpers.chains import execute

DOC = (CHECKOUT / "docs/export.md").read_text()
SMOKE = SETTINGS["smoke"]
LABELS = dataclasses.replace(SMOKE.recipes["labels"], samples=1_280)
CLASSIFIER, MACHINES = (probe.recipe for probe in SMOKE.linear)
assert isinstance(CLASSIFIER, Recipe)
SEED = 3
ROTNET = imp(
    task="rotnet",
    data="digits",
    arch="conv4",
    recipe=dataclasses.replace(SMOKE.recipes["rotnet"], samples=1_280),
    seed=SEED,
    levels=2,
    keep=0.2,
    rewind=640,
)
RANDOM = RandomPrune(arch="conv4", data="digits", keep=0.01, level=1, seed=SEED, scope="convs:3")
TRAININGS: dict[str, Train] = {
    "dense": Train(task="labels", data="digits", arch="conv4", recipe=LABELS, seed=SEED, start=Init(seed=SEED)),
    "ticket": rewound(ROTNET.masks[2], to=ROTNET.dense, samples=640, task="labels", recipe=LABELS),
    "pretext": ROTNET.rounds[1],
    "classifier": linear(ROTNET.rounds[1], data="digits", recipe=CLASSIFIER),
    "random": random_reinit(RANDOM, like=ROTNET.dense, task="labels", recipe=LABELS),
    "erk": random_reinit(
        dataclasses.replace(RANDOM, allocation="erk"), like=ROTNET.dense, task="labels", recipe=LABELS
    ),
    "shuffled": random_reinit(
        Shuffle(of=cast(Any, ROTNET.masks[1]), seed=1), like=ROTNET.dense, task="labels", recipe=LABELS
    ),
}
SVMS = linear(ROTNET.rounds[1], data="digits", recipe=MACHINES)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """All of these, made once. Don't write to it."""
    return execute([*TRAININGS.values(), SVMS], tmp_path_factory.mktemp("export") / "runs")


@pytest.fixture(scope="module")
def exported(trained: Store, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The trainings, exported by the command. Don't write to them."""
    out = tmp_path_factory.mktemp("exported")
    for name, step in TRAININGS.items():
        assert export.main([step.id, "--root", trained.base, "--out", str(out / name)]) == 0
    return {name: out / name for name in TRAININGS}


def copy(of: str, to: Path) -> Path:
    return Path(shutil.copytree(of, to))


def weights(trained: Store, step: Train) -> dict[str, Tensor]:
    return load_file(Path(trained.base) / "steps" / step.id / WEIGHTS)


def mask_in(trained: Store, step: Step, shapes: Mapping[str, torch.Size]) -> dict[str, np.ndarray]:
    """From the store's file, by numpy."""
    packed = load_file(Path(trained.base) / "steps" / step.id / MASK)
    return {
        name: np.unpackbits(packed[name].numpy(), count=math.prod(shape)).astype(bool).reshape(shape)
        for name, shape in shapes.items()
    }


SHAPES = {f"layers.conv{n}.weight": torch.Size(shape) for n, shape in
          enumerate([(16, 1, 3, 3), (32, 16, 3, 3), (32, 32, 3, 3), (64, 32, 3, 3)], start=1)}  # fmt: skip


def committed(root: Path, arch: str, name: str, classes: int) -> tuple[Store, Train]:
    """A made-up training of a large network, half of it pruned at random, in a store."""
    trained = Store(str(root))
    trained.create()
    mask = RandomPrune(arch=arch, data=name, keep=0.5, level=1, seed=0)
    recipe = Recipe(samples=2_560, batch=256, lr=0.1)
    step = Train(task="labels", data=name, arch=arch, recipe=recipe, seed=0, start=Init(seed=0), mask=mask)
    generator = torch.Generator().manual_seed(0)
    with torch.device("meta"):
        net = models.Network(models.trunk(arch, 3), nn.Linear(cast(int, models.trunk(arch, 3).width), classes))
    net.to_empty(device="cpu")
    for key, t in net.state_dict().items():
        if key.endswith("num_batches_tracked"):
            t.fill_(7)
        elif t.dim() > 1:
            t.normal_(0, math.sqrt(2 / t[0].numel()), generator=generator)
        else:
            t.uniform_(0.5, 1.5, generator=generator)
    stays = {key: torch.rand(w.shape, generator=generator) < 0.5 for key, w in models.prunable(net.trunk).items()}
    with torch.no_grad():
        for key, w in models.prunable(net.trunk).items():
            w *= stays[key]
    trained.commit(mask, {MASK: to_safetensors(masks.pack(stays))}, {"density": masks.density(stays)}, {})
    trained.commit(step, {WEIGHTS: to_safetensors(net.state_dict())}, {"top1": 1.0}, {})
    return trained, step


def card_of(folder: Path) -> str:
    return (folder / "README.md").read_text()


def code_of(main: Callable[[Sequence[str]], int], arguments: Sequence[str]) -> Any:
    """What a command exits with; argparse does so itself."""
    try:
        return main(arguments)
    except SystemExit as exit_:
        return exit_.code


def refused(capfd: pytest.CaptureFixture[str], code: int, *arguments: str) -> str:
    """The one sentence that the command says; it leaves nothing."""
    out = next(Path(after) for flag, after in pairwise(arguments) if flag == "--out")
    before = set(out.parent.rglob("*"))
    capfd.readouterr()
    assert code_of(export.main, arguments) == code
    said = capfd.readouterr()
    assert said.out == ""
    lines = said.err.splitlines()
    assert len(lines) == 1, said.err
    assert set(out.parent.rglob("*")) == before
    return lines[0].removeprefix("raysslprune: ")


def made_mask() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(4)
    return {name: torch.rand(shape, generator=generator) < 0.3 for name, shape in SHAPES.items()}


def by_hand(mask: Mapping[str, Tensor]) -> str:
    """The digest as its docstring has it."""
    text = b""
    for name in sorted(mask):
        text += f"{name} {tuple(mask[name].shape)}".encode() + b"\n" + np.packbits(mask[name].numpy().ravel()).tobytes()
    return hashlib.sha256(text).hexdigest()
