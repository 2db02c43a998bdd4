"""VOC 2007's lists as the archives have them, and what is refused."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.datasets import VOCDetection

from raysslprune import data
from raysslprune.data import DataError, voc07
from raysslprune.data.files import Files
from tests.helpers.images import picture, save

IDS = {"trainval": ["000005", "000007", "000009", "000012"], "test": ["000001", "000002", "000003"]}
NUMBERS = [
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog"),
    *("horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
]
"""In the order in which the development kit numbers them."""


def written(root: Path) -> dict[str, np.ndarray]:
    """A VOC2007 folder with random entries; gives the entries as they are in the lists."""
    year = root / "voc07/VOCdevkit/VOC2007"
    rng = np.random.default_rng(7)
    entries = {split: rng.integers(-1, 2, (len(ids), 20)) for split, ids in IDS.items()}
    (year / "ImageSets/Main").mkdir(parents=True)
    for split, ids in IDS.items():
        for column, name in enumerate(NUMBERS):
            lines = [f"{image} {entry:2d}\n" for image, entry in zip(ids, entries[split][:, column], strict=True)]
            (year / f"ImageSets/Main/{name}_{split}.txt").write_text("".join(lines))
        (year / f"ImageSets/Main/{split}.txt").write_text("".join(f"{image}\n" for image in ids))
        for number, image in enumerate(ids):
            save(picture(40 + number, 30), year / f"JPEGImages/{image}.jpg")
    save(picture(50, 50), year / "JPEGImages/009999.jpg")  # of another task: in no list
    return entries


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, np.ndarray]]:
    root = tmp_path_factory.mktemp("voc")
    return root, written(root)


@pytest.fixture
def copy(whole: tuple[Path, object], tmp_path: Path) -> Path:
    """The data root of a copy that may be spoilt."""
    return Path(shutil.copytree(whole[0], tmp_path / "copy"))


def test_labels_are_the_entries(whole: tuple[Path, dict[str, np.ndarray]]) -> None:
    root, entries = whole
    source = data.source("voc07")
    source.locate(root)
    found = source.load(root)
    assert (found.classes, found.multilabel, len(found.train), len(found.test)) == (20, True, 4, 3)
    for split, name in ((found.train, "trainval"), (found.test, "test")):
        assert split.labels.dtype == torch.int8
        for row, labels in enumerate(split.labels.tolist()):
            for column, label in enumerate(labels):
                entry = entries[name][row, column]
                assert label == {1: 1, -1: 0, 0: data.IGNORED}[entry]
    assert list(voc07.CLASSES) == NUMBERS == sorted(NUMBERS)


def test_images_are_those_of_the_labels(whole: tuple[Path, dict[str, np.ndarray]]) -> None:
    root, _ = whole
    found = data.source("voc07").load(root)
    for split, name in ((found.train, "trainval"), (found.test, "test")):
        assert isinstance(split, Files)
        assert [Path(path).stem for path in split.names] == IDS[name]
        for index, image in enumerate(IDS[name]):
            assert split.image(index).size == (40 + IDS[name].index(image), 30)
    images, labels = next(found.batches(found.test, 2))
    assert (images.shape, images.dtype, labels.shape) == ((2, 3, 224, 224), torch.float32, (2, 20))


def test_whole_images_have_the_same_files_and_labels_and_show_their_borders(tmp_path: Path) -> None:
    """Red at the left border of a wide image is outside its central square."""
    written(tmp_path)
    wide = Image.new("RGB", (400, 200), "blue")
    wide.paste((255, 0, 0), (0, 0, 80, 200))
    wide.save(tmp_path / "voc07" / voc07.IMAGES / "000001.jpg", quality=95)
    cropped, whole = data.load("voc07", str(tmp_path)), data.load("voc07/whole", str(tmp_path))
    for one, other in ((cropped.train, whole.train), (cropped.test, whole.test)):
        assert isinstance(one, Files)
        assert isinstance(other, Files)
        assert torch.equal(one.labels, other.labels)
        assert one.names.tolist() == other.names.tolist()
    (centre, _), (squeezed, _) = (next(iter(found.test.batches(1))) for found in (cropped, whole))
    assert int((centre[0, 0] > 128).sum()) == 0
    columns = (squeezed[0, 0] > 128).all(dim=0)
    assert columns.sum().item() == pytest.approx(0.2 * 224, abs=1)  # of 400 columns 80 are red
    assert columns[:44].all()


def test_torchvision_takes_the_same_folder(whole: tuple[Path, dict[str, np.ndarray]]) -> None:
    """It wants annotations too, which have the objects' places."""
    root, _ = whole
    found = data.source("voc07").load(root)
    for split, name in ((found.train, "trainval"), (found.test, "test")):
        assert isinstance(split, Files)
        (root / "voc07/VOCdevkit/VOC2007/Annotations").mkdir(exist_ok=True)
        reference = VOCDetection(str(root / "voc07"), "2007", name)
        assert [f"{split.root}/{path}" for path in split.names] == reference.images


