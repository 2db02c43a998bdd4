"""Views and normalisation against loops over pixels in numpy, and against torchvision one image at a time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as tv

from raysslprune import data
from raysslprune.data import Dataset, Resident, Split
from raysslprune.data.batches import Batch
from raysslprune.data.boxes import TRIES
from raysslprune.data.stream import Stream
from raysslprune.data.views import Views, _constant, draws, jittered, resampled, rotated
from raysslprune.spec import Recipe
from raysslprune.tasks import find

DIGITS = data.load("digits")
PLAIN = Recipe(samples=1200, batch=64, lr=0.1)


def recipe(pad: int = 0, flip: bool = False, **changes: Any) -> Recipe:
    return Recipe(samples=1200, batch=64, lr=0.1, pad=pad, flip=flip, **changes)


def taken(by: Recipe, position: int, count: int, seed: int, samples: int = 1200, views: int = 1, own: int = 0) -> Batch:
    """As a feed takes them, by hand: the views' draws one view after another, then the task's own."""
    some = Stream(samples, views * draws(by) + own, seed).take(position, count)
    drawn = some.draws[:, : views * draws(by)].reshape(count, views, draws(by))
    return Batch(some.index[:, None].repeat(1, views), drawn, some.draws[:, views * draws(by) :])


def cut(batch: Batch, start: int, stop: int) -> Batch:
    return Batch(batch.index[start:stop], batch.draws[start:stop], batch.own[start:stop])


def pictures(split: Split) -> Tensor:
    assert isinstance(split, Resident)
    return split.images


def naive_view(image: np.ndarray, draws: list[float], pad: int, flip: bool) -> np.ndarray:
    """One image (channels, size, size): zero-padded, cropped where the draws say, flipped; pixel by pixel."""
    channels, size, _ = image.shape
    down, right = math.floor(draws[0] * (2 * pad + 1)), math.floor(draws[1] * (2 * pad + 1))
    view = np.zeros_like(image)
    for channel in range(channels):
        for row in range(size):
            for column in range(size):
                mirrored = size - 1 - column if flip and draws[2] < 0.5 else column
                r, c = row + down - pad, mirrored + right - pad
                if 0 <= r < size and 0 <= c < size:
                    view[channel, row, column] = image[channel, r, c]
    return view


def raw(views: Tensor, dataset: Dataset) -> np.ndarray:
    """Normalised views back on the uint8 scale, as float64."""
    return views.numpy().astype(float) * dataset.std.numpy() + dataset.mean.numpy()


def pixels(views: Tensor, dataset: Dataset) -> np.ndarray:
    """The uint8 images that normalised views show; they must be whole numbers."""
    images = pictures(dataset.train).numpy().astype(float)
    mean, std = (getattr(np, f)(images, axis=(0, 2, 3)) for f in ("mean", "std"))
    shown = views.numpy().astype(float) * std[:, None, None] + mean[:, None, None]
    assert np.abs(shown - shown.round()).max() < 5e-3
    return shown.round().astype(np.uint8)


def made_up(channels: int, size: int, samples: int = 20) -> Dataset:
    images = torch.randint(0, 256, (samples, channels, size, size), generator=torch.Generator().manual_seed(0))
    split = Resident(images=images.to(torch.uint8), labels=torch.arange(samples))
    std, mean = torch.std_mean(images.float(), dim=(0, 2, 3), keepdim=True, unbiased=False)
    return Dataset(train=split, test=split, classes=samples, mean=mean[0], std=std[0])


# ------------------------------------------------------------------------------------- moved pixels


@pytest.mark.parametrize(("pad", "flip"), [(0, False), (1, False), (0, True), (1, True), (3, True)])
def test_digits_are_shifted_and_flipped_as_the_draws_say(pad: int, flip: bool) -> None:
    batch = taken(recipe(pad, flip), 1100, 200, seed=7)
    views = Views(DIGITS, DIGITS.train, recipe(pad, flip))(batch)
    assert views.shape == (200, 1, 8, 8)
    assert views.dtype == torch.float32
    images = pictures(DIGITS.train).numpy()
    wanted = [
        naive_view(images[i], d, pad, flip) for i, [d] in zip(batch.index[:, 0], batch.draws.tolist(), strict=True)
    ]
    assert np.array_equal(pixels(views, DIGITS), np.stack(wanted))


def test_all_channels_of_an_image_move_together() -> None:
    dataset = made_up(channels=3, size=5)
    batch = taken(recipe(2, True), 0, 60, seed=1, samples=20)
    views = Views(dataset, dataset.train, recipe(2, flip=True))(batch, turns=3)
    images = pictures(dataset.train).numpy()
    wanted = [
        np.rot90(naive_view(images[i], d, 2, True), 3, axes=(1, 2))
        for i, [d] in zip(batch.index[:, 0], batch.draws.tolist(), strict=True)
    ]
    assert np.array_equal(pixels(views, dataset), np.stack(wanted))


@pytest.mark.parametrize("flip", [False, True])
def test_rotnets_label_is_the_exact_rotation_of_the_pixels(flip: bool) -> None:
    """Against numpy.rot90 of the shifted (and flipped) image: nothing is interpolated, and the label says which."""
    task = find("rotnet")
    batch = taken(recipe(1, flip), 0, 300, seed=3, own=task.draws)
    views, labels = task.sample(Views(DIGITS, DIGITS.train, recipe(1, flip)), batch)
    images = pictures(DIGITS.train).numpy()
    for i, [drawn], label, shown in zip(
        batch.index[:, 0], batch.draws.tolist(), labels.tolist(), pixels(views, DIGITS)[:, 0], strict=True
    ):
        upright = naive_view(images[i], drawn, 1, flip)[0]
        fits = [turns for turns in range(4) if np.array_equal(np.rot90(upright, turns), shown)]
        assert fits == [label]
    counts = np.bincount(labels.numpy(), minlength=4)
    assert ((counts - 75) ** 2 / 75).sum() < 21.1  # chi-square, 3 degrees of freedom, p = 0.0001


def test_the_rotation_is_independent_of_the_shift() -> None:
    task = find("rotnet")
    batch = taken(recipe(1), 0, 7200, seed=3, own=task.draws)
    _, turns = task.sample(Views(DIGITS, DIGITS.train, recipe(1)), batch)
    shift = (batch.draws[:, 0, :2] * 3).long()
    cells = np.bincount(((shift[:, 0] * 3 + shift[:, 1]) * 4 + turns).numpy(), minlength=36)
    assert ((cells - 200) ** 2 / 200).sum() < 76.4  # chi-square, 35 degrees of freedom, p = 0.0001


def test_labels_are_those_of_the_images() -> None:
    task = find("labels")
    batch = taken(recipe(1), 0, 100, seed=3, own=task.draws)
    _, labels = task.sample(Views(DIGITS, DIGITS.train, recipe(1)), batch)
    assert labels.tolist() == [int(DIGITS.train.labels[i]) for i in batch.index[:, 0]]


def test_every_shift_and_flip_is_used_equally_often() -> None:
    """Seen in the pixels: two neighbouring pixels of an image land in each of 9 places, mirrored or not."""
    image = torch.zeros(1, 1, 6, 6, dtype=torch.uint8)
    image[0, 0, 2, 2], image[0, 0, 2, 3] = 100, 200
    split = Resident(images=image.expand(100, -1, -1, -1).contiguous(), labels=torch.zeros(100, dtype=torch.long))
    dataset = Dataset(train=split, test=split, classes=1, mean=torch.zeros(1, 1, 1), std=torch.ones(1, 1, 1))
    by = recipe(1, flip=True)
    views = Views(dataset, split, by)(taken(by, 0, 3600, seed=0, samples=100))[:, 0]
    counts: dict[tuple[int, bool], int] = {}
    for view in views.flatten(1):
        first, second = int((view == 100).nonzero()), int((view == 200).nonzero())
        assert abs(first - second) == 1
        place = (first, second < first)
        counts[place] = counts.get(place, 0) + 1
    assert len(counts) == 18
    assert sum((n - 200) ** 2 / 200 for n in counts.values()) < 46.7  # chi-square, 17 degrees of freedom, p = 0.0001


def test_the_largest_draw_is_still_inside() -> None:
    """Draws are below 1, but the product with the number of shifts is rounded."""
    below_one = 1 - 2.0**-24
    for pad in range(6):
        batch = Batch(torch.tensor([[0]]), torch.full((1, 1, 3), below_one), torch.full((1, 1), below_one))
        views, label = find("rotnet").sample(Views(DIGITS, DIGITS.train, recipe(pad, flip=True)), batch)
        wanted = np.rot90(naive_view(pictures(DIGITS.train)[0].numpy(), [below_one] * 3, pad, True)[0], 3)
        assert label.tolist() == [3]
        assert np.array_equal(pixels(views, DIGITS)[0, 0], wanted)


def test_views_leave_the_images_alone() -> None:
    before = pictures(DIGITS.train).clone()
    for by in (recipe(2, flip=True), recipe(flip=True, crop=0.3, angle=10, jitter=(0.4, 0.4, 0.4, 0.1))):
        Views(DIGITS, DIGITS.train, by)(taken(by, 0, 100, seed=0))
    assert torch.equal(pictures(DIGITS.train), before)


def naive_box(drawn: list[float], width: int, height: int, least: float) -> tuple[int, int, int, int]:
    """torchvision's RandomResizedCrop.get_params with these numbers in the place of its random ones."""
    for attempt in range(TRIES):
        area, shape = drawn[3 + 2 * attempt], drawn[4 + 2 * attempt]
        target = width * height * (least + area * (1 - least))
        ratio = math.exp(math.log(3 / 4) + shape * (math.log(4 / 3) - math.log(3 / 4)))
        w, h = round(math.sqrt(target * ratio)), round(math.sqrt(target / ratio))
        if 0 < w <= width and 0 < h <= height:
            left, top = math.floor(drawn[1] * (width - w + 1)), math.floor(drawn[0] * (height - h + 1))
            return left, top, left + w, top + h
    w, h = width, height
    if width / height < 3 / 4:
        h = round(width / (3 / 4))
    elif width / height > 4 / 3:
        w = round(height * (4 / 3))
    left, top = (width - w) // 2, (height - h) // 2
    return left, top, left + w, top + h


