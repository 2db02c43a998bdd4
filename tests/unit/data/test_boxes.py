"""Random crops' boxes, against torchvision's algorithm."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.stats import ks_2samp
from torchvision.transforms import RandomResizedCrop

from raysslprune.data.boxes import TRIES, crop_boxes

BOXES = (8, 8), (640, 480), (480, 640), (500, 90), (90, 500), (3, 2), (1, 1), (1, 7), (33, 1), (224, 224)


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


@pytest.mark.parametrize("least", [0.0001, 0.08, 0.2, 0.9, 1.0])
@pytest.mark.parametrize(("width", "height"), BOXES)
def test_boxes_are_those_of_torchvisions_algorithm_with_the_same_draws(width: int, height: int, least: float) -> None:
    drawn = torch.rand(300, 3 + 2 * TRIES, generator=torch.Generator().manual_seed(width * height))
    drawn[0], drawn[1] = 0.0, 1 - 2.0**-24
    drawn[2, :2], drawn[3, 3:] = 1 - 2.0**-24, 0.0
    boxes = crop_boxes(drawn.numpy(), width, height, least)
    assert boxes.tolist() == [list(naive_box(row, width, height, least)) for row in drawn.tolist()]
    left, top, right, bottom = boxes.T
    assert (left >= 0).all()
    assert (top >= 0).all()
    assert (left < right).all()
    assert (top < bottom).all()
    assert (right <= width).all()
    assert (bottom <= height).all()


def test_a_box_that_never_fits_is_the_largest_central_one_of_an_allowed_shape() -> None:
    """By hand: the whole area is wanted of images that are too wide, too tall, and nearly square."""
    drawn = np.full((1, 3 + 2 * TRIES), 1 - 2.0**-24, np.float32)
    assert crop_boxes(drawn, 400, 90, 1.0).tolist() == [[140, 0, 260, 90]]
    assert crop_boxes(drawn, 90, 400, 1.0).tolist() == [[0, 140, 90, 260]]
    assert crop_boxes(drawn, 100, 90, 1.0).tolist() == [[0, 0, 100, 90]]


@pytest.mark.parametrize(("width", "height", "least"), [(640, 480, 0.08), (300, 300, 0.2)])
def test_boxes_are_distributed_as_torchvisions(width: int, height: int, least: float) -> None:
    """Kolmogorov-Smirnov on area, shape and place. Ten tries there, four here: a box in 200 is another."""
    drawn = torch.rand(3000, 3 + 2 * TRIES, generator=torch.Generator().manual_seed(1)).numpy()
    left, top, right, bottom = crop_boxes(drawn, width, height, least).T
    image = torch.empty(3, height, width)
    with torch.random.fork_rng():
        torch.manual_seed(2)
        boxes = [RandomResizedCrop.get_params(image, [least, 1.0], [3 / 4, 4 / 3]) for _ in range(3000)]
    row, column, high, wide = np.array(boxes).T
    ours = ((right - left) * (bottom - top), (right - left) / (bottom - top), left, top)
    for one, other in zip(ours, (wide * high, wide / high, column, row), strict=True):
        assert ks_2samp(one, other).pvalue > 1e-3  # pyright: ignore[reportAttributeAccessIssue]
