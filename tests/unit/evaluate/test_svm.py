"""Linear SVMs against plain loops over scikit-learn, and on real digits."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import joblib
import numpy as np
import pytest
import torch
from sklearn.metrics import precision_recall_curve
from sklearn.model_selection import GridSearchCV
from sklearn.svm import LinearSVC
from torch import Tensor

from raysslprune import data
from raysslprune.data import IGNORED, Resident
from raysslprune.evaluate import svm
from raysslprune.spec import SVM

ALL_COSTS = tuple(10.0**k for k in range(-7, 3)) + tuple(2.0**-k for k in range(4, 20))
"""Those of the benchmark (paper.md 5.1)."""

RECIPE = SVM(costs=(10.0, 1e-3, 0.1, 1.0))


def made(count: int, seed: int, classes: int = 3, ignored: float = 0.2) -> tuple[Tensor, Tensor]:
    """Positive features of all lengths, the 1e-5 that is added to them included, and labels that they tell roughly."""
    rng = np.random.default_rng(seed)
    present = rng.random((count, classes)) < 0.25
    directions = np.random.default_rng(99).normal(size=(classes, 12))
    length = 10.0 ** rng.uniform(-6, 1, size=(count, 1))
    features = np.abs(rng.normal(size=(count, 12)) + present @ directions + 0.5) * length
    labels = np.where(rng.random((count, classes)) < ignored, IGNORED, present)
    return torch.from_numpy(features.astype(np.float32)), torch.from_numpy(labels.astype(np.int8))


class Reference:
    """The benchmark as one would write it down with scikit-learn alone: a grid search for each class."""

    def __init__(self, recipe: SVM, features: Tensor, labels: Tensor) -> None:
        self.recipe, self.searches = recipe, list[Any]()
        for c in range(labels.shape[1]):
            kept = labels[:, c].numpy() != IGNORED
            plain = LinearSVC(random_state=0, max_iter=recipe.iterations, tol=recipe.tolerance)
            plain.set_params(dual=True, class_weight={1: recipe.positive_weight, -1: 1})
            search = GridSearchCV(plain, {"C": list(recipe.costs)}, scoring="average_precision", cv=recipe.folds)
            targets = [1 if label == 1 else -1 for label in labels[:, c][kept].tolist()]
            self.searches.append(search.fit(self.divided(features)[kept], targets))

    def divided(self, features: Tensor) -> np.ndarray:
        return np.array([row / (np.sqrt((row**2).sum()) + 1e-5) for row in features.numpy().astype(np.float64)])

    @property
    def costs(self) -> list[float]:
        return [search.best_params_["C"] for search in self.searches]

    def scores(self, features: Tensor) -> np.ndarray:
        return np.stack([search.decision_function(self.divided(features)) for search in self.searches], axis=1)

    def mean_average_precision(self, features: Tensor, labels: Tensor) -> float:
        scores, each = self.scores(features), []
        for c in range(labels.shape[1]):
            kept = labels[:, c].numpy() != IGNORED
            precision, recall, _ = precision_recall_curve(labels[:, c].numpy()[kept] == 1, scores[kept, c])
            each.append(-(np.diff(recall) * np.maximum.accumulate(precision)[:-1]).sum())
        return 100 * float(np.mean(each))


# ------------------------------------------------------------------------------------- against scikit-learn


@pytest.mark.filterwarnings("ignore:Liblinear failed to converge")
@pytest.mark.parametrize(
    "recipe",
    [
        RECIPE,
        SVM(costs=(1e-3, 0.1, 1.0, 10.0), folds=2, positive_weight=20.0, tolerance=0.3, iterations=2000),
        SVM(costs=(1e-5, 1e-3, 30.0), folds=5, positive_weight=0.25, tolerance=1e-7, iterations=8),
    ],
)
def test_is_a_grid_search_for_each_class(recipe: SVM) -> None:
    features, labels = made(300, seed=0)
    svms, reference = svm.fit(recipe, features, labels), Reference(recipe, features, labels)
    assert svms.costs.tolist() == reference.costs
    for c, search in enumerate(reference.searches):
        np.testing.assert_allclose(svms.weight[c], search.best_estimator_.coef_[0], rtol=1e-9)
        np.testing.assert_allclose(svms.bias[c], search.best_estimator_.intercept_[0], rtol=1e-9)
    test_features, test_labels = made(400, seed=1)
    np.testing.assert_allclose(svms.scores(test_features), reference.scores(test_features), rtol=1e-9)
    metrics = svms.metrics(test_features, test_labels)
    wanted = reference.mean_average_precision(test_features, test_labels)
    assert 40 < wanted < 95
    assert metrics == {"map": pytest.approx(wanted, rel=1e-12), "unconverged_fits": svms.unconverged}


def test_the_recipes_differ_in_what_they_give() -> None:
    """Else the test above would not see a field that is not handed on."""
    features, labels = made(300, seed=0)
    fields: list[dict[str, Any]] = [
        {},
        {"folds": 2},
        {"positive_weight": 20.0},
        {"tolerance": 0.3},
        {"iterations": 8},
    ]
    weights = [svm.fit(SVM(costs=(0.003, 0.03, 0.3, 3.0), **f), features, labels).weight for f in fields]
    assert all(not torch.equal(weights[0], other) for other in weights[2:])


@pytest.mark.parametrize("end", ["train", "test"])
def test_ignored_samples_are_dropped_at_both_ends(end: str) -> None:
    """A class's measurements do not change with the features of the samples that it ignores."""
    features, labels = made(200, seed=0, classes=1)
    other_features, other_labels = made(200, seed=1, classes=1)

    def measured() -> dict[str, float]:
        return svm.fit(RECIPE, features, labels).metrics(other_features, other_labels)

    before = measured()
    which, dropped = {"train": (features, labels), "test": (other_features, other_labels)}[end]
    which[dropped[:, 0] == IGNORED] = 100.0
    assert measured() == before
    dropped[dropped[:, 0] == IGNORED] = 0
    assert measured() != before


