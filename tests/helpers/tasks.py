"""Made-up images and outputs, and losses as plain loops."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from raysslprune.data import Dataset, Resident
from raysslprune.spec import Recipe

PLAIN = Recipe(samples=1200, batch=64, lr=0.1)


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def unit(*shape: int, seed: int = 0) -> Tensor:
    rows = drawn(*shape, seed=seed)
    return rows / rows.square().sum(-1, keepdim=True).sqrt()


def made_up(samples: int = 30, classes: int = 3, size: int = 4, multilabel: bool = False) -> Dataset:
    """Images of noise, with labels in turn."""
    generator = torch.Generator().manual_seed(samples)
    splits = []
    for count in (samples, 2 * samples):
        images = torch.randint(256, (count, 2, size, size), generator=generator).to(torch.uint8)
        labels = torch.arange(count) % classes
        if multilabel:
            labels = torch.randint(-1, 2, (count, classes), generator=generator).to(torch.int8)
        splits.append(Resident(images=images, labels=labels))
    mean, std = torch.full((2, 1, 1), 100.0), torch.full((2, 1, 1), 50.0)
    return Dataset(train=splits[0], test=splits[1], classes=classes, mean=mean, std=std)


def pictures(split: Any) -> Tensor:
    assert isinstance(split, Resident)
    return split.images


class Linear(nn.Module):
    """Of an image's pixels, in float64; knows how often it was asked."""

    def __init__(self, outputs: int, pixels: int = 32, seed: int = 5) -> None:
        super().__init__()
        self.weight = nn.Parameter(drawn(outputs, pixels, seed=seed) / 5)
        self.asked: list[int] = []

    def forward(self, images: Tensor) -> Tensor:
        self.asked.append(len(images))
        return images.double().flatten(1) @ self.weight.T

    def of(self, image: np.ndarray) -> list[float]:
        """One image (channels, size, size), by numpy."""
        return (self.weight.detach().numpy() @ image.astype(np.float64).ravel()).tolist()


def cross_entropy(outputs: Sequence[float], label: int) -> float:
    return math.log(sum(math.exp(o) for o in outputs)) - outputs[label]


def dot(a: Sequence[float], b: Sequence[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


def normal(row: Sequence[float]) -> list[float]:
    return [x / math.sqrt(dot(row, row)) for x in row]


def gradients_are_right(function: Callable[..., Tensor], *inputs: Tensor) -> None:
    assert torch.autograd.gradcheck(function, [i.clone().requires_grad_() for i in inputs])
