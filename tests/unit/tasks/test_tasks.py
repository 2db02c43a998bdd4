"""Losses and what belongs to them, against loops in float64 that are written from the definitions."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from raysslprune import data, evaluate, names, options
from raysslprune.data import IGNORED, Dataset, Resident
from raysslprune.data.feed import Batch, Feed
from raysslprune.data.views import Views
from raysslprune.spec import Recipe, seed_of
from raysslprune.tasks import find, npid
from raysslprune.tasks.exemplar import Exemplar, others, semi_hard, triplet
from raysslprune.tasks.labels import Labels, logistic
from raysslprune.tasks.npid import NPID
from raysslprune.tasks.rotnet import RotNet, all_turns
from raysslprune.tasks.s4l import S4L, s4l

PLAIN = Recipe(samples=1200, batch=64, lr=0.1)


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def unit(*shape: int, seed: int = 0) -> Tensor:
    rows = drawn(*shape, seed=seed)
    return rows / rows.square().sum(-1, keepdim=True).sqrt()


def made_up(samples: int = 30, classes: int = 3, size: int = 4, multilabel: bool = False) -> Dataset:
    """Images of noise, with labels in turn."""
    generator = torch.Generator().manual_seed(samples)
    splits = []
    for count in (samples, 2 * samples):
        images = torch.randint(256, (count, 2, size, size), generator=generator).to(torch.uint8)
        labels = torch.arange(count) % classes
        if multilabel:
            labels = torch.randint(-1, 2, (count, classes), generator=generator).to(torch.int8)
        splits.append(Resident(images=images, labels=labels))
    mean, std = torch.full((2, 1, 1), 100.0), torch.full((2, 1, 1), 50.0)
    return Dataset(train=splits[0], test=splits[1], classes=classes, mean=mean, std=std)


def pictures(split: Any) -> Tensor:
    assert isinstance(split, Resident)
    return split.images


class Linear(nn.Module):
    """Of an image's pixels, in float64; knows how often it was asked."""

    def __init__(self, outputs: int, pixels: int = 32, seed: int = 5) -> None:
        super().__init__()
        self.weight = nn.Parameter(drawn(outputs, pixels, seed=seed) / 5)
        self.asked: list[int] = []

    def forward(self, images: Tensor) -> Tensor:
        self.asked.append(len(images))
        return images.double().flatten(1) @ self.weight.T

    def of(self, image: np.ndarray) -> list[float]:
        """One image (channels, size, size), by numpy."""
        return (self.weight.detach().numpy() @ image.astype(np.float64).ravel()).tolist()


def cross_entropy(outputs: Sequence[float], label: int) -> float:
    return math.log(sum(math.exp(o) for o in outputs)) - outputs[label]


