"""S4L with rotations (Zhai et al. 2019): labels on some of the images, RotNet on all of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from raysslprune import catalogue
from raysslprune.data import Dataset, subsets
from raysslprune.data.batches import Batch
from raysslprune.data.dataset import sent
from raysslprune.data.views import Views
from raysslprune.evaluate.metrics import accuracy
from raysslprune.spec import Recipe
from raysslprune.tasks.rotnet import TURNS, all_turns, rotation_accuracy
from raysslprune.tasks.task import Task


@dataclass(kw_only=True)
class S4L(Task, catalogue.S4L):
    """S4L: each sample is a labelled image and another of the whole training set, both in all four turns.

    The loss is the cross-entropy of the labels plus ``weight`` times the rotation loss on all turns of both images (the
    paper's plain sum: 1). An epoch is a pass over the labelled images.
    """

    views = 2
    partner = True
    capturable = True

    def begin(self, data: Dataset, generator: torch.Generator) -> None:
        self.classes = subsets.of(data, self.labelled).classes
        self.index, labels = subsets.choose(data, self.labelled)
        self.labels = torch.full((len(data.train),), -1)
        self.labels[self.index] = labels
        self.labels = self.labels.to(data.device)

    def pool(self) -> Tensor:
        return self.index

    def head(self, width: int, data: Dataset) -> nn.Module:
        """A linear layer whose outputs are the classes, then the four turns."""
        return nn.Linear(width, self.classes + TURNS)

    def sample(self, views: Views, batch: Batch) -> tuple[Tensor, ...]:
        return views(batch, 0), views(batch, 1), self.labels[sent(batch.index[:, 0], self.labels.device)]

    def loss(self, net: Callable[[Tensor], Tensor], *parts: Tensor) -> Tensor:
        labelled, unlabelled, labels = parts
        (first, turns), (second, _) = all_turns(labelled), all_turns(unlabelled)
        outputs = net(torch.cat([first, second]))
        return s4l(outputs, labels.repeat(TURNS if self.labels_turned else 1), turns.repeat(2), self.weight)

    def evaluate(self, net: nn.Module, data: Dataset, recipe: Recipe) -> dict[str, float]:
        classes, part = self.classes, subsets.of(data, self.labelled)
        return {
            "top1": accuracy(lambda images: net(images)[:, :classes], part, part.test),
            "rotation_top1": rotation_accuracy(lambda images: net(images)[:, classes:], data),
        }


def s4l(outputs: Tensor, labels: Tensor, turns: Tensor, weight: float) -> Tensor:
    """Cross-entropy of the labels, which the first rows have, plus ``weight`` times that of the turns of all rows.

    outputs: (n, classes + 4). labels: (labelled rows,). turns: (n,).
    """
    by_class, by_turn = outputs.split([outputs.shape[1] - TURNS, TURNS], dim=1)
    return F.cross_entropy(by_class[: len(labels)], labels) + weight * F.cross_entropy(by_turn, turns)
