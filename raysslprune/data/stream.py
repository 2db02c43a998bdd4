"""The order of samples and the random numbers of their views, as functions of (seed, position).

A training walks along one endless stream: epoch after epoch, each a new permutation. Position p is
sample ``p % n`` of epoch ``p // n``'s permutation. Batches are always full and may straddle two epochs.
Nothing depends on process, rank or interruption: to resume at position p is to take from position p.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from raysslprune.spec import seed_of


@dataclass(frozen=True)
class Samples:
    """Samples by ``index`` (n,), with ``draws`` uniform in [0, 1), (n, draws), fixed by (seed, epoch, sample)."""

    index: Tensor
    draws: Tensor


class Stream:
    """The endless stream over ``samples`` samples, with ``draws`` uniform numbers for each sample in each epoch."""

    def __init__(self, samples: int, draws: int, seed: int) -> None:
        self.samples, self.draws, self.seed = samples, draws, seed
        self._epochs: dict[int, Samples] = {}

    def take(self, position: int, count: int) -> Samples:
        """The ``count`` samples from ``position`` on."""
        parts: list[Samples] = []
        while count > 0:
            epoch, offset = divmod(position, self.samples)
            whole = self._epoch(epoch)
            part = slice(offset, offset + count)
            parts.append(Samples(whole.index[part], whole.draws[part]))
            taken = len(parts[-1].index)
            position, count = position + taken, count - taken
        if len(parts) == 1:
            return parts[0]
        return Samples(torch.cat([p.index for p in parts]), torch.cat([p.draws for p in parts]))

    def _epoch(self, epoch: int) -> Samples:
        if epoch not in self._epochs:
            self._epochs = {e: b for e, b in self._epochs.items() if e == epoch - 1}  # at most two in memory
            generator = torch.Generator().manual_seed(seed_of("epoch", self.seed, epoch))
            order = torch.randperm(self.samples, generator=generator)
            draws = torch.rand(self.samples, self.draws, generator=generator)
            self._epochs[epoch] = Samples(order, draws[order])
        return self._epochs[epoch]
