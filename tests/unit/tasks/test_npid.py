"""NPID, against loops in float64 that are written from the definition."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor

from raysslprune.data import Dataset
from raysslprune.data.batches import Feed
from raysslprune.data.views import Views
from raysslprune.spec import seed_of
from raysslprune.tasks import npid
from raysslprune.tasks.npid import NPID
from tests.helpers.tasks import PLAIN, Linear, dot, drawn, gradients_are_right, made_up, normal, pictures, unit


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def naive_nce(positive: list[float], negative: list[list[float]], z: float, images: int) -> float:
    """Wu et al. 2018, equations 4 to 7: P = exp(v.f / T) / Z, h = P / (P + m Pn), Pn = 1 / images."""
    total, m = 0.0, len(negative[0])
    for own, noise in zip(positive, negative, strict=True):
        p = math.exp(own) / z
        total -= math.log(p / (p + m / images))
        for s in noise:
            p = math.exp(s) / z
            total -= math.log(1 - p / (p + m / images))
    return total / len(positive)


def test_nce_is_its_definition() -> None:
    positive, negative = 3 * drawn(6), 3 * drawn(6, 11, seed=1)
    for z, images in ((50.0, 40), (0.3, 7), (2000.0, 1000)):
        log_z = torch.tensor(math.log(z), dtype=torch.float64)
        wanted = naive_nce(positive.tolist(), negative.tolist(), z, images)
        assert float(npid.nce(positive, negative, log_z, images)) == pytest.approx(wanted, rel=1e-10)
    gradients_are_right(lambda p, n: npid.nce(p, n, torch.tensor(2.0, dtype=torch.float64), 40), positive, negative)


def test_the_normalisation_is_the_mean_of_all_exponentials_times_the_images() -> None:
    positive, negative = 3 * drawn(6), 3 * drawn(6, 11, seed=1)
    every = [math.exp(s) for s in [*positive.tolist(), *negative.flatten().tolist()]]
    log_z = npid.estimate_log_z(positive, negative, 123)
    assert log_z.shape == ()
    assert float(log_z) == pytest.approx(math.log(sum(every) / len(every) * 123), rel=1e-12)
    assert float(npid.estimate_log_z(positive + 1000, negative + 1000, 123)) == pytest.approx(float(log_z) + 1000)


def naive_remember(bank: list[list[float]], index: list[int], embedded: list[list[float]], momentum: float) -> None:
    last = dict(zip(index, embedded, strict=True))
    for i, row in last.items():
        bank[i] = normal([momentum * old + (1 - momentum) * new for old, new in zip(bank[i], row, strict=True)])


@pytest.mark.parametrize("momentum", [0.0, 0.3, 0.5, 0.9])
def test_the_memory_moves_and_stays_of_length_1(momentum: float) -> None:
    bank, embedded = unit(9, 4), unit(7, 4, seed=1)
    for index in ([3, 1, 8, 0, 4, 2, 7], [3, 1, 3, 0, 3, 1, 7], [5] * 7, [8, 7, 8, 7, 8, 7, 8]):
        wanted = bank.tolist()
        naive_remember(wanted, index, embedded.tolist(), momentum)
        npid.remember(bank, torch.tensor(index), embedded, momentum)
        torch.testing.assert_close(bank, torch.tensor(wanted, dtype=torch.float64), rtol=1e-12, atol=1e-14)
        torch.testing.assert_close(bank.norm(dim=1), torch.ones(9, dtype=torch.float64))


def test_npids_memory_begins_random_of_length_1_by_its_generator() -> None:
    dataset, task, again, other = made_up(), NPID(dimension=6), NPID(dimension=6), NPID(dimension=6)
    for one, seed in ((task, 3), (again, 3), (other, 4)):
        one.begin(dataset, torch.Generator().manual_seed(seed))
    assert task.state["bank"].shape == (30, 6)
    torch.testing.assert_close(task.state["bank"].norm(dim=1), torch.ones(30))
    assert float((task.state["bank"] @ task.state["bank"].T).triu(1).abs().max()) < 0.999
    assert torch.equal(task.state["bank"], again.state["bank"])
    assert not torch.equal(task.state["bank"], other.state["bank"])
    assert task.state["log_z"].isnan()


def begun(task: NPID, dataset: Dataset) -> None:
    """With its state in float64."""
    task.begin(dataset, torch.Generator().manual_seed(0))
    for name, tensor in task.state.items():
        task.state[name] = tensor.double()


def test_npids_loss_as_a_whole() -> None:
    """Three updates, each of two parts: embedding, noise, normalisation, memory, all recomputed from the definition."""
    by, dataset, net = dataclasses.replace(PLAIN, pad=1), made_up(), Linear(5)
    task = NPID(dimension=5, temperature=0.4, momentum=0.3, negatives=9)
    begun(task, dataset)
    feed, views = Feed(dataset.train, by, 0, views=1, draws=3, own=task.draws), Views(dataset, dataset.train, by)
    bank, z, position = task.state["bank"].tolist(), math.nan, 5
    twice = 0
    for _ in range(3):
        seen: list[tuple[int, list[float]]] = []
        for _ in range(2):
            batch = feed.take(position, 8)
            position += 8
            embedded = [normal(net.of(image)) for image in views(batch).numpy()]
            generator = torch.Generator().manual_seed(seed_of("negatives", float(batch.own[0, 0])))
            noise = torch.randint(30, (8, 9), generator=generator).tolist()
            index = batch.index[:, 0].tolist()
            positive = [dot(e, bank[i]) / 0.4 for e, i in zip(embedded, index, strict=True)]
            negative = [[dot(e, bank[j]) / 0.4 for j in row] for e, row in zip(embedded, noise, strict=True)]
            if math.isnan(z):
                every = [math.exp(s) for row in (positive, *negative) for s in row]
                z = sum(every) / len(every) * 30
            loss = task.loss(net, *task.sample(views, batch))
            assert loss.item() == pytest.approx(naive_nce(positive, negative, z, 30), rel=1e-9)
            seen += zip(index, embedded, strict=True)
        twice += 16 - len({i for i, _ in seen})
        task.updated()
        naive_remember(bank, [i for i, _ in seen], [e for _, e in seen], 0.3)
        np.testing.assert_allclose(task.state["bank"], bank, rtol=1e-9)
        assert float(task.state["log_z"]) == pytest.approx(math.log(z), rel=1e-9)
    assert twice > 0


def test_npids_gradient_is_that_of_the_definition() -> None:
    """Through the network only: neither the memory nor the normalisation is differentiated."""
    dataset, net, task = made_up(), Linear(5), NPID(dimension=5, temperature=0.5, negatives=6)
    begun(task, dataset)
    batch = Feed(dataset.train, PLAIN, 0, views=1, draws=3, own=1).take(0, 8)
    parts = task.sample(Views(dataset, dataset.train, PLAIN), batch)
    bank = task.state["bank"]
    task.loss(net, *parts).backward()
    weight = net.weight.detach().clone().requires_grad_()
    embedded = parts[0].double().flatten(1) @ weight.T
    embedded = embedded / embedded.norm(dim=1, keepdim=True)
    generator = torch.Generator().manual_seed(seed_of("negatives", float(batch.own[0, 0])))
    noise = torch.randint(30, (8, 6), generator=generator)
    z = task.state["log_z"].exp()
    assert not z.requires_grad
    own = ((embedded * bank[batch.index[:, 0]]).sum(1) / 0.5).exp() / z
    rest = ((embedded[:, None] * bank[noise]).sum(2) / 0.5).exp() / z
    (-(own / (own + 6 / 30)).log().mean() - (1 - rest / (rest + 6 / 30)).log().sum(1).mean()).backward()
    torch.testing.assert_close(net.weight.grad, weight.grad, rtol=1e-9, atol=1e-12)


def test_npids_noise_is_drawn_anew_and_from_all_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a memory of unit vectors, a similarity is an entry of the embedding, and so tells which image it is of."""
    dataset, net, task = made_up(), Linear(30), NPID(dimension=30, temperature=1.0, negatives=50)
    begun(task, dataset)
    task.state["bank"] = torch.eye(30, dtype=torch.float64)
    asked: list[list[int]] = []

    def nce(positive: Tensor, negative: Tensor, _log_z: Tensor, _images: int) -> Tensor:
        embedded = net(parts[0])
        embedded = embedded / embedded.norm(dim=1, keepdim=True)
        apart = (negative[:, :, None] - embedded[:, None]).abs()
        assert apart.min(2).values.max().item() < 1e-12
        asked.append(apart.argmin(2).flatten().tolist())
        return positive.sum()

    monkeypatch.setattr(npid, "nce", nce)
    feed, views = Feed(dataset.train, PLAIN, 0, views=1, draws=3, own=1), Views(dataset, dataset.train, PLAIN)
    for position in (0, 10, 20, 30, 0):
        parts = task.sample(views, feed.take(position, 10))
        task.loss(net, *parts)
    assert asked[0] == asked[4]
    assert len({tuple(noise) for noise in asked}) == 4
    counts = np.bincount(np.concatenate(asked[:4]), minlength=30)
    assert ((counts - counts.mean()) ** 2 / counts.mean()).sum() < 68.0  # chi-square, 29 degrees, p = 0.00005


def test_npid_is_evaluated_by_neighbours_among_the_training_images() -> None:
    """Similarities by loops; the votes by the weights of Wu et al., 3.4."""
    dataset, net = made_up(), Linear(5)
    task = NPID(dimension=5, temperature=0.2)
    known, asked = (
        [normal(net.of((image - 100.0) / 50)) for image in pictures(split).numpy()]
        for split in (dataset.train, dataset.test)
    )
    hits = 0
    for row, label in zip(asked, dataset.test.labels.tolist(), strict=True):
        votes = [0.0] * 3
        for other, of in zip(known, dataset.train.labels.tolist(), strict=True):
            votes[of] += math.exp(dot(row, other) / 0.2)
        hits += votes.index(max(votes)) == label
    assert task.evaluate(net, dataset, PLAIN) == {"knn_top1": 100 * hits / 60}
    assert task.evaluate(net, made_up(multilabel=True), PLAIN) == {}
