"""Classification by labels, the supervised task."""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

from raysslprune.data import Dataset
from raysslprune.data.stream import Batch
from raysslprune.data.views import DRAWS, Views
from raysslprune.evaluate import accuracy


class Labels:
    draws = DRAWS

    def outputs(self, data: Dataset) -> int:
        return data.classes

    def sample(self, views: Views, batch: Batch) -> tuple[Tensor, Tensor]:
        return views(batch), views.data.train.labels[batch.index.to(views.pixels.device)]

    def loss(self, net: Callable[[Tensor], Tensor], *parts: Tensor) -> Tensor:
        images, labels = parts
        return F.cross_entropy(net(images), labels)

    def evaluate(self, net: nn.Module, data: Dataset) -> dict[str, float]:
        return {"top1": accuracy(net, data, data.test.images, data.test.labels)}
