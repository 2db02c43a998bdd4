"""RotNet (Gidaris et al. 2018): which of four quarter turns was applied to the image?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from raysslprune import catalogue, parallel
from raysslprune.data import Dataset
from raysslprune.data.batches import Batch
from raysslprune.data.dataset import sent
from raysslprune.data.views import Views
from raysslprune.evaluate.metrics import at_once, part
from raysslprune.spec import Recipe
from raysslprune.tasks.task import Task

TURNS = 4


@dataclass(kw_only=True)
class RotNet(Task, catalogue.RotNet):
    """RotNet: predict the turn of a view, which comes in one of four turns, or in all of them."""

    draws = 1
    capturable = True

    def head(self, width: int, data: Dataset) -> nn.Module:
        return nn.Linear(width, TURNS)

    def sample(self, views: Views, batch: Batch) -> tuple[Tensor, ...]:
        if self.all_turns:
            return (views(batch),)
        turns = sent((batch.own[:, 0] * TURNS).long(), views.data.device)
        return views(batch, turns=turns), turns

    def loss(self, net: Callable[[Tensor], Tensor], *parts: Tensor) -> Tensor:
        images, turns = all_turns(parts[0]) if self.all_turns else parts
        return F.cross_entropy(net(images), turns)

    def evaluate(self, net: nn.Module, data: Dataset, recipe: Recipe) -> dict[str, float]:
        """Accuracy over all four turns of every test image: chance is 25%."""
        return {"rotation_top1": rotation_accuracy(net, data)}


def all_turns(images: Tensor) -> tuple[Tensor, Tensor]:
    """All images turned by none, one, two and three quarters, (4 n, c, s, s), in this order; and the turns (4 n,)."""
    turns = torch.arange(TURNS, device=images.device).repeat_interleave(len(images))
    turned = torch.cat([images.rot90(turn, (2, 3)) for turn in range(TURNS)])
    return turned.contiguous(memory_format=torch.channels_last), turns


@torch.inference_mode()
def rotation_accuracy(net: Callable[[Tensor], Tensor], data: Dataset) -> float:
    """Accuracy of ``net``'s four outputs over all turns of every test image, in percent."""
    hits = torch.zeros((), dtype=torch.int64, device=data.device)
    for images, _ in data.batches(part(data.test), max(1, at_once(data.test) // TURNS)):
        turned, turns = all_turns(images)
        hits += (net(turned).argmax(1) == turns).sum()
    return 100 * int(parallel.total(hits, len(data.test))) / (TURNS * len(data.test))
