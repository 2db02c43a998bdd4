"""SimCLR, MoCo v2, BYOL and VICReg, against loops in float64 that are written from the definition, and lightly."""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from raysslprune import data, models, tasks
from raysslprune.data import Dataset
from raysslprune.data.batches import Feed
from raysslprune.data.views import Views
from raysslprune.evaluate.metrics import effective_rank, spread
from raysslprune.models import Network
from raysslprune.paper.recipes import SURE, TODAY
from raysslprune.spec import Init, Recipe, Train
from raysslprune.tasks import simclr, two_views
from raysslprune.tasks.byol import BYOL, apart
from raysslprune.tasks.moco import MoCo, info_nce
from raysslprune.tasks.simclr import SimCLR, nt_xent
from raysslprune.tasks.task import Task
from raysslprune.tasks.two_views import Average, mlp
from raysslprune.tasks.vicreg import VICReg
from raysslprune.training.loop import Loop
from tests.helpers.tasks import PLAIN, cross_entropy, dot, drawn, gradients_are_right, made_up, normal, unit


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


Rows = list[list[float]]

# ------------------------------------------------------------------------------------- losses


def naive_nt_xent(first: Rows, second: Rows, temperature: float) -> float:
    """Chen et al. 2020, equation 1, over both views of all images."""
    rows, n, total = [*first, *second], len(first), 0.0
    for i, row in enumerate(rows):
        others = [j for j in range(2 * n) if j != i]
        similar = [dot(row, rows[j]) / temperature for j in others]
        total += cross_entropy(similar, others.index((i + n) % (2 * n)))
    return total / (2 * n)


def naive_info_nce(queries: Rows, keys: Rows, queue: Rows, temperature: float) -> float:
    """He et al. 2020, equation 1."""
    total = 0.0
    for query, key in zip(queries, keys, strict=True):
        total += cross_entropy([dot(query, other) / temperature for other in (key, *queue)], 0)
    return total / len(queries)


def naive_apart(predicted: Rows, wanted: Rows) -> float:
    """Grill et al. 2020, equation 2."""
    pairs = [(normal(p), normal(w)) for p, w in zip(predicted, wanted, strict=True)]
    return sum(sum((x - y) ** 2 for x, y in zip(p, w, strict=True)) for p, w in pairs) / len(pairs)


def naive_vicreg(first: Rows, second: Rows, weights: tuple[float, float, float]) -> float:
    """Bardes et al. 2022, equations 1 to 6; the two views' variances are averaged, as in the authors' code."""
    n, width = len(first), len(first[0])
    invariance = sum((x - y) ** 2 for a, b in zip(first, second, strict=True) for x, y in zip(a, b, strict=True))
    variance = covariance = 0.0
    for rows in (first, second):
        means = [sum(row[j] for row in rows) / n for j in range(width)]
        for j in range(width):
            for k in range(width):
                shared = sum((row[j] - means[j]) * (row[k] - means[k]) for row in rows) / (n - 1)
                if j == k:
                    variance += max(0.0, 1 - math.sqrt(shared + 1e-4)) / width / 2
                else:
                    covariance += shared**2 / width
    return weights[0] * invariance / (n * width) + weights[1] * variance + weights[2] * covariance


def vicreg(first: Tensor, second: Tensor, **weights: float) -> Tensor:
    """The task's loss, of embeddings that are given."""
    given = iter((first, second))
    task = VICReg()
    task.__dict__.update(weights)
    return task.loss(lambda _: next(given), first, second)


@pytest.mark.parametrize("temperature", [0.1, 0.5, 2.0])
def test_nt_xent_is_its_definition(temperature: float) -> None:
    first, second = unit(7, 5), unit(7, 5, seed=1)
    wanted = naive_nt_xent(first.tolist(), second.tolist(), temperature)
    assert float(nt_xent(first, second, temperature)) == pytest.approx(wanted, rel=1e-12)
    gradients_are_right(lambda a, b: nt_xent(a, b, temperature), first, second)


