"""A tiny network on made-up images, whose evidence is at hand, and the same network as plain float64 functions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import save as to_safetensors
from torch import Tensor, nn

from raysslprune import masks, models
from raysslprune.data.stream import Stream
from raysslprune.spec import ImportedWeights, Init, Prune, Recipe, Train, seed_of
from raysslprune.store.record import WEIGHTS
from raysslprune.training.evidence import Evidence, begun_task
from raysslprune.training.loop import starting_network
from tests.helpers.tasks import made_up, pictures

CPU = torch.device("cpu")
IMAGES = made_up(samples=30)
RECIPE = Recipe(samples=60, batch=10, lr=0.1)
EVERY = {"conv.weight": (3, 2, 3, 3), "linear.weight": (4, 3)}


class Tiny(nn.Module):
    """A convolution, BatchNorm, a linear layer: 66 prunable weights."""

    width = 4

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, 3, 3, bias=False)
        self.norm = nn.BatchNorm2d(3)
        self.linear = nn.Linear(3, 4)

    def forward(self, images: Tensor) -> Tensor:
        return self.linear(self.norm(self.conv(images)).relu().mean(dim=(2, 3)))


def training(task: str = "labels", **changes: Any) -> Train:
    fields = {"data": "digits", "arch": "tests.helpers.judged:Tiny", "recipe": RECIPE, "seed": 1, "start": Init(seed=1)}
    return Train(task=task, **{**fields, **changes})


def trained(step: Train | ImportedWeights) -> dict[str, Tensor]:
    """A state as if trained: as drawn, with other numbers for BatchNorm."""
    assert isinstance(step, Train)
    state = starting_network(step, begun_task(step, IMAGES), IMAGES, None).state_dict()
    for number, name in enumerate(("weight", "bias", "running_mean", "running_var")):
        drawn = torch.rand(3, generator=torch.Generator().manual_seed(number))
        state[f"trunk.norm.{name}"] = drawn + 0.5 if name in ("weight", "running_var") else drawn - 0.5
    return state


def full() -> masks.Mask:
    return masks.full({name: torch.Size(shape) for name, shape in EVERY.items()})


def evidence(
    step: Prune, mask: masks.Mask | None = None, files: Mapping[str, Mapping[str, Tensor]] | None = None
) -> Evidence:
    """Evidence on made-up images. files: states of the pruned training, by the files' names; by default the last."""
    known = files or {WEIGHTS: trained(step.of)}
    return Evidence(step, mask or full(), lambda: IMAGES, lambda _, name: to_safetensors(dict(known[name])), CPU)


def batches(step: Prune) -> list[tuple[Tensor, Tensor]]:
    """Images, normalised in float64, and labels, of the batches that a criterion of this step sees."""
    index = Stream(30, 3, seed_of("criterion", step.id)).take(0, step.samples).index
    images = (pictures(IMAGES.train).double() - IMAGES.mean) / IMAGES.std
    return [(images[i], IMAGES.train.labels[i]) for i in index.split(RECIPE.batch)]


def loss(
    weights: Mapping[str, Tensor],
    state: Mapping[str, Tensor],
    some: Iterable[tuple[Tensor, Tensor]],
    training: bool = True,
) -> Tensor:
    """The mean loss, in float64 and without modules. training: BatchNorm by each batch's own statistics."""
    rest = {name: t.double() for name, t in state.items()}
    total, count = torch.zeros((), dtype=torch.float64), 0
    for images, labels in some:
        made = F.conv2d(images, weights["conv.weight"])
        shape = (1, 3, 1, 1)
        mean, variance = rest["trunk.norm.running_mean"].view(shape), rest["trunk.norm.running_var"].view(shape)
        if training:
            mean = made.mean(dim=(0, 2, 3), keepdim=True)
            variance = (made - mean).square().mean(dim=(0, 2, 3), keepdim=True)
        scaled = (made - mean) / (variance + 1e-5).sqrt()
        out = (scaled * rest["trunk.norm.weight"].view(shape) + rest["trunk.norm.bias"].view(shape)).clamp(min=0)
        features = out.mean(dim=(2, 3)) @ weights["linear.weight"].T + rest["trunk.linear.bias"]
        outputs = features @ rest["head.weight"].T + rest["head.bias"]
        total = total + (outputs.logsumexp(1) - outputs[torch.arange(len(labels)), labels]).sum()
        count += len(labels)
    return total / count


def double(state: Mapping[str, Tensor], mask: masks.Mask) -> dict[str, Tensor]:
    return {name: state[f"trunk.{name}"].double() * m for name, m in mask.items()}


def prunable_names() -> list[str]:
    return list(models.prunable(Tiny(2)))
