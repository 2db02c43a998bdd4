"""Data sets, resident on the device as uint8. A new one is a file here and a line in ``DATASETS``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from raysslprune.data import digits


@dataclass(frozen=True, kw_only=True)
class Split:
    """images: uint8, (samples, channels, height, width). labels: int64, (samples,)."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device) -> Split:
        return Split(images=self.images.to(device), labels=self.labels.to(device))


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """mean, std: per channel, of the training images on the uint8 scale."""

    train: Split
    test: Split
    classes: int
    mean: Tensor
    std: Tensor

    @property
    def channels(self) -> int:
        return self.train.images.shape[1]

    @property
    def size(self) -> int:
        return self.train.images.shape[2]

    def to(self, device: torch.device) -> Dataset:
        return Dataset(
            train=self.train.to(device),
            test=self.test.to(device),
            classes=self.classes,
            mean=self.mean.to(device),
            std=self.std.to(device),
        )

    def normalise(self, images: Tensor) -> Tensor:
        """uint8 images to float32 with mean 0 and variance 1 over the training set."""
        return images.float().sub_(self.mean).div_(self.std)


DATASETS: dict[str, Callable[[], tuple[Tensor, Tensor, Tensor, Tensor]]] = {"digits": digits.load}
"""Name to a function that gives (train images, train labels, test images, test labels) as in Split."""


@cache
def load(name: str) -> Dataset:
    """The data set by name, read once a process. Raises ValueError for a name that is not known."""
    if name not in DATASETS:
        raise ValueError(f"data set {name!r} is not one of {', '.join(DATASETS)}")
    train_images, train_labels, test_images, test_labels = DATASETS[name]()
    std, mean = torch.std_mean(train_images.float(), dim=(0, 2, 3), keepdim=True)
    return Dataset(
        train=Split(images=train_images, labels=train_labels),
        test=Split(images=test_images, labels=test_labels),
        classes=int(train_labels.max()) + 1,
        mean=mean[0],
        std=std[0],
    )
