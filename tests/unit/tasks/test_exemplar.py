"""Exemplar, against loops in float64 that are written from the definition."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from raysslprune import catalogue
from raysslprune.data import Dataset
from raysslprune.data.batches import Batch, Feed
from raysslprune.data.views import Views
from raysslprune.evaluate import metrics
from raysslprune.spec import Recipe, seed_of
from raysslprune.tasks.exemplar import Exemplar, others, semi_hard, triplet
from tests.helpers.tasks import PLAIN, Linear, dot, gradients_are_right, made_up, normal, unit


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def naive_triplet(rows: Sequence[Tensor], margin: float) -> float:
    total = 0.0
    for a, p, n in zip(*(r.tolist() for r in rows), strict=True):
        total += max((1 - dot(a, p)) - (1 - dot(a, n)) + margin, 0)
    return total / len(rows[0])


@pytest.mark.parametrize("margin", [0.1, 0.5, 3.0])
def test_triplet_is_a_hinge_on_cosine_distances(margin: float) -> None:
    rows = [unit(9, 4, seed=seed) for seed in range(3)]
    each = [naive_triplet([r[i : i + 1] for r in rows], margin) for i in range(9)]
    assert margin == 3 or (min(each) == 0 < max(each))
    assert float(triplet(rows[0], rows[1], rows[2], margin)) == pytest.approx(naive_triplet(rows, margin), rel=1e-12)
    assert min(abs(value) for value in each if value) > 1e-3  # no kink near
    gradients_are_right(lambda a, p, n: triplet(a, p, n, margin), *rows)


def test_every_other_row_is_as_likely_and_never_the_own() -> None:
    for n in (2, 3, 8):
        numbers = torch.rand(500, n, generator=torch.Generator().manual_seed(n))
        counts = np.zeros((n, n))
        for row in numbers:
            counts[np.arange(n), others(row).numpy()] += 1
        assert not counts.diagonal().any()
        rest = counts[~np.eye(n, dtype=bool)]
        wanted = 500 / (n - 1)
        assert ((rest - wanted) ** 2 / wanted).sum() < (n * (n - 2)) + 5 * math.sqrt(2 * n * (n - 2)) + 1e-9
    assert others(torch.tensor([1 - 2.0**-24] * 5)).tolist() == [4, 0, 1, 2, 3]  # the farthest, not itself
    assert others(torch.zeros(5)).tolist() == [1, 2, 3, 4, 0]


def test_a_triplet_needs_another_sample() -> None:
    with pytest.raises(ValueError, match="two samples or more"):
        others(torch.zeros(1))


def naive_semi_hard(anchors: list[list[float]], positives: list[list[float]]) -> list[int]:
    chosen = []
    for i, anchor in enumerate(anchors):
        distances = [1 - dot(anchor, positive) for positive in positives]
        rest = [j for j in range(len(anchors)) if j != i]
        farther = [j for j in rest if distances[j] > distances[i]]
        chosen.append(min(farther, key=lambda j: distances[j]) if farther else max(rest, key=lambda j: distances[j]))
    return chosen


def test_semi_hard_is_the_nearest_that_is_farther_else_the_farthest() -> None:
    fallbacks = 0
    for seed in range(20):
        anchors = unit(7, 3, seed=seed)
        positives = unit(7, 3, seed=100 + seed)
        if seed % 2:
            positives = anchors + 0.8 * positives
            positives = positives / positives.norm(dim=1, keepdim=True)
        positives[0] = -anchors[0]  # nothing is farther than this
        assert semi_hard(anchors, positives).tolist() == naive_semi_hard(anchors.tolist(), positives.tolist())
        apart = 1 - anchors @ positives.T
        fallbacks += int((apart <= apart.diagonal()[:, None]).all(1).sum())
    assert 20 <= fallbacks < 70
    assert semi_hard(unit(1, 3).expand(2, 3), unit(1, 3).expand(2, 3)).tolist() == [1, 0]  # all equally far
    rows = torch.eye(3, dtype=torch.float64)
    assert semi_hard(rows[:1].expand(3, 3), rows[[1, 1, 2]] + rows[[0, 0, 1]]).tolist() == [2, 2, 0]  # not one as far


@pytest.mark.parametrize("negatives", catalogue.NEGATIVES)
def test_exemplars_loss_as_a_whole(negatives: str) -> None:
    """Two views of an image, embedded together, at length 1; the negative is another image's second view."""
    by, dataset, net = dataclasses.replace(PLAIN, pad=2), made_up(), Linear(5)
    task = Exemplar(dimension=5, margin=0.3, negatives=negatives)
    batch = Feed(dataset.train, by, 0, views=2, draws=3, own=1).take(0, 12)
    views = Views(dataset, dataset.train, by)
    loss = task.loss(net, *task.sample(views, batch))
    assert net.asked == [24]
    first, second = ([normal(net.of(image)) for image in views(batch, v).numpy()] for v in (0, 1))
    if negatives == "random":
        chosen = [(i + 1 + math.floor(11 * number)) % 12 for i, number in enumerate(batch.own[:, 0].tolist())]
    else:
        chosen = naive_semi_hard(first, second)
    rows = [torch.tensor(r, dtype=torch.float64) for r in (first, second, [second[j] for j in chosen])]
    assert loss.item() == pytest.approx(naive_triplet(rows, 0.3), rel=1e-6)
    net.zero_grad()
    loss.backward()
    by_hand = net.weight.detach().clone().requires_grad_()
    x, y = (views(batch, v).double().flatten(1) @ by_hand.T for v in (0, 1))
    x, y = (z / z.norm(dim=1, keepdim=True) for z in (x, y))
    ((y[chosen] - y) * x).sum(1).add(0.3).relu().mean().backward()
    torch.testing.assert_close(net.weight.grad, by_hand.grad, rtol=1e-5, atol=1e-9)


