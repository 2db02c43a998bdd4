"""The embedded data set, against scikit-learn's own loader."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from raysslprune import data
from raysslprune.data import Resident, digits


def loaded() -> tuple[Resident, Resident]:
    found = digits.Digits().load(Path())
    assert isinstance(found.train, Resident)
    assert isinstance(found.test, Resident)
    return found.train, found.test


def test_is_what_scikit_learn_loads() -> None:
    pixels, labels = load_digits(return_X_y=True)
    table = digits.read()
    assert np.array_equal(table[:, :-1], pixels)
    assert np.array_equal(table[:, -1], labels)


def test_split_is_stratified_disjoint_and_complete() -> None:
    (train_images, train_labels), (test_images, test_labels) = ((split.images, split.labels) for split in loaded())
    assert (len(train_labels), len(test_labels)) == (1200, 597)
    assert train_images.shape[1:] == test_images.shape[1:] == (1, 8, 8)
    assert train_images.dtype == torch.uint8
    assert int(train_images.max()) == 16
    digits_of: Any = load_digits()
    pixels, labels = digits_of.data, digits_of.target
    rows = [tuple(row) for row in np.column_stack([pixels, labels]).astype(int)]
    images, targets = torch.cat([train_images, test_images]), torch.cat([train_labels, test_labels])
    split = [tuple(row) for row in torch.cat([images.flatten(1).long(), targets[:, None]], 1).tolist()]
    assert sorted(rows) == sorted(split)
    for label in range(10):
        share = (labels == label).mean()
        assert abs(int((train_labels == label).sum()) - 1200 * share) < 1


def test_split_is_the_same_for_everybody() -> None:
    """A checksum of the split: a change here changes what every stored result was measured on."""
    train_images, train_labels = loaded()[0].images, loaded()[0].labels
    weights = torch.arange(1, train_labels.numel() + 1)
    assert int((train_labels * weights).sum()) == SPLIT_LABELS
    assert int((train_images.flatten(1).long().sum(1) * weights).sum()) == SPLIT_PIXELS


SPLIT_LABELS = 3_272_236
SPLIT_PIXELS = 224_470_432


def test_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"known: digits"):
        data.load("nothing")