def test_of_equally_good_costs_the_smallest_is_taken() -> None:
    angle = torch.linspace(0, 1, 30)
    features = torch.stack([angle.cos(), angle.sin()], dim=1)  # in order on a circle: any cost ranks them perfectly
    svms = svm.fit(SVM(costs=(1.0, 0.01, 10.0, 0.1)), features, (angle > 0.6).long())
    assert svms.costs.tolist() == [0.01, 0.01]
    assert svms.metrics(features, (angle > 0.6).long())["map"] == 100.0


def test_one_class_for_each_image_is_one_against_all() -> None:
    features, _ = made(300, seed=0)
    labels = torch.arange(300) % 7 % 3
    features[labels == 1] *= torch.linspace(0.1, 3, 12)
    one_hot = torch.tensor([[int(label == c) for c in range(3)] for label in labels.tolist()], dtype=torch.int8)
    single, several = svm.fit(RECIPE, features, labels), svm.fit(RECIPE, features, one_hot)
    assert torch.equal(single.weight, several.weight)
    metrics = single.metrics(features, labels)
    hits = sum(a == b for a, b in zip(single.scores(features).argmax(1).tolist(), labels.tolist(), strict=True))
    assert 100 < hits < 300
    assert metrics["top1"] == 100 * hits / 300
    assert several.metrics(features, one_hot) == {k: v for k, v in metrics.items() if k != "top1"}


