"""S4L, against loops in float64 that are written from the definition."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import nn

from raysslprune import data
from raysslprune.data.batches import Feed
from raysslprune.data.views import Views
from raysslprune.evaluate import metrics as metrics_module
from raysslprune.evaluate.metrics import mean_average_precision
from raysslprune.tasks.labels import Labels
from raysslprune.tasks.s4l import S4L, s4l
from tests.helpers.tasks import PLAIN, Linear, cross_entropy, drawn, gradients_are_right, made_up, pictures


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("labelled", [3, 12])
@pytest.mark.parametrize("weight", [0.5, 1.0])
def test_s4l_is_the_sum_of_two_means(labelled: int, weight: float) -> None:
    outputs, labels = drawn(24, 3 + 4), torch.randint(3, (labelled,), generator=torch.Generator().manual_seed(1))
    turns = torch.randint(4, (24,), generator=torch.Generator().manual_seed(2))
    by_class = [cross_entropy(row[:3], y) for row, y in zip(outputs.tolist(), labels.tolist(), strict=False)]
    by_turn = [cross_entropy(row[3:], t) for row, t in zip(outputs.tolist(), turns.tolist(), strict=True)]
    wanted = sum(by_class) / labelled + weight * sum(by_turn) / 24
    assert len(by_class) == labelled
    assert float(s4l(outputs, labels, turns, weight)) == pytest.approx(wanted, rel=1e-12)
    gradients_are_right(lambda o: s4l(o, labels, turns, weight), outputs)


@pytest.mark.parametrize("turned", [False, True])
def test_s4ls_loss_as_a_whole(turned: bool) -> None:
    by, dataset = dataclasses.replace(PLAIN, pad=1), made_up()
    task, net = S4L(labelled="40%-of-images", labels_turned=turned, weight=0.7), Linear(7)
    task.begin(dataset, torch.Generator())
    feed = Feed(dataset.train, by, 0, views=2, draws=3, own=0, pool=task.pool(), partner=True)
    views, batch = Views(dataset, dataset.train, by), feed.take(0, 10)
    loss = task.loss(net, *task.sample(views, batch))
    assert net.asked == [80]
    classes: list[float] = []
    rotations: list[float] = []
    for v in (0, 1):
        for i, image in zip(batch.index[:, 0].tolist(), views(batch, v).numpy(), strict=True):
            for turns in range(4):
                outputs = net.of(np.rot90(image, turns, (1, 2)))
                rotations.append(cross_entropy(outputs[3:], turns))
                if v == 0 and (turned or turns == 0):
                    classes.append(cross_entropy(outputs[:3], int(dataset.train.labels[i])))
    assert (len(classes), len(rotations)) == (40 if turned else 10, 80)
    assert loss.item() == pytest.approx(np.mean(classes) + 0.7 * np.mean(rotations), rel=1e-6)


def test_labelled_images_are_no_validation_set() -> None:
    with pytest.raises(ValueError, match="labelled images are a part such as '10%-of-images', not '25%-held-out'"):
        S4L(labelled="25%-held-out")


@pytest.mark.parametrize("labelled", ["20%-of-images", "67%-of-classes"])
def test_s4l_knows_the_labels_of_its_part_only(labelled: str) -> None:
    dataset, task = made_up(), S4L(labelled=labelled)
    task.begin(dataset, torch.Generator())
    pool = task.pool().tolist()
    assert len(pool) == (6 if "images" in labelled else 20)
    kept = sorted({int(dataset.train.labels[i]) for i in pool})
    number = {label: place for place, label in enumerate(kept)}
    wanted = [number[int(label)] if i in pool else -1 for i, label in enumerate(dataset.train.labels)]
    assert task.labels.tolist() == wanted
    head = task.head(5, dataset)
    assert isinstance(head, nn.Linear)
    assert head.out_features == len(kept) + 4


@pytest.mark.parametrize("batch", [1, 7, 1024])
def test_s4l_is_evaluated_on_classes_and_on_turns(batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The class from the first outputs, on test images of the part's classes; the turn from the last, on all."""
    monkeypatch.setattr(metrics_module, "BATCH", batch)
    dataset, task, net = made_up(), S4L(labelled="67%-of-classes"), Linear(6)
    task.begin(dataset, torch.Generator())
    kept = sorted({int(dataset.train.labels[i]) for i in task.pool()})
    hits, of, turns_right = 0, 0, 0
    for image, label in zip(pictures(dataset.test).numpy(), dataset.test.labels.tolist(), strict=True):
        image = (image - 100.0) / 50
        if label in kept:
            of += 1
            hits += int(np.argmax(net.of(image)[:2])) == kept.index(label)
        turns_right += sum(int(np.argmax(net.of(np.rot90(image, t, (1, 2)))[2:])) == t for t in range(4))
    assert of == 40
    assert task.evaluate(net, dataset, PLAIN) == {"top1": 100 * hits / 40, "rotation_top1": 100 * turns_right / 240}


def test_labels_of_several_classes_are_evaluated_by_mean_average_precision() -> None:
    dataset, net = made_up(multilabel=True), Linear(3)
    outputs = torch.tensor([net.of((image - 100.0) / 50) for image in pictures(dataset.test).numpy()])
    wanted = mean_average_precision(outputs, dataset.test.labels)
    metrics = Labels().evaluate(net, dataset, PLAIN)
    assert metrics.keys() == {"map"}
    assert metrics["map"] == pytest.approx(wanted)


def test_digits_have_a_tenth() -> None:
    task = S4L()
    digits = data.load("digits")
    task.begin(digits, torch.Generator())
    assert len(task.pool()) in range(118, 123)
    assert np.bincount(digits.train.labels[task.pool()], minlength=10).min() >= 11
