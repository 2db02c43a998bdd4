"""NPID, non-parametric instance discrimination (Wu et al. 2018): which of all training images is this one?"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from raysslprune import catalogue, parallel
from raysslprune.data import Dataset
from raysslprune.data.batches import Batch
from raysslprune.data.views import Views
from raysslprune.evaluate.metrics import features, knn_accuracy
from raysslprune.spec import Recipe, seed_of
from raysslprune.tasks.task import Task


@dataclass(kw_only=True)
class NPID(Task, catalogue.NPID):
    """An image's embedding is told from remembered embeddings of ``negatives`` others by noise-contrastive estimation.

    The memory bank holds an embedding of length 1 for each training image: after an update, those of its images move
    towards what the network gave, on all ranks alike. The softmax's normalisation is estimated once, on the first
    samples that BatchNorm sees together.

    state: ``bank`` (training images, dimension); ``log_z``, the logarithm of the normalisation, NaN until known.
    """

    draws = 1
    seen: list[tuple[Tensor, Tensor]] = field(default_factory=list, init=False, repr=False)

    def begin(self, data: Dataset, generator: torch.Generator) -> None:
        bank = F.normalize(torch.randn(len(data.train), self.dimension, generator=generator))
        log_z = torch.tensor(math.nan)
        self.state = {"bank": bank.to(data.device), "log_z": log_z.to(data.device)}
        self.z_known = False

    def head(self, width: int, data: Dataset) -> nn.Module:
        return nn.Linear(width, self.dimension)

    def sample(self, views: Views, batch: Batch) -> tuple[Tensor, ...]:
        return views(batch), batch.index[:, 0].to(views.data.device), batch.own[:, 0]

    def loss(self, net: Callable[[Tensor], Tensor], *parts: Tensor) -> Tensor:
        images, index, drawn = parts
        embedded = F.normalize(net(images))
        bank, log_z = self.state["bank"], self.state["log_z"]
        generator = torch.Generator(bank.device).manual_seed(seed_of("negatives", float(drawn[0])))
        noise = torch.randint(len(bank), (len(index), self.negatives), generator=generator, device=bank.device)
        positive = (embedded * bank[index]).sum(1) / self.temperature
        negative = torch.einsum("nd,nmd->nm", embedded, bank[noise]) / self.temperature
        if not self.z_known:
            if log_z.isnan():
                own = estimate_log_z(positive.detach(), negative.detach(), len(bank))
                log_z.copy_(parallel.from_first(own))
            self.z_known = True
        self.seen.append((index, embedded.detach()))
        return nce(positive, negative, log_z, len(bank))

    def updated(self) -> None:
        index, embedded = (parallel.gathered(torch.cat(parts)) for parts in zip(*self.seen, strict=True))
        self.seen.clear()
        remember(self.state["bank"], index, embedded, self.momentum)

    def evaluate(self, net: nn.Module, data: Dataset, recipe: Recipe) -> dict[str, float]:
        """Top-1 of the 200 nearest training images' labels, weighted as in the authors' code."""
        if data.multilabel:
            return {}
        known, asked = features(net, data, data.train), features(net, data, data.test)
        labels = data.train.labels.cpu(), data.test.labels.cpu()
        return {"knn_top1": knn_accuracy(known, labels[0], asked, labels[1], self.temperature)}


def estimate_log_z(positive: Tensor, negative: Tensor, images: int) -> Tensor:
    """log of (mean over all similarities of exp) * images. positive: (n,), negative: (n, m)."""
    every = torch.cat([positive[:, None], negative], dim=1).flatten()
    return every.logsumexp(0) - math.log(len(every)) + math.log(images)


def nce(positive: Tensor, negative: Tensor, log_z: Tensor, images: int) -> Tensor:
    """Noise-contrastive estimation against uniform noise, averaged over the n samples (Wu et al., equations 7 and 8).

    With P = exp(similarity / temperature) / Z and h = P / (P + m / images): -log h(positive) - sum log (1 - h(noise)).
    positive: (n,), negative: (n, m), similarities over the temperature.
    """
    shift = log_z + math.log(negative.shape[1] / images)
    return -(F.logsigmoid(positive - shift) + F.logsigmoid(shift - negative).sum(1)).mean()


@torch.no_grad()
def remember(bank: Tensor, index: Tensor, embedded: Tensor, momentum: float) -> None:
    """Move the bank's rows at ``index`` towards ``embedded``, at length 1. Of an image that comes twice, the last."""
    order = index.argsort(stable=True)
    ascending = index[order]
    last = order[torch.cat([ascending[1:] != ascending[:-1], ascending.new_ones(1, dtype=torch.bool)])]
    rows = index[last]
    bank[rows] = F.normalize(torch.lerp(embedded[last], bank[rows], momentum))
