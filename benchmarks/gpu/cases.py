"""What is trained: networks with their recipe and resident data, by our loop and by a bare one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.gpu import timing
from raysslprune import data, masks, models
from raysslprune.data import Dataset, Resident
from raysslprune.paper.recipes import appendix_d
from raysslprune.paper.scales import SETTINGS
from raysslprune.spec import Init, Recipe, Train
from raysslprune.training.device import arithmetic
from raysslprune.training.loop import Loop, optimizer


@dataclass(frozen=True)
class Case:
    """A training on labels: a network with a random half of its weights masked, a recipe, and data on the device."""

    arch: str
    recipe: Recipe
    data: Dataset

    @property
    def device(self) -> torch.device:
        return self.data.device

    @cached_property
    def mask(self) -> masks.Mask:
        shapes = {n: w.shape for n, w in models.prunable(models.trunk(self.arch, self.data.channels)).items()}
        count = sum(shape.numel() for shape in shapes.values()) // 2
        return masks.random(shapes, count, torch.Generator().manual_seed(0))

    @property
    def images(self) -> Tensor:
        """All training images, normalised."""
        assert isinstance(self.data.train, Resident)
        return self.data.normalise(self.data.train.images).contiguous(memory_format=torch.channels_last)

    def network(self, seed: int = 0) -> models.Network:
        generator = torch.Generator().manual_seed(seed)
        head = lambda width: nn.Linear(width, self.data.classes)  # noqa: E731
        return models.network(self.arch, self.data.channels, head, generator, self.device)

    def in_precision(self, precision: str) -> Case:
        return replace(self, recipe=replace(self.recipe, precision=precision))

    def loop(self, updates: int, task: str = "labels", **how: Any) -> Loop:
        """Make our loop for a number of updates. how: ``compiled``, ``graphed``."""
        recipe = replace(self.recipe, samples=updates * self.recipe.batch)
        step = Train(task=task, data="", arch=self.arch, recipe=recipe, seed=0, start=Init(seed=0))
        return Loop(step=step, data=self.data, mask=self.mask, device=self.device, **how)


def ours(case: Case, **how: Any) -> timing.Way:
    """Return a Way that runs our loop, with augmentation, masks and checks; it does not time the making of the loop."""

    def way(updates: int) -> float:
        loop = case.loop(updates, **how)
        timing.synchronise(case.device)
        return loop.run().images_per_second

    return way


class Bare:
    """A loop that does nothing but forward, backward and update, on batches that are ready on the device."""

    def __init__(self, case: Case, net: nn.Module | None = None) -> None:
        """net: a network to train instead of the case's."""
        self.case = case
        self.net = net or case.network().to(memory_format=torch.channels_last)
        self.optimizer = optimizer(case.recipe, self.net)
        self.batches = _batches(case)
        self.next = 0

    def update(self, batch: Sequence[tuple[Tensor, ...]]) -> None:
        images, labels = batch[0]
        with torch.autocast(self.case.device.type, torch.bfloat16, enabled=self.case.recipe.precision == "bf16"):
            outputs = self.net(images).float()
        loss = self.loss(outputs, labels)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()

    def loss(self, outputs: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(outputs, labels)

    def take(self) -> Sequence[tuple[Tensor, ...]]:
        self.next = (self.next + 1) % len(self.batches)
        return [self.batches[self.next]]

    def __call__(self, updates: int) -> float:
        """Run a number of updates; return images/s."""
        with arithmetic(self.case.recipe.precision, self.case.device):
            took = timing.seconds(lambda: self.update(self.take()), self.case.device, updates)
        return updates * self.case.recipe.batch / took


def _batches(case: Case) -> list[tuple[Tensor, Tensor]]:
    """Return the full batches of the training images, in order."""
    size = case.recipe.batch
    pairs = zip(case.images.split(size), case.data.train.labels.split(size), strict=True)
    return [(images, labels) for images, labels in pairs if len(images) == size]


# ------------------------------------------------------------------------------------- the cases


def digits(arch: str, device: torch.device) -> Case:
    """Make a case of the laptop's recipe on scikit-learn's digits."""
    setting = SETTINGS["laptop"]
    return Case(arch, setting.recipes["labels"], data.load(setting.data).to(device))


def cifar(arch: str, device: torch.device, batch: int) -> Case:
    """Make a case of the paper's recipe for CIFAR-10, on noise of its shape."""
    paper = appendix_d("labels", "cifar10", "vgg19" if arch.startswith("vgg") else arch)
    recipe = replace(paper, batch=batch, schedule="constant", decay_at=())
    return Case(arch, recipe, noise(3, 32, 4 * batch, device))


def imagenet(arch: str, device: torch.device, batch: int, size: int) -> Case:
    """Make a case of the paper's recipe for ImageNet on resident noise, so without crops, which need images on disk."""
    paper = appendix_d("labels", "imagenet", arch)
    short = {"bn_batch": 0, "crop": 0.0, "warmup": 0, "schedule": "constant", "decay_at": ()}
    recipe = replace(paper, batch=batch, lr=0.001, **short)  # at the paper's rate, noise might make it diverge
    return Case(arch, recipe, noise(3, size, 2 * batch, device, classes=1000))


def noise(channels: int, size: int, count: int, device: torch.device, classes: int = 10) -> Dataset:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (count, channels, size, size), dtype=torch.uint8, generator=generator)
    labels = torch.arange(count) % classes
    labels[-1] = classes - 1
    return data.resident((images, labels), (images[:10], labels[:10])).to(device)