# ------------------------------------------------------------------------------------- crops


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize(("channels", "size"), [(1, 8), (3, 33)])
def test_a_random_resized_crop_is_torchvisions(channels: int, size: int, flip: bool) -> None:
    dataset, by = made_up(channels, size), recipe(crop=0.08, flip=flip)
    batch = taken(by, 0, 60, seed=1, samples=20)
    shown = raw(Views(dataset, dataset.train, by)(batch), dataset)
    assert batch.draws.shape == (60, 1, 11)
    sizes = set()
    for i, [drawn], view in zip(batch.index[:, 0], batch.draws.tolist(), shown, strict=True):
        left, top, right, bottom = naive_box(drawn, size, size, 0.08)
        sizes.add((right - left, bottom - top))
        image = pictures(dataset.train)[i].float()
        wanted = tv.resized_crop(image, top, left, bottom - top, right - left, [size, size], antialias=True)
        if flip and drawn[2] < 0.5:
            wanted = tv.horizontal_flip(wanted)
        np.testing.assert_allclose(view, wanted, atol=2e-3)
    assert len(sizes) > 20


def test_nothing_outside_a_box_is_looked_at() -> None:
    images = torch.full((1, 1, 9, 9), 200.0)
    images[:, :, 2:6, 3:8] = 100
    shown = resampled(images, torch.tensor([[3, 2, 8, 6]]))
    torch.testing.assert_close(shown, torch.full((1, 1, 9, 9), 100.0), atol=1e-3, rtol=0)


