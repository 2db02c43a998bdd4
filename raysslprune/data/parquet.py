"""Small data sets as two Parquet files of encoded images and labels, as Hugging Face's hub has them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from raysslprune.data.dataset import DataError, Dataset, resident
from raysslprune.data.files import below, decode


class Parquet:
    """``parquet/NAME``: ``<data>/NAME-train.parquet`` and ``<data>/NAME-test.parquet``, decoded and held in memory.

    Columns: ``image``, the bytes of an image file, or a struct that has them as ``bytes``; ``label``, whole numbers
    from 0 on. All images are square and of one size. Where none has colours, they have one channel, else three.
    """

    def __init__(self, argument: str = "") -> None:
        self.name = argument
        below(Path(), "parquet", argument)

    def locate(self, root: Path, fetch: bool = False) -> None:
        for path in self.paths(root):
            _opened(path).close()

    def load(self, root: Path) -> Dataset:
        (train, labels), (test, wanted) = map(_read, self.paths(root))
        where = self.paths(root)
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

    def paths(self, root: Path) -> tuple[Path, Path]:
        """Of training and test images."""
        train, test = (below(root, "parquet", f"{self.name}-{split}.parquet") for split in ("train", "test"))
        return train, test


def _opened(path: Path) -> pq.ParquetFile:
    """With the columns that are wanted. Raises DataError."""
    layout = "wanted: a Parquet file with the columns image (bytes of image files) and label (whole numbers)"
    try:
        file = pq.ParquetFile(path)
    except FileNotFoundError as error:
        raise DataError(f"there is no {path}; {layout}") from error
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path} can't be read: {_line(error)}; {layout}") from error
    types = {field.name: field.type for field in file.schema_arrow}
    image, label = types.get("image", pa.null()), types.get("label", pa.null())
    if pa.types.is_struct(image) and image.get_field_index("bytes") >= 0:
        image = image.field("bytes").type
    if not (pa.types.is_binary(image) or pa.types.is_large_binary(image)) or not pa.types.is_integer(label):
        found = ", ".join(f"{name} ({kind})" for name, kind in types.items())
        raise DataError(f"{path} has the columns {found}; {layout}")
    return file


def _read(path: Path) -> tuple[list[np.ndarray], np.ndarray]:
    """Images, uint8 (size, size) or (size, size, 3), and labels, int64 (n,). Raises DataError."""
    with _opened(path) as file:
        try:
            table = file.read(columns=["image", "label"])
        except (OSError, pa.ArrowException) as error:
            raise DataError(f"{path} can't be read: {_line(error)}") from error
    flat = table.flatten()
    encoded = flat["image.bytes" if "image.bytes" in flat.column_names else "image"]
    images: list[np.ndarray] = []
    for row, data in enumerate(encoded.to_pylist()):  # threads would not help: of small images, most of it is Python
        try:
            image = np.asarray(decode(data or b""))
            height, width = image.shape[:2]
            if width != height or (images and width != len(images[0])):
                raise ValueError(f"it has {width} x {height} pixels; all must be square and of one size")
        except ValueError as error:
            raise DataError(f"the image in row {row} of {path}, counted from 0, can't be used: {error}") from error
        images.append(image)
    if not images or table["label"].null_count:
        raise DataError(f"{path} has rows without a label" if images else f"{path} has no rows")
    return images, table["label"].to_numpy().astype(np.int64)


def _line(error: Exception) -> str:
    return " ".join(str(error).split())


def _packed(images: list[np.ndarray], grey: bool) -> Tensor:
    """uint8 (n, 1 or 3, size, size)."""
    if grey:
        return torch.from_numpy(np.stack(images))[:, None]
    colours = [image if image.ndim == 3 else image[:, :, None].repeat(3, 2) for image in images]
    return torch.from_numpy(np.stack(colours)).permute(0, 3, 1, 2).contiguous()
