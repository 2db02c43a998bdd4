"""RotNet, against loops in float64 that are written from the definition."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from raysslprune.data.batches import Feed
from raysslprune.data.views import Views
from raysslprune.tasks.rotnet import RotNet, all_turns
from tests.helpers.tasks import PLAIN, Linear, cross_entropy, drawn, gradients_are_right, made_up, pictures


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_rotnet_with_all_turns_is_the_mean_over_images_and_turns() -> None:
    dataset, task, net = made_up(), RotNet(all_turns=True), Linear(4)
    batch = Feed(dataset.train, PLAIN, 0, views=1, draws=3, own=1).take(0, 7)
    parts = task.sample(Views(dataset, dataset.train, PLAIN), batch)
    assert [len(part) for part in parts] == [7]
    loss, total = task.loss(net, *parts), 0.0
    for i in batch.index[:, 0].tolist():
        image = (pictures(dataset.train)[i].numpy() - 100.0) / 50
        total += sum(cross_entropy(net.of(np.rot90(image, turns, (1, 2))), turns) for turns in range(4))
    assert net.asked == [28]
    assert loss.item() == pytest.approx(total / 28, rel=1e-6)


def test_all_turns_are_upright_first_then_counter_clockwise() -> None:
    images = drawn(3, 2, 5, 5)
    turned, turns = all_turns(images)
    assert turns.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]
    for place, image in enumerate(turned.numpy()):
        assert np.array_equal(image, np.rot90(images[place % 3].numpy(), place // 3, (1, 2)))
    gradients_are_right(lambda i: all_turns(i)[0].square(), images)


def test_rotnet_turns_each_view_once_by_its_draw() -> None:
    dataset, task, net = made_up(), RotNet(), Linear(4)
    batch = Feed(dataset.train, PLAIN, 0, views=1, draws=3, own=1).take(0, 20)
    loss, total = task.loss(net, *task.sample(Views(dataset, dataset.train, PLAIN), batch)), 0.0
    for i, number in zip(batch.index[:, 0].tolist(), batch.own[:, 0].tolist(), strict=True):
        image = (pictures(dataset.train)[i].numpy() - 100.0) / 50
        total += cross_entropy(net.of(np.rot90(image, math.floor(4 * number), (1, 2))), math.floor(4 * number))
    assert net.asked == [20]
    assert loss.item() == pytest.approx(total / 20, rel=1e-6)
