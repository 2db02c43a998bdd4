"""Data sets that are folders of images, a folder for each class: ImageNet, Places205, and anyone's own."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import ClassVar

import torch

from raysslprune.data.dataset import DataError, Dataset, no_argument
from raysslprune.data.files import EXTENSIONS, below, dataset, executor, listed


class Folder:
    """``folder/NAME``: the images ``<data>/NAME/{train,val}/<class>/*``, as torchvision's ImageFolder wants them.

    Classes are numbered in the order of their names; images are in the order of class, then folder, then name.
    Folders within a class belong to it; hidden files, and those that are no images by their names, are left out. For
    training, crops of 224 x 224 pixels; for testing, the central such square of the image whose shorter side is 256.
    Smaller images are enlarged.
    """

    wanted: ClassVar[int | None] = None
    """How many classes there must be; None for any number."""
    example: ClassVar[str] = "CLASS/*.jpg, a folder for each class"

    def __init__(self, argument: str = "") -> None:
        self.name = argument
        below(Path(), "folder", argument)

    def locate(self, root: Path, fetch: bool = False) -> None:
        self.load(root)  # which lists the folders and reads no image

    def load(self, root: Path) -> Dataset:
        folder = below(root, "folder", self.name)
        classes = self.classes(folder, "train")
        odd = set(classes).symmetric_difference(self.classes(folder, "val"))
        if odd:
            has, lacks = ("train", "val") if min(odd) in classes else ("val", "train")
            raise DataError(f"class {min(odd)} is in {folder / has}, but not in {folder / lacks}")
        train, test = ([f"{split}/{name}" for name in classes] for split in ("train", "val"))
        images = list(executor().map(partial(_images, folder), train + test))
        splits = []
        for some in (images[: len(classes)], images[len(classes) :]):
            labels = torch.arange(len(classes)).repeat_interleave(torch.tensor([len(names) for names in some]))
            splits.append(([name for names in some for name in names], labels))
        return dataset(folder, *splits, classes=len(classes))

    def classes(self, folder: Path, split: str) -> list[str]:
        """The names of a split's class folders, in order. Raises DataError."""
        layout = f"wanted: {folder}/{{train,val}}/{self.example}"
        found = []
        for entry in listed(folder / split, layout):
            if _is_folder(entry):
                found.append(entry.name)
            elif _is_image(entry.name):
                raise DataError(f"image {entry.path} is not in the folder of its class; {layout}")
            elif not os.path.exists(entry):
                raise DataError(f"{entry.path} is a link to nothing; {layout}")
        if not found or self.wanted not in (None, len(found)):
            raise DataError(f"{folder / split} has {len(found):,} folders of classes; {layout}")
        return sorted(found)


class ImageNet(Folder):
    """The 1,000 classes of ILSVRC 2012."""

    wanted = 1000
    example = "n01440764/*.JPEG, a folder for each of 1,000 classes"

    def __init__(self, argument: str = "") -> None:
        no_argument("imagenet", argument)
        self.name = "imagenet"


class Places205(Folder):
    """The 205 scenes of Places (Zhou et al. 2014)."""

    wanted = 205
    example = "abbey/*.jpg, a folder for each of 205 classes"

    def __init__(self, argument: str = "") -> None:
        no_argument("places205", argument)
        self.name = "places205"


def _images(root: Path, part: str) -> list[str]:
    """The images in a class's folder and below, as paths from ``root``, in order. Raises DataError."""
    found: list[tuple[str, list[str]]] = []
    waiting, seen = [part], set[str]()
    while waiting:
        folder = waiting.pop()
        names: list[str] = []
        for entry in listed(root / folder, "wanted: a folder with images"):
            if _is_folder(entry):
                real = os.path.realpath(entry)
                if real in seen:
                    raise DataError(f"folder {entry.path} would be listed twice: a link leads to it")
                seen.add(real)
                waiting.append(f"{folder}/{entry.name}")
            elif _is_image(entry.name):
                names.append(entry.name)
        found.append((folder, sorted(names)))
    images = [f"{folder}/{name}" for folder, names in sorted(found) for name in names]
    if not images:
        raise DataError(f"{root / part} has no images; wanted: files with names in {', '.join(EXTENSIONS)}")
    return images


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Links are followed; asks the file system about nothing but them."""
    return os.path.isdir(entry) if entry.is_symlink() else entry.is_dir()


def _is_image(name: str) -> bool:
    return name.lower().endswith(EXTENSIONS)
