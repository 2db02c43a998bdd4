"""Handwritten digits of scikit-learn: 1,797 real 8x8 images that come inside its wheel, so nothing is downloaded."""

from __future__ import annotations

from importlib.metadata import distribution
from pathlib import Path

import numpy as np
import torch

from raysslprune.data.dataset import Dataset, no_argument, resident

TRAIN = 1200
SPLIT_SEED = 20200116
"""Seed of the only split; numpy guarantees that RandomState's stream never changes."""


class Digits:
    """1,200 training and 597 test images, stratified by class. uint8 from 0 to 16, (n, 1, 8, 8)."""

    def __init__(self, argument: str = "") -> None:
        no_argument("digits", argument)

    def locate(self, root: Path, fetch: bool = False) -> None:
        """Do nothing: the images come with scikit-learn."""

    def load(self, root: Path) -> Dataset:
        table = read()
        labels = table[:, -1].astype(np.int64)
        train, test = stratified(labels, TRAIN, np.random.RandomState(SPLIT_SEED))
        images = torch.from_numpy(table[:, :-1].astype(np.uint8)).view(-1, 1, 8, 8)
        targets = torch.from_numpy(labels)
        return resident((images[train], targets[train]), (images[test], targets[test]))


def read() -> np.ndarray:
    """Read the file behind ``sklearn.datasets.load_digits``: float64 (1797, 65), for each image 64 pixels and a label.

    scikit-learn is not imported: that would take every worker two to four seconds.
    """
    path = Path(str(distribution("scikit-learn").locate_file("sklearn/datasets/data/digits.csv.gz")))
    return np.loadtxt(path, delimiter=",")


def stratified(labels: np.ndarray, count: int, rng: np.random.RandomState) -> tuple[np.ndarray, np.ndarray]:
    """Indices of ``count`` samples, stratified by class (largest remainders), and of the others; both sorted."""
    sizes = np.bincount(labels)
    shares = sizes * count / len(labels)
    take = np.floor(shares).astype(int)
    take[np.argsort(take - shares, kind="stable")[: count - take.sum()]] += 1
    chosen = [rng.permutation(np.flatnonzero(labels == c))[:n] for c, n in enumerate(take)]
    first = np.sort(np.concatenate(chosen))
    return first, np.setdiff1d(np.arange(len(labels)), first)
