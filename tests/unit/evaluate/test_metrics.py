"""Measurements against definitions in exact fractions, plain loops, and scikit-learn."""

from __future__ import annotations

import math
from collections.abc import Iterator
from fractions import Fraction
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, precision_recall_curve
from sklearn.neighbors import KNeighborsClassifier
from torch import Tensor, nn

from raysslprune.data import IGNORED, Dataset, Resident
from raysslprune.evaluate import metrics
from raysslprune.evaluate.metrics import (
    average_precision,
    chance,
    knn_accuracy,
    mean_average_precision,
    natural_sparsity,
)
from raysslprune.spec import NATURAL_SPARSITIES

EPS = 2.0**-23

# ------------------------------------------------------------------------------------- of a network


def made_data(labels: Tensor, test_labels: Tensor, channels: int = 2, size: int = 3) -> Dataset:
    """Random images, with a mean and a deviation that matter."""
    generator = torch.Generator().manual_seed(0)

    def split(labels: Tensor) -> Resident:
        shape = (len(labels), channels, size, size)
        return Resident(images=torch.randint(256, shape, generator=generator, dtype=torch.uint8), labels=labels)

    mean, std = torch.tensor([90.0, 160.0]).view(-1, 1, 1), torch.tensor([30.0, 5.0]).view(-1, 1, 1)
    return Dataset(train=split(labels), test=split(test_labels), classes=3, mean=mean, std=std)


class Odd(nn.Module):
    """Three outputs that tell channels and pixels apart."""

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.weights = torch.randn(3, 18, generator=torch.Generator().manual_seed(1))
        self.dtype = dtype

    def forward(self, x: Tensor) -> Tensor:
        return (x.flatten(1) @ self.weights.T).to(self.dtype)


def outputs_one_by_one(data: Dataset, images: Tensor) -> np.ndarray:
    """What Odd gives, by numpy."""
    pixels = images.numpy().astype(np.float64)
    normalised = (pixels - data.mean.numpy()) / data.std.numpy()
    return np.stack([[float((w * x.ravel()).sum()) for w in Odd().weights.numpy()] for x in normalised])


LABELS = torch.arange(50) * 7 % 3
TEST_LABELS = torch.arange(23) * 5 % 3


@pytest.mark.parametrize("batch", [1, 7, 23, 1024])
@pytest.mark.parametrize("name", ["train", "test"])
def test_accuracy_counts_every_sample_once(batch: int, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "BATCH", batch)
    data = made_data(LABELS, TEST_LABELS)
    split = {"train": data.train, "test": data.test}[name]
    assert isinstance(split, Resident)
    hits = outputs_one_by_one(data, split.images).argmax(1) == split.labels.numpy()
    assert 0 < hits.sum() < len(hits)
    assert metrics.accuracy(Odd(), data, split) == 100 * int(hits.sum()) / len(hits)


@pytest.mark.parametrize("batch", [7, 1024])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_features_are_the_outputs_in_order_as_float32(
    batch: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics, "BATCH", batch)
    data = made_data(LABELS, TEST_LABELS)
    assert isinstance(data.test, Resident)
    made = metrics.features(Odd(dtype), data, data.test)
    wanted = torch.from_numpy(outputs_one_by_one(data, data.test.images))
    assert made.dtype == torch.float32
    np.testing.assert_allclose(
        made, wanted.to(dtype).float(), rtol=1e-2 if dtype == torch.bfloat16 else 1e-4, atol=1e-3
    )


@pytest.mark.parametrize(("pixels", "sizes"), [(1, [1] * 23), (8 * 9 + 8, [8, 8, 7]), (1 << 24, [20, 3])])
def test_no_more_images_at_once_than_their_pixels_allow(
    pixels: int, sizes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics, "PIXELS", pixels)
    monkeypatch.setattr(metrics, "BATCH", 20)
    data, net, seen = made_data(LABELS, TEST_LABELS), Odd(), list[int]()
    net.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    metrics.features(net, data, data.test)
    assert seen == sizes


