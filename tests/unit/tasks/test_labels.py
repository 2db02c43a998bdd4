"""Labels: the loss, against loops in float64 that are written from the definition."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from raysslprune.data import IGNORED
from raysslprune.data.batches import Feed
from raysslprune.data.views import Views
from raysslprune.tasks.labels import Labels, logistic
from tests.helpers.tasks import PLAIN, Linear, cross_entropy, drawn, gradients_are_right, made_up, pictures


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_logistic_is_a_sum_over_classes_and_a_mean_over_images() -> None:
    outputs, labels = drawn(6, 5), torch.randint(-1, 2, (6, 5), generator=torch.Generator().manual_seed(1))
    total = 0.0
    for row, known in zip(outputs.tolist(), labels.tolist(), strict=True):
        for output, label in zip(row, known, strict=True):
            probability = 1 / (1 + math.exp(-output))
            total -= {1: math.log(probability), 0: math.log(1 - probability), IGNORED: 0.0}[label]
    assert {1, 0, IGNORED} == set(labels.flatten().tolist())
    assert float(logistic(outputs, labels.to(torch.int8))) == pytest.approx(total / 6, rel=1e-12)
    gradients_are_right(lambda o: logistic(o, labels.to(torch.int8)), outputs)


def test_ignored_labels_have_no_gradient() -> None:
    outputs = drawn(4, 3).requires_grad_()
    labels = torch.tensor([[1, IGNORED, 0], [IGNORED] * 3, [0, 0, 1], [1, 1, IGNORED]], dtype=torch.int8)
    logistic(outputs, labels).backward()
    assert outputs.grad is not None
    assert torch.equal(outputs.grad == 0, labels == IGNORED)


@pytest.mark.parametrize("multilabel", [False, True])
def test_labels_loss_is_that_of_the_images_labels(multilabel: bool) -> None:
    dataset, task, net = made_up(multilabel=multilabel), Labels(), Linear(3)
    feed = Feed(dataset.train, PLAIN, 0, views=1, draws=3, own=0)
    batch = feed.take(25, 10)
    loss = task.loss(net, *task.sample(Views(dataset, dataset.train, PLAIN), batch))
    total = 0.0
    for i in batch.index[:, 0].tolist():
        outputs = net.of((pictures(dataset.train)[i].numpy() - 100.0) / 50)
        label: Any = dataset.train.labels[i].tolist()
        if multilabel:
            total += sum(math.log(1 + math.exp(-o if y else o)) for o, y in zip(outputs, label, strict=True) if y >= 0)
        else:
            total += cross_entropy(outputs, label)
    assert loss.item() == pytest.approx(total / 10, rel=1e-6)