# ------------------------------------------------------------------------------------- rotations


@pytest.mark.parametrize(("channels", "size"), [(1, 8), (3, 33)])
def test_small_rotations_are_torchvisions(channels: int, size: int) -> None:
    dataset, by = made_up(channels, size), recipe(angle=30)
    batch = taken(by, 0, 60, seed=1, samples=20)
    shown = raw(Views(dataset, dataset.train, by)(batch), dataset)
    for i, [drawn], view in zip(batch.index[:, 0], batch.draws.tolist(), shown, strict=True):
        image = pictures(dataset.train)[i].float()
        wanted = tv.rotate(image, (2 * drawn[3] - 1) * 30, interpolation=InterpolationMode.BILINEAR)
        np.testing.assert_allclose(view, wanted, atol=5e-3)


@pytest.mark.parametrize("turns", [-1, 1, 2])
def test_a_positive_angle_is_counter_clockwise(turns: int) -> None:
    image = torch.rand(1, 2, 7, 7, generator=torch.Generator().manual_seed(0))
    upright = torch.from_numpy(np.rot90(image.numpy(), turns, axes=(2, 3)).copy())
    torch.testing.assert_close(rotated(image, torch.tensor([90.0 * turns])), upright, atol=1e-5, rtol=0)


def colours(channels: int = 3) -> Tensor:
    """From 0 to 1, also without chroma, black, white, and of pure colours."""
    images = torch.rand(12, channels, 6, 6, generator=torch.Generator().manual_seed(3))
    images[0], images[1], images[2] = 0.0, 1.0, images[2, :1].expand(channels, -1, -1)
    images[3] = (images[3] > 0.5).float()
    return images


