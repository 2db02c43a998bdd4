"""PASCAL VOC 2007 classification (Everingham et al. 2010): which of 20 kinds of object are in an image."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from raysslprune.data.dataset import IGNORED, DataError, Dataset, counted
from raysslprune.data.files import dataset, listed, skipped

CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
"""Names of the classes, by number."""

WHOLE = "whole"
"""Argument of the data set with whole images."""

MEANING = {"1": 1, "-1": 0, "0": IGNORED}
"""Labels by entry of a class's list: present, absent, and present only in objects that are marked as difficult."""

IMAGES, LISTS = "VOCdevkit/VOC2007/JPEGImages", "VOCdevkit/VOC2007/ImageSets/Main"


class VOC07:
    """VOC2007's trainval split for training and test split for testing, both in ``<data>/voc07/VOCdevkit/VOC2007``.

    Images are cropped as in folder.Folder. With the argument ``whole``, views without augmentation show the whole image
    instead of its central square, with another aspect ratio: Goyal et al. 2019 (https://arxiv.org/abs/1905.01235) fit
    linear SVMs to such views.
    """

    def __init__(self, argument: str = "") -> None:
        if argument not in ("", WHOLE):
            raise ValueError(f"data set voc07 can only be written voc07 or voc07/{WHOLE}, not voc07/{argument}")
        self.whole = argument == WHOLE

    def locate(self, root: Path, fetch: bool = False) -> None:
        self.load(root)  # reads lists, no images

    def load(self, root: Path) -> Dataset:
        folder = root.absolute() / "voc07"
        train, test = _split(folder, "trainval"), _split(folder, "test")
        there = {f"{IMAGES}/{entry.name}" for entry in listed(folder / IMAGES, _layout(folder))}
        missing = sorted({*train[0], *test[0]}.difference(there, skipped(folder)))
        if missing:
            gone = counted(len(missing), "image is", "images are")
            raise DataError(f"{gone} missing, the first {folder / missing[0]}; {_layout(folder)}")
        return dataset(folder, train, test, classes=len(CLASSES), whole=self.whole)


def _split(folder: Path, split: str) -> tuple[list[str], Tensor]:
    """Names of a split's images, and labels int8 (n, 20), as in data.Split. Raises DataError."""
    lists = folder / LISTS
    columns = [_column(lists / f"{name}_{split}.txt", folder) for name in CLASSES]
    images = sorted(columns[0])
    for name, column in zip(CLASSES, columns, strict=True):
        if odd := column.keys() ^ columns[0].keys():
            both = f"{CLASSES[0]}_{split}.txt and {name}_{split}.txt"
            raise DataError(f"image {min(odd)} is in only one of {both} in {lists}")
    labels = np.array([[column[image] for column in columns] for image in images], np.int8)
    return [f"{IMAGES}/{image}.jpg" for image in images], torch.from_numpy(labels)


def _column(path: Path, folder: Path) -> dict[str, int]:
    """Label of each image of a split for one class, from lines such as ``000005 -1``. Raises DataError."""
    try:
        lines = path.read_text(encoding="ascii").splitlines()
    except FileNotFoundError as error:
        raise DataError(f"there is no {path}; {_layout(folder)}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} can't be read: {getattr(error, 'strerror', None) or 'it is not text'}") from error
    column: dict[str, int] = {}
    for number, line in enumerate(lines, 1):
        image, _, entry = line.strip().partition(" ")
        if not image or entry.strip() not in MEANING or image in column:
            wanted = "an image name that is not listed yet, then 1, 0 or -1"
            raise DataError(f"{path}, line {number}: expected {wanted}, not {line[:80]!r}")
        column[image] = MEANING[entry.strip()]
    return column


def _layout(folder: Path) -> str:
    return f"expected: VOCtrainval_06-Nov-2007.tar and VOCtest_06-Nov-2007.tar, both unpacked in {folder}"
