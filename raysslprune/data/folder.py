"""Data sets that are folders of images, a folder for each class: ImageNet, Places205, and anyone's own."""

from __future__ import annotations

import os
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import ClassVar

import torch

from raysslprune.data.dataset import DataError, Dataset, counted, no_argument
from raysslprune.data.files import EXTENSIONS, below, dataset, executor, listed, spelled


class Folder:
    """``folder/NAME``: the images ``<data>/NAME/{train,val}/<class>/*``, as torchvision's ImageFolder wants them.

    Classes are numbered in the order of their names; images are in the order of class, then folder, then name.
    Folders within a class belong to it; hidden files are left out, and so are those that are no images by their names,
    which a remark counts. For training, crops of 224 x 224 pixels; for testing, the central such square of the image
    whose shorter side is 256. Smaller images are enlarged.
    """

    wanted: ClassVar[int | None] = None
    """How many classes there must be; None for any number."""
    example: ClassVar[str] = "CLASS/*.jpg, a folder for each class"

    def __init__(self, argument: str = "") -> None:
        self.name = argument
        below(Path(), "folder", argument)

    def locate(self, root: Path, fetch: bool = False) -> Sequence[str]:
        return self.load(root).remarks  # it lists the folders and reads no image

    def load(self, root: Path) -> Dataset:
        folder = below(root, "folder", self.name)
        unread = Counter[str]()
        classes = self.classes(folder, "train", unread)
        _demand_same(folder, classes, self.classes(folder, "val", unread))
        train, test = ([f"{split}/{name}" for name in classes] for split in ("train", "val"))
        found = list(executor().map(partial(_images, folder), train + test))
        images = [names for names, _ in found]
        unread = sum((others for _, others in found), unread)
        splits = []
        for some in (images[: len(classes)], images[len(classes) :]):
            labels = torch.arange(len(classes)).repeat_interleave(torch.tensor([len(names) for names in some]))
            splits.append(([name for names in some for name in names], labels))
        return dataset(folder, *splits, classes=len(classes), remarks=[*_look_alike(classes), *_unread(folder, unread)])

    def classes(self, folder: Path, split: str, unread: Counter[str]) -> list[str]:
        """The names of a split's class folders, in order. Counts other files in ``unread``. Raises DataError."""
        layout = f"wanted: {folder}/{{train,val}}/{self.example}"
        found = []
        for entry in listed(folder / split, layout):
            if _is_folder(entry):
                found.append(entry.name)
            elif _is_image(entry.name):
                raise DataError(f"image {entry.path} is not in the folder of its class; {layout}")
            elif not os.path.exists(entry):
                raise DataError(f"{entry.path} is a link to nothing; {layout}")
            else:
                unread[_ending(entry.name)] += 1
        if not found or self.wanted not in (None, len(found)):
            has = counted(len(found), "folder", "folders")
            raise DataError(f"{folder / split} has {has} of classes; {layout}")
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


def _demand_same(folder: Path, train: list[str], val: list[str]) -> None:
    """Raise DataError where a class is in one split only."""
    odd = set(train).symmetric_difference(val)
    if odd:
        (has, _), (lacks, others) = (("train", train), ("val", val))[:: 1 if min(odd) in train else -1]
        twin = [name for name in others if _normal(name) == _normal(min(odd))]
        hint = f", where {spelled(twin[0])} looks like it; rename one of the two" if twin else ""
        raise DataError(f"class {spelled(min(odd))} is in {folder / has}, but not in {folder / lacks}{hint}")


def _look_alike(classes: list[str]) -> Iterator[str]:
    """A remark for each two classes whose names look the same."""
    seen: dict[str, str] = {}
    for name in classes:
        first = seen.setdefault(_normal(name), name)
        if first != name:
            yield f"{spelled(first)} and {spelled(name)} look the same, and are two classes"


def _normal(name: str) -> str:
    """The same for a name typed on Linux or Windows (NFC) as for that name on macOS (NFD)."""
    return unicodedata.normalize("NFC", name)


def _unread(folder: Path, endings: Counter[str]) -> Iterator[str]:
    """A remark on the files that are no images by their names, if there are any."""
    if endings:
        files = counted(endings.total(), "file", "files")
        yield (
            f"{files} in {folder} will not be read: {_listing(endings)}; images have names in {', '.join(EXTENSIONS)},"
            " so rename or convert those that should be among them"
        )


def _listing(endings: Counter[str]) -> str:
    return ", ".join(f"{count:,} {ending}" for ending, count in sorted(endings.items(), key=lambda e: (-e[1], e[0])))


def _ending(name: str) -> str:
    return os.path.splitext(name)[1].lower() or "without an ending"


def _images(root: Path, part: str) -> tuple[list[str], Counter[str]]:
    """The images in a class's folder and below, as paths from ``root``, in order; and the endings of all other files.

    Raises DataError.
    """
    others = Counter[str]()
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
            else:
                others[_ending(entry.name)] += 1
        found.append((folder, sorted(names)))
    images = [f"{folder}/{name}" for folder, names in sorted(found) for name in names]
    if not images:
        only = f", only {_listing(others)}" if others else ""
        raise DataError(f"{root / part} has no images{only}; wanted: files with names in {', '.join(EXTENSIONS)}")
    return images, others


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Links are followed; asks the file system about nothing but them."""
    return os.path.isdir(entry) if entry.is_symlink() else entry.is_dir()


def _is_image(name: str) -> bool:
    return name.lower().endswith(EXTENSIONS)