def test_a_head_may_be_trained_on_features_and_their_network_is_not() -> None:
    data = made_data(LABELS, TEST_LABELS)
    trunk, head = nn.Sequential(nn.Flatten(), nn.Linear(18, 3)), nn.Linear(3, 2)
    made = metrics.features(trunk, data, data.test)
    assert not made.requires_grad
    head(made).sum().backward()
    assert head.weight.grad is not None


def test_multilabel_map_is_that_of_the_outputs() -> None:
    labels = torch.tensor([[1, 0, IGNORED], [0, 1, 1], [1, 1, 0], [IGNORED, 0, 1], [0, 0, 0]], dtype=torch.int8)
    data = made_data(labels, labels[torch.tensor([4, 2, 1, 0, 3, 2])])
    assert isinstance(data.test, Resident)
    outputs = outputs_one_by_one(data, data.test.images)
    each = []
    for c in range(3):
        kept = data.test.labels[:, c].numpy() != IGNORED
        each.append(by_definition(outputs[kept, c].tolist(), (data.test.labels[:, c].numpy()[kept] == 1).tolist()))
    assert metrics.multilabel_map(Odd(), data, data.test) == pytest.approx(100 * float(sum(each)) / 3, rel=1e-12)


# ------------------------------------------------------------------------------------- average precision


def curve(scores: list[float], present: list[bool]) -> list[tuple[Fraction, Fraction]]:
    """Recall and precision at every threshold, by counting anew for each."""
    points = []
    for threshold in set(scores):
        retrieved = [is_there for score, is_there in zip(scores, present, strict=True) if score >= threshold]
        points.append((Fraction(sum(retrieved), sum(present)), Fraction(sum(retrieved), len(retrieved))))
    return sorted(points)


def by_definition(scores: list[float], present: list[bool]) -> Fraction:
    """At each recall j / positives, the highest precision of all thresholds with at least this recall; their mean.

    The interpolated curve is constant between two such recalls, so their mean is the area under it.
    """
    points, positives = curve(scores, present), sum(present)
    highest = [max(p for r, p in points if r >= Fraction(j, positives)) for j in range(1, positives + 1)]
    return sum(highest, Fraction(0)) / positives


def by_scikit_learn(scores: np.ndarray, present: np.ndarray) -> float:
    """The envelope of its curve, which goes from high recall to low and ends with an artificial point at recall 0."""
    precision, recall, _ = precision_recall_curve(present, scores)
    return float(-(np.diff(recall) * np.maximum.accumulate(precision)[:-1]).sum())


def ours(scores: list[float], present: list[bool]) -> float:
    return average_precision(torch.tensor(scores), torch.tensor(present))


@st.composite
def rankings(draw: st.DrawFn) -> tuple[list[float], list[bool]]:
    """One to thirty samples, many with equal scores, at least one of the class."""
    score = st.sampled_from([-2.0, -1.0, -0.0, 0.0, 0.5, 1.0, math.inf, -math.inf]) | st.integers(-50, 50).map(float)
    pairs = draw(st.lists(st.tuples(score, st.booleans()), min_size=1, max_size=30))
    scores, present = [s for s, _ in pairs], [p for _, p in pairs]
    assume(any(present))
    return scores, present


def test_a_case_by_hand() -> None:
    """Ranked no, yes, yes, no, yes. Precision at the three yes: 1/2, 2/3, 3/5; interpolated: 2/3, 2/3, 3/5.

    The mean is (2/3 + 2/3 + 3/5) / 3 = 29/45. Not interpolated it would be 53/90, and at eleven points 53/82.5.
    """
    assert ours([0.9, 0.8, 0.7, 0.6, 0.5], [False, True, True, False, True]) == pytest.approx(29 / 45, rel=1e-15)
    assert ours([0.5, 0.7, 0.9, 0.6, 0.8], [True, True, False, False, True]) == pytest.approx(29 / 45, rel=1e-15)
    assert average_precision_score([0, 1, 1, 0, 1], [0.9, 0.8, 0.7, 0.6, 0.5]) == pytest.approx(53 / 90)


def test_a_case_with_equal_scores_by_hand() -> None:
    """yes (1/1), then yes and no and no together (2/4), then yes (3/5): 1, 3/5, 3/5."""
    assert ours([3.0, 2.0, 2.0, 2.0, 1.0], [True, False, True, False, True]) == pytest.approx(11 / 15, rel=1e-15)


