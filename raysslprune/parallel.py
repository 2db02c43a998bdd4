"""Several processes that train one network: who does what, and what they must agree on.

In a single process nothing is exchanged. Ranks take consecutive parts of a batch, from rank 0 on, so joining the parts
in the order of ranks restores the order of the batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def ranks() -> int:
    """Number of processes that train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Rank of this process, from 0."""
    return dist.get_rank() if ranks() > 1 else 0


@dataclass(frozen=True)
class Share:
    """This process's share of each batch: ``count`` of its ``batch`` samples, from sample ``first`` on."""

    batch: int
    first: int
    count: int

    @staticmethod
    def of_this_process(batch: int, part: int) -> Share:
        """Share a batch in units of ``part`` samples. Raises ValueError if the units can't be shared evenly."""
        if (batch // part) % ranks():
            raise ValueError(f"{ranks()} workers can't share a batch of {batch // part} parts evenly")
        count = batch // ranks()
        return Share(batch, rank() * count, count)

    def begin(self, seen: int) -> int:
        """Position of this process's first sample after ``seen`` samples, a whole number of batches."""
        return seen + self.first

    def after(self, position: int) -> int:
        """Position of this process's next sample once its samples before ``position`` are taken."""
        at_the_end = (position - self.first) % self.batch == self.count
        return position + self.batch - self.count if at_the_end else position


def span(count: int) -> slice:
    """This process's slice of ``count`` items; all of them if there are fewer items than processes."""
    if count < ranks():
        return slice(0, count)
    return slice(rank() * count // ranks(), (rank() + 1) * count // ranks())


def gathered(part: Tensor) -> Tensor:
    """Concatenate the parts (n, ...) of all ranks, in their order, to (ranks * n, ...), the same on each rank."""
    if ranks() == 1:
        return part
    device = part.device
    if dist.get_backend() == "gloo":  # gloo gathers in main memory only
        part = part.cpu()
    part = part.contiguous()
    parts = [torch.empty_like(part) for _ in range(ranks())]
    dist.all_gather(parts, part)
    return torch.cat(parts).to(device)


class _Together(torch.autograd.Function):
    """Rows of all ranks, of which this rank's have a gradient."""

    @staticmethod
    def forward(ctx: Any, part: Tensor) -> Tensor:
        ctx.rows = len(part)
        return gathered(part)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return grads[0][rank() * ctx.rows :][: ctx.rows] * ranks()


def together(part: Tensor) -> Tensor:
    """Concatenate as :func:`gathered`, with gradients, for a loss that each rank computes from the rows of all.

    A rank's rows get the gradient times the number of ranks: so the mean over ranks, which is what an update takes, is
    the gradient of that loss.
    """
    return part if ranks() == 1 else _Together.apply(part)  # pyright: ignore[reportReturnType]


def joined(part: Tensor, count: int) -> Tensor:
    """Join the rows of all ranks, which each have those of their ``span(count)``, to (count, ...)."""
    if ranks() == 1 or count < ranks():
        return part
    most = -(-count // ranks())
    padded = torch.cat([part, part[:1].expand(most - len(part), *part.shape[1:])])
    sizes = [(r + 1) * count // ranks() - r * count // ranks() for r in range(ranks())]
    return torch.cat([rows[:size] for rows, size in zip(gathered(padded).split(most), sizes, strict=True)])


def total(tensor: Tensor, count: int) -> Tensor:
    """Sum a tensor over all ranks, in place; each rank has computed it for its ``span(count)``."""
    if ranks() > 1 and count >= ranks():
        dist.all_reduce(tensor)
    return tensor


def mean(tensor: Tensor) -> Tensor:
    """The mean over all ranks, the same bits on each; a new tensor if there are several ranks."""
    if ranks() == 1:
        return tensor
    tensor = tensor.clone()
    dist.all_reduce(tensor)
    return tensor / ranks()


def from_first(tensor: Tensor) -> Tensor:
    """The tensor of rank 0, written over that of every other rank."""
    if ranks() > 1:
        dist.broadcast(tensor, src=0)
    return tensor


def agree(digest: bytes, device: torch.device) -> bool:
    """Return whether all ranks have the same digest. Digests must be equally long."""
    if ranks() == 1:
        return True
    mine = torch.frombuffer(bytearray(digest), dtype=torch.uint8).to(device)
    return bool((gathered(mine).view(ranks(), -1) == mine).all())