def exemplar_by_hand(net: Linear, dataset: Dataset, by: Recipe) -> float:
    """The views' numbers are drawn at once, then those that choose the other images."""
    n, per_view = len(dataset.test), 3 + 2 * 4 * bool(by.crop)
    generator = torch.Generator().manual_seed(seed_of("triplets"))
    numbers = torch.rand(n, 2, per_view, generator=generator)
    other = [(i + 1 + math.floor((n - 1) * u)) % n for i, u in enumerate(torch.rand(n, generator=generator).tolist())]
    views = Views(dataset, dataset.test, by)
    index = torch.arange(n)[:, None].repeat(1, 2)
    first, second = (
        [normal(net.of(image)) for image in views(Batch(index, numbers, torch.empty(n, 0)), v).numpy()] for v in (0, 1)
    )
    hits = sum(dot(a, p) > dot(a, second[j]) for a, p, j in zip(first, second, other, strict=True))
    return 100 * hits / n


@pytest.mark.parametrize("batch", [1, 7, 1024])
@pytest.mark.parametrize("changes", [{"pad": 1}, {"crop": 0.4, "flip": True}])
def test_exemplar_is_evaluated_on_views_that_are_the_same_for_everybody(
    batch: int, changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics, "BATCH", batch)
    dataset, net, by = made_up(), Linear(3), dataclasses.replace(PLAIN, **changes)
    wanted = exemplar_by_hand(net, dataset, by)
    assert 30 < wanted < 99
    assert Exemplar(dimension=3).evaluate(net, dataset, by) == {"triplet_accuracy": wanted}
    with torch.random.fork_rng():
        torch.manual_seed(batch)
        assert Exemplar(dimension=3, margin=2).evaluate(net, dataset, by) == {"triplet_accuracy": wanted}


def test_a_network_that_tells_nothing_apart_has_no_triplet_right() -> None:
    class Blind(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return torch.ones(len(images), 4)

    by = dataclasses.replace(PLAIN, pad=1)
    assert Exemplar().evaluate(Blind(), made_up(), by) == {"triplet_accuracy": 0.0}
    knows = {"triplet_accuracy": 100.0}  # where nothing is random, an image is exactly like itself
    assert Exemplar().evaluate(Linear(32), made_up(), PLAIN) == knows
