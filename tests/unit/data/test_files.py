"""Images on disk against Pillow and torchvision, what is refused, and decoding ahead in threads."""

from __future__ import annotations

import contextlib
import gc
import itertools
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.datasets.folder import IMG_EXTENSIONS, pil_loader
from torchvision.transforms import v2

from raysslprune import data
from raysslprune.data import DataError, files
from raysslprune.data.files import BrokenImage, Files
from tests.helpers.images import encoded, palette, picture, png, save
from tests.helpers.processes import wait_until

# ---------------------------------------------------------------------------------------- pictures


def split(folder: Path, *names: str, **options: Any) -> Files:
    packed = np.array(names, dtype=np.dtypes.StringDType())
    return Files(root=str(folder), names=packed, labels=torch.arange(len(names)), **options)


GOOD: dict[str, tuple[Image.Image, dict[str, Any]]] = {
    "wide.JPEG": (picture(500, 375), {}),
    "high.jpg": (picture(333, 500), {}),
    "square.jpeg": (picture(256, 256), {"quality": 95}),
    "nearly-square.png": (picture(100, 101), {}),
    "small.jpg": (picture(64, 48), {}),
    "tiny.png": (picture(1, 1), {}),
    "odd.webp": (picture(301, 255), {}),
    "very-wide.bmp": (picture(700, 90), {}),
    "grey.jpg": (picture(320, 240).convert("L"), {}),
    "cmyk.jpg": (picture(320, 241).convert("CMYK"), {}),
    "palette.png": (palette(321, 240), {}),
    "progressive.jpg": (picture(290, 260), {"progressive": True}),
    "two.ppm": (picture(270, 260), {}),
    "grey.pgm": (picture(270, 261).convert("L"), {}),
    "packed.tif": (picture(280, 270), {"compression": "tiff_lzw"}),
    "bilevel.png": (picture(300, 300).convert("1"), {}),
    "a png inside.JPEG": (picture(300, 280), {"format": "PNG"}),  # ImageNet has such a one
}


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """One image of each kind."""
    folder = tmp_path_factory.mktemp("good")
    for name, (image, options) in GOOD.items():
        save(image, folder / name, **options)
    return split(folder, *GOOD)


# ------------------------------------------------------------------------------------------- views


@pytest.mark.parametrize("name", GOOD)
@pytest.mark.parametrize(("size", "resize"), [(224, 256), (223, 224), (32, 32)])
def test_the_view_for_testing_is_torchvisions(good: Files, name: str, size: int, resize: int) -> None:
    reference = v2.Compose([v2.Resize(resize), v2.CenterCrop(size), v2.PILToTensor()])
    wanted = reference(pil_loader(f"{good.root}/{name}")).numpy()
    found = split(Path(good.root), name, size=size, resize=resize).view(0)
    assert found.dtype == np.uint8
    assert found.flags.c_contiguous
    assert np.array_equal(found, wanted)


@pytest.mark.parametrize("name", GOOD)
def test_the_view_of_a_whole_image_is_torchvisions(good: Files, name: str) -> None:
    """The transforms of Goyal et al.'s features of VOC07: the shorter side to 256, then all of it to 224 x 224."""
    reference = v2.Compose([v2.Resize(256), v2.Resize((224, 224)), v2.PILToTensor()])
    wanted = reference(pil_loader(f"{good.root}/{name}")).numpy()
    found = split(Path(good.root), name, whole=True)
    assert np.array_equal(found.view(0), wanted)
    box = (0.25, 0, 0.75, 1)  # augmentation does not change
    assert np.array_equal(found.view(0, lambda _w, _h: box), split(Path(good.root), name).view(0, lambda _w, _h: box))


@pytest.mark.parametrize("name", GOOD)
def test_a_box_is_resized_to_a_square(good: Files, name: str) -> None:
    asked: list[tuple[int, int]] = []

    def choose(width: int, height: int) -> tuple[float, float, float, float]:
        asked.append((width, height))
        return (0.25 * width, 0.125 * height, 0.75 * width, height)

    loaded = pil_loader(f"{good.root}/{name}")
    wanted = loaded.resize((224, 224), Image.Resampling.BILINEAR, box=choose(*loaded.size))
    found = good.view(list(good.names).index(name), choose)
    assert asked == [loaded.size] * 2
    assert np.array_equal(found.transpose(1, 2, 0), np.asarray(wanted))


