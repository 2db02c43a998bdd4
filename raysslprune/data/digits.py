"""scikit-learn's handwritten digits: 1,797 real 8x8 images that come inside its wheel, so nothing is downloaded."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor

TRAIN = 1200
SPLIT_SEED = 20200116
"""Of the one fixed split that everybody gets; numpy guarantees RandomState's stream for ever."""


def load() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """1,200 training and 597 test images, every class in its share. uint8 from 0 to 16, (n, 1, 8, 8)."""
    digits: Any = load_digits()
    train, test = stratified(digits.target, TRAIN, np.random.RandomState(SPLIT_SEED))
    images = torch.from_numpy(digits.images.astype(np.uint8)).unsqueeze(1)
    targets = torch.from_numpy(digits.target.astype(np.int64))
    return images[train], targets[train], images[test], targets[test]


def stratified(labels: np.ndarray, count: int, rng: np.random.RandomState) -> tuple[np.ndarray, np.ndarray]:
    """Indices of ``count`` samples, each class in its share (largest remainders), and of the others; both sorted."""
    sizes = np.bincount(labels)
    shares = sizes * count / len(labels)
    take = np.floor(shares).astype(int)
    take[np.argsort(take - shares, kind="stable")[: count - take.sum()]] += 1
    chosen = [rng.permutation(np.flatnonzero(labels == c))[:n] for c, n in enumerate(take)]
    first = np.sort(np.concatenate(chosen))
    return first, np.setdiff1d(np.arange(len(labels)), first)
