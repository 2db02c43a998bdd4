"""MoCo v2 (He et al. 2020; Chen et al. 2020): which of the embeddings in a queue is of the same image?"""

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
from raysslprune.models import Network
from raysslprune.spec import Recipe
from raysslprune.tasks.two_views import Average, TwoViews, mlp


@dataclass(kw_only=True)
class MoCo(TwoViews, catalogue.MoCo):
    """MoCo: tell an image's key from those of earlier batches. Keys are second views' embeddings by a moving average.

    After each update, the keys of its images go to the front of the queue, equally on all ranks. The images whose keys
    share BatchNorm statistics are drawn anew from the whole batch, as otherwise the statistics would betray the key.

    state: ``queue`` (queue, dimension), of length 1; ``average.*``, the moving average.
    """

    draws = 1
    whole_batch = True

    def begin(self, data: Dataset, generator: torch.Generator) -> None:
        queue = F.normalize(torch.randn(self.queue, self.dimension, generator=generator))
        self.state = {"queue": queue.to(data.device)}

    def head(self, width: int, data: Dataset) -> nn.Module:
        return mlp(width, self.hidden, self.dimension, norm=False)

    def meet(self, net: Network, recipe: Recipe) -> None:
        self.average = Average(net.trunk, net.head, recipe)
        self.keeps = torch.tensor(self.ema, device=self.state["queue"].device)
        self.state |= {f"average.{name}": weight for name, weight in self.average.net.named_parameters()}

    def twin(self) -> nn.Module:
        return self.average.net.trunk

    def sample(self, views: Views, batch: Batch) -> tuple[Tensor, ...]:
        return *super().sample(views, batch), sent(batch.own[:, 0], views.data.device)

    def loss(self, net: Callable[[Tensor], Tensor], *parts: Tensor) -> Tensor:
        images, others, drawn = parts
        self.keys = self.shuffled_keys(others, drawn)
        own = self.keys[parallel.rank() * len(images) :][: len(images)]
        return info_nce(F.normalize(net(images)), own, self.state["queue"], self.temperature)

    def shuffled_keys(self, images: Tensor, drawn: Tensor) -> Tensor:
        """Keys of the images of all ranks, in order. drawn: numbers whose order is that in which keys are computed."""
        order = parallel.gathered(drawn).argsort(stable=True)
        mine = order[parallel.rank() * len(images) :][: len(images)]
        keys = parallel.gathered(F.normalize(self.average(parallel.gathered(images)[mine])))
        return torch.empty_like(keys).index_copy_(0, order, keys)

    @torch.no_grad()
    def updated(self) -> None:
        self.average.follow(self.keeps)
        queue = self.state["queue"]
        queue.copy_(torch.cat([self.keys, queue])[: len(queue)])


def info_nce(queries: Tensor, keys: Tensor, queue: Tensor, temperature: float) -> Tensor:
    """Mean cross-entropy of each query's key among itself and the queue (He et al., equation 1). All of length 1.

    queries, keys: (n, f). queue: (m, f).
    """
    positive = (queries * keys).sum(1, keepdim=True)
    similar = torch.cat([positive, queries @ queue.T], dim=1) / temperature
    return F.cross_entropy(similar, torch.zeros(len(similar), dtype=torch.int64, device=similar.device))