@given(ranking=rankings())
@settings(max_examples=300)
def test_average_precision_is_the_definition(ranking: tuple[list[float], list[bool]]) -> None:
    assert ours(*ranking) == pytest.approx(float(by_definition(*ranking)), rel=1e-14)


@given(ranking=rankings())
@settings(max_examples=200)
def test_average_precision_is_scikit_learns_where_precision_never_rises(
    ranking: tuple[list[float], list[bool]],
) -> None:
    """It does not interpolate: the step to each new recall counts with the precision there.

    So the two coincide if and only if this precision never rises from one step to the next; else ours is higher.
    """
    scores, present = [min(max(s, -100.0), 100.0) for s in ranking[0]], ranking[1]  # it refuses infinity
    highest = dict(
        curve(scores, present)
    )  # of equal recalls the highest precision, sorted last, is where it is reached
    steps = [precision for recall, precision in highest.items() if recall > 0]
    theirs = float(average_precision_score(present, scores))
    if all(later <= earlier for earlier, later in pairwise(steps)):
        assert ours(scores, present) == pytest.approx(theirs, rel=1e-13)
    else:
        assert ours(scores, present) > theirs


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("decimals", [1, 2, 9])
def test_average_precision_is_the_envelope_of_scikit_learns_curve(seed: int, decimals: int) -> None:
    rng = np.random.default_rng(seed)
    present = rng.random(2000) < 0.1
    scores = np.round(rng.normal(size=2000) + present, decimals)
    made = average_precision(torch.from_numpy(scores), torch.from_numpy(present))
    assert made == pytest.approx(by_scikit_learn(scores, present), rel=1e-12)


@given(ranking=rankings(), random=st.randoms(use_true_random=False))
@settings(max_examples=100)
def test_the_order_of_samples_does_not_matter(ranking: tuple[list[float], list[bool]], random: Any) -> None:
    pairs = list(zip(*ranking, strict=True))
    random.shuffle(pairs)
    assert ours([s for s, _ in pairs], [p for _, p in pairs]) == ours(*ranking)


@given(ranking=rankings())
@settings(max_examples=100)
def test_only_the_ranking_matters(ranking: tuple[list[float], list[bool]]) -> None:
    scores, present = ranking
    place = {score: float(i) for i, score in enumerate(sorted(set(scores)))}
    assert ours([place[s] ** 3 - 7 for s in scores], present) == ours(scores, present)


@given(positives=st.integers(1, 20), others=st.integers(0, 20))
def test_the_best_the_worst_and_the_undecided_ranking(positives: int, others: int) -> None:
    present = [True] * positives + [False] * others
    falling = [float(-i) for i in range(len(present))]
    assert ours(falling, present) == 1.0
    assert ours([0.0] * len(present), present) == pytest.approx(positives / len(present), rel=1e-15)
    assert ours(falling[::-1], present) == pytest.approx(positives / len(present), rel=1e-15)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_scores_of_any_type(dtype: torch.dtype) -> None:
    scores = torch.tensor([0.5, 0.25, 0.25, -1.0], dtype=dtype)
    assert average_precision(scores, torch.tensor([False, True, False, True])) == 0.5


def test_a_class_without_a_sample_has_no_average_precision() -> None:
    with pytest.raises(ValueError, match="at least one sample"):
        ours([1.0, 2.0], [False, False])


def test_scores_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="NaN"):
        ours([1.0, math.nan], [True, False])


# ------------------------------------------------------------------------------------- its mean over classes


def test_the_mean_over_classes_one_against_all() -> None:
    generator = torch.Generator().manual_seed(0)
    scores, labels = torch.randn(40, 4, generator=generator), torch.arange(40) % 4
    each = [by_definition(scores[:, c].tolist(), (labels == c).tolist()) for c in range(4)]
    assert mean_average_precision(scores, labels) == pytest.approx(100 * float(sum(each)) / 4, rel=1e-12)


def made_labels(count: int, classes: int, seed: int) -> Tensor:
    """Present, absent and ignored in every class."""
    return torch.randint(-1, 2, (count, classes), generator=torch.Generator().manual_seed(seed), dtype=torch.int8)


