"""Parts of a training set (paper 4.2.2): some images of each class, or all images of some classes.

Which ones depends on nothing but the labels, so everybody who has the data set has the same subset: numpy's
``RandomState``, whose stream is fixed for ever, shuffles each class's images (in the data set's order, by a seed of
that class), and the first ``round(fraction * count)`` of them are taken, at least one; or it shuffles the classes.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from raysslprune import catalogue
from raysslprune.data.dataset import Dataset

SEED = 20200110


def of(data: Dataset, subset: str) -> Dataset:
    """The data set with that part of its training images.

    ``10%-of-images``: of each class; the test set is untouched. ``10%-of-classes``: the test set too is of these
    classes only, and they are numbered from 0 on in their old order.

    Raises ValueError for images of several classes at once.
    """
    index, labels = choose(data, subset)
    train = data.train.some(index, labels)
    classes = int(labels.max()) + 1
    if subset.endswith("images"):
        return replace(data, train=train)
    number = {int(old): int(new) for old, new in zip(data.train.labels[index], labels, strict=True)}
    kept = torch.tensor([i for i, label in enumerate(data.test.labels.tolist()) if label in number], dtype=torch.int64)
    renumbered = torch.tensor([number[label] for label in data.test.labels[kept].tolist()], dtype=torch.int64)
    return replace(data, train=train, test=data.test.some(kept, renumbered), classes=classes)


def choose(data: Dataset, subset: str) -> tuple[Tensor, Tensor]:
    """Indices of the training images in a subset, ascending, and their labels in it."""
    match = catalogue.SUBSET.fullmatch(subset)
    if match is None:
        raise ValueError(f"subset {subset!r} is not of the form '10%-of-images' or '10%-of-classes'")
    if data.multilabel:
        raise ValueError("subsets are of data sets with one class for each image")
    fraction, labels = int(match[1]) / 100, data.train.labels.cpu().numpy()
    classes = np.unique(labels)
    if match[2] == "classes":
        chosen = np.sort(np.random.RandomState(SEED).permutation(classes)[: _count(fraction, len(classes))])
        index = np.flatnonzero(np.isin(labels, chosen))
        return torch.from_numpy(index), torch.from_numpy(np.searchsorted(chosen, labels[index]))
    order = np.argsort(labels, kind="stable")
    members = np.split(order, np.searchsorted(labels[order], classes[1:]))
    shuffled = [np.random.RandomState([SEED, c]).permutation(m) for c, m in zip(classes, members, strict=True)]
    index = np.sort(np.concatenate([m[: _count(fraction, len(m))] for m in shuffled]))
    return torch.from_numpy(index), torch.from_numpy(labels[index])


def _count(fraction: float, whole: int) -> int:
    return max(1, round(fraction * whole))