# ------------------------------------------------------------------------------------- colours


@pytest.mark.parametrize(
    ("which", "change"),
    list(enumerate([tv.adjust_brightness, tv.adjust_contrast, tv.adjust_saturation, tv.adjust_hue])),
)
@pytest.mark.parametrize("white", [1.0, 16.0, 255.0])
def test_each_change_of_colours_is_torchvisions(which: int, change: Any, white: float) -> None:
    """torchvision's luma has weights of four digits, .2989 for .299."""
    drawn = torch.rand(12, 4, generator=torch.Generator().manual_seed(which))
    strengths = [0.0, 0.0, 0.0, 0.0]
    strengths[which] = 0.5 if which == 3 else 0.9
    changed = jittered(colours() * white, drawn, tuple(strengths), white) / white
    for image, numbers, shown in zip(colours(), drawn.tolist(), changed, strict=True):
        amount = (2 * numbers[which] - 1) * strengths[which]
        torch.testing.assert_close(shown, change(image, amount + (which != 3)), atol=3e-4, rtol=0)


def by_torchvision(image: Tensor, drawn: Sequence[float], strengths: Sequence[float]) -> Tensor:
    """Brightness, contrast, saturation, hue in this order, of an image from 0 to 1."""
    factors = [1 + (2 * d - 1) * s for d, s in zip(drawn, strengths, strict=True)]
    image = tv.adjust_contrast(tv.adjust_brightness(image, factors[0]), factors[1])
    if len(image) == 1:
        return image
    return tv.adjust_hue(tv.adjust_saturation(image, factors[2]), factors[3] - 1)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("crop", [0.0, 0.3])
@pytest.mark.parametrize("turns", [0, 1, 3])
def test_a_view_of_every_kind_is_that_of_torchvision(channels: int, crop: float, turns: int) -> None:
    """Shift or crop, flip, angle, jitter, grayscale, turns: in this order, by the draws in this order."""
    dataset, strengths = made_up(channels, 12), (0.4, 0.3, 0.5, 0.2)
    by = recipe(0 if crop else 2, True, crop=crop, angle=25, jitter=strengths, grayscale=0.4)
    batch = taken(by, 30, 80, seed=1, samples=20, views=2)
    shown = raw(Views(dataset, dataset.train, by)(batch, 1, turns), dataset) / 255
    greys = 0
    for (_, i), (_, drawn), view in zip(batch.index, batch.draws.tolist(), shown, strict=True):
        image = pictures(dataset.train)[i]
        if crop:
            left, top, right, bottom = naive_box(drawn, 12, 12, crop)
            image = tv.resized_crop(image.float(), top, left, bottom - top, right - left, [12, 12])
        else:
            image = torch.from_numpy(naive_view(image.numpy(), drawn, 2, False)).float()
        image = tv.horizontal_flip(image) if drawn[2] < 0.5 else image
        angle, *jitter, chance = drawn[11:] if crop else drawn[3:]
        image = tv.rotate(image, (2 * angle - 1) * 25, interpolation=InterpolationMode.BILINEAR)
        image = by_torchvision(image / 255, jitter, strengths)
        if chance < 0.4 and channels == 3:
            image, greys = tv.rgb_to_grayscale(image, 3), greys + 1
        np.testing.assert_allclose(view, image.rot90(turns, (1, 2)), atol=1e-3)
    assert channels == 1 or 15 < greys < 50


def test_colours_first_changed_in_inference_mode_can_be_differentiated() -> None:
    """As by an evaluation before a training: the constants are cached."""
    _constant.cache_clear()
    images, drawn, strengths = torch.rand(2, 3, 4, 4), torch.full((2, 4), 0.6), (0.4, 0.4, 0.4, 0.1)
    with torch.inference_mode():
        jittered(images, drawn, strengths, 1.0)
    images.requires_grad_()
    jittered(images, drawn, strengths, 1.0).sum().backward()
    assert images.grad is not None


