"""What the training loop takes: against the stream by hand, and for files against Pillow and torchvision."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from raysslprune.data import DataError, Dataset, Resident, batches
from raysslprune.data.batches import Batch, Feed, still
from raysslprune.data.boxes import crop_boxes
from raysslprune.data.files import Files
from raysslprune.data.stream import Stream
from raysslprune.data.views import Views, draws
from raysslprune.spec import Recipe, seed_of
from raysslprune.tasks import find
from tests.helpers.processes import wait_until

N = 23


def recipe(**changes: Any) -> Recipe:
    return Recipe(samples=100, batch=8, lr=0.1, **changes)


def resident(samples: int = N) -> Resident:
    return Resident(images=torch.zeros(samples, 1, 4, 4, dtype=torch.uint8), labels=torch.arange(samples))


def same(a: Batch, b: Batch) -> bool:
    for one, other in zip(dataclasses.astuple(a), dataclasses.astuple(b), strict=True):
        if (one is None) != (other is None) or (one is not None and not torch.equal(one, other)):
            return False
    return True


def join(parts: list[Batch]) -> Batch:
    pixels = [p.pixels for p in parts if p.pixels is not None]
    whole = torch.cat(pixels) if pixels else None
    return Batch(*(torch.cat([getattr(p, n) for p in parts]) for n in ("index", "draws", "own")), pixels=whole)


# ------------------------------------------------------------------------------------- resident images


@pytest.mark.parametrize("own", [0, 1])
def test_one_view_is_the_stream_alone(own: int) -> None:
    """So the trainings that were stored before there were feeds are the same."""
    made = Feed(resident(), recipe(pad=1), 5, views=1, draws=3, own=own)
    for position, count in ((0, 8), (8, 8), (3, 50), (N * 9 + 4, 30)):
        batch, wanted = made.take(position, count), Stream(N, 3 + own, 5).take(position, count)
        assert torch.equal(batch.index, wanted.index[:, None])
        assert torch.equal(batch.draws[:, 0], wanted.draws[:, :3])
        assert torch.equal(batch.own, wanted.draws[:, 3:])
        assert batch.draws.shape == (count, 1, 3)
        assert batch.pixels is None
    assert made.samples == N
    assert not made.decodes


def test_views_come_one_after_the_other_and_the_tasks_numbers_last() -> None:
    batch = Feed(resident(), recipe(), 5, views=3, draws=4, own=2).take(10, 40)
    wanted = Stream(N, 14, 5).take(10, 40)
    for view in range(3):
        assert torch.equal(batch.index[:, view], wanted.index)
        assert torch.equal(batch.draws[:, view], wanted.draws[:, 4 * view : 4 * view + 4])
    assert torch.equal(batch.own, wanted.draws[:, 12:])


def test_samples_may_be_some_of_the_images() -> None:
    pool = torch.tensor([2, 3, 11, 19, 22])
    made = Feed(resident(), recipe(), 5, views=2, draws=3, own=1, pool=pool)
    assert made.samples == 5
    for epoch in range(4):
        batch = made.take(5 * epoch, 5)
        assert sorted(batch.index[:, 0].tolist()) == pool.tolist()
        assert torch.equal(batch.index[:, 0], batch.index[:, 1])
        order = Stream(5, 7, 5).take(5 * epoch, 5)
        assert batch.index[:, 0].tolist() == [pool.tolist()[i] for i in order.index]
        assert torch.equal(batch.draws.flatten(1), order.draws[:, :6])


@pytest.mark.parametrize("pool", [None, torch.tensor([4, 9, 17])])
def test_a_partner_is_drawn_from_all_images_by_a_stream_of_its_own(pool: torch.Tensor | None) -> None:
    made = Feed(resident(), recipe(), 5, views=2, draws=3, own=0, pool=pool, partner=True)
    without = Feed(resident(), recipe(), 5, views=2, draws=3, own=0, pool=pool)
    orders = []
    for epoch in range(3):
        batch = made.take(N * epoch, N)
        alone = without.take(N * epoch, N)
        assert torch.equal(batch.index[:, 0], alone.index[:, 0])
        assert torch.equal(batch.draws, alone.draws)
        assert sorted(batch.index[:, 1].tolist()) == list(range(N))
        assert torch.equal(batch.index[:, 1], Stream(N, 0, seed_of("partners", 5)).take(N * epoch, N).index)
        assert not torch.equal(batch.index[:, 1], alone.index[:, 1])
        orders.append(batch.index[:, 1].tolist())
    assert orders[0] != orders[1] != orders[2]
    other = Feed(resident(), recipe(), 6, views=2, draws=3, own=0, pool=pool, partner=True)
    assert other.take(0, N).index[:, 1].tolist() != orders[0]


@pytest.mark.parametrize("count", [1, 7, 8, N, 60])
def test_any_cutting_gives_the_same(count: int) -> None:
    def made() -> Feed:
        pool = torch.arange(1, N, 3)
        return Feed(resident(), recipe(), 5, views=2, draws=3, own=1, pool=pool, partner=True)

    cut = made()
    parts = join([cut.take(position, count) for position in range(11, 11 + 4 * count, count)])
    assert same(parts, made().take(11, 4 * count))
    assert same(cut.take(11, count), made().take(11, count))  # one may go back


@pytest.mark.parametrize(
    ("task", "options", "index", "numbers", "own"),
    [
        ("labels", {}, 1, 4, 0),
        ("rotnet", {}, 1, 4, 1),
        ("exemplar", {}, 2, 4, 1),
        ("npid", {"dimension": 2}, 1, 4, 1),
        ("s4l", {}, 2, 4, 0),
    ],
)
def test_what_each_task_asks_for(task: str, options: dict[str, Any], index: int, numbers: int, own: int) -> None:
    made, split = find(task, options), resident()
    one = torch.ones(1, 1, 1)
    made.begin(Dataset(train=split, test=split, classes=N, mean=one, std=one), torch.Generator())
    by = recipe(angle=3)
    batch = Feed(
        split, by, 0, views=made.views, draws=draws(by), own=made.draws, pool=made.pool(), partner=made.partner
    ).take(0, 8)
    assert batch.index.shape == (8, index)
    assert batch.draws.shape == (8, index, numbers)
    assert batch.own.shape == (8, own)
    assert (task == "s4l") == bool((batch.index[:, 0] != batch.index[:, -1]).any())


# ------------------------------------------------------------------------------------- images on disk

SIZES = [(40, 30), (30, 40), (64, 20), (24, 24), (31, 57), (50, 50), (26, 25)]


def picture(seed: int, width: int, height: int) -> Image.Image:
    """Noise, rough enough that a wrong pixel shows."""
    rng = np.random.default_rng(seed)
    rough = Image.fromarray(rng.integers(0, 256, (6, 5, 3), dtype=np.uint8))
    return rough.resize((width, height), Image.Resampling.BICUBIC)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("images")
    for i in range(N):
        picture(i, *SIZES[i % len(SIZES)]).save(path / f"{i}.jpg", quality=95)
    return path


def files(folder: Path) -> Files:
    names = np.array([f"{i}.jpg" for i in range(N)], dtype=np.dtypes.StringDType())
    return Files(root=str(folder), names=names, labels=torch.arange(N) % 3, size=24, resize=28)


@pytest.fixture(autouse=True, scope="module")
def _few_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


CROPS = recipe(crop=0.2, flip=True)


def made_feed(split: Files, by: Recipe = CROPS, views: int = 2, **more: Any) -> Feed:
    return Feed(split, by, 5, views=views, draws=draws(by), own=1, **more)


def test_pixels_are_pillows_of_the_boxes_that_the_draws_say(folder: Path) -> None:
    batch = made_feed(files(folder)).take(20, 9)
    assert batch.pixels is not None
    assert batch.pixels.dtype == torch.uint8
    assert batch.pixels.shape == (9, 2, 3, 24, 24)
    for row in range(9):
        for view in range(2):
            with Image.open(folder / f"{int(batch.index[row, view])}.jpg") as file:
                image = file.convert("RGB")
            [box] = crop_boxes(batch.draws[row, view][None].numpy(), *image.size, 0.2).tolist()
            wanted = image.resize((24, 24), Image.Resampling.BILINEAR, box=tuple(box))
            assert np.array_equal(batch.pixels[row, view].permute(1, 2, 0), np.asarray(wanted))


def test_without_a_crop_it_is_the_centre_as_for_testing(folder: Path) -> None:
    batch = made_feed(files(folder), recipe(), views=1).take(0, N)
    assert batch.pixels is not None
    centre = v2.Compose([v2.Resize(28), v2.CenterCrop(24)])
    for i, (pixels,) in zip(batch.index[:, 0].tolist(), batch.pixels, strict=True):
        with Image.open(folder / f"{i}.jpg") as file:
            assert np.array_equal(pixels.permute(1, 2, 0), np.asarray(centre(file.convert("RGB"))))


def test_all_but_the_pixels_is_as_of_resident_images(folder: Path) -> None:
    pool = torch.arange(0, N, 4)
    found = made_feed(files(folder), pool=pool, partner=True).take(4, 20)
    wanted = Feed(resident(), CROPS, 5, views=2, draws=11, own=1, pool=pool, partner=True).take(4, 20)
    assert same(dataclasses.replace(found, pixels=None), wanted)


def test_decoding_ahead_changes_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ahead, split = made_feed(files(folder)), files(folder)
    found = [ahead.take(position, 5) for position in range(0, 60, 5)]
    monkeypatch.setattr(batches, "AHEAD", 0)
    for position, batch in zip(range(0, 60, 5), found, strict=True):
        assert same(batch, made_feed(split).take(position, 5))
    monkeypatch.setattr(batches, "AHEAD", 7)
    assert same(join(found), made_feed(split).take(0, 60))


def test_one_may_go_on_anywhere_and_with_another_count(folder: Path) -> None:
    made = made_feed(files(folder), views=1)
    for position, count in ((0, 4), (4, 4), (40, 4), (44, 6), (50, 6), (4, 4), (8, 4), (9, 4)):
        assert same(made.take(position, count), made_feed(files(folder), views=1).take(position, count))


@pytest.fixture
def decoded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Files, list[int]]:
    """A split, and which of its images were decoded so far."""
    seen: list[int] = []
    lock, image, mine = threading.Lock(), Files.image, files(folder)

    def counted(self: Files, index: int) -> Image.Image:
        if self is mine:  # and not what an earlier feed began
            with lock:
                seen.append(index)
        return image(self, index)

    monkeypatch.setattr(Files, "image", counted)
    return mine, seen


def test_batches_are_decoded_before_they_are_asked_for(decoded: tuple[Files, list[int]]) -> None:
    """Three batches of five samples beside the one that was taken."""
    mine, seen = decoded
    made = made_feed(mine, views=1)
    made.take(0, 5)
    wait_until(lambda: len(seen) >= 20, 20)
    order = Stream(N, 12, 5).take(0, 25).index.tolist()
    assert sorted(seen) == sorted(order[:20])
    made.take(5, 5)
    wait_until(lambda: len(seen) >= 25, 20)
    assert sorted(seen) == sorted(order)  # none twice


def test_the_views_of_one_image_share_its_decoding(decoded: tuple[Files, list[int]]) -> None:
    mine, seen = decoded
    index = torch.tensor([[3, 3, 3], [0, 7, 7], [5, 1, 5], [3, 3, 3]])
    numbers = torch.rand(4, 3, draws(CROPS), generator=torch.Generator().manual_seed(1))
    together = still(mine, CROPS, index, numbers)
    assert sorted(seen) == sorted([3, 0, 7, 5, 1, 5, 3])
    assert together.pixels is not None
    for row in range(4):
        for view in range(3):
            alone = still(mine, CROPS, index[row, view].view(1, 1), numbers[row, view].view(1, 1, -1))
            assert alone.pixels is not None
            assert torch.equal(alone.pixels[0, 0], together.pixels[row, view])


def test_a_broken_image_is_reported_where_its_batch_is_taken(folder: Path, tmp_path: Path) -> None:
    for i in range(N):
        (tmp_path / f"{i}.jpg").write_bytes((folder / f"{i}.jpg").read_bytes())
    order = Stream(N, 12, 5).take(0, N).index.tolist()
    (tmp_path / f"{order[13]}.jpg").write_bytes(b"no image")
    (tmp_path / f"{order[20]}.jpg").unlink()
    made = made_feed(files(tmp_path), views=1)
    for position in (0, 4, 8):
        assert same(made.take(position, 4), made_feed(files(folder), views=1).take(position, 4))
    with pytest.raises(DataError, match=rf"image .*/{order[13]}\.jpg is broken"):
        made.take(12, 4)
    assert same(made.take(16, 4), made_feed(files(folder), views=1).take(16, 4))
    with pytest.raises(DataError, match=rf"image .*/{order[20]}\.jpg can't be read"):
        made.take(20, 4)
    with pytest.raises(DataError, match=rf"{order[20]}\.jpg can't be read"):
        still(files(tmp_path), CROPS, torch.tensor([[order[20]]]), torch.zeros(1, 1, 11))


def test_nothing_is_decoded_where_no_pixels_are_wanted(tmp_path: Path) -> None:
    made = made_feed(files(tmp_path / "nowhere"), decode=False)
    batch = made.take(0, 8)
    assert batch.pixels is None
    assert not made.decodes
    assert torch.equal(batch.index[:, 0], Stream(N, 23, 5).take(0, 8).index)


def test_crops_are_drawn_anew_for_each_view_and_epoch(folder: Path) -> None:
    made = made_feed(files(folder))
    pixels: dict[int, list[bytes]] = {}
    for epoch in range(2):
        batch = made.take(epoch * N, N)
        assert batch.pixels is not None
        for i, views in zip(batch.index[:, 0].tolist(), batch.pixels, strict=True):
            pixels.setdefault(i, []).extend(view.numpy().tobytes() for view in views)
    assert all(len(set(shown)) == len(shown) == 4 for shown in pixels.values())


def test_views_of_files_are_what_is_left_to_do_after_the_crop(folder: Path) -> None:
    """Flipped where the third number says, turned, normalised; not cropped again."""
    split = files(folder)
    mean, std = torch.tensor([10.0, 20, 30]).view(3, 1, 1), torch.tensor([2.0, 3, 4]).view(3, 1, 1)
    dataset = Dataset(train=split, test=split, classes=3, mean=mean, std=std)
    batch = made_feed(split).take(0, 12)
    assert batch.pixels is not None
    shown = Views(dataset, split, CROPS)(batch, 1, torch.arange(12) % 4)
    flips = 0
    for row in range(12):
        image = batch.pixels[row, 1].numpy().astype(np.float64)
        if float(batch.draws[row, 1, 2]) < 0.5:
            image, flips = image[:, :, ::-1], flips + 1
        wanted = (np.rot90(image, row % 4, (1, 2)) - mean.numpy()) / std.numpy()
        np.testing.assert_allclose(shown[row], wanted, rtol=1e-5, atol=1e-5)
    assert 0 < flips < 12


@pytest.mark.parametrize("crop", [0.0, 0.2])
def test_a_still_batch_is_of_chosen_images_and_numbers(folder: Path, crop: float) -> None:
    by = recipe(crop=crop)
    index = torch.tensor([[3, 3], [0, 7], [22, 1]])
    numbers = torch.rand(3, 2, draws(by), generator=torch.Generator().manual_seed(1))
    batch = still(files(folder), by, index, numbers)
    assert batch.own.shape == (3, 0)
    assert batch.pixels is not None
    for row in range(3):
        for view in range(2):
            with Image.open(folder / f"{int(index[row, view])}.jpg") as file:
                image = file.convert("RGB")
            if crop:
                [box] = crop_boxes(numbers[row, view][None].numpy(), *image.size, 0.2).tolist()
                wanted = image.resize((24, 24), Image.Resampling.BILINEAR, box=tuple(box))
            else:
                wanted = v2.Compose([v2.Resize(28), v2.CenterCrop(24)])(image)
            assert np.array_equal(batch.pixels[row, view].permute(1, 2, 0), np.asarray(wanted))
    assert still(resident(), by, index, numbers).pixels is None