def dot(a: Sequence[float], b: Sequence[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


def normal(row: Sequence[float]) -> list[float]:
    return [x / math.sqrt(dot(row, row)) for x in row]


def gradients_are_right(function: Callable[..., Tensor], *inputs: Tensor) -> None:
    assert torch.autograd.gradcheck(function, [i.clone().requires_grad_() for i in inputs])


# ------------------------------------------------------------------------------------- tasks and options


@pytest.mark.parametrize(
    ("name", "options", "complaint"),
    [
        ("jigsaw", {}, "task 'jigsaw' is not known; Known: labels, rotnet, exemplar, npid, s4l"),
        ("rotnett", {}, "did you mean 'rotnet'"),
        ("rotnet", {"turns": 4}, "task rotnet has no option 'turns', only all_turns"),
        ("npid", {"seen": 1}, "task npid has no option 'seen', only dimension, temperature, momentum, negatives"),
        ("npid", {"state": 1}, "has no option 'state'"),
        ("exemplar", {"views": 3}, "has no option 'views'"),
        ("rotnet", {"all_turns": 1}, "option all_turns of task rotnet is of type bool, not 1"),
        ("exemplar", {"dimension": True}, "of type int, not True"),
        ("exemplar", {"dimension": 2.0}, "of type int, not 2.0"),
        ("exemplar", {"margin": "0.5"}, "of type float, not '0.5'"),
        ("exemplar", {"margin": True}, "of type float, not True"),
        ("exemplar", {"negatives": "hard"}, "negatives 'hard' is not one of random, semi-hard"),
        ("exemplar", {"dimension": 0}, "dimension of at least 1"),
        ("exemplar", {"margin": 0}, "margin above 0"),
        ("npid", {"dimension": 0}, "NPID needs"),
        ("npid", {"negatives": 0}, "NPID needs"),
        ("npid", {"temperature": 0.0}, "NPID needs"),
        ("npid", {"momentum": 1}, "NPID needs"),
        ("npid", {"momentum": -0.1}, "NPID needs"),
        ("s4l", {"weight": 0.0}, "weight above 0"),
        ("s4l", {"labelled": "a tenth"}, "subset 'a tenth' is not of the form '10%-of-images'"),
    ],
)
def test_what_a_task_does_not_know_is_refused_with_a_sentence(
    name: str, options: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(ValueError, match=complaint):
        find(name, options.items())


def test_each_task_has_the_options_that_are_known_without_torch() -> None:
    """Or a misspelt one would be found by the first training."""
    assert options.OPTIONS.keys() == names.TASKS.keys()
    for name, known in options.OPTIONS.items():
        task = find(name)
        assert isinstance(task, known)
        own = {field.name for field in dataclasses.fields(task) if field.init}
        assert own == {field.name for field in dataclasses.fields(known)}


def test_options_reach_the_task() -> None:
    assert find("exemplar", [("margin", 1), ("negatives", "semi-hard")]) == Exemplar(margin=1, negatives="semi-hard")
    assert find("npid", [("momentum", 0)]) == NPID(momentum=0)
    assert find("rotnet", [("all_turns", True)]) == RotNet(all_turns=True)


@pytest.mark.parametrize(
    ("task", "outputs"),
    [(Labels(), 3), (RotNet(), 4), (Exemplar(dimension=7), 7), (NPID(dimension=6), 6), (S4L(), 7)],
)
def test_heads_have_the_outputs_that_the_loss_wants(task: Any, outputs: int) -> None:
    task.begin(made_up(), torch.Generator())
    head = task.head(5, made_up())
    assert isinstance(head, nn.Linear)
    assert (head.in_features, head.out_features) == (5, outputs)


def test_a_standardised_head_has_a_norm_without_weights_first() -> None:
    head = Labels(standardise=True).head(5, made_up())
    features = drawn(20, 5).float() * 3 + 7
    normed = (features - features.mean(0)) / (features.var(0, unbiased=False) + 1e-5).sqrt()
    last = list(head.children())[-1]
    torch.testing.assert_close(head(features), last(normed))
    assert len(list(head.parameters())) == 2


# ------------------------------------------------------------------------------------- labels


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


# ------------------------------------------------------------------------------------- RotNet


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


# ------------------------------------------------------------------------------------- Exemplar


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


@pytest.mark.parametrize("negatives", options.NEGATIVES)
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
    monkeypatch.setattr(evaluate, "BATCH", batch)
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


# ------------------------------------------------------------------------------------- NPID


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


# ------------------------------------------------------------------------------------- S4L


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
    monkeypatch.setattr(evaluate, "BATCH", batch)
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
    wanted = evaluate.mean_average_precision(outputs, dataset.test.labels)
    metrics = Labels().evaluate(net, dataset, PLAIN)
    assert metrics.keys() == {"map"}
    assert metrics["map"] == pytest.approx(wanted)


def test_digits_have_a_tenth() -> None:
    task = S4L()
    digits = data.load("digits")
    task.begin(digits, torch.Generator())
    assert len(task.pool()) in range(118, 123)
    assert np.bincount(digits.train.labels[task.pool()], minlength=10).min() >= 11