@pytest.mark.parametrize("changes", [{"pad": 2, "flip": True}, {"angle": 9, "jitter": (0.4, 0.4, 0.4, 0.1)}])
def test_turns_come_last_and_are_exact(changes: dict[str, Any]) -> None:
    dataset, by = made_up(3, 9), recipe(**changes)
    views, batch = Views(dataset, dataset.train, by), taken(recipe(**changes), 0, 50, seed=1, samples=20)
    upright, turns = views(batch), torch.arange(50) % 4
    mixed = views(batch, turns=turns)
    for t in range(4):
        assert torch.equal(views(batch, turns=t), upright.rot90(t, (2, 3)))
        assert torch.equal(mixed[turns == t], upright[turns == t].rot90(t, (2, 3)))


def test_images_without_colours_have_none_to_change() -> None:
    dataset = made_up(1, 8)
    full, light = recipe(jitter=(0.4, 0.4, 1.0, 0.5), grayscale=1.0), recipe(jitter=(0.4, 0.4, 0.0, 0.0))
    batch = taken(full, 0, 20, seed=0, samples=20)
    shown = Views(dataset, dataset.train, full)(batch)
    only_light = Batch(batch.index, batch.draws[:, :, :7], batch.own)
    assert torch.equal(shown, Views(dataset, dataset.train, light)(only_light))
    assert not torch.equal(shown, Views(dataset, dataset.train, PLAIN)(only_light))


def test_digits_are_white_at_16() -> None:
    assert DIGITS.white == pictures(DIGITS.train).max() == 16
    by = recipe(jitter=(1.0, 0.0, 0.0, 0.0))
    batch = taken(by, 0, 200, seed=0)
    images = pictures(DIGITS.train)[batch.index[:, 0]].numpy().astype(float)
    wanted = np.minimum(images * 2 * batch.draws[:, :, 3, None, None].numpy(), 16)
    np.testing.assert_allclose(raw(Views(DIGITS, DIGITS.train, by)(batch), DIGITS), wanted, atol=1e-4)
    assert (wanted == 16).mean() > 0.1


# ------------------------------------------------------------------------------------- draws, sameness


@pytest.mark.parametrize(
    ("changes", "count"),
    [
        ({}, 3),
        ({"pad": 4, "flip": True}, 3),
        ({"crop": 0.1}, 11),
        ({"angle": 1}, 4),
        ({"jitter": (0.0, 0.0, 0.0, 0.0)}, 7),
        ({"grayscale": 0.1}, 4),
        ({"crop": 0.1, "flip": True, "angle": 5, "jitter": (0.4, 0.4, 0.4, 0.1), "grayscale": 0.2}, 17),
    ],
)
def test_how_many_numbers_a_view_needs(changes: dict[str, Any], count: int) -> None:
    assert draws(recipe(**changes)) == count


@pytest.mark.parametrize(
    "changes",
    [{}, {"pad": 1}, {"flip": True}, {"crop": 0.5}, {"angle": 1}, {"jitter": (0.1, 0, 0, 0)}, {"grayscale": 0.1}],
)
def test_views_are_random_where_two_of_an_image_can_differ(changes: dict[str, Any]) -> None:
    dataset, by = made_up(3, 8), recipe(**changes)
    batch = taken(by, 0, 60, seed=0, samples=20, views=2)
    views = Views(dataset, dataset.train, by)
    assert views.random == (not torch.equal(views(batch, 0), views(batch, 1))) == bool(changes)


@pytest.mark.parametrize("changes", [{"jitter": (0.0, 0.0, 0.0, 0.0)}, {"angle": 1e-6}])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_fast_way_is_the_general_one(changes: dict[str, Any], channels: int) -> None:
    dataset, fast, general = made_up(channels, 9), recipe(2, True), recipe(2, True, **changes)
    batch, turns = taken(general, 0, 80, seed=2, samples=20), torch.arange(80) % 4
    quick = Views(dataset, dataset.train, fast)(Batch(batch.index, batch.draws[:, :, :3], batch.own), turns=turns)
    slow = Views(dataset, dataset.train, general)(batch, turns=turns)
    np.testing.assert_allclose(raw(slow, dataset), raw(quick, dataset), atol=1e-3)


