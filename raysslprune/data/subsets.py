"""Parts of a training set: some images of each class, all images of some classes (paper 4.2.2), or all but those held
out for validation.

The choice depends only on the labels, so the subset is the same everywhere. numpy's ``RandomState``, whose stream never
changes, shuffles the images of each class (from the data set's order, with a seed for the class), or else the classes;
the first ``round(fraction * count)`` are taken, at least one. Held out are the images that the subset of as many images
would take.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from raysslprune import catalogue
from raysslprune.data.dataset import Dataset, Split

SEED = 20200110


def of(data: Dataset, subset: str) -> Dataset:
    """The data set with a subset of its training images.

    ``10%-of-images`` takes 10% of each class and leaves the test set as it is. ``10%-of-classes`` limits the test
    and the validation set to the same classes too, and renumbers these from 0 in their old order. ``10%-held-out``
    makes 10% of each class the validation set and leaves the others for training. Normalisation stays that of the
    whole data set, so that a network can move between its subsets.

    Raises ValueError for a malformed subset, if images may be of several classes, and if a class would lose all images.
    """
    index, labels = choose(data, subset)
    train = data.train.some(index, labels)
    classes = int(labels.max()) + 1
    if subset.endswith("images"):
        return replace(data, train=train)
    if catalogue.is_held_out(subset):
        others = torch.ones(len(data.train), dtype=torch.bool).index_fill_(0, index, False)
        return replace(data, train=train, validation=data.train.some(others.nonzero().flatten()))
    number = {int(old): int(new) for old, new in zip(data.train.labels[index], labels, strict=True)}
    validation = data.validation and _renumbered(data.validation, number)
    return replace(data, train=train, test=_renumbered(data.test, number), validation=validation, classes=classes)


def _renumbered(split: Split, number: Mapping[int, int]) -> Split:
    """Return the images of a split whose labels have a new number, with this number."""
    kept = torch.tensor([i for i, label in enumerate(split.labels.tolist()) if label in number], dtype=torch.int64)
    renumbered = torch.tensor([number[label] for label in split.labels[kept].tolist()], dtype=torch.int64)
    return split.some(kept, renumbered)


def choose(data: Dataset, subset: str) -> tuple[Tensor, Tensor]:
    """Indices of the training images in a subset, ascending, and their labels in it. Raises as :func:`of` does."""
    return among(data.train.labels, subset)


def among(given: Tensor, subset: str) -> tuple[Tensor, Tensor]:
    """Do what :func:`choose` does, from the labels of the training images alone."""
    catalogue.check_subset(subset)
    if given.ndim == 2:
        raise ValueError(f"subset {subset!r} needs a data set with one class for each image")
    percent, _, kind = subset.partition("%-")
    fraction, labels = int(percent) / 100, given.cpu().numpy()
    classes = np.unique(labels)
    if kind == "of-classes":
        chosen = np.sort(np.random.RandomState(SEED).permutation(classes)[: _count(fraction, len(classes))])
        index = np.flatnonzero(np.isin(labels, chosen))
        return torch.from_numpy(index), torch.from_numpy(np.searchsorted(chosen, labels[index]))
    order = np.argsort(labels, kind="stable")
    members = np.split(order, np.searchsorted(labels[order], classes[1:]))
    shuffled = [np.random.RandomState([SEED, c]).permutation(m) for c, m in zip(classes, members, strict=True)]
    index = np.sort(np.concatenate([m[: _count(fraction, len(m))] for m in shuffled]))
    if catalogue.is_held_out(subset):
        index = np.setdiff1d(np.arange(len(labels)), index)
        if lost := sorted({*classes.tolist()}.difference(labels[index].tolist())):
            raise ValueError(
                f"subset {subset!r} leaves no image of class {lost[0]} for training; hold out fewer images"
            )
    return torch.from_numpy(index), torch.from_numpy(labels[index])


def _count(fraction: float, whole: int) -> int:
    return max(1, round(fraction * whole))