def test_ignored_samples_are_left_out_class_by_class() -> None:
    labels = made_labels(60, 3, seed=0)
    scores = torch.randn(60, 3, generator=torch.Generator().manual_seed(1))
    each = []
    for c in range(3):
        pairs = [(s, y == 1) for s, y in zip(scores[:, c].tolist(), labels[:, c].tolist(), strict=True) if y != IGNORED]
        each.append(by_definition([s for s, _ in pairs], [y for _, y in pairs]))
    wanted = 100 * float(sum(each)) / 3
    assert mean_average_precision(scores, labels) == pytest.approx(wanted, rel=1e-12)
    scores[labels == IGNORED] = math.nan  # not even looked at
    assert mean_average_precision(scores, labels) == pytest.approx(wanted, rel=1e-12)


def test_chance_is_what_guessing_gives() -> None:
    """By the share of each class, and as the mean average precision of random scores of many samples."""
    labels = torch.tensor([0] * 900 + [1] * 90 + [2] * 10)
    assert chance(labels, 3) == {"top1": pytest.approx(90.0), "map": pytest.approx(100 / 3)}
    several = made_labels(500, 3, seed=2)
    shares = []
    for column in several.T.tolist():
        counted = [one for one in column if one != IGNORED]
        shares.append(100 * counted.count(1) / len(counted))
    assert chance(several, 3) == {"map": pytest.approx(sum(shares) / 3)}
    for some, by_share in ((labels, 100 / 3), (several, sum(shares) / 3)):
        random = torch.rand(len(some), 3, generator=torch.Generator().manual_seed(3))
        assert mean_average_precision(random, some) == pytest.approx(by_share, abs=3)


@pytest.mark.parametrize(
    ("labels", "missing"),
    [
        (torch.tensor([0, 1, 1, 3]), 2),
        (torch.tensor([[1, 1], [0, 0]], dtype=torch.int8) * torch.tensor([1, 0], dtype=torch.int8), 1),
        (torch.tensor([[IGNORED, 1], [0, 0]], dtype=torch.int8), 0),
    ],
)
def test_a_class_without_a_sample_is_named(labels: Tensor, missing: int) -> None:
    scores = torch.zeros(len(labels), 4 if labels.ndim == 1 else 2)
    with pytest.raises(ValueError, match=f"class {missing}: .* at least one sample"):
        mean_average_precision(scores, labels)


def test_a_class_with_a_score_that_is_no_number_is_named() -> None:
    with pytest.raises(ValueError, match=r"class 1: .*NaN"):
        mean_average_precision(torch.tensor([[0.0, 1.0], [1.0, math.nan]]), torch.tensor([0, 1]))


# ------------------------------------------------------------------------------------- nearest neighbours


