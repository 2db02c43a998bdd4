"""Small data sets in Parquet files of encoded images and labels, as on Hugging Face's hub."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from raysslprune.data.dataset import DataError, Dataset, resident
from raysslprune.data.files import below
from raysslprune.data.images import decode

IMAGES = ("image", "img")
"""Names of the column of images; the first that exists is read."""

LAYOUT = "expected: Parquet files with the columns image or img (bytes of image files) and label (whole numbers)"

SHARD = re.compile(r"(?P<split>\w+?)(-(?P<number>\d{5})-of-(?P<all>\d{5})(-[0-9a-f]+)?)?\.parquet")
"""Pattern of a split's file names on the hub: ``train-00000-of-00005.parquet``, some with a hash at the end."""


class Parquet:
    """``parquet/NAME``: images in Parquet files, decoded and kept in memory.

    Files: ``<data>/NAME-train.parquet`` and ``<data>/NAME-test.parquet``; else, in ``<data>/NAME`` or
    ``<data>/NAME/data``, ``train.parquet`` or ``train-00000-of-00005.parquet`` and so on, and the same for ``test``.

    Columns: ``image`` or ``img``, the bytes of an image file, or a struct that has them as ``bytes``; and ``label``,
    or the only column of whole numbers whose name contains "label". If several do, add the column to the data set's
    name: ``parquet/NAME:fine_label``. Labels are whole numbers from 0 on. All images are square and of one size. They
    have one channel if no image has colours, else three.
    """

    def __init__(self, argument: str = "") -> None:
        self.name, _, self.label = argument.partition(":")
        below(Path(), "parquet", self.name)

    def locate(self, root: Path, fetch: bool = False) -> None:
        self.columns(*self.paths(root))

    def load(self, root: Path) -> Dataset:
        paths = self.paths(root)
        (image, label), where = self.columns(*paths), [some[0] for some in paths]
        (train, labels), (test, wanted) = (_read(some, image, label) for some in paths)
        classes = len(np.unique(labels))
        if (labels.min(), labels.max()) != (0, classes - 1):
            raise DataError(
                f"the {classes} different labels in {where[0]} must be the numbers from 0 to {classes - 1}, "
                "without gaps"
            )
        if wanted.min() < 0 or wanted.max() >= classes:
            raise DataError(f"{where[1]} has labels that are not in {where[0]}")
        if train[0].shape[0] != test[0].shape[0]:
            raise DataError(f"the images in {where[1]} are not of the same size as those in {where[0]}")
        grey = all(image.ndim == 2 for image in (*train, *test))
        packed = [_packed(images, grey) for images in (train, test)]
        return resident((packed[0], torch.from_numpy(labels)), (packed[1], torch.from_numpy(wanted)))

    def labels(self, root: Path) -> Tensor:
        paths = self.paths(root)
        _, label = self.columns(*paths)
        return torch.from_numpy(np.concatenate([_numbers(path, _columns(path, [label])[label]) for path in paths[0]]))

    def paths(self, root: Path) -> tuple[list[Path], list[Path]]:
        """The files of training and of test images. Raises DataError."""
        train, test = (below(root, "parquet", f"{self.name}-{split}.parquet") for split in ("train", "test"))
        if train.exists() or test.exists():
            return [train], [test]
        folder = below(root, "parquet", self.name)
        for place in (folder, folder / "data"):
            if splits := _splits(place):
                return _both(place, splits)
        inside = sorted(path.parent.name for path in folder.glob("*/train*.parquet"))
        hint = f", but parquet/{self.name}/{inside[0]} may be one" if inside else ""
        raise DataError(f"there is no {train}, and no train*.parquet in {folder} or {folder / 'data'}{hint}; {LAYOUT}")

    def columns(self, *parts: Sequence[Path]) -> tuple[str, str]:
        """The names of the columns of images and labels, which are the same in all files. Raises DataError."""
        found = {path: self.choose(path) for part in parts for path in part}
        (first, chosen), *others = found.items()
        for path, other in others:
            if other != chosen:
                raise DataError(f"{path} has the columns {' and '.join(other)}, but {first} {' and '.join(chosen)}")
        return chosen

    def choose(self, path: Path) -> tuple[str, str]:
        """The names of the columns of images and labels in one file. Raises DataError."""
        types = {field.name: field.type for field in _schema(path)}
        images = [name for name, kind in types.items() if _is_image(kind)]
        whole = [name for name, kind in types.items() if pa.types.is_integer(kind)]
        image = next((name for name in IMAGES if name in images), "")
        labels = [name for name in whole if "label" in name]
        label = self.label or (labels[0] if len(labels) == 1 else "label")
        if image and label in whole:
            return image, label
        near = ""
        if images and not image:
            near = f"; to use it, rename {images[0]} to image"
        elif whole:
            near = "; to use it, name it " + " or ".join(f"parquet/{self.name}:{name}" for name in labels or whole)
        found = ", ".join(f"{name} ({kind})" for name, kind in types.items())
        asked = f", but no whole-number column {label}" if self.label and label not in whole else ""
        raise DataError(f"{path} has the columns {found}{asked}; {LAYOUT}{near}")