def test_a_box_of_whole_pixels_shows_that_part_of_the_image(tmp_path: Path) -> None:
    corners = Image.new("RGB", (200, 100), "red")
    corners.paste((0, 0, 255), (150, 0, 200, 40))
    save(corners, tmp_path / "a.png")
    view = split(tmp_path, "a.png", size=20).view(0, lambda _w, _h: [150, 0, 200, 40])
    assert (view[:, 5:-5, 5:-5] == np.array([0, 0, 255])[:, None, None]).all()


def test_no_box_is_the_view_for_testing(good: Files) -> None:
    assert np.array_equal(good.view(0, lambda _w, _h: None), good.view(0))


def test_several_views_of_an_image_are_the_views_one_by_one(good: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen: list[files.Choose | None] = [None, lambda _w, _h: (0, 0, 9, 20), lambda w, h: (5, 7, w, h), None]
    alone = [good.view(0, choose) for choose in chosen]
    opened: list[int] = []
    image = Files.image
    monkeypatch.setattr(Files, "image", lambda self, index: (opened.append(index), image(self, index))[1])
    for view, wanted in zip(good.views(0, chosen), alone, strict=True):
        assert np.array_equal(view, wanted)
        assert view.flags.c_contiguous
    assert opened == [0]


def test_a_box_outside_the_image_is_the_callers_fault(good: Files) -> None:
    with pytest.raises(ValueError, match=r"[Bb]ox"):
        good.view(0, lambda width, height: (0, 0, width + 1, height))


def test_the_extensions_are_torchvisions() -> None:
    assert set(files.EXTENSIONS) == set(IMG_EXTENSIONS)


# ------------------------------------------------------------------------------------------- modes


# ------------------------------------------------------------------------------------------ broken

LARGE = 12_000
BROKEN = {
    "truncated.jpg": (encoded(picture(300, 200), "JPEG")[:4000], "truncated"),
    "truncated.png": (encoded(picture(300, 200), "PNG")[:4000], "truncated"),
    "headless.jpg": (encoded(picture(300, 200), "JPEG")[:100], "image"),
    "empty.jpg": (b"", "empty"),
    "text.jpg": (b"Not Found: the requested URL was not found on this server.", "not an image"),
    "html.jpg": (b"<!DOCTYPE html><html></html>", "not an image"),
    "other.jpg": (encoded(picture(30, 20), "GIF"), "not an image"),
    "program.jpg": (encoded(picture(30, 20), "EPS"), "not an image"),  # which Pillow hands to Ghostscript
    "shifted.png": (encoded(picture(300, 200), "PNG").replace(b"IDAT", b"IDAT\0", 1), "broken data stream"),
    "warned-of.png": (png(LARGE, LARGE * 2 // 3), "more than"),
    "bomb.png": (png(LARGE * 2, LARGE * 2), "exceeds limit"),
    "nothing.png": (png(0, 5), "not an image"),
    "narrow.png": (encoded(Image.new("L", (1400, 1)), "PNG"), "too long and narrow"),
    "floats.tif": (encoded(Image.new("F", (4, 4)), "TIFF"), "32-bit"),
    "integers.tif": (encoded(Image.new("I", (4, 4)), "TIFF"), "32-bit"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_image_is_named(name: str, tmp_path: Path) -> None:
    content, reason = BROKEN[name]
    (tmp_path / name).write_bytes(content)
    some = split(tmp_path, name, check="remove.py")
    for look in (some.view, lambda i: some.view(i, lambda width, height: (0, 0, width, height)), some.image):
        with pytest.raises(BrokenImage, match=reason) as error:
            look(0)
        sentence = str(error.value)
        assert str(tmp_path / name) in sentence
        assert ("leave out all broken images: remove.py" in sentence) == (look != some.image)
        assert "\n" not in sentence
        assert "0x" not in sentence


def test_what_can_not_be_read_is_not_called_broken(tmp_path: Path) -> None:
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "link.jpg").symlink_to(tmp_path / "nowhere.jpg")
    some = split(tmp_path, "folder.jpg", "link.jpg", "gone.jpg")
    for index, reason in enumerate(["directory", "No such file", "No such file"]):
        with pytest.raises(DataError, match=f"{some.names[index]} can't be read: .*{reason}") as error:
            some.view(index)
        assert not isinstance(error.value, BrokenImage)


# ------------------------------------------------------------------------------------------- batches


class Watched(Files):
    """Counts the decoded images that nobody has taken yet. Later images take less time than earlier ones."""

    decoded = 0
    lock = threading.Lock()
    broken: frozenset[int] = frozenset()
    delay: Callable[[int], float] = staticmethod(lambda _: 0.0)

    def view(self, index: int, choose: object = None) -> np.ndarray:
        time.sleep(self.delay(index))
        with self.lock:
            type(self).decoded += 1
        if index in self.broken:
            raise BrokenImage(f"image {index} is broken")
        return np.full((3, self.size, self.size), index, np.uint8)


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Watched:
    monkeypatch.setattr(Watched, "decoded", 0)
    names = np.array([f"{i}.jpg" for i in range(100)], dtype=np.dtypes.StringDType())
    return Watched(root="/", names=names, labels=torch.arange(100) % 7, size=2)


@pytest.mark.parametrize("count", [1, 7, 50, 100, 1000])
def test_batches_are_all_images_in_order(watched: Watched, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Watched, "delay", staticmethod(lambda index: 0.002 * (index % 3 == 0)))
    batches = list(watched.batches(count))
    assert [len(images) for images, _ in batches] == [count] * (100 // count) + [100 % count] * (100 % count > 0)
    images = torch.cat([images for images, _ in batches])
    assert (images.dtype, images.shape) == (torch.uint8, (100, 3, 2, 2))
    assert torch.equal(images, torch.arange(100, dtype=torch.uint8)[:, None, None, None].expand(-1, 3, 2, 2))
    assert torch.equal(torch.cat([labels for _, labels in batches]), watched.labels)


def test_batches_are_decoded_ahead_but_not_far(watched: Watched) -> None:
    count = 8
    batches = watched.batches(count)
    assert watched.decoded == 0
    most = max(count, 2 * torch.get_num_threads())
    for taken in range(1, 6):
        next(batches)
        wait_until(lambda taken=taken: watched.decoded >= min(100, taken * count + most))
        time.sleep(0.02)
        assert watched.decoded == min(100, taken * count + most)  # the next batch, and no more


def test_an_abandoned_loop_stops_decoding(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Watched, "delay", staticmethod(lambda _: 0.005))
    for _ in watched.batches(20):
        break
    gc.collect()
    before = watched.decoded
    time.sleep(0.1)
    assert watched.decoded <= before + torch.get_num_threads()


def test_a_broken_image_ends_the_loop_where_it_is(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Watched, "broken", frozenset({23, 27}))
    batches = watched.batches(10)
    assert [images[0, 0, 0, 0].item() for images, _ in itertools.islice(batches, 2)] == [0, 10]
    with pytest.raises(BrokenImage, match="23"):
        next(batches)
    monkeypatch.setattr(Watched, "broken", frozenset())
    assert sum(len(images) for images, _ in watched.batches(10)) == 100


def test_batches_of_real_files(good: Files) -> None:
    found = torch.cat([images for images, _ in good.batches(5)]).numpy()
    assert np.array_equal(found, np.stack([good.view(i) for i in range(len(good))]))


def test_some_and_to(good: Files) -> None:
    part = good.some(torch.tensor([3, 1]))
    assert list(part.names) == ["nearly-square.png", "high.jpg"]
    assert part.labels.tolist() == [3, 1]
    assert (len(part), part.root, part.size, part.channels) == (2, good.root, 224, 3)
    renamed = good.some(torch.tensor([3, 1]), torch.tensor([0, 1])).to(torch.device("cpu"))
    assert renamed.labels.tolist() == [0, 1]
    assert np.array_equal(renamed.view(1), good.view(1))


def test_a_normalised_batch(good: Files) -> None:
    whole = files.dataset(Path(good.root), (GOOD_NAMES, good.labels), (GOOD_NAMES, good.labels), classes=len(good))
    images, labels = next(whole.batches(whole.test, 4))
    normalise = v2.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    wanted = normalise(torch.from_numpy(np.stack([good.view(i) for i in range(4)])).float() / 255)
    assert torch.allclose(images, wanted, atol=1e-5)
    assert labels.tolist() == [0, 1, 2, 3]
    assert (whole.channels, whole.size, whole.multilabel) == (3, 224, False)


GOOD_NAMES = list(GOOD)


def test_there_is_one_executor_of_as_many_threads_as_torch_may_use() -> None:
    assert files.executor() is files.executor()
    names = set(files.ahead(lambda _: (time.sleep(0.002), threading.current_thread().name)[1], range(50), 50))
    assert 1 <= len(names) <= torch.get_num_threads()


def test_names_are_held_compactly() -> None:
    names = [f"train/n{i % 1000:08d}/n{i % 1000:08d}_{i}.JPEG" for i in range(20_000)]
    whole = files.dataset(Path("/nowhere"), (names, torch.zeros(20_000)), (["a"], torch.zeros(1)), classes=1)
    assert isinstance(whole.train, Files)
    assert list(whole.train.names) == names
    assert whole.train.names.itemsize + len(names[-1]) < 60 < sys.getsizeof(names[-1]) + 8


# --------------------------------------------------------------------------------------- skip file


def skipping(folder: Path, *lines: str) -> data.Dataset:
    (folder / "skip.txt").write_bytes("".join(lines).encode())
    train, test = ["train/a", "train/b", "train/c d"], ["val/a", "val/b"]
    return files.dataset(folder, (train, torch.tensor([3, 4, 5])), (test, torch.tensor([6, 7])), classes=8)


def named(split: data.Split) -> list[str]:
    assert isinstance(split, Files)
    return list(split.names)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\n\n"])
def test_the_skip_file_leaves_images_out(tmp_path: Path, end: str) -> None:
    found = skipping(tmp_path, f"val/a{end}", f"train/c d{end}")
    assert (named(found.train), found.train.labels.tolist()) == (["train/a", "train/b"], [3, 4])
    assert (named(found.test), found.test.labels.tolist()) == (["val/b"], [7])
    assert files.skipped(tmp_path) == ["val/a", "train/c d"]


@pytest.mark.parametrize(
    "line", ["./train/c d", r"train\c d", r".\train\c d", "  train//c d\t", "{folder}/train/c d", "train/x/../c d"]
)
def test_a_path_in_the_skip_file_may_be_as_other_tools_write_it(tmp_path: Path, line: str) -> None:
    wrong = "x/.." in line  # which is another folder where x is a link
    with pytest.raises(DataError, match="lists") if wrong else contextlib.nullcontext():
        found = skipping(tmp_path, f"\ufeff{line.format(folder=tmp_path)}\r\n", "# blurred\r\n", "  #\r\n", " \r\n")
        assert named(found.train) == ["train/a", "train/b"]


def test_a_backslash_in_a_name_is_no_separator(tmp_path: Path) -> None:
    (tmp_path / "skip.txt").write_text("train/a\\b\n")
    assert files.skipped(tmp_path) == ["train/a\\b"]


def test_without_a_skip_file_nothing_is_left_out(tmp_path: Path) -> None:
    assert files.skipped(tmp_path) == []
    assert named(skipping(tmp_path).train) == ["train/a", "train/b", "train/c d"]


def test_a_skip_file_that_fits_not_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "skip.txt"
    with pytest.raises(DataError, match=rf"^{path} lists 'train/d', but this data set has no such image$"):
        skipping(tmp_path, "train/b\ntrain/d")
    with pytest.raises(DataError, match=rf"^{path} lists 'train/e.u0301', but this data set has no such image$"):
        skipping(tmp_path, "train/e\u0301")
    with pytest.raises(DataError, match=f"^{path} leaves no image"):
        skipping(tmp_path, "val/a\nval/b\n")
    path.write_bytes(b"\xff\n")
    with pytest.raises(DataError, match=f"{path} can't be read: it is not UTF-8"):
        files.skipped(tmp_path)
    path.unlink()
    path.mkdir()
    with pytest.raises(DataError, match=f"{path} can't be read: Is a directory"):
        files.skipped(tmp_path)


@pytest.mark.parametrize("name", ["", "/etc", "../other", "a/../../b", ".."])
def test_a_data_set_lies_below_the_data_root(name: str) -> None:
    with pytest.raises(ValueError, match="below the data root"):
        files.below(Path("data"), "folder", name)
