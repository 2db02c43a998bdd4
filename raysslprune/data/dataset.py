"""What the training loop sees of a data set, and what a source of one is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

IGNORED = -1
"""In labels of several classes at once: neither present nor absent, as VOC's difficult objects."""


class DataError(Exception):
    """A data set is missing or broken. The message is a sentence for the user, with the path."""


class Split(Protocol):
    """Images with labels: ``Resident`` ones or ``files.Files``.

    labels: int64 (n,), or int8 (n, classes) of 1, 0 and IGNORED where an image may be of several classes.
    channels, size: of the square images that :meth:`batches` gives.
    """

    @property
    def labels(self) -> Tensor: ...
    @property
    def channels(self) -> int: ...
    @property
    def size(self) -> int: ...

    def __len__(self) -> int: ...

    def batches(self, count: int) -> Iterator[tuple[Tensor, Tensor]]:
        """All images once and in order, without augmentation: uint8 (≤ count, channels, size, size), and labels."""
        ...

    def some(self, index: Tensor, labels: Tensor | None = None) -> Split:
        """Those images only, perhaps with other labels."""
        ...

    def to(self, device: torch.device) -> Split:
        """With the labels, and resident images, on that device."""
        ...


@dataclass(frozen=True, kw_only=True)
class Resident:
    """images: uint8, (samples, channels, height, width). labels: as in Split."""

    images: Tensor
    labels: Tensor

    @property
    def channels(self) -> int:
        return self.images.shape[1]

    @property
    def size(self) -> int:
        return self.images.shape[2]

    def __len__(self) -> int:
        return len(self.labels)

    def batches(self, count: int) -> Iterator[tuple[Tensor, Tensor]]:
        return zip(self.images.split(count), self.labels.split(count), strict=True)

    def some(self, index: Tensor, labels: Tensor | None = None) -> Resident:
        return Resident(images=self.images[index], labels=self.labels[index] if labels is None else labels)

    def to(self, device: torch.device) -> Resident:
        return Resident(images=self.images.to(device), labels=self.labels.to(device))


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """mean, std: per channel, (channels, 1, 1), on the uint8 scale: what images are normalised by.

    white: the largest value on that scale; digits end at 16. remarks: as Source.locate returns them.
    """

    train: Split
    test: Split
    classes: int
    mean: Tensor
    std: Tensor
    white: float = 255.0
    remarks: tuple[str, ...] = ()

    @property
    def channels(self) -> int:
        return self.train.channels

    @property
    def size(self) -> int:
        return self.train.size

    @property
    def multilabel(self) -> bool:
        """Whether an image may be of several classes at once."""
        return self.train.labels.ndim == 2

    @property
    def device(self) -> torch.device:
        return self.mean.device

    def to(self, device: torch.device) -> Dataset:
        return replace(
            self,
            train=self.train.to(device),
            test=self.test.to(device),
            mean=self.mean.to(device),
            std=self.std.to(device),
        )

    def normalise(self, images: Tensor) -> Tensor:
        """Images on the uint8 scale to float32 on this data set's device, by ``mean`` and ``std``."""
        return images.to(self.device, torch.float32, copy=True).sub_(self.mean).div_(self.std)

    def batches(self, split: Split, count: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Normalised images of a split, channels-last, and their labels, both on this data set's device."""
        for images, labels in split.batches(count):
            yield self.normalise(images).contiguous(memory_format=torch.channels_last), labels.to(self.device)


class Source(Protocol):
    """Where a data set comes from. Made with what stands after the slash in its name, else with ''."""

    def locate(self, root: Path, fetch: bool = False) -> Sequence[str] | None:
        """Look whether all is there, without reading it, under the data root. ``fetch``: download it, where it can be.

        Returns sentences on what a user may not expect, such as files that are not read; None if there are none.
        Raises DataError with the path and the layout that is wanted.
        """
        ...

    def load(self, root: Path) -> Dataset:
        """Read it, or the list of its files. Raises DataError."""
        ...


def counted(number: int, one: str, several: str) -> str:
    """A number and what it counts: ``1 image is`` or ``1,200 images are``."""
    return f"{number:,} {one if number == 1 else several}"


def no_argument(name: str, argument: str) -> None:
    """Raises ValueError where a data set that takes none has something after a slash."""
    if argument:
        raise ValueError(f"data set {name} takes nothing after a slash, but was given {argument!r}")


def resident(train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor]) -> Dataset:
    """A data set from images and labels in memory, normalised to mean 0 and variance 1 over the training images."""
    std, mean = torch.std_mean(train[0].float(), dim=(0, 2, 3), keepdim=True)
    return Dataset(
        train=Resident(images=train[0], labels=train[1]),
        test=Resident(images=test[0], labels=test[1]),
        classes=int(train[1].max()) + 1,
        mean=mean[0],
        std=std[0],
        white=float(train[0].max()),
    )