@pytest.mark.parametrize("size", [1, 3, 40, 64])
@pytest.mark.parametrize(
    "changes",
    [
        {"pad": 1, "flip": True},
        {"pad": 1, "angle": 15, "jitter": (0.4, 0.4, 0.0, 0.0)},
        {"crop": 0.2, "flip": True, "angle": 10, "jitter": (0.4, 0.4, 0.4, 0.1), "grayscale": 0.2},
    ],
)
def test_a_view_has_the_same_bits_in_every_batch(changes: dict[str, Any], size: int) -> None:
    """It depends on seed, epoch and sample alone, so an interruption changes nothing."""
    by = recipe(**changes)
    for dataset in (made_up(3, 8, samples=200), DIGITS):
        views, batch = Views(dataset, dataset.train, by), taken(by, 0, 300, 1, len(dataset.train), views=2)
        cuts = [views(cut(batch, at, at + size), 1) for at in range(0, 300, size)]
        assert torch.equal(torch.cat(cuts), views(batch, 1))


# ------------------------------------------------------------------------------------- normalisation


def test_the_training_set_is_normalised_to_mean_0_and_variance_1() -> None:
    normal = DIGITS.normalise(pictures(DIGITS.train)).double().numpy()
    assert abs(normal.mean()) < 1e-5
    assert abs(normal.var() - 1) < 1e-4


def test_the_test_set_is_normalised_by_the_training_sets_statistics() -> None:
    train, test = (pictures(split).numpy().astype(float) for split in (DIGITS.train, DIGITS.test))
    wanted = (test - train.mean()) / train.std()
    np.testing.assert_allclose(DIGITS.normalise(pictures(DIGITS.test)).numpy(), wanted, rtol=1e-4, atol=1e-5)


def test_normalisation_is_per_channel() -> None:
    images = pictures(made_up(channels=3, size=4).train)
    images[:, 1] //= 10
    normal = data.resident((images, torch.arange(20)), (images, torch.arange(20))).normalise(images).double()
    assert float(normal.mean(dim=(0, 2, 3)).abs().max()) < 1e-5
    assert float((normal.var(dim=(0, 2, 3)) - 1).abs().max()) < 1e-4


class Oracle(nn.Module):
    """Answers from a table from the bytes of a normalised image; -1 becomes the class after the true one."""

    def __init__(self, answers: dict[bytes, int], classes: int) -> None:
        super().__init__()
        self.answers, self.classes, self.asked = answers, classes, 0

    def forward(self, images: Tensor) -> Tensor:
        keys = [image.contiguous().numpy().tobytes() for image in images]
        self.asked += len(keys)
        return nn.functional.one_hot(torch.tensor([self.answers[key] for key in keys]), self.classes).float()


# ------------------------------------------------------------------------------------- evaluation


def test_rotnet_is_evaluated_on_all_four_rotations_of_every_test_image() -> None:
    answers: dict[bytes, int] = {}
    for image in pictures(DIGITS.test).numpy():
        for turns in range(4):
            turned = torch.from_numpy(np.rot90(image[0], turns).copy())[None, None]
            answers[DIGITS.normalise(turned)[0].numpy().tobytes()] = turns
    assert len(answers) == 4 * 597  # no digit looks like another, turned
    oracle = Oracle(answers, 4)
    assert find("rotnet").evaluate(oracle, DIGITS, PLAIN) == {"rotation_top1": 100.0}
    assert oracle.asked == 4 * 597
    half_wrong = Oracle({key: turns // 2 * 2 for key, turns in answers.items()}, 4)
    assert find("rotnet").evaluate(half_wrong, DIGITS, PLAIN) == {"rotation_top1": 50.0}


def test_top1_counts_every_test_image_once() -> None:
    keys = [image.numpy().tobytes() for image in DIGITS.normalise(pictures(DIGITS.test))]
    labels = DIGITS.test.labels.tolist()
    right = dict(zip(keys, labels, strict=True))
    assert len(right) == 597
    wrong_for_100 = {key: (label + (i < 100)) % 10 for i, (key, label) in enumerate(right.items())}
    oracle = Oracle(wrong_for_100, 10)
    assert find("labels").evaluate(oracle, DIGITS, PLAIN) == {"top1": 100 * 497 / 597}
    assert oracle.asked == 597