def clusters(count: int, seed: int, spread: float = 0.7) -> tuple[Tensor, Tensor]:
    """Features of five classes that overlap, of all lengths."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(5, 8, generator=torch.Generator().manual_seed(99))
    labels = torch.randint(5, (count,), generator=generator)
    length = torch.rand(count, 1, generator=generator) * 10 + 0.1
    return (centres[labels] + spread * torch.randn(count, 8, generator=generator)) * length, labels


def naive_knn(known: Tensor, labels: Tensor, asked: Tensor, temperature: float, neighbours: int) -> list[int]:
    """The vote of each test sample, in plain Python."""

    def cosine(a: list[float], b: list[float]) -> float:
        return sum(x * y for x, y in zip(a, b, strict=True)) / math.hypot(*a) / math.hypot(*b)

    voted = []
    for query in asked.tolist():
        similar = [(cosine(query, other), label) for other, label in zip(known.tolist(), labels.tolist(), strict=True)]
        votes: dict[int, float] = {}
        for similarity, label in sorted(similar, reverse=True)[:neighbours]:
            votes[label] = votes.get(label, 0.0) + math.exp(similarity / temperature)
        voted.append(max(votes, key=lambda label: votes[label]))
    return voted


@pytest.mark.parametrize(("neighbours", "temperature"), [(1, 0.07), (5, 0.07), (20, 0.1), (60, 1.0), (200, 10.0)])
def test_knn_is_a_plain_loop(neighbours: int, temperature: float) -> None:
    (known, labels), (asked, wanted) = clusters(80, seed=0, spread=1.5), clusters(60, seed=1, spread=1.5)
    voted = naive_knn(known, labels, asked, temperature, neighbours)
    hits = sum(a == b for a, b in zip(voted, wanted.tolist(), strict=True))
    assert 0 < hits < 60
    assert knn_accuracy(known, labels, asked, wanted, temperature, neighbours) == 100 * hits / 60


@pytest.mark.parametrize("neighbours", [3, 50, 200])
def test_knn_is_scikit_learns(neighbours: int) -> None:
    """For vectors of length 1, similarity = 1 - distance² / 2."""
    (known, labels), (asked, wanted) = clusters(400, seed=2, spread=1.2), clusters(300, seed=3, spread=1.2)
    weights: Any = lambda d: np.exp((1 - d**2 / 2) / 0.07)  # noqa: E731
    theirs = KNeighborsClassifier(neighbours, weights=weights)
    theirs.fit(nn.functional.normalize(known).numpy(), labels.numpy())
    hits = theirs.predict(nn.functional.normalize(asked).numpy()) == wanted.numpy()
    assert knn_accuracy(known, labels, asked, wanted, 0.07, neighbours) == 100 * int(hits.sum()) / 300


def test_near_neighbours_outvote_many_far_ones_at_low_temperature_only() -> None:
    """One of class 0 at similarity 1, three of class 1 at 0.6: exp(0.4 / t) against 3."""
    known = torch.tensor([[2.0, 0.0], [0.6, 0.8], [6.0, 8.0], [0.3, 0.4]])
    labels, asked = torch.tensor([0, 1, 1, 1]), torch.tensor([[5.0, 0.0]])
    for temperature, neighbours, winner in ((0.36, 4, 0), (0.37, 4, 1), (10.0, 1, 0), (10.0, 2, 0), (10.0, 3, 1)):
        made = knn_accuracy(known, labels, asked, torch.tensor([winner]), temperature, neighbours)
        assert made == 100.0, (temperature, neighbours)


def test_knn_with_more_neighbours_than_samples_asks_all() -> None:
    (known, labels), (asked, wanted) = clusters(30, seed=0), clusters(40, seed=1)
    assert knn_accuracy(known, labels, asked, wanted, 0.1) == knn_accuracy(known, labels, asked, wanted, 0.1, 30)


def test_knn_at_a_very_low_temperature_is_the_nearest_neighbour() -> None:
    """exp(1 / 1e-4) is beyond all numbers."""
    (known, labels), (asked, wanted) = clusters(80, seed=0), clusters(60, seed=1)
    assert knn_accuracy(known, labels, asked, wanted, 1e-4) == knn_accuracy(known, labels, asked, wanted, 1.0, 1)


def test_knn_in_pieces_is_the_same_and_holds_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    (known, labels), (asked, wanted) = clusters(400, seed=0), clusters(397, seed=1)
    whole = knn_accuracy(known, labels, asked, wanted, 0.1, 5)
    topk, shapes = Tensor.topk, list[tuple[int, ...]]()

    def recorded(similarity: Tensor, k: int) -> Any:
        shapes.append(tuple(similarity.shape))
        return topk(similarity, k)

    monkeypatch.setattr(Tensor, "topk", recorded)
    monkeypatch.setattr(metrics, "SIMILARITIES", 4100)
    assert knn_accuracy(known, labels, asked, wanted, 0.1, 5) == whole
    assert shapes == [(10, 400)] * 39 + [(7, 400)]
    monkeypatch.setattr(metrics, "SIMILARITIES", 1)
    assert knn_accuracy(known, labels, asked, wanted, 0.1, 5) == whole


@pytest.mark.parametrize("which", [0, 1])
def test_knn_refuses_features_that_are_not_finite(which: int) -> None:
    both = [clusters(10, seed=0)[0], clusters(10, seed=1)[0]]
    both[which][3, 2] = math.inf
    labels = torch.zeros(10, dtype=torch.int64)
    with pytest.raises(ValueError, match="finite"):
        knn_accuracy(both[0], labels, both[1], labels, 0.1)


# ------------------------------------------------------------------------------------- natural sparsity


def above(value: float) -> float:
    """The next float32."""
    return float(np.nextafter(np.float32(value), np.float32(1)))


def all_of(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: torch.ones_like(w, dtype=torch.bool) for name, w in weights.items()}


MADE = [0.0, -0.0, 2.0**-149, -1e-39, 1e-35, -1e-25, 1e-15, 1e-10, -1e-8, EPS, -EPS, above(EPS), 5e-7, -2e-6, 0.1, -3.0]
COUNTS = {
    "natural_sparsity": 11,
    "natural_sparsity_1e-30": 5,
    "natural_sparsity_1e-20": 6,
    "natural_sparsity_1e-12": 7,
    "natural_sparsity_1e-9": 8,
    "natural_sparsity_1e-6": 13,
}


@pytest.fixture(params=[False, True])
def flush(request: pytest.FixtureRequest) -> Iterator[None]:
    """With subnormals, and with the processor told to take them for 0."""
    if not torch.set_flush_denormal(request.param):
        pytest.skip("this processor can't flush subnormals")
    yield
    torch.set_flush_denormal(False)


@pytest.mark.usefixtures("flush")
def test_natural_sparsity_counts_the_weights_up_to_each_threshold() -> None:
    weights = {"a": torch.tensor(MADE[:9]).view(3, 3), "b": torch.tensor(MADE[9:])}
    made = natural_sparsity(weights, all_of(weights))
    assert made == {name: 100 * count / 16 for name, count in COUNTS.items()}


def test_the_threshold_is_float32s_machine_precision() -> None:
    assert NATURAL_SPARSITIES["natural_sparsity"] == torch.finfo(torch.float32).eps == EPS


@pytest.mark.parametrize(
    ("name", "at"), [("natural_sparsity", EPS), *((name, float(name[17:])) for name in COUNTS if "1e" in name)]
)
def test_a_weight_at_the_threshold_is_zero_and_the_next_one_is_not(name: str, at: float) -> None:
    weights = {"a": torch.tensor([at, -at, above(at), -above(at), above(at)])}
    assert natural_sparsity(weights, all_of(weights))[name] == 40.0


def test_pruned_weights_do_not_count() -> None:
    weights = {"a": torch.tensor([[0.0, 0.0, 1.0], [0.0, 2.0, 1e-9]]), "b": torch.zeros(5)}
    mask = {
        "b": torch.tensor([True, False, False, False, False]),
        "a": torch.tensor([[False, True, True], [False, True, False]]),
    }
    made = natural_sparsity(weights, mask)
    assert set(made) == set(COUNTS)
    assert made["natural_sparsity_1e-30"] == made["natural_sparsity"] == 50.0


def test_nothing_left_is_not_sparse() -> None:
    weights = {"a": torch.zeros(5)}
    assert natural_sparsity(weights, {"a": torch.zeros(5, dtype=torch.bool)}) == dict.fromkeys(COUNTS, 0.0)


def test_counts_are_exact_beyond_what_float32_can_count() -> None:
    zeros = 2**24 + 3
    weights = {"a": torch.zeros(zeros + 1)}
    weights["a"][7] = 1.0
    assert natural_sparsity(weights, all_of(weights))["natural_sparsity"] == 100 * zeros / (zeros + 1)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_other_types(dtype: torch.dtype) -> None:
    """In float16 a threshold of 1e-9 would be 0, and 1e-6 would be the number 17 / 2**24 above it."""
    weights = {"a": torch.tensor([0.0, 6e-8, 2e-7, 17 / 2**24], dtype=dtype)}
    made = natural_sparsity(weights, all_of(weights))
    assert made["natural_sparsity_1e-30"] == made["natural_sparsity_1e-9"] == 25.0
    assert made["natural_sparsity"] == 50.0
    assert made["natural_sparsity_1e-6"] == 75.0


def test_weights_are_read_only() -> None:
    weight = nn.Parameter(torch.tensor([-1.0, 0.0, 1e-9]))
    made = natural_sparsity({"a": weight}, {"a": torch.ones(3, dtype=torch.bool)})
    assert made["natural_sparsity"] == pytest.approx(200 / 3)
    assert weight.tolist() == pytest.approx([-1.0, 0.0, 1e-9])
    assert weight.grad is None
