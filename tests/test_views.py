"""Views and normalisation against loops over pixels in numpy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from raysslprune import data
from raysslprune.data import Dataset, Split
from raysslprune.data.stream import Batch, Stream
from raysslprune.data.views import DRAWS, Views
from raysslprune.spec import Recipe
from raysslprune.tasks import find

DIGITS = data.load("digits")


def recipe(pad: int, flip: bool = False) -> Recipe:
    return Recipe(samples=1200, batch=64, lr=0.1, pad=pad, flip=flip)


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


def pixels(views: Tensor, dataset: Dataset) -> np.ndarray:
    """The uint8 images that normalised views show; they must be whole numbers."""
    mean, std = (getattr(np, f)(dataset.train.images.numpy().astype(float), axis=(0, 2, 3)) for f in ("mean", "std"))
    raw = views.numpy().astype(float) * std[:, None, None] + mean[:, None, None]
    assert np.abs(raw - raw.round()).max() < 5e-3
    return raw.round().astype(np.uint8)


def made_up(channels: int, size: int, samples: int = 20) -> Dataset:
    images = torch.randint(0, 256, (samples, channels, size, size), generator=torch.Generator().manual_seed(0))
    split = Split(images=images.to(torch.uint8), labels=torch.arange(samples))
    std, mean = torch.std_mean(images.float(), dim=(0, 2, 3), keepdim=True, unbiased=False)
    return Dataset(train=split, test=split, classes=samples, mean=mean[0], std=std[0])


@pytest.mark.parametrize(("pad", "flip"), [(0, False), (1, False), (0, True), (1, True), (3, True)])
def test_digits_are_shifted_and_flipped_as_the_draws_say(pad: int, flip: bool) -> None:
    batch = Stream(1200, DRAWS, seed=7).take(1100, 200)
    views = Views(DIGITS, recipe(pad, flip))(batch)
    assert views.shape == (200, 1, 8, 8)
    assert views.dtype == torch.float32
    images = DIGITS.train.images.numpy()
    wanted = [naive_view(images[i], d, pad, flip) for i, d in zip(batch.index, batch.draws.tolist(), strict=True)]
    assert np.array_equal(pixels(views, DIGITS), np.stack(wanted))


def test_all_channels_of_an_image_move_together() -> None:
    dataset = made_up(channels=3, size=5)
    batch = Stream(20, DRAWS, seed=1).take(0, 60)
    views = Views(dataset, recipe(2, flip=True))(batch, 3)
    images = dataset.train.images.numpy()
    wanted = [
        np.rot90(naive_view(images[i], d, 2, True), 3, axes=(1, 2))
        for i, d in zip(batch.index, batch.draws.tolist(), strict=True)
    ]
    assert np.array_equal(pixels(views, dataset), np.stack(wanted))


@pytest.mark.parametrize("flip", [False, True])
def test_rotnets_label_is_the_exact_rotation_of_the_pixels(flip: bool) -> None:
    """Against numpy.rot90 of the shifted (and flipped) image: nothing is interpolated, and the label says which."""
    task = find("rotnet")
    batch = Stream(1200, task.draws, seed=3).take(0, 300)
    views, labels = task.sample(Views(DIGITS, recipe(1, flip)), batch)
    images = DIGITS.train.images.numpy()
    for i, draws, label, shown in zip(
        batch.index, batch.draws.tolist(), labels.tolist(), pixels(views, DIGITS)[:, 0], strict=True
    ):
        upright = naive_view(images[i], draws, 1, flip)[0]
        fits = [turns for turns in range(4) if np.array_equal(np.rot90(upright, turns), shown)]
        assert fits == [label]
    counts = np.bincount(labels.numpy(), minlength=4)
    assert ((counts - 75) ** 2 / 75).sum() < 21.1  # chi-square, 3 degrees of freedom, p = 0.0001


def test_the_rotation_is_independent_of_the_shift() -> None:
    task = find("rotnet")
    batch = Stream(1200, task.draws, seed=3).take(0, 7200)
    _, turns = task.sample(Views(DIGITS, recipe(1)), batch)
    shift = (batch.draws[:, :2] * 3).long()
    cells = np.bincount(((shift[:, 0] * 3 + shift[:, 1]) * 4 + turns).numpy(), minlength=36)
    assert ((cells - 200) ** 2 / 200).sum() < 76.4  # chi-square, 35 degrees of freedom, p = 0.0001


def test_labels_are_those_of_the_images() -> None:
    task = find("labels")
    batch = Stream(1200, task.draws, seed=3).take(0, 100)
    _, labels = task.sample(Views(DIGITS, recipe(1)), batch)
    assert labels.tolist() == [int(DIGITS.train.labels[i]) for i in batch.index]


def test_an_unknown_task_is_refused_with_a_sentence() -> None:
    with pytest.raises(ValueError, match="'jigsaw' is not one of labels, rotnet"):
        find("jigsaw")


def test_every_shift_and_flip_is_used_equally_often() -> None:
    """Seen in the pixels: two neighbouring pixels of an image land in each of 9 places, mirrored or not."""
    image = torch.zeros(1, 1, 6, 6, dtype=torch.uint8)
    image[0, 0, 2, 2], image[0, 0, 2, 3] = 100, 200
    split = Split(images=image.expand(100, -1, -1, -1).contiguous(), labels=torch.zeros(100, dtype=torch.long))
    dataset = Dataset(train=split, test=split, classes=1, mean=torch.zeros(1, 1, 1), std=torch.ones(1, 1, 1))
    views = Views(dataset, recipe(1, flip=True))(Stream(100, DRAWS, seed=0).take(0, 3600))[:, 0]
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
        batch = Batch(torch.tensor([0]), torch.full((1, 4), below_one))
        views, label = find("rotnet").sample(Views(DIGITS, recipe(pad, flip=True)), batch)
        wanted = np.rot90(naive_view(DIGITS.train.images[0].numpy(), [below_one] * 3, pad, True)[0], 3)
        assert label.tolist() == [3]
        assert np.array_equal(pixels(views, DIGITS)[0, 0], wanted)


def test_views_leave_the_images_alone() -> None:
    before = DIGITS.train.images.clone()
    Views(DIGITS, recipe(2, flip=True))(Stream(1200, DRAWS, seed=0).take(0, 100))
    assert torch.equal(DIGITS.train.images, before)


# ------------------------------------------------------------------------------------- normalisation


def test_the_training_set_is_normalised_to_mean_0_and_variance_1() -> None:
    normal = DIGITS.normalise(DIGITS.train.images).double().numpy()
    assert abs(normal.mean()) < 1e-5
    assert abs(normal.var() - 1) < 1e-4


def test_the_test_set_is_normalised_by_the_training_sets_statistics() -> None:
    train, test = (split.images.numpy().astype(float) for split in (DIGITS.train, DIGITS.test))
    wanted = (test - train.mean()) / train.std()
    np.testing.assert_allclose(DIGITS.normalise(DIGITS.test.images).numpy(), wanted, rtol=1e-4, atol=1e-5)


def test_normalisation_is_per_channel(monkeypatch: pytest.MonkeyPatch) -> None:
    images = made_up(channels=3, size=4).train.images
    images[:, 1] //= 10
    monkeypatch.setitem(data.DATASETS, "colours", lambda: (images, torch.arange(20), images, torch.arange(20)))
    normal = data.load.__wrapped__("colours").normalise(images).double()
    assert float(normal.mean(dim=(0, 2, 3)).abs().max()) < 1e-5
    assert float((normal.var(dim=(0, 2, 3)) - 1).abs().max()) < 1e-4


# ------------------------------------------------------------------------------------- evaluation


class Oracle(nn.Module):
    """Answers from a table from the bytes of a normalised image; -1 becomes the class after the true one."""

    def __init__(self, answers: dict[bytes, int], classes: int) -> None:
        super().__init__()
        self.answers, self.classes, self.asked = answers, classes, 0

    def forward(self, images: Tensor) -> Tensor:
        keys = [image.contiguous().numpy().tobytes() for image in images]
        self.asked += len(keys)
        return nn.functional.one_hot(torch.tensor([self.answers[key] for key in keys]), self.classes).float()


def test_rotnet_is_evaluated_on_all_four_rotations_of_every_test_image() -> None:
    answers: dict[bytes, int] = {}
    for image in DIGITS.test.images.numpy():
        for turns in range(4):
            turned = torch.from_numpy(np.rot90(image[0], turns).copy())[None, None]
            answers[DIGITS.normalise(turned)[0].numpy().tobytes()] = turns
    assert len(answers) == 4 * 597  # no digit looks like another, turned
    oracle = Oracle(answers, 4)
    assert find("rotnet").evaluate(oracle, DIGITS) == {"rotation_top1": 100.0}
    assert oracle.asked == 4 * 597
    half_wrong = Oracle({key: turns // 2 * 2 for key, turns in answers.items()}, 4)
    assert find("rotnet").evaluate(half_wrong, DIGITS) == {"rotation_top1": 50.0}


def test_top1_counts_every_test_image_once() -> None:
    keys = [image.numpy().tobytes() for image in DIGITS.normalise(DIGITS.test.images)]
    labels = DIGITS.test.labels.tolist()
    right = dict(zip(keys, labels, strict=True))
    assert len(right) == 597
    wrong_for_100 = {key: (label + (i < 100)) % 10 for i, (key, label) in enumerate(right.items())}
    oracle = Oracle(wrong_for_100, 10)
    assert find("labels").evaluate(oracle, DIGITS) == {"top1": 100 * 497 / 597}
    assert oracle.asked == 597