@pytest.mark.parametrize("temperature", [0.07, 0.2, 1.0])
def test_info_nce_is_its_definition(temperature: float) -> None:
    queries, keys, queue = unit(6, 5), unit(6, 5, seed=1), unit(11, 5, seed=2)
    wanted = naive_info_nce(queries.tolist(), keys.tolist(), queue.tolist(), temperature)
    assert float(info_nce(queries, keys, queue, temperature)) == pytest.approx(wanted, rel=1e-12)
    gradients_are_right(lambda q: info_nce(q, keys, queue, temperature), queries)


def test_byols_distance_is_its_definition() -> None:
    predicted, wanted = 3 * drawn(6, 5), drawn(6, 5, seed=1)
    assert float(apart(predicted, wanted)) == pytest.approx(naive_apart(predicted.tolist(), wanted.tolist()), rel=1e-12)
    assert float(apart(predicted, 2 * predicted)) == pytest.approx(0, abs=1e-12)
    assert float(apart(predicted, -predicted)) == pytest.approx(4)
    gradients_are_right(lambda p: apart(p, wanted), predicted)


@pytest.mark.parametrize("weights", [(25.0, 25.0, 1.0), (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)])
def test_vicreg_is_its_definition(weights: tuple[float, float, float]) -> None:
    spreads = torch.tensor([0.2, 0.5, 0.9, 1.5, 3.0], dtype=torch.float64)
    first, second = drawn(9, 5) * spreads, drawn(9, 5, seed=1) * spreads + 4
    named = dict(zip(("invariance", "variance", "covariance"), weights, strict=True))
    wanted = naive_vicreg(first.tolist(), second.tolist(), weights)
    assert wanted > 0.1
    assert float(vicreg(first, second, **named)) == pytest.approx(wanted, rel=1e-10)
    gradients_are_right(lambda a, b: vicreg(a, b, **named), first, second)


def lightlys(loss: str, *rows: Tensor, **options: Any) -> float:
    """A loss of lightly, if it is installed."""
    module = pytest.importorskip("lightly.loss")
    return float(getattr(module, loss)(**options)(*rows))


@pytest.mark.filterwarnings("default")
def test_losses_are_lightlys() -> None:
    first, second = unit(12, 8), unit(12, 8, seed=1)
    for temperature in (0.1, 0.5):
        wanted = lightlys("NTXentLoss", first, second, temperature=temperature)
        assert float(nt_xent(first, second, temperature)) == pytest.approx(wanted, rel=1e-6)
    wanted = lightlys("VICRegLoss", 2 * first, 3 * second)
    assert float(vicreg(2 * first, 3 * second)) == pytest.approx(wanted, rel=1e-9)
    wanted = lightlys("NegativeCosineSimilarity", 2 * first, 3 * second)
    assert float(apart(2 * first, 3 * second)) == pytest.approx(2 + 2 * wanted, rel=1e-9)


def test_losses_are_what_lightly_1_6_0_gave() -> None:
    """The numbers of the test above, where lightly is not installed."""
    first, second = unit(12, 8), unit(12, 8, seed=1)
    assert float(nt_xent(first, second, 0.1)) == pytest.approx(LIGHTLY[0], rel=1e-6)
    assert float(nt_xent(first, second, 0.5)) == pytest.approx(LIGHTLY[1], rel=1e-6)
    assert float(vicreg(2 * first, 3 * second)) == pytest.approx(LIGHTLY[2], rel=1e-9)
    assert float(apart(2 * first, 3 * second)) == pytest.approx(2 + 2 * LIGHTLY[3], rel=1e-9)


LIGHTLY = (5.994949226592841, 3.167883606748587, 42.353456431661385, -0.10297810644871645)

# ------------------------------------------------------------------------------------- losses as a whole


class Pixels(nn.Module):
    """A trunk that is linear in the pixels, in float64."""

    width = 6

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(drawn(6, 32, seed=5) / 5)

    def forward(self, images: Tensor) -> Tensor:
        return images.double().flatten(1) @ self.weight.T


