"""Classification by labels, the supervised task, and the linear classifier on frozen features."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from raysslprune import catalogue
from raysslprune.data import IGNORED, Dataset
from raysslprune.data.batches import Batch
from raysslprune.data.dataset import sent
from raysslprune.data.views import Views
from raysslprune.evaluate.metrics import accuracy, multilabel_map
from raysslprune.spec import Recipe
from raysslprune.tasks.task import Task


@dataclass(kw_only=True)
class Labels(Task, catalogue.Labels):
    """Labels: cross-entropy and top-1 for single labels, a logistic loss per class and mAP for several (VOC07)."""

    capturable = True

    def head(self, width: int, data: Dataset) -> nn.Module:
        last = nn.Linear(width, data.classes)
        return nn.Sequential(nn.BatchNorm1d(width, affine=False), last) if self.standardise else last

    def sample(self, views: Views, batch: Batch) -> tuple[Tensor, Tensor]:
        labels = views.split.labels
        return views(batch), labels[sent(batch.index[:, 0], labels.device)]

    def loss(self, net: Callable[[Tensor], Tensor], *parts: Tensor) -> Tensor:
        images, labels = parts
        outputs = net(images)
        return F.cross_entropy(outputs, labels) if labels.ndim == 1 else logistic(outputs, labels)

    def evaluate(self, net: nn.Module, data: Dataset, recipe: Recipe) -> dict[str, float]:
        if data.multilabel:
            return {"map": multilabel_map(net, data, data.test)}
        return {"top1": accuracy(net, data, data.test)}


def logistic(outputs: Tensor, labels: Tensor) -> Tensor:
    """Binary cross-entropy, summed over the classes not ignored, averaged over samples. Arguments: (n, classes)."""
    each = F.binary_cross_entropy_with_logits(outputs, (labels == 1).to(outputs), reduction="none")
    return (each * (labels != IGNORED)).sum() / len(outputs)
