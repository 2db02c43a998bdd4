"""Small data sets as Parquet files of encoded images and labels, as Hugging Face's hub has them."""

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
"""Columns of images; the first that is there is read."""

LAYOUT = "wanted: Parquet files with the columns image or img (bytes of image files) and label (whole numbers)"

SHARD = re.compile(r"(?P<split>\w+?)(-(?P<number>\d{5})-of-(?P<all>\d{5})(-[0-9a-f]+)?)?\.parquet")
"""The name of a file of a split on the hub: ``train-00000-of-00005.parquet``, some with a hash at their end."""


class Parquet:
    """``parquet/NAME``: images in Parquet files, decoded and held in memory.

    Files: ``<data>/NAME-train.parquet`` and ``<data>/NAME-test.parquet``; else, in ``<data>/NAME`` or
    ``<data>/NAME/data``, ``train.parquet`` or ``train-00000-of-00005.parquet`` and so on, and the same of ``test``.

    Columns: ``image`` or ``img``, the bytes of an image file, or a struct that has them as ``bytes``; and ``label``,
    else the only column of whole numbers whose name has "label" in it. ``parquet/NAME:fine_label`` says which, as it
    must where there are several. Labels are whole numbers from 0 on. All images are square and of one size. Where none
    has colours, they have one channel, else three.
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
            raise DataError(f"the {classes} different labels in {where[0]} are not the numbers from 0 to {classes - 1}")
        if wanted.min() < 0 or wanted.max() >= classes:
            raise DataError(f"{where[1]} has labels that are not in {where[0]}")
        if train[0].shape[0] != test[0].shape[0]:
            raise DataError(f"the images in {where[1]} are not of the size of those in {where[0]}")
        grey = all(image.ndim == 2 for image in (*train, *test))
        return resident(
            (_packed(train, grey), torch.from_numpy(labels)), (_packed(test, grey), torch.from_numpy(wanted))
        )

    def paths(self, root: Path) -> tuple[list[Path], list[Path]]:
        """The files of training and of test images. Raises DataError."""
        train, test = (below(root, "parquet", f"{self.name}-{split}.parquet") for split in ("train", "test"))
        if train.exists() or test.exists():
            return [train], [test]
        folder = below(root, "parquet", self.name)
        for place in (folder, folder / "data"):
            splits = _splits(place)
            if splits:
                return _both(place, splits)
        inside = nearest(root, self.name)
        hint = f", but parquet/{inside} would be one" if inside else ""
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
        """As columns, of one file."""
        types = {field.name: field.type for field in _schema(path)}
        images = [name for name, kind in types.items() if _is_image(kind)]
        whole = [name for name, kind in types.items() if pa.types.is_integer(kind)]
        image = next((name for name in IMAGES if name in images), "")
        labels = [name for name in whole if "label" in name]
        label = self.label or ("label" if "label" in whole else labels[0] if len(labels) == 1 else "")
        if image and label in whole:
            return image, label
        named = " or ".join(f"parquet/{self.name}:{name}" for name in labels or whole)
        near = f"rename {images[0]} to image" if images and not image else f"name it {named}" if named else ""
        found = ", ".join(f"{name} ({kind})" for name, kind in types.items())
        asked = f" and no whole numbers {label}" if self.label and label not in whole else ""
        raise DataError(f"{path} has the columns {found}{asked}; {LAYOUT}{f'; to use it, {near}' if near else ''}")


def nearest(root: Path, name: str) -> str:
    """NAME, or ``NAME/folder``, of which there are Parquet files of both splits under the data root; '' of none."""
    folder = below(root, "parquet", name)
    inside = sorted(path.name for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
    for one in (name, *(f"{name}/{part}" for part in inside)):
        both = all(below(root, "parquet", f"{one}-{split}.parquet").exists() for split in ("train", "test"))
        splits = [_splits(below(root, "parquet", place)) for place in (one, f"{one}/data")]
        if both or any({"train", "test"} <= some.keys() for some in splits):
            return one
    return ""


def _splits(folder: Path) -> dict[str, list[Path]]:
    """The Parquet files in a folder by split, in order."""
    splits: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if match := SHARD.fullmatch(path.name):
            splits.setdefault(match["split"], []).append(path)
    return splits


def _both(folder: Path, splits: dict[str, list[Path]]) -> tuple[list[Path], list[Path]]:
    """The files for training and testing. Raises DataError where a split or a part of one is missing."""
    for split in ("train", "test"):
        if split not in splits:
            raise DataError(
                f"{folder} has no split {split}, only {', '.join(splits)}; wanted: files of train and of test. If"
                f" another split is to be used as {split}, rename its files"
            )
        parts = [match for path in splits[split] if (match := SHARD.fullmatch(path.name))]
        wanted = [f"{number:05}" for number in range(int(parts[0]["all"] or 0))] or [None]
        if [part["number"] for part in parts] != wanted or len({part["all"] for part in parts}) > 1:
            has = ", ".join(path.name for path in splits[split])
            raise DataError(f"{folder} has not each of the {len(wanted)} parts of {split} once, but {has}")
    return splits["train"], splits["test"]


def _schema(path: Path) -> pa.Schema:
    """Raises DataError."""
    try:
        with pq.ParquetFile(path) as file:
            return file.schema_arrow
    except FileNotFoundError as error:
        raise DataError(f"there is no {path}; {LAYOUT}") from error
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path} can't be read: {_line(error)}; {LAYOUT}") from error


def _is_image(kind: pa.DataType) -> bool:
    """Whether a column has bytes, or structs with them."""
    if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
        kind = kind.field("bytes").type
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def _read(paths: Sequence[Path], image: str, label: str) -> tuple[list[np.ndarray], np.ndarray]:
    """Images, uint8 (size, size) or (size, size, 3), and labels, int64 (n,). Raises DataError."""
    images: list[np.ndarray] = []
    labels: list[np.ndarray] = []
    for path in paths:
        encoded, numbers = _rows(path, image, label)
        for row, data in enumerate(encoded):  # threads would not help: of small images, most of it is Python
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
    try:
        table = pq.ParquetFile(path).read(columns=[image, label])
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path} can't be read: {_line(error)}") from error
    if table[label].null_count:
        raise DataError(f"{path} has rows without a label")
    flat = table.flatten()
    encoded = flat[f"{image}.bytes" if f"{image}.bytes" in flat.column_names else image]
    return encoded.to_pylist(), table[label].to_numpy().astype(np.int64)


def _line(error: Exception) -> str:
    return " ".join(str(error).split())


def _packed(images: list[np.ndarray], grey: bool) -> Tensor:
    """uint8 (n, 1 or 3, size, size)."""
    if grey:
        return torch.from_numpy(np.stack(images))[:, None]
    colours = [image if image.ndim == 3 else image[:, :, None].repeat(3, 2) for image in images]
    return torch.from_numpy(np.stack(colours)).permute(0, 3, 1, 2).contiguous()
