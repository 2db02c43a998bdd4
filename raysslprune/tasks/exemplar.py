"""Exemplar, as a triplet loss (Dosovitskiy et al. 2014; Doersch & Zisserman 2017): views of one image are alike."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from raysslprune import catalogue, parallel
from raysslprune.data import Dataset
from raysslprune.data.batches import Batch, still
from raysslprune.data.dataset import sent
from raysslprune.data.views import Views
from raysslprune.data.views import draws as draws_of
from raysslprune.evaluate.metrics import at_once
from raysslprune.spec import Recipe, seed_of
from raysslprune.tasks.task import Task


@dataclass(kw_only=True)
class Exemplar(Task, catalogue.Exemplar):
    """Exemplar: two views of an image should be nearer to each other, by a margin, than to a view of another image.

    The distance is 1 - cosine of the embeddings. The paper gives none of these options (docs/reproducing.md).
    """

    views = 2
    draws = 1
    capturable = True

    def head(self, width: int, data: Dataset) -> nn.Module:
        return nn.Linear(width, self.dimension)

    def sample(self, views: Views, batch: Batch) -> tuple[Tensor, ...]:
        return views(batch, 0), views(batch, 1), sent(batch.own[:, 0], views.data.device)

    def loss(self, net: Callable[[Tensor], Tensor], *parts: Tensor) -> Tensor:
        first, second, drawn = parts
        anchors, positives = F.normalize(net(torch.cat([first, second]))).chunk(2)
        other = others(drawn) if self.negatives == "random" else semi_hard(anchors.detach(), positives.detach())
        return triplet(anchors, positives, positives[other], self.margin)

    @torch.inference_mode()
    def evaluate(self, net: nn.Module, data: Dataset, recipe: Recipe) -> dict[str, float]:
        """Percentage of test images whose two views are closer than the first is to another image's; chance is 50%.

        The views are the same in every training.
        """
        views = Views(data, data.test, recipe)
        generator = torch.Generator().manual_seed(seed_of("triplets"))
        drawn = torch.rand(len(data.test), 2, draws_of(recipe), generator=generator)
        other = others(torch.rand(len(data.test), generator=generator))
        embedded: list[Tensor] = []
        for index in torch.arange(len(data.test))[parallel.span(len(data.test))].split(at_once(data.test)):
            batch = still(data.test, recipe, index[:, None].expand(-1, 2), drawn[index])
            embedded.append(torch.stack([F.normalize(net(views(batch, view))) for view in range(2)], dim=1))
        anchors, positives = parallel.joined(torch.cat(embedded), len(data.test)).cpu().unbind(1)
        nearer = distance(anchors, positives) < distance(anchors, positives[other])
        return {"triplet_accuracy": 100 * int(nearer.sum()) / len(nearer)}


def distance(a: Tensor, b: Tensor) -> Tensor:
    """1 - cosine, row by row, of vectors of length 1."""
    return 1 - (a * b).sum(1)


def triplet(anchors: Tensor, positives: Tensor, negatives: Tensor, margin: float) -> Tensor:
    """Mean of max(D(anchor, positive) - D(anchor, negative) + margin, 0), over rows of length 1."""
    return (distance(anchors, positives) - distance(anchors, negatives) + margin).clamp(min=0).mean()


def others(drawn: Tensor) -> Tensor:
    """For each row, draw the index of another by uniform numbers (n,) in [0, 1). Raises ValueError if n is 1."""
    n = len(drawn)
    if n < 2:
        raise ValueError("a triplet needs two samples or more in a batch")
    step = (drawn * (n - 1)).long().clamp(max=n - 2)
    return (torch.arange(n, device=drawn.device) + 1 + step) % n


def semi_hard(anchors: Tensor, positives: Tensor) -> Tensor:
    """For each anchor, find the row of the nearest other positive farther than its own, or else of the farthest."""
    apart = 1 - anchors @ positives.T
    own = apart.diagonal()[:, None]
    same = torch.eye(len(apart), dtype=torch.bool, device=apart.device)
    farther = apart.masked_fill(same | (apart <= own), torch.inf)
    farthest = apart.masked_fill(same, -torch.inf).argmax(1)
    return torch.where(farther.isfinite().any(1), farther.argmin(1), farthest)
