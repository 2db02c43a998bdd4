"""Data sets that are folders of images, a folder for each class: ImageNet, Places205, and anyone's own."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from raysslprune.catalogue import MAX_RESIDENT, sized
from raysslprune.data.dataset import DataError, Dataset, Resident, counted, no_argument
from raysslprune.data.files import EXTENSIONS, Files, below, check_command, dataset, executor, listed, spelled

BATCH = 256
"""Number of images that are decoded, or added up, at once."""


class Folder:
    """``folder/NAME``: the images ``<data>/NAME/{train,val}/<class>/*``, as in torchvision's ImageFolder.

    Classes are numbered in the order of their names; images are in the order of class, then folder, then name.
    Folders within a class belong to it; hidden files are left out, and so are files without an image's extension,
    which a remark counts. Training takes crops of 224 x 224 pixels; testing resizes the shorter side to 256 pixels and
    takes the central 224 x 224. Smaller images are enlarged.

    ``folder/NAME:96px`` has images of 96 x 96 pixels. Up to MAX_RESIDENT pixels all images are decoded once, their
    shorter side is resized to that size, and their central square is kept in memory: views are made of these squares,
    which may be padded, and they are normalised by the mean and standard deviation of those for training. Larger images
    are decoded for each view as at 224 pixels; for testing, their shorter side is resized to 8/7 of the size.
    """

    wanted: ClassVar[int | None] = None
    """Required number of classes; None for any."""
    example: ClassVar[str] = "CLASS/*.jpg, a folder for each class"

    def __init__(self, argument: str = "") -> None:
        self.name, self.size = sized(argument)
        below(Path(), "folder", self.name)

    @property
    def resident(self) -> bool:
        """True if the images are kept in memory."""
        return self.size is not None and self.size <= MAX_RESIDENT

    def locate(self, root: Path, fetch: bool = False) -> Sequence[str]:
        return self.files(root).remarks

    def labels(self, root: Path) -> Tensor:
        """Labels of the training images, from the names of the files alone."""
        return self.files(root).train.labels

    def load(self, root: Path) -> Dataset:
        found = self.files(root)
        if self.size is None:
            return found
        resize = self.size if self.resident else round(self.size * Files.resize / Files.size)
        check = check_command(f"folder/{self.name}", root)
        train, test = (
            replace(split, size=self.size, resize=resize, check=check)
            for split in (found.train, found.test)
            if isinstance(split, Files)
        )
        if not self.resident:
            return replace(found, train=train, test=test)
        train, test = (_decoded(split) for split in (train, test))
        mean, std = _moments(train.images)
        return replace(found, train=train, test=test, mean=mean, std=std)

    def files(self, root: Path) -> Dataset:
        """List the folders; no image is read. The images have the usual size. Raises DataError."""
        folder = below(root, "folder", self.name)
        unread = Counter[str]()
        classes = self.classes(folder, "train", unread)
        if odd := set(classes).symmetric_difference(self.classes(folder, "val", unread)):
            has, lacks = ("train", "val") if min(odd) in classes else ("val", "train")
            raise DataError(f"class {spelled(min(odd))} is in {folder / has}, but not in {folder / lacks}")
        train, test = ([f"{split}/{name}" for name in classes] for split in ("train", "val"))
        found = list(executor().map(partial(_images, folder), train + test))
        images = [names for names, _ in found]
        unread = sum((others for _, others in found), unread)
        splits = []
        for some in (images[: len(classes)], images[len(classes) :]):
            labels = torch.arange(len(classes)).repeat_interleave(torch.tensor([len(names) for names in some]))
            splits.append(([name for names in some for name in names], labels))
        return dataset(folder, *splits, classes=len(classes), remarks=_unread(folder, unread))

    def classes(self, folder: Path, split: str, unread: Counter[str]) -> list[str]:
        """The names of a split's class folders, in order. Counts other files in ``unread``. Raises DataError."""
        layout = f"expected: {folder}/{{train,val}}/{self.example}"
        found = []
        for entry in listed(folder / split, layout):
            if _is_folder(entry):
                found.append(entry.name)
            elif _is_image(entry.name):
                raise DataError(f"image {entry.path} is not in the folder of its class; {layout}")
            elif not os.path.exists(entry):
                raise DataError(f"{entry.path} is a broken link; {layout}")
            else:
                unread[_ending(entry.name)] += 1
        if not found or self.wanted not in (None, len(found)):
            raise DataError(f"the number of class folders in {folder / split} is {len(found):,}; {layout}")
        return sorted(found)


class ImageNet(Folder):
    """The 1,000 classes of ILSVRC 2012."""

    wanted = 1000
    example = "n01440764/*.JPEG, a folder for each of 1,000 classes"

    def __init__(self, argument: str = "") -> None:
        no_argument("imagenet", argument)
        super().__init__("imagenet")


class Places205(Folder):
    """The 205 scenes of Places (Zhou et al. 2014)."""

    wanted = 205
    example = "abbey/*.jpg, a folder for each of 205 classes"

    def __init__(self, argument: str = "") -> None:
        no_argument("places205", argument)
        super().__init__("places205")


def _decoded(files: Files) -> Resident:
    """Decode all images, as for testing. Raises DataError."""
    images = torch.empty(len(files), files.channels, files.size, files.size, dtype=torch.uint8)
    place = 0
    for batch, _ in files.batches(BATCH):
        images[place : place + len(batch)] = batch
        place += len(batch)
    return Resident(images=images, labels=files.labels)


def _moments(images: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each channel, (channels, 1, 1), in batches: as float, images take four times more.

    A channel without any variance has a standard deviation of 1.
    """
    count = len(images) * images.shape[2] * images.shape[3]
    total, squares = torch.zeros(2, images.shape[1], dtype=torch.int64)
    for batch in images.split(BATCH):
        whole = batch.to(torch.int64)
        total += whole.sum(dim=(0, 2, 3))
        squares += (whole * whole).sum(dim=(0, 2, 3))
    mean = total.double() / count
    variance = (squares.double() - count * mean * mean).clamp(min=0) / max(1, count - 1)
    std = torch.where(variance > 0, variance, 1.0).sqrt()
    return mean.float().view(-1, 1, 1), std.float().view(-1, 1, 1)


def _unread(folder: Path, endings: Counter[str]) -> list[str]:
    """A remark on the files without an image's extension, if there are any."""
    if not endings:
        return []
    files = counted(endings.total(), "file", "files")
    return [
        f"{files} in {folder} will not be read: {_listing(endings)}; images have names in {', '.join(EXTENSIONS)},"
        " so rename or convert files that should be read"
    ]


def _listing(endings: Counter[str]) -> str:
    return ", ".join(f"{count:,} {ending}" for ending, count in Counter(dict(sorted(endings.items()))).most_common())


def _ending(name: str) -> str:
    return os.path.splitext(name)[1].lower() or "without an extension"


def _images(root: Path, part: str) -> tuple[list[str], Counter[str]]:
    """The images in a class's folder and below, as paths from ``root``, in order; and other files, by extension.

    Raises DataError.
    """
    others = Counter[str]()
    found: list[tuple[str, list[str]]] = []
    waiting, seen = [part], set[str]()
    while waiting:
        folder = waiting.pop()
        names: list[str] = []
        for entry in listed(root / folder, "expected: a folder with images"):
            if _is_folder(entry):
                real = os.path.realpath(entry)
                if real in seen:
                    raise DataError(
                        f"folder {entry.path} would be read twice, because a link leads to the same folder; "
                        "remove the link"
                    )
                seen.add(real)
                waiting.append(f"{folder}/{entry.name}")
            elif _is_image(entry.name):
                names.append(entry.name)
            else:
                others[_ending(entry.name)] += 1
        found.append((folder, sorted(names)))
    images = [f"{folder}/{name}" for folder, names in sorted(found) for name in names]
    if not images:
        only = f", only {_listing(others)}" if others else ""
        raise DataError(f"{root / part} has no images{only}; expected: files with names in {', '.join(EXTENSIONS)}")
    return images, others


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Return whether an entry is a folder. Links are followed; only links need a call to the file system."""
    return os.path.isdir(entry) if entry.is_symlink() else entry.is_dir()


def _is_image(name: str) -> bool:
    return name.lower().endswith(EXTENSIONS)
