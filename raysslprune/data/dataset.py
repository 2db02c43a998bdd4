"""Interfaces of data sets and of their sources."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from raysslprune.messages import UserError

IGNORED = -1
"""Label of a class that is neither present nor absent, such as VOC's difficult objects; for multiple labels."""


class DataError(UserError):
    """A data set is missing or broken. The message names its path."""


class Split(Protocol):
    """Images with labels: ``Resident`` ones or ``files.Files``.

    labels: int64 (n,), or int8 (n, classes) of 1, 0 and IGNORED if an image may be of several classes.
    channels, size: shape of the square images that :meth:`batches` gives.
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
        """A split of only these images, perhaps with other labels."""
        ...

    def to(self, device: torch.device) -> Split:
        """A copy with the labels, and resident images, on the device."""
        ...


@dataclass(frozen=True, kw_only=True)
class Resident:
    """A split in memory. images: uint8, (samples, channels, height, width). labels: as in Split."""

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
    """A data set. mean, std: normalisation per channel, (channels, 1, 1), on the uint8 scale.

    validation: training images that are held out, if any. white: the largest value of a pixel, 16 for digits. remarks:
    as Source.locate returns them.
    """

    train: Split
    test: Split
    classes: int
    mean: Tensor
    std: Tensor
    validation: Split | None = None
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
        """True if an image may be of several classes at once."""
        return self.train.labels.ndim == 2

    @property
    def device(self) -> torch.device:
        return self.mean.device

    def to(self, device: torch.device) -> Dataset:
        """A copy with all tensors on the device."""
        parts = {name: getattr(self, name) for name in ("train", "test", "mean", "std", "validation")}
        return replace(self, **{name: part.to(device) for name, part in parts.items() if part is not None})

    def normalise(self, images: Tensor) -> Tensor:
        """Normalise images on the uint8 scale by ``mean`` and ``std``, to float32 on this data set's device."""
        return sent(images, self.device).to(torch.float32, copy=True).sub_(self.mean).div_(self.std)

    def batches(self, split: Split, count: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Normalised images of a split, channels-last, and their labels, both on this data set's device."""
        for images, labels in split.batches(count):
            yield self.normalise(images).contiguous(memory_format=torch.channels_last), sent(labels, self.device)


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy a tensor to ``device``; a copy to a GPU is made from pinned memory, and may end later."""
    if device.type != "cuda" or tensor.is_cuda:
        return tensor.to(device)
    return (tensor if tensor.is_pinned() else tensor.pin_memory()).to(device, non_blocking=True)


class Source(Protocol):
    """A source of a data set, constructed from the part of the data set's name after the slash, or ''."""

    def locate(self, root: Path, fetch: bool = False) -> Sequence[str] | None:
        """Check that all files exist under the data root, without reading them. ``fetch``: download them if possible.

        Returns sentences on what a user may not expect, such as ignored files; None for no sentences.
        Raises DataError with the path and the required layout.
        """
        ...

    def load(self, root: Path) -> Dataset:
        """Read the data set, or the list of its files. Raises DataError."""
        ...


@runtime_checkable
class Labelled(Protocol):
    """A source that can read the labels without the images."""

    def labels(self, root: Path) -> Tensor:
        """The labels of the training images, as in Split. Raises DataError."""
        ...


def counted(number: int, one: str, several: str) -> str:
    """A number with words in the singular or plural: ``1 image is`` or ``1,200 images are``."""
    return f"{number:,} {one if number == 1 else several}"


def no_argument(name: str, argument: str) -> None:
    """Raise ValueError if a data set that takes no argument has one after a slash."""
    if argument:
        raise ValueError(f"data set {name} takes no argument; remove {'/' + argument!r}")


def resident(train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor]) -> Dataset:
    """A data set of uint8 images (n, c, size, size) and labels, normalised to mean 0, variance 1 over ``train``."""
    std, mean = torch.std_mean(train[0].float(), dim=(0, 2, 3), keepdim=True)
    return Dataset(
        train=Resident(images=train[0], labels=train[1]),
        test=Resident(images=test[0], labels=test[1]),
        classes=int(train[1].max()) + 1,
        mean=mean[0],
        std=std[0],
        white=float(train[0].max()),
    )
