"""Measurements on a trained network, by one or several processes; every sample counts once.

Linear SVMs on its features are in ``evaluate/svm.py``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from raysslprune import parallel
from raysslprune.data import IGNORED, Dataset, Split
from raysslprune.masks import Mask
from raysslprune.spec import NATURAL_SPARSITIES

BATCH, GPU_BATCH = 1024, 4096
"""Maximum images that are evaluated at once, on a CPU and a GPU; fewer would not fill a GPU."""

PIXELS = 1 << 24
"""Maximum pixels that are evaluated at once, unless one image has more: 334 images of 224 x 224."""

# ------------------------------------------------------------------------------------- of a network


def at_once(split: Split) -> int:
    """Number of images of a split that are evaluated together."""
    return max(1, min(GPU_BATCH if split.labels.is_cuda else BATCH, PIXELS // split.size**2))


def part(split: Split) -> Split:
    """The part of a split that this process evaluates."""
    mine = parallel.span(len(split))
    return split if mine == slice(0, len(split)) else split.some(torch.arange(mine.start, mine.stop))


@torch.inference_mode()
def accuracy(net: Callable[[Tensor], Tensor], data: Dataset, split: Split) -> float:
    """Top-1 accuracy in percent on a split with one class for each image; ``net`` in eval mode."""
    hits = torch.zeros((), dtype=torch.int64, device=data.device)
    for images, labels in data.batches(part(split), at_once(split)):
        hits += (net(images).argmax(1) == labels).sum()
    return 100 * int(parallel.total(hits, len(split))) / len(split)  # the one wait for the device


def features(net: nn.Module, data: Dataset, split: Split) -> Tensor:
    """Outputs of ``net``, in eval mode, for all images of a split, in order: float32 (n, f), on the CPU."""
    with torch.inference_mode():
        parts = [net(images).float().cpu() for images, _ in data.batches(part(split), at_once(split))]
    rows = torch.cat(parts)  # outside inference mode, so that a head can be trained on it
    return rows if parallel.ranks() == 1 else parallel.joined(rows.to(data.device), len(split)).cpu()


def multilabel_map(net: nn.Module, data: Dataset, split: Split) -> float:
    """Mean average precision, in percent, of the outputs of ``net``, in eval mode, with one output for each class.

    Raises ValueError as :func:`mean_average_precision` does.
    """
    return mean_average_precision(features(net, data, split), split.labels.cpu())


# ------------------------------------------------------------------------------------- average precision


def average_precision(scores: Tensor, present: Tensor) -> float:
    """Area under the precision-recall curve of one class, from 0 to 1, as VOC defines it since 2010.

    The precision at a recall is the highest at this recall or above; all points of the curve count, not only eleven.
    Samples with equal scores are retrieved together, so their order has no influence.

    scores: (n,), high where the class is predicted. present: bool (n,).
    Raises ValueError if the class has no sample, or a score is NaN.
    """
    positives = int(present.sum())
    if positives == 0:
        raise ValueError("average precision needs at least one sample of the class")
    if scores.isnan().any():
        raise ValueError("average precision needs scores that are numbers, not NaN")
    scores, order = scores.sort(descending=True)
    last = torch.cat([scores[1:] != scores[:-1], scores.new_ones(1, dtype=torch.bool)])  # of equal scores
    found = present[order].cumsum(0)[last]
    retrieved = last.nonzero().flatten() + 1
    precision = (found.double() / retrieved).flip(0).cummax(0).values.flip(0)
    gained = found.diff(prepend=found.new_zeros(1))
    return float((gained * precision).sum() / positives)


def mean_average_precision(scores: Tensor, labels: Tensor) -> float:
    """The mean over classes of :func:`average_precision`, in percent.

    scores: (n, classes). labels: as in data.Split; single labels count as one class against all others. Each class
    leaves out the samples that are ignored for it. Raises ValueError for a class without samples, and for a NaN.
    """
    found = presence(labels, scores.shape[1])
    total = 0.0
    for c in range(scores.shape[1]):
        counted = found[:, c] != IGNORED
        try:
            total += average_precision(scores[counted, c], found[counted, c] == 1)
        except ValueError as error:
            raise ValueError(f"class {c}: {error}") from None
    return 100 * total / scores.shape[1]


def presence(labels: Tensor, classes: int) -> Tensor:
    """Convert labels of either form of data.Split to int8 (n, classes) of 1, 0 and IGNORED."""
    return labels if labels.ndim == 2 else F.one_hot(labels, classes).to(torch.int8)


def chance(labels: Tensor, classes: int) -> dict[str, float]:
    """Return what guessing gives in percent, by metric: ``top1`` by the most frequent class, ``map`` by random scores.

    The average precision of random scores is about the share of the class. Labels as in data.Split; with several for an
    image there is no top1, and a class leaves out the samples that are ignored for it.
    """
    found = presence(labels, classes)
    counted = (found != IGNORED).sum(0).clamp(min=1)
    shares = 100 * (found == 1).sum(0).double() / counted
    by_score = {"map": float(shares.mean())}
    return by_score if labels.ndim == 2 else {"top1": float(shares.max()), **by_score}


# ------------------------------------------------------------------------------------- nearest neighbours

SIMILARITIES = 1 << 25
"""Maximum similarities in memory at once, unless the training set is larger: 128 MiB."""


def knn_accuracy(
    train_features: Tensor,
    train_labels: Tensor,
    test_features: Tensor,
    test_labels: Tensor,
    temperature: float,
    neighbours: int = 200,
) -> float:
    """Top-1 accuracy in percent of NPID's weighted nearest neighbours (Wu et al. 2018).

    Each of the ``neighbours`` training samples (all, if there are fewer) with the highest cosine similarity votes
    for its class with weight exp(similarity / temperature). Features (n, f), labels int64 (n,).
    Raises ValueError for features that are not finite.
    """
    if not (train_features.isfinite().all() and test_features.isfinite().all()):
        raise ValueError("nearest neighbours need finite features")
    known, asked = F.normalize(train_features.float()), F.normalize(test_features.float())
    neighbours, classes = min(neighbours, len(known)), int(train_labels.max()) + 1
    rows = max(1, SIMILARITIES // len(known))
    hits = 0
    for some, wanted in zip(asked.split(rows), test_labels.split(rows), strict=True):
        similarity, nearest = (some @ known.T).topk(neighbours)
        weight = ((similarity - similarity[:, :1]) / temperature).exp()  # relative to the highest: can't overflow
        votes = weight.new_zeros(len(some), classes).scatter_add_(1, train_labels[nearest], weight)
        hits += int((votes.argmax(1) == wanted).sum())
    return 100 * hits / len(test_labels)


# ------------------------------------------------------------------------------------- collapse


def spread(rows: Tensor) -> float:
    """Standard deviation of the rows at length 1, times sqrt(f), as Chen & He 2021 measure it. rows: (n, f).

    0 if all rows have one direction, 1 if directions are uniform (https://arxiv.org/abs/2011.10566). A row of zeros
    stays one.
    """
    return math.sqrt(float(F.normalize(rows.double()).var(0, unbiased=False).sum()))


def effective_rank(rows: Tensor) -> float:
    """Effective rank of Roy & Vetterli 2007: exp of the entropy of the singular values, at sum 1. rows: (n, f).

    1 if all rows are multiples of one, f if all directions are equal; Garrido et al. 2023
    (https://arxiv.org/abs/2210.02885) judge features by it. The rows are not centred, so noise around one row is not
    taken for features. Singular values below 1e-8 of the largest count as 0. 0 if all rows are 0.
    """
    exact = rows.double()
    gram = exact.T @ exact if exact.shape[0] > exact.shape[1] else exact @ exact.T
    squares = torch.linalg.eigvalsh(gram)
    values = squares[squares > 1e-16 * squares[-1]].sqrt()
    return float(torch.special.entr(values / values.sum()).sum().exp()) if len(values) else 0.0


# ------------------------------------------------------------------------------------- natural sparsity


def natural_sparsity(weights: Mapping[str, Tensor], mask: Mask) -> dict[str, float]:
    """Percentage of zeros among the weights that ``mask`` leaves (paper 4.3).

    There is a metric for each of NATURAL_SPARSITIES, since "zero" depends on the threshold; all are 0 if the mask
    leaves no weight. weights: float, by the names in ``mask``.
    """
    kept = [weights[name].detach()[m.to(weights[name].device)].float().abs() for name, m in mask.items()]
    left = sum(len(magnitude) for magnitude in kept)
    # Every threshold is a normal number, so a subnormal weight is below it even if torch flushes it to 0.
    zeros = {name: sum(int((magnitude <= at).sum()) for magnitude in kept) for name, at in NATURAL_SPARSITIES.items()}
    return {name: 100 * count / max(1, left) for name, count in zeros.items()}