def test_the_order_of_lines_does_not_matter(whole: tuple[Path, object], copy: Path) -> None:
    path = copy / "voc07" / voc07.LISTS / "aeroplane_trainval.txt"
    path.write_text("".join(f"{line}\r\n" for line in reversed(path.read_text().splitlines())))
    first, again = data.source("voc07").load(whole[0]), data.source("voc07").load(copy)
    assert torch.equal(first.train.labels, again.train.labels)


def edit(change: Callable[[str], str | None]) -> Callable[[Path], None]:
    def apply(lists: Path) -> None:
        path = lists / "dog_test.txt"
        text = change(path.read_text())
        path.unlink() if text is None else path.write_bytes(text.encode("latin-1"))

    return apply


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (edit(lambda _: None), r"there is no {lists}/dog_test.txt; expected: .*VOCtest_06-Nov-2007.tar.* {root}/voc07"),
        (edit(lambda _: ""), r"image 00000\d is in only one of aeroplane_test.txt and dog_test.txt in {lists}"),
        (
            edit(lambda text: text + "000004\n"),
            r"{lists}/dog_test.txt, line 4: expected .*, then 1, 0 or -1, not '000004'",
        ),
        (edit(lambda text: text + "000004  2\n"), r"{lists}/dog_test.txt, line 4: expected .*, not '000004  2'"),
        (edit(lambda text: "\n" + text), r"{lists}/dog_test.txt, line 1: expected .*, not ''"),
        (
            edit(lambda text: text + "000001  1\n"),
            r"{lists}/dog_test.txt, line 4: expected an image name that is not listed yet, .*, not '000001  1'",
        ),
        (
            edit(lambda text: text + "000004  1\n"),
            r"image 000004 is in only one of aeroplane_test.txt and dog_test.txt",
        ),
        (
            edit(lambda text: text[:10]),
            r"image 000002 is in only one of aeroplane_test.txt and dog_test.txt in {lists}",
        ),
        (edit(lambda _: "\xff"), r"{lists}/dog_test.txt can't be read: it is not text"),
        (
            lambda lists: (lists / "../../JPEGImages/000007.jpg").unlink(),
            r"1 image is missing, the first {root}/voc07/VOCdevkit/VOC2007/JPEGImages/000007.jpg; expected",
        ),
        (lambda lists: shutil.rmtree(lists / "../../JPEGImages"), r"there is no folder {root}/.*/JPEGImages; expected"),
        (lambda lists: shutil.rmtree(lists.parents[3]), r"there is no {lists}/aeroplane_trainval.txt; expected"),
    ],
)
def test_what_is_missing_or_wrong_is_named(copy: Path, spoil: Callable[[Path], None], sentence: str) -> None:
    lists = copy / "voc07" / voc07.LISTS
    spoil(lists)
    for look in (data.source("voc07").locate, data.source("voc07").load):
        with pytest.raises(DataError, match=sentence.format(lists=lists, root=copy)):
            look(copy)


def test_a_missing_image_may_be_left_out(copy: Path) -> None:
    (copy / "voc07" / voc07.IMAGES / "000007.jpg").unlink()
    (copy / "voc07/skip.txt").write_text(f"{voc07.IMAGES}/000007.jpg\n")
    found = data.source("voc07").load(copy)
    assert isinstance(found.train, Files)
    assert [Path(path).stem for path in found.train.names] == ["000005", "000009", "000012"]
    assert len(found.train.labels) == 3


def test_it_takes_no_name() -> None:
    with pytest.raises(ValueError, match="can only be written voc07 or voc07/whole, not voc07/"):
        data.source("voc07/2012")
