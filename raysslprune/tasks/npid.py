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
from raysslprune.data.dataset import sent
from raysslprune.data.views import Views
from raysslprune.evaluate.metrics import features, knn_accuracy
from raysslprune.spec import Recipe, seed_of
from raysslprune.tasks.task import Task


@dataclass(kw_only=True)
class NPID(Task, catalogue.NPID):
    """NPID: distinguish an image's remembered embedding from those of ``negatives`` others, by contrast with noise.

    The memory bank has an embedding of length 1 for each training image. After each update, the embeddings of its
    images move towards the network's outputs, equally on all ranks. The softmax's normalisation is estimated once, on
    the first samples that share BatchNorm statistics.

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
        return views(batch), sent(batch.index[:, 0], views.data.device), batch.own[:, 0]

    def loss(self, net: Callable[[Tensor], Tensor], *parts: Tensor) -> Tensor:
        images, index, drawn = parts
        embedded = F.normalize(net(images))
        bank, log_z = self.state["bank"], self.state["log_z"]
        noise = uniform(len(bank), (len(index), self.negatives), seed_of("negatives", float(drawn[0])), bank.device)
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
        """Top-1 by a vote of the 200 nearest training images, weighted as in the authors' code."""
        if data.multilabel:
            return {}
        known, asked = features(net, data, data.train), features(net, data, data.test)
        labels = data.train.labels.cpu(), data.test.labels.cpu()
        return {"knn_top1": knn_accuracy(known, labels[0], asked, labels[1], self.temperature)}


def uniform(below: int, shape: tuple[int, int], seed: int, device: torch.device) -> Tensor:
    """Integers uniform in [0, ``below``), drawn on the device; a GPU draws other numbers than the CPU."""
    return torch.randint(below, shape, generator=torch.Generator(device).manual_seed(seed), device=device)


def estimate_log_z(positive: Tensor, negative: Tensor, images: int) -> Tensor:
    """Logarithm of images * mean(exp(similarity)) over all similarities. positive: (n,), negative: (n, m)."""
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
    """Move the bank's rows at ``index`` towards ``embedded``, at length 1. If an image is there twice, its last counts.

    Its earlier row gets the value of the last: to drop rows, the host would have to wait for the indices.
    """
    ascending, order = index.sort(stable=True)
    last = order[torch.searchsorted(ascending, index, right=True) - 1]
    bank[index] = F.normalize(torch.lerp(embedded[last], bank[index], momentum))