BY = dataclasses.replace(PLAIN, pad=2, batch=12, samples=120)


def begun(task: Task, by: Recipe = BY) -> tuple[Network, Dataset, tuple[Tensor, ...], list[Tensor]]:
    """A network with the task's head in float64, and the first batch: its parts, and its two views."""
    dataset = made_up()
    task.begin(dataset, torch.Generator().manual_seed(0))
    head = task.head(6, dataset)
    models.draw(head, torch.Generator().manual_seed(1))
    net = Network(Pixels(), head).double()
    task.meet(net, by)
    task.state |= {name: t.double() for name, t in task.state.items() if name == "queue"}
    batch = Feed(dataset.train, by, 0, views=2, draws=3, own=task.draws).take(0, by.batch)
    views = Views(dataset, dataset.train, by)
    return net, dataset, task.sample(views, batch), [views(batch, 0), views(batch, 1)]


def rows(outputs: Tensor) -> Rows:
    return [normal(row) for row in outputs.tolist()]


def test_simclrs_loss_as_a_whole() -> None:
    task = SimCLR(dimension=5, hidden=7, temperature=0.3)
    net, _, parts, views = begun(task)
    both = copy.deepcopy(net)(torch.cat(views))  # all views share BatchNorm statistics, as in the authors' code
    first, second = rows(both[:12]), rows(both[12:])
    assert task.loss(net, *parts).item() == pytest.approx(naive_nt_xent(first, second, 0.3), rel=1e-6)


def test_vicregs_loss_as_a_whole() -> None:
    task = VICReg(dimension=5, hidden=7)
    net, _, parts, views = begun(task)
    first, second = (copy.deepcopy(net)(view).tolist() for view in views)
    assert task.loss(net, *parts).item() == pytest.approx(naive_vicreg(first, second, (25, 25, 1)), rel=1e-6)


def test_byols_loss_as_a_whole_over_three_updates() -> None:
    task = BYOL(dimension=5, hidden=7, ema=0.9)
    net, _, parts, views = begun(task)
    projector = nn.Sequential(net.trunk, net.head.get_submodule("0"))
    moving = {name: weight.detach().clone() for name, weight in projector.named_parameters()}
    with torch.no_grad():
        for update in range(3):
            target = copy.deepcopy(projector)
            target.load_state_dict(moving, strict=False)
            asked, said = (copy.deepcopy(net)(view).tolist() for view in views), [target(v).tolist() for v in views]
            wanted = sum(naive_apart(p, w) for p, w in zip(asked, said[::-1], strict=True))
            assert task.loss(net, *parts).item() == pytest.approx(wanted, rel=1e-6), update
            for weight in net.parameters():
                weight += 0.1 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(update)).double()
            task.updated()
            keep = 1 - 0.1 * (math.cos(math.pi * update / 10) + 1) / 2  # ten updates in all
            moving = {n: keep * moving[n] + (1 - keep) * w for n, w in projector.named_parameters()}
    named = {name.removeprefix("average."): weight for name, weight in task.state.items()}
    assert named.pop("updates") == 3
    for (name, weight), found in zip(moving.items(), named.values(), strict=True):
        torch.testing.assert_close(found, weight, rtol=1e-6, atol=1e-8, msg=name)
    assert all(weight.grad is None for weight in named.values())


def test_mocos_loss_as_a_whole_over_three_updates() -> None:
    """The queue is first in, first out, and its length is no multiple of the batch's."""
    task = MoCo(dimension=5, hidden=7, temperature=0.3, queue=30, ema=0.8)
    net, _, parts, views = begun(task)
    queue, moving = task.state["queue"].tolist(), {n: w.detach().clone() for n, w in net.named_parameters()}
    assert [dot(row, row) for row in queue] == pytest.approx([1] * 30)
    with torch.no_grad():
        for update in range(3):
            target = copy.deepcopy(net)
            target.load_state_dict(moving)
            keys, queries = rows(target(views[1])), rows(net(views[0]))
            wanted = naive_info_nce(queries, keys, queue, 0.3)
            assert task.loss(net, *parts).item() == pytest.approx(wanted, rel=1e-6), update
            for weight in net.parameters():
                weight += 0.1 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(update)).double()
            task.updated()
            moving = {n: 0.8 * moving[n] + 0.2 * w for n, w in net.named_parameters()}
            queue = [*keys, *queue][:30]
            np.testing.assert_allclose(task.state["queue"].numpy(), queue, rtol=1e-6, atol=1e-8)


