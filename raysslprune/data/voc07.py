"""PASCAL VOC 2007 classification (Everingham et al. 2010): which of 20 kinds of object are in an image."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from raysslprune.data.dataset import IGNORED, DataError, Dataset, counted, no_argument
from raysslprune.data.files import dataset, listed, skipped

CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
"""In the order of their numbers."""

MEANING = {"1": 1, "-1": 0, "0": IGNORED}
"""Of a class's entries: there, not there, and only objects there that are marked as difficult."""

IMAGES, LISTS = "VOCdevkit/VOC2007/JPEGImages", "VOCdevkit/VOC2007/ImageSets/Main"


class VOC07:
    """Training on its trainval, testing on its test split: ``<data>/voc07/VOCdevkit/VOC2007``, both archives in one.

    Image size as in folder.Folder.
    """

    def __init__(self, argument: str = "") -> None:
        no_argument("voc07", argument)

    def locate(self, root: Path, fetch: bool = False) -> None:
        self.load(root)  # which reads lists and no image

    def load(self, root: Path) -> Dataset:
        folder = root.absolute() / "voc07"
        train, test = _split(folder, "trainval"), _split(folder, "test")
        there = {f"{IMAGES}/{entry.name}" for entry in listed(folder / IMAGES, _wanted(folder))}
        missing = sorted({*train[0], *test[0]}.difference(there, skipped(folder)))
        if missing:
            gone = counted(len(missing), "image is", "images are")
            raise DataError(f"{gone} missing, the first {folder / missing[0]}; {_wanted(folder)}")
        return dataset(folder, train, test, classes=len(CLASSES))


def _split(folder: Path, split: str) -> tuple[list[str], Tensor]:
    """Names of a split's images, and labels int8 (n, 20)."""
    lists = folder / LISTS
    columns = [_column(lists / f"{name}_{split}.txt", folder) for name in CLASSES]
    images = sorted(columns[0])
    for name, column in zip(CLASSES, columns, strict=True):
        odd = column.keys() ^ columns[0].keys()
        if odd:
            raise DataError(
                f"image {min(odd)} is in only one of {CLASSES[0]}_{split}.txt and {name}_{split}.txt in {lists}"
            )
    labels = np.array([[column[image] for column in columns] for image in images], np.int8)
    return [f"{IMAGES}/{image}.jpg" for image in images], torch.from_numpy(labels)


def _column(path: Path, folder: Path) -> dict[str, int]:
    """One class's label of each image of a split, from lines such as ``000005 -1``. Raises DataError."""
    try:
        lines = path.read_text(encoding="ascii").splitlines()
    except FileNotFoundError as error:
        raise DataError(f"there is no {path}; {_wanted(folder)}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} can't be read: {getattr(error, 'strerror', None) or 'it is not text'}") from error
    column: dict[str, int] = {}
    for number, line in enumerate(lines, 1):
        image, _, entry = line.strip().partition(" ")
        if not re.fullmatch(r"\w+", image) or entry.strip() not in MEANING or image in column:
            fault = "is there twice" if image in column else "is not an image's name and 1, 0 or -1"
            raise DataError(f"{path}, line {number}: {line[:80]!r} {fault}")
        column[image] = MEANING[entry.strip()]
    if not column:
        raise DataError(f"{path} is empty")
    return column


def _wanted(folder: Path) -> str:
    return f"wanted: VOCtrainval_06-Nov-2007.tar and VOCtest_06-Nov-2007.tar, both unpacked in {folder}"
