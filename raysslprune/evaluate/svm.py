"""Linear SVMs on frozen features: the VOC07 benchmark of Goyal et al. 2019, by scikit-learn."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor

from raysslprune.data import IGNORED
from raysslprune.evaluate.metrics import mean_average_precision, presence
from raysslprune.spec import SVM

if TYPE_CHECKING:
    from sklearn.svm import LinearSVC

LARGE = 1 << 22
"""Number of values in the features from which it is worth starting processes, which takes seconds."""

IDLE = 10
"""Seconds after which an idle process ends."""


@dataclass(frozen=True, kw_only=True)
class LinearSVMs:
    """One SVM for each class, on features divided by their length.

    weight: float64 (classes, f). bias, costs: float64 (classes,).
    unconverged: number of fits, including cross-validation, that reached the limit of iterations.
    """

    weight: Tensor
    bias: Tensor
    costs: Tensor
    unconverged: int

    def scores(self, features: Tensor) -> Tensor:
        """Decision values, float64 (n, classes), above 0 if predicted. Raises ValueError for NaN or infinity."""
        return _normalised(features) @ self.weight.T + self.bias

    def metrics(self, features: Tensor, labels: Tensor) -> dict[str, float]:
        """Metrics: ``map`` in percent; ``top1`` in percent if each image is of one class; ``unconverged_fits``.

        features: (n, f). labels: as in data.Split; each class leaves out the images that are ignored for it.
        Raises ValueError for a class without an image, and features that are not finite.
        """
        scores = self.scores(features)
        metrics = {"map": mean_average_precision(scores, labels), "unconverged_fits": float(self.unconverged)}
        if labels.ndim == 1:
            metrics["top1"] = 100 * int((scores.argmax(1) == labels).sum()) / len(labels)
        return metrics


def fit(
    recipe: SVM,
    features: Tensor,
    labels: Tensor,
    workers: int | None = None,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> LinearSVMs:
    """Fit an SVM for each class, with the cost that has the best average precision, averaged over validation folds.

    The folds are stratified and in the order of the samples; of equally good costs the smallest is taken; the SVM is
    then fitted to all samples. Only this choice uses scikit-learn's average precision, which does not interpolate.
    Samples ignored for a class are left out: an image whose only cat is hard to see is no fair negative for cats.
    (The benchmark's own code leaves them out in testing only.)

    features: (n, f), on the CPU. labels: as in data.Split.
    workers: number of processes; None: as many as torch has threads, or one if the features are not LARGE. The result
        does not depend on it.
    progress: called after each fit with the number of finished fits and of all fits.

    Raises ValueError for features that are not finite, and for a class with fewer positive or negative samples than
    folds.
    """
    from joblib import Parallel, delayed

    classes = labels.shape[1] if labels.ndim == 2 else int(labels.max()) + 1
    x, signs = _normalised(features).numpy(), _signs(presence(labels, classes))
    rows = [np.flatnonzero(column) for column in signs.T]
    folds = [list(_folds(signs[:, c], rows[c], recipe.folds, c)) for c in range(classes)]
    total = classes * (len(recipe.costs) * recipe.folds + 1)
    done = unconverged = 0

    def results(tasks: Iterable[Any]) -> Iterator[Any]:
        nonlocal done, unconverged
        for result, converged in cast(Iterator[Any], parallel(tasks)):
            done, unconverged = done + 1, unconverged + (not converged)
            progress(done, total)
            yield result

    if workers is None:
        workers = torch.get_num_threads() if x.size >= LARGE else 1
    # Processes, not threads: threads would share liblinear's one random number generator, so that no two runs
    # would be the same (scikit-learn's issue 31883).
    with Parallel(n_jobs=workers, backend="loky", return_as="generator", idle_worker_timeout=IDLE) as parallel:
        precisions = results(
            delayed(_validate)(recipe, cost, x, signs[:, c], train, test)
            for c in range(classes)
            for cost in recipe.costs
            for train, test in folds[c]
        )
        each = np.fromiter(precisions, float).reshape(classes, len(recipe.costs), recipe.folds)
        costs = [recipe.costs[i] for i in each.mean(2).argmax(1)]
        final = results(delayed(_refit)(recipe, costs[c], x, signs[:, c], rows[c]) for c in range(classes))
        weights = torch.from_numpy(np.stack(list(final)))
    return LinearSVMs(
        weight=weights[:, :-1].contiguous(),
        bias=weights[:, -1].contiguous(),
        costs=torch.tensor(costs, dtype=torch.float64),
        unconverged=unconverged,
    )


def _normalised(features: Tensor) -> Tensor:
    """Rows divided by their lengths, contiguous, in float64, the only type that liblinear computes in."""
    if not features.isfinite().all():
        raise ValueError("linear SVMs need finite features")
    x = features.double().contiguous()
    return x / (x.norm(dim=1, keepdim=True) + 1e-5)


def _signs(found: Tensor) -> np.ndarray:
    """Convert 1, 0 and IGNORED to 1, -1 and 0."""
    return torch.where(found == IGNORED, 0, torch.where(found == 1, 1, -1)).to(torch.int8).numpy()


def _folds(signs: np.ndarray, rows: np.ndarray, count: int, c: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the rows to fit and the rows to test on, for each fold of class ``c``."""
    from sklearn.model_selection import StratifiedKFold

    positives = int((signs == 1).sum())
    if min(positives, len(rows) - positives) < count:
        raise ValueError(
            f"class {c} has {positives} positive and {len(rows) - positives} negative samples; "
            f"cross-validation in {count} folds needs at least {count} of each"
        )
    for train, test in StratifiedKFold(count).split(rows, signs[rows]):
        yield rows[train], rows[test]


def _validate(
    recipe: SVM, cost: float, x: np.ndarray, signs: np.ndarray, train: np.ndarray, test: np.ndarray
) -> tuple[float, bool]:
    """Average precision on the rows ``test`` of an SVM fitted to the rows ``train``, and whether it converged."""
    from sklearn.metrics import average_precision_score

    svm = _fit(recipe, cost, x[train], signs[train])
    score = average_precision_score(signs[test], svm.decision_function(x[test]))
    return float(score), svm.n_iter_ < recipe.iterations


def _refit(recipe: SVM, cost: float, x: np.ndarray, signs: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, bool]:
    """The weights and the bias, in one array, of an SVM fitted to these rows, and whether it converged."""
    svm = _fit(recipe, cost, x[rows], signs[rows])
    return np.append(svm.coef_[0], svm.intercept_), svm.n_iter_ < recipe.iterations


def _fit(recipe: SVM, cost: float, x: np.ndarray, signs: np.ndarray) -> LinearSVC:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.svm import LinearSVC

    svm = LinearSVC(
        C=cost,
        loss="squared_hinge",
        penalty="l2",
        dual=True,  # pyright: ignore[reportArgumentType]
        tol=recipe.tolerance,
        max_iter=recipe.iterations,
        class_weight={1: recipe.positive_weight, -1: 1.0},
        random_state=0,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # counted instead
        return svm.fit(x, signs)
