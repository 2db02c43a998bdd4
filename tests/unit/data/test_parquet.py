"""Data sets in Parquet files, in the layouts of the Hub."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from raysslprune import data
from raysslprune.data import DataError
from tests.helpers.images import encoded, picture
from tests.helpers.layouts import TWO, pictures, put, table


@pytest.mark.parametrize("struct", [False, True])
def test_parquet_images_are_resident(tmp_path: Path, struct: bool) -> None:
    images, labels = pictures(8, 8, 8, 8, 8), [2, 0, 1, 1, 2]
    column: list[Any] = [{"bytes": image, "path": "x"} for image in images] if struct else images
    kind = pa.struct({"bytes": pa.binary(), "path": pa.string()}) if struct else pa.large_binary()
    source = put(tmp_path, table(column, labels, kind), table(pictures(8, mode="L"), [1]))
    source.locate(tmp_path)
    found = source.load(tmp_path)
    assert isinstance(found.train, data.Resident)
    assert isinstance(found.test, data.Resident)
    wanted = np.stack([np.asarray(Image.open(io.BytesIO(image))) for image in images]).transpose(0, 3, 1, 2)
    assert np.array_equal(found.train.images.numpy(), wanted)
    assert found.train.labels.tolist() == labels
    assert (found.train.labels.dtype, found.test.labels.tolist()) == (torch.int64, [1])
    grey = np.asarray(Image.open(io.BytesIO(pictures(8, mode="L")[0])))
    assert np.array_equal(found.test.images.numpy(), np.stack([grey] * 3)[None])
    assert (found.classes, found.channels, found.size) == (3, 3, 8)
    assert found.train.images.is_contiguous()


def test_parquet_images_without_colours_have_one_channel(tmp_path: Path) -> None:
    grey = pictures(8, 8, mode="L")
    found = put(tmp_path, table(grey, [0, 1]), table(grey[:1], [0])).load(tmp_path)
    assert isinstance(found.train, data.Resident)
    assert np.array_equal(found.train.images[1, 0].numpy(), np.asarray(Image.open(io.BytesIO(grey[1]))))
    assert (found.channels, found.train.images.shape) == (1, (2, 1, 8, 8))
    mixed = put(tmp_path, table(grey, [0, 1]), table(pictures(8), [0])).load(tmp_path)
    assert isinstance(mixed.train, data.Resident)
    assert mixed.train.images.shape == (2, 3, 8, 8)
    assert torch.equal(mixed.train.images[:, 1:2], found.train.images)


@pytest.mark.parametrize(
    ("train", "test", "sentence"),
    [
        (
            table([*TWO, TWO[0][:60]], [0, 1, 0]),
            None,
            "image in row 2 of {train}, counted from 0, can't be used: .*runc",
        ),
        (table([*TWO, b"text"], [0, 1, 0]), None, "image in row 2 of {train}, .*it is not an image"),
        (table([*TWO, None], [0, 1, 0]), None, "image in row 2 of {train}, .*empty"),
        (table([*TWO, *pictures(9)], [0, 1, 0]), None, "row 2 of {train}, .* 9 x 9 pixels; all must be square and"),
        (table([encoded(picture(8, 9), "PNG")], [0]), None, "row 0 of {train}, .* 8 x 9 pixels; all must be square"),
        (table(TWO, [0, 2]), None, "2 different labels in {train} must be the numbers from 0 to 1, without gaps"),
        (table(TWO, [1, 2]), None, "2 different labels in {train} must be the numbers from 0 to 1, without gaps"),
        (table(TWO, [-1, 1]), None, "2 different labels in {train} must be the numbers from 0 to 1, without gaps"),
        (table(TWO, [0, None]), None, "{train} has rows without a label"),
        (table([], pa.array([], pa.int64())), None, "{train} has no rows"),
        (table(TWO, [0, 1]), table(TWO, [1, 2]), "{test} has labels that are not in {train}"),
        (table(TWO, [0, 1]), table(TWO, [1, -1]), "{test} has labels that are not in {train}"),
        (table(TWO, [0, 1]), table(pictures(9), [1]), "images in {test} are not of the same size as those in {train}"),
    ],
)
def test_parquet_rows_that_are_wrong_are_named(
    tmp_path: Path, train: pa.Table, test: pa.Table | None, sentence: str
) -> None:
    where = {split: tmp_path / f"x-{split}.parquet" for split in ("train", "test")}
    with pytest.raises(DataError, match=sentence.format(**where)):
        put(tmp_path, train, test).load(tmp_path)


@pytest.mark.parametrize(
    ("columns", "found"),
    [
        (
            {"img": TWO, "fine_label": [0, 1], "coarse_label": [0, 1]},
            r"img .*coarse_label .*",
        ),
        ({"image": TWO, "class": [0, 1]}, r"image .*class .*"),
        ({"jpg": TWO, "label": [0, 1]}, r"jpg .*"),
        ({"image": TWO, "label": ["a", "b"]}, r"image \(binary\), label \(string\)"),
        ({"image": TWO, "label": [0.0, 1.0]}, r"image \(binary\), label \(double\)"),
        ({"image": ["a", "b"], "label": [0, 1]}, r"image \(string\), label \(int64\)"),
        ({"image": [{"path": "a"}, {"path": "b"}], "label": [0, 1]}, r"image \(struct<path: string>\), label"),
        ({"image": [[0], [1]], "label": [0, 1]}, r"image \(list<.*>\), label"),
    ],
)
def test_parquet_columns_that_are_wrong_are_named(tmp_path: Path, columns: dict[str, Any], found: str) -> None:
    source = put(tmp_path, pa.table(columns))
    for look in (source.locate, source.load):
        with pytest.raises(
            DataError, match=f"^{tmp_path}/x-train.parquet has the columns {found}.*; expected: .*image"
        ):
            look(tmp_path)


@pytest.mark.parametrize("image", ["image", "img"])
@pytest.mark.parametrize("label", ["label", "labels", "fine_label"])
def test_parquet_columns_as_the_hub_has_them(tmp_path: Path, image: str, label: str) -> None:
    column = pa.array([{"bytes": one, "path": None} for one in TWO])
    table = pa.table({"id": [7, 8], label: [1, 0], image: column})
    source = put(tmp_path, table, table)
    source.locate(tmp_path)
    found = source.load(tmp_path)
    assert isinstance(found.train, data.Resident)
    wanted = np.stack([np.asarray(Image.open(io.BytesIO(one))) for one in TWO]).transpose(0, 3, 1, 2)
    assert np.array_equal(found.train.images.numpy(), wanted)
    assert found.train.labels.tolist() == [1, 0]


@pytest.mark.parametrize(
    ("columns", "near"),
    [
        (["img", "fine_label", "coarse_label"], "name it parquet/x:fine_label or parquet/x:coarse_label"),
        (["image", "class"], "name it parquet/x:class"),
        (["image", "class", "id"], "name it parquet/x:class or parquet/x:id"),
        (["jpg", "label"], "rename jpg to image"),
    ],
)
def test_the_sentence_on_columns_ends_with_the_nearest_fit(tmp_path: Path, columns: list[str], near: str) -> None:
    source = put(tmp_path, pa.table({columns[0]: TWO, **{name: [0, 1] for name in columns[1:]}}))
    sentence = rf"has the columns {columns[0]} \(binary\), .*; expected: .*; to use it, {near}$"
    with pytest.raises(DataError, match=sentence):
        source.locate(tmp_path)


def test_of_two_columns_of_labels_the_name_says_which(tmp_path: Path) -> None:
    hub = pa.table({"img": TWO * 2, "fine_label": [0, 1, 2, 3], "coarse_label": [1, 1, 0, 0]})
    put(tmp_path, hub, hub)
    for name, labels in (("fine_label", [0, 1, 2, 3]), ("coarse_label", [1, 1, 0, 0])):
        assert data.load(f"parquet/x:{name}", tmp_path).train.labels.tolist() == labels
    assert len(data.load("parquet/x:coarse_label:50%-of-classes", tmp_path).train) == 2
    with pytest.raises(
        DataError, match=r"but no whole-number column label; .* parquet/x:fine_label or parquet/x:coarse"
    ):
        data.source("parquet/x:label").locate(tmp_path)
    more = pa.table({"image": TWO, "img": TWO[::-1], "label": [0, 1], "coarse_label": [1, 0]})
    put(tmp_path, more, table(TWO, [1, 0]))
    found = data.source("parquet/x").load(tmp_path)  # as it was read before there were other names
    assert isinstance(found.train, data.Resident)
    assert found.train.labels.tolist() == [0, 1]
    assert np.array_equal(found.train.images[0, 0].numpy(), np.asarray(Image.open(io.BytesIO(TWO[0])))[:, :, 0])


HASH = "-a09b74b3ef9c3b56"


@pytest.mark.parametrize("folder", ["x", "x/data"])
@pytest.mark.parametrize("end", ["", HASH])
def test_parquet_in_several_files_is_read_in_their_order(tmp_path: Path, folder: str, end: str) -> None:
    (tmp_path / folder).mkdir(parents=True)
    images, labels = pictures(*[8] * 5), [0, 1, 2, 1, 0]
    for part in (2, 0, 1):
        rows = slice(2 * part, 2 * part + 2)
        path = tmp_path / folder / f"train-{part:05}-of-00003{end}.parquet"
        pq.write_table(pa.table({"img": images[rows], "label": labels[rows]}), path)
    pq.write_table(pa.table({"img": images[:1], "label": [2]}), tmp_path / folder / "test-00000-of-00001.parquet")
    source = data.source("parquet/x")
    source.locate(tmp_path)
    found = source.load(tmp_path)
    assert isinstance(found.train, data.Resident)
    wanted = np.stack([np.asarray(Image.open(io.BytesIO(one))) for one in images]).transpose(0, 3, 1, 2)
    assert np.array_equal(found.train.images.numpy(), wanted)
    assert (found.train.labels.tolist(), found.test.labels.tolist()) == (labels, [2])
    missing = tmp_path / folder / f"train-00001-of-00003{end}.parquet"
    other = missing.with_name(f"train-00001-of-00002{end}.parquet")
    missing.rename(other)
    with pytest.raises(
        DataError, match=rf"{folder} must have each of the 3 parts of train exactly once; it has train-00000-of-0"
    ):
        source.locate(tmp_path)
    pq.write_table(pa.table({"image": TWO, "label": [0, 1]}), missing)
    other.unlink()
    with pytest.raises(DataError, match=rf"{missing} has the columns image and label, but .* img and label"):
        source.locate(tmp_path)


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        ([], r"there is no {r}/x-train.parquet, and no train\*.parquet in {r}/x or {r}/x/data; expected: .*columns"),
        (
            ["x/train", "x/validation"],
            r"{r}/x has no split test, only train, validation; .* as test, rename",
        ),
        (["x/test"], r"{r}/x has no split train, only test; "),
        (["x/data/validation"], r"{r}/x/data has no split train, only validation; "),
        (["x/plain/train", "x/plain/test"], r"no {r}/x-train.parquet, .*, but parquet/x/plain may be one; expected"),
        (
            ["x/train", "x/test", "x/train-00000-of-00001"],
            r"{r}/x must have each of the 1 parts of train exactly once; it has",
        ),
        (["x-train", "x/train", "x/test"], r"there is no {r}/x-test.parquet"),
    ],
)
def test_parquet_splits_that_are_missing_are_named(tmp_path: Path, files: list[str], sentence: str) -> None:
    for file in files:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table(TWO, [0, 1]), tmp_path / f"{file}.parquet")
    for look in (data.source("parquet/x").locate, data.source("parquet/x").load):
        with pytest.raises(DataError, match=sentence.format(r=tmp_path)):
            look(tmp_path)


def test_parquet_files_that_are_missing_or_broken_are_named(tmp_path: Path) -> None:
    source = put(tmp_path, table(TWO, [0, 1]))
    path = tmp_path / "x-test.parquet"
    whole = path.read_bytes()
    for content in (whole[:-9], b"", b"PAR1"):
        path.write_bytes(content)
        with pytest.raises(DataError, match=f"^{path} can't be read: .*; expected"):
            source.locate(tmp_path)
    path.write_bytes(whole[:4] + bytes(len(whole) // 2) + whole[4 + len(whole) // 2 :])
    with pytest.raises(DataError, match=f"{path}"):
        source.load(tmp_path)
    path.unlink()
    with pytest.raises(DataError, match=f"^there is no {path}; expected"):
        source.locate(tmp_path)
    with pytest.raises(ValueError, match="parquet/NAME needs a name"):
        data.source("parquet")


def test_training_images_are_counted_from_the_labels_alone(tmp_path: Path) -> None:
    """Of images that can't be decoded; the labels of the second class are the third, fourth and sixth."""
    put(tmp_path, table([b"no image"] * 6, [0, 0, 1, 1, 0, 1]))
    assert data.count("parquet/x", tmp_path) == 6
    assert data.count("parquet/x:50%-of-classes", tmp_path) == 3
    with pytest.raises(data.DataError, match="can't be used"):
        data.load("parquet/x", tmp_path)