def _splits(folder: Path) -> dict[str, list[Path]]:
    """The Parquet files in a folder by split, in order."""
    splits: dict[str, list[Path]] = {}
    for path in sorted(folder.glob("*.parquet")):
        if match := SHARD.fullmatch(path.name):
            splits.setdefault(match["split"], []).append(path)
    return splits


def _both(folder: Path, splits: dict[str, list[Path]]) -> tuple[list[Path], list[Path]]:
    """The files for training and testing. Raises DataError if a split or a part of one is missing."""
    for split in ("train", "test"):
        if split not in splits:
            raise DataError(
                f"{folder} has no split {split}, only {', '.join(splits)}; to use another split as {split}, rename"
                " its files"
            )
        parts = [match for path in splits[split] if (match := SHARD.fullmatch(path.name))]
        wanted = [f"{number:05}" for number in range(int(parts[0]["all"] or 0))] or [None]
        if [part["number"] for part in parts] != wanted or len({part["all"] for part in parts}) > 1:
            has = ", ".join(path.name for path in splits[split])
            raise DataError(f"{folder} must have each of the {len(wanted)} parts of {split} exactly once; it has {has}")
    return splits["train"], splits["test"]


def _schema(path: Path) -> pa.Schema:
    """The schema of a file. Raises DataError."""
    try:
        with pq.ParquetFile(path) as file:
            return file.schema_arrow
    except FileNotFoundError as error:
        raise DataError(f"there is no {path}; {LAYOUT}") from error
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path} can't be read: {error}; {LAYOUT}") from error


def _is_image(kind: pa.DataType) -> bool:
    """Return whether a column is of bytes, or of structs with a field ``bytes`` of bytes."""
    if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
        kind = kind.field("bytes").type
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def _read(paths: Sequence[Path], image: str, label: str) -> tuple[list[np.ndarray], np.ndarray]:
    """Images, uint8 (size, size) or (size, size, 3), and labels, int64 (n,). Raises DataError."""
    images: list[np.ndarray] = []
    labels: list[np.ndarray] = []
    for path in paths:
        encoded, numbers = _rows(path, image, label)
        for row, data in enumerate(encoded):  # threads would not help: for small images, most of the time is Python's
            try:
                one = np.asarray(decode(data or b""))
                height, width = one.shape[:2]
                if width != height or (images and width != len(images[0])):
                    raise ValueError(f"it has {width} x {height} pixels; all must be square and of one size")
            except ValueError as error:
                raise DataError(f"the image in row {row} of {path}, counted from 0, can't be used: {error}") from error
            images.append(one)
        labels.append(numbers)
    if not images:
        raise DataError(f"{paths[0]} has no rows")
    return images, np.concatenate(labels)


def _rows(path: Path, image: str, label: str) -> tuple[list[bytes | None], np.ndarray]:
    """Encoded images and labels of one file. Raises DataError."""
    table = _columns(path, [image, label])
    numbers, flat = _numbers(path, table[label]), table.flatten()
    encoded = flat[f"{image}.bytes" if f"{image}.bytes" in flat.column_names else image]
    return encoded.to_pylist(), numbers


def _columns(path: Path, names: list[str]) -> pa.Table:
    try:
        return pq.ParquetFile(path).read(columns=names)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path} can't be read: {error}") from error


def _numbers(path: Path, labels: pa.ChunkedArray) -> np.ndarray:
    if labels.null_count:
        raise DataError(f"{path} has rows without a label")
    return labels.to_numpy().astype(np.int64)


def _packed(images: list[np.ndarray], grey: bool) -> Tensor:
    """Stack images into a uint8 tensor (n, 1 or 3, size, size)."""
    if grey:
        return torch.from_numpy(np.stack(images))[:, None]
    colours = [image if image.ndim == 3 else image[:, :, None].repeat(3, 2) for image in images]
    return torch.from_numpy(np.stack(colours)).permute(0, 3, 1, 2).contiguous()