def digits() -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Pixels and labels, to fit to and to test on."""
    loaded = data.load("digits")
    assert isinstance(loaded.train, Resident)
    assert isinstance(loaded.test, Resident)
    parts = [(split.images.flatten(1).float(), split.labels) for split in (loaded.train, loaded.test)]
    return parts[0], parts[1]


def test_digits_from_raw_pixels() -> None:
    (features, labels), (test_features, test_labels) = digits()
    recipe = SVM(costs=ALL_COSTS[:9])
    svms = svm.fit(recipe, features, labels)
    metrics = svms.metrics(test_features, test_labels)
    assert 94 < metrics["top1"] < 98
    assert 96 < metrics["map"] < 100
    one_hot = (test_labels[:, None] == torch.arange(10)).to(torch.int8)
    reference = Reference(recipe, features, (labels[:, None] == torch.arange(10)).to(torch.int8))
    assert svms.costs.tolist() == reference.costs
    assert len(set(reference.costs)) > 1
    wanted = reference.mean_average_precision(test_features, one_hot)
    assert metrics["map"] == pytest.approx(wanted, rel=1e-12)
    assert metrics["top1"] == 100 * float(np.mean(reference.scores(test_features).argmax(1) == test_labels.numpy()))


# ------------------------------------------------------------------------------------- how it runs


def test_fits_that_do_not_converge_are_counted() -> None:
    """All three classes at four costs in three folds, and once more each."""
    features, labels = made(200, seed=0)
    assert svm.fit(SVM(costs=RECIPE.costs, iterations=1), features, labels).unconverged == 3 * (4 * 3 + 1)
    assert svm.fit(SVM(costs=RECIPE.costs, tolerance=1.0), features, labels).unconverged == 0
    mixed = svm.fit(SVM(costs=(1e-6, 1e6), iterations=50), features, labels)
    assert mixed.unconverged == 3 * 3 + sum(cost == 1e6 for cost in mixed.costs.tolist())
    assert mixed.metrics(features, labels)["unconverged_fits"] == mixed.unconverged


def test_progress_is_told_after_each_fit() -> None:
    features, labels = made(100, seed=0)
    told: list[tuple[int, int]] = []
    svm.fit(SVM(costs=(0.1, 1.0), folds=4), features, labels, progress=lambda done, total: told.append((done, total)))
    assert told == [(i, 27) for i in range(1, 28)]


def test_features_are_left_as_they_are() -> None:
    features, labels = made(100, seed=0)
    doubles = features.double()
    before = doubles.clone()
    svms = svm.fit(RECIPE, doubles, labels)
    svms.scores(doubles)
    assert torch.equal(doubles, before)


@pytest.mark.parametrize(("large", "workers"), [(100 * 12, 7), (100 * 12 + 1, 1)])
def test_one_process_for_each_of_torchs_threads_if_there_is_much_to_do(
    large: int, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    class Recorded(joblib.Parallel):
        def __init__(self, n_jobs: int, **options: Any) -> None:
            asked.append(n_jobs)
            super().__init__(n_jobs=1, **options)

    monkeypatch.setattr(joblib, "Parallel", Recorded)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 7)
    monkeypatch.setattr(svm, "LARGE", large)
    svm.fit(RECIPE, *made(100, seed=0))
    svm.fit(RECIPE, *made(100, seed=0), workers=3)
    assert asked == [workers, 3]


@pytest.fixture
def processes_ended() -> Iterator[None]:
    """joblib would keep them for a few seconds."""
    yield
    from joblib.externals.loky import get_reusable_executor

    get_reusable_executor().shutdown(wait=True)


@pytest.mark.slow
@pytest.mark.usefixtures("processes_ended")
def test_processes_give_the_same_bits() -> None:
    (features, labels), _ = digits()
    recipe = SVM(costs=(1.0, 100.0), iterations=100)
    told: list[int] = []
    alone = svm.fit(recipe, features, labels, workers=1)
    many = svm.fit(recipe, features, labels, workers=2, progress=lambda done, _: told.append(done))
    assert torch.equal(alone.weight, many.weight)
    assert torch.equal(alone.bias, many.bias)
    assert torch.equal(alone.costs, many.costs)
    assert alone.unconverged == many.unconverged > 0
    assert told == list(range(1, 71))


# ------------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_features_that_are_not_finite_are_refused(bad: float) -> None:
    features, labels = made(100, seed=0)
    svms = svm.fit(RECIPE, features, labels)
    features[17, 3] = bad
    with pytest.raises(ValueError, match="finite"):
        svm.fit(RECIPE, features, labels)
    with pytest.raises(ValueError, match="finite"):
        svms.metrics(features, labels)


@pytest.mark.parametrize(
    ("sign", "said"), [(1, "class 1 has 2 positive and 98 "), (0, "class 1 has 98 positive and 2 ")]
)
def test_a_class_with_fewer_samples_than_folds_is_refused(sign: int, said: str) -> None:
    features, labels = made(110, seed=0)
    labels[:, 1] = 1 - sign
    labels[40:50, 1] = IGNORED
    labels[:2, 1] = sign
    with pytest.raises(ValueError, match=f"{said}.* 3 folds"):
        svm.fit(RECIPE, features, labels)
    labels[2, 1] = sign
    svm.fit(RECIPE, features, labels)


def test_a_class_that_no_image_is_of_is_refused() -> None:
    features, _ = made(90, seed=0)
    labels = torch.arange(90) % 3
    with pytest.raises(ValueError, match="class 1 has 0 positive"):
        svm.fit(RECIPE, features, labels * 2)
    with pytest.raises(ValueError, match=r"class 2: .* at least one sample"):
        svm.fit(RECIPE, features, labels).metrics(features, labels % 2)
