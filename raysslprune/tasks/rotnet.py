"""RotNet (Gidaris et al.): which of four quarter turns was applied to the image? One random turn for each view."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from raysslprune.data import Dataset
from raysslprune.data.stream import Batch
from raysslprune.data.views import DRAWS, Views
from raysslprune.evaluate import accuracy

TURNS = 4


class RotNet:
    draws = DRAWS + 1

    def outputs(self, data: Dataset) -> int:
        return TURNS

    def sample(self, views: Views, batch: Batch) -> tuple[Tensor, Tensor]:
        turns = (batch.draws[:, DRAWS] * TURNS).long().to(views.pixels.device)
        return views(batch, turns), turns

    def loss(self, net: Callable[[Tensor], Tensor], *parts: Tensor) -> Tensor:
        images, turns = parts
        return F.cross_entropy(net(images), turns)

    def evaluate(self, net: nn.Module, data: Dataset) -> dict[str, float]:
        """Accuracy over all four turns of every test image: chance is 25%."""
        images = torch.cat([data.test.images.rot90(turns, (2, 3)) for turns in range(TURNS)])
        turns = torch.arange(TURNS, device=images.device).repeat_interleave(len(data.test))
        return {"rotation_top1": accuracy(net, data, images, turns)}
