"""Data sets on disk: folders of images, and Parquet files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from raysslprune import data
from tests.helpers.images import encoded, picture

TREE = {
    "train": ["dog/b.jpg", "dog/a.JPEG", "dog/B.Png", "cat/1.webp", "cat/10.jpg", "cat/2.jpg", "Emu/x.ppm"],
    "val": ["dog/v.jpg", "cat/v.jpg", "Emu/v.bmp"],
}


def tree(root: Path, **splits: list[str]) -> Path:
    for split, images in (splits or TREE).items():
        for number, name in enumerate(images):
            (root / split / name).parent.mkdir(parents=True, exist_ok=True)
            kind = {"webp": "WEBP", "png": "PNG", "bmp": "BMP", "ppm": "PPM"}.get(
                name.rpartition(".")[2].lower(), "JPEG"
            )
            (root / split / name).write_bytes(encoded(picture(20 + number, 16), kind))
    return root


def table(images: list[Any], labels: list[Any], kind: pa.DataType | None = None) -> pa.Table:
    return pa.table({"image": pa.array(images, kind or pa.binary()), "label": labels})


def pictures(*sizes: int, mode: str = "RGB", kind: str = "PNG") -> list[bytes]:
    return [encoded(picture(size, size, seed).convert(mode), kind) for seed, size in enumerate(sizes)]


def put(root: Path, train: pa.Table, test: pa.Table | None = None) -> data.Source:
    pq.write_table(train, root / "x-train.parquet", row_group_size=2)
    pq.write_table(test or table(pictures(8), [0]), root / "x-test.parquet")
    return data.source("parquet/x")


TWO = pictures(8, 8)