def test_keys_that_share_statistics_are_drawn_from_the_whole_batch() -> None:
    """In parts of 4, each normalised by its own; the order is that of the numbers, and is undone."""
    task = MoCo(dimension=5, hidden=7, queue=30)
    _, _, parts, views = begun(task, dataclasses.replace(BY, bn_batch=4))
    given = parts[2]

    class Normed(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            outputs = images.double().flatten(1)[:, :5]
            return (outputs - outputs.mean(0)) / (outputs.std(0) + 0.01)

    task.average = Average(Normed(), nn.Identity(), dataclasses.replace(BY, bn_batch=4))
    found = task.shuffled_keys(views[1], given)
    order = sorted(range(12), key=lambda i: given[i].item())
    assert order != list(range(12))
    for group in (order[:4], order[4:8], order[8:]):
        pixels = views[1].double().flatten(1)[group][:, :5]
        wanted = (pixels - pixels.mean(0)) / (pixels.std(0) + 0.01)
        torch.testing.assert_close(
            found[group], (wanted / wanted.norm(dim=1, keepdim=True)).float(), rtol=1e-5, atol=1e-6
        )


def test_a_moving_average_keeps_no_statistics_and_has_no_gradients() -> None:
    net = Network(Pixels(), mlp(6, 7, 5)).double()
    average = Average(net.trunk, net.head, BY)
    images = torch.randn(12, 32)
    assert not average(images).requires_grad
    assert {name for name, _ in average.net.named_buffers()} == set()
    assert {name for name, _ in net.named_buffers()} > {"head.1.running_mean"}
    torch.testing.assert_close(average(images), net.train()(images).float())


def test_a_projector_is_linear_norm_relu() -> None:
    assert [type(layer).__name__ for layer in mlp(6, 7, 8, 5)] == [
        *("Linear", "BatchNorm1d", "ReLU", "Linear", "BatchNorm1d", "ReLU", "Linear")
    ]
    assert [type(layer).__name__ for layer in mlp(6, 7, 5, norm=False)] == ["Linear", "ReLU", "Linear"]
    shapes = [tuple(p.shape) for p in mlp(6, 7, 5, last_bias=False).parameters()]
    assert shapes == [(7, 6), (7,), (7,), (5, 7)]


# ------------------------------------------------------------------------------------- collapse


def naive_spread(vectors: Rows) -> float:
    units = [normal(row) for row in vectors]
    n, total = len(units), 0.0
    for column in zip(*units, strict=True):
        mean = sum(column) / n
        total += sum((x - mean) ** 2 for x in column) / n
    return math.sqrt(total)


def test_spread_is_its_definition() -> None:
    vectors = drawn(9, 4) + 1
    assert spread(vectors) == pytest.approx(naive_spread(vectors.tolist()), rel=1e-12)
    assert spread(torch.ones(9, 4) * torch.arange(1, 10)[:, None]) == pytest.approx(0, abs=1e-7)
    assert spread(drawn(20_000, 30)) == pytest.approx(1, abs=1e-3)
    assert spread(torch.zeros(5, 3)) == 0


@pytest.mark.parametrize("shape", [(9, 4), (4, 9)])
def test_effective_rank_is_its_definition(shape: tuple[int, int]) -> None:
    vectors = drawn(*shape) + 0.5
    values = np.linalg.svd(vectors.numpy(), compute_uv=False)
    shares = values / values.sum()
    assert effective_rank(vectors) == pytest.approx(math.exp(-sum(p * math.log(p) for p in shares)), rel=1e-9)


def test_effective_rank_of_known_features() -> None:
    assert effective_rank(torch.eye(6).repeat(5, 1)) == pytest.approx(6)
    assert effective_rank(torch.ones(50, 8)) == pytest.approx(1, abs=1e-5)
    assert effective_rank(torch.ones(50, 8) + 1e-9 * drawn(50, 8)) == pytest.approx(1, abs=1e-5)
    assert effective_rank(torch.zeros(5, 3)) == 0


class Blind(Network):
    """Gives all images one feature vector."""

    def __init__(self) -> None:
        super().__init__(nn.Identity(), nn.Linear(4, 3))
        self.trunk.forward = lambda images: torch.tensor([1.0, 2, 0, 3]).expand(len(images), -1)


def test_a_collapsed_network_is_told() -> None:
    found = SimCLR().evaluate(Blind(), made_up(), PLAIN)
    assert [found["feature_std"], found["embedding_std"]] == pytest.approx([0, 0], abs=1e-6)
    assert [found["feature_rank"], found["embedding_rank"]] == pytest.approx([1, 1], abs=1e-5)
    assert found["knn_top1"] == pytest.approx(100 / 3, abs=1e-9)
    sees = SimCLR().evaluate(Network(Pixels(), nn.Linear(6, 3)), made_up(), PLAIN)
    assert sees["feature_std"] > 0.5
    assert sees["feature_rank"] > 3
    assert SimCLR().evaluate(Blind(), made_up(multilabel=True), PLAIN).keys() == found.keys() - {"knn_top1"}


def test_neighbours_are_sought_among_at_most_so_many(monkeypatch: pytest.MonkeyPatch) -> None:
    dataset, asked = made_up(), torch.randn(60, 6)
    sizes: list[int] = []
    of = two_views.features

    def noted(trunk: nn.Module, dataset: Dataset, split: Any) -> Tensor:
        sizes.append(len(split))
        return of(trunk, dataset, split)

    monkeypatch.setattr(two_views, "features", noted)
    for most, wanted in ((30, 30), (29, 15), (10, 10)):
        monkeypatch.setattr(two_views, "KNN_IMAGES", most)
        two_views.neighbours(Pixels(), dataset, asked)
        assert sizes.pop() == wanted


def trained() -> dict[str, float]:
    """Metrics of SimCLR after eight epochs of digits."""
    recipe = Recipe(samples=8 * 1_200, batch=64, lr=0.05, momentum=0.9, schedule="cosine", pad=1, angle=15,
                    options={"dimension": 32, "hidden": 64})  # fmt: skip
    step = Train(task="simclr", data="digits", arch="conv4", recipe=recipe, seed=0, start=Init(seed=0))
    return Loop(step=step, data=data.load("digits")).run().metrics


def test_a_training_that_collapses_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Alike views alone are best served by one embedding for all images: nothing keeps these apart."""
    healthy = trained()
    monkeypatch.setattr(simclr, "nt_xent", lambda first, second, _temperature: apart(first, second))
    collapsed = trained()
    assert collapsed["train_loss"] < 0.02
    assert collapsed["embedding_std"] < 0.2 < 0.9 < healthy["embedding_std"]
    assert collapsed["embedding_rank"] < 3 < 8 < healthy["embedding_rank"]


# ------------------------------------------------------------------------------------- recipes


@pytest.mark.parametrize("row", TODAY, ids=[f"{row.tasks[0]} {row.data}" for row in TODAY])
def test_it_is_said_where_each_value_of_a_newer_task_is_from(row: Any) -> None:
    """None is in the paper, so none may be left to "read in the paper"."""
    own = {f.name for f in dataclasses.fields(Recipe) if getattr(row.recipe, f.name) != f.default} - {"options"}
    assert row.guessed.keys() == own | {name for name, _ in row.recipe.options}
    assert set(row.guessed.values()) <= {"A", "L", "E"} <= SURE.keys()
    task = tasks.find(row.tasks[0], row.recipe.options)
    assert {name for name, _ in row.recipe.options} == {f.name for f in dataclasses.fields(task) if f.init}
