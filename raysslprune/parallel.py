"""Several processes that train one network: who does what, and what they must agree on.

Each function does nothing where there is one process. Ranks hold consecutive parts of a batch, so rank 0 has its
beginning, and joining by rank restores its order.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor


def ranks() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Which of them this one is, from 0."""
    return dist.get_rank() if ranks() > 1 else 0


@dataclass(frozen=True)
class Share:
    """Whose the samples of a batch are: of every ``batch``, ``count`` from ``first`` on are this process's."""

    batch: int
    first: int
    count: int

    @staticmethod
    def of_this_process(batch: int, part: int) -> Share:
        """Of a batch in parts that are not divided further. Raises ValueError where they can't be shared evenly."""
        if (batch // part) % ranks():
            raise ValueError(f"{ranks()} workers can't share a batch of {batch // part} parts evenly")
        count = batch // ranks()
        return Share(batch, rank() * count, count)

    def begin(self, seen: int) -> int:
        """Where this process's samples begin, after ``seen`` samples, which are whole batches."""
        return seen + self.first

    def after(self, position: int) -> int:
        """Where they go on, when all before ``position`` are taken."""
        at_the_end = (position - self.first) % self.batch == self.count
        return position + self.batch - self.count if at_the_end else position


def span(count: int) -> slice:
    """Of so many things, those that are this process's; all of them where there are fewer than processes."""
    if count < ranks():
        return slice(0, count)
    return slice(rank() * count // ranks(), (rank() + 1) * count // ranks())


def gathered(part: Tensor) -> Tensor:
    """The parts (n, ...) of all ranks as one (ranks * n, ...), in the order of ranks, the same on each."""
    if ranks() == 1:
        return part
    device = part.device
    if dist.get_backend() == "gloo":  # which gathers in main memory only
        part = part.cpu()
    part = part.contiguous()
    parts = [torch.empty_like(part) for _ in range(ranks())]
    dist.all_gather(parts, part)
    return torch.cat(parts).to(device)


def joined(part: Tensor, count: int) -> Tensor:
    """The rows of all ranks, (count, ...), where each has those of its ``span(count)``."""
    if ranks() == 1 or count < ranks():
        return part
    most = -(-count // ranks())
    padded = torch.cat([part, part[:1].expand(most - len(part), *part.shape[1:])])
    sizes = [(r + 1) * count // ranks() - r * count // ranks() for r in range(ranks())]
    return torch.cat([rows[:size] for rows, size in zip(gathered(padded).split(most), sizes, strict=True)])


def total(tensor: Tensor, count: int) -> Tensor:
    """The sum over all ranks of what each found in its ``span(count)``."""
    if ranks() > 1 and count >= ranks():
        dist.all_reduce(tensor)
    return tensor


def mean(tensor: Tensor) -> Tensor:
    """The mean over all ranks, the same bits on each; a new tensor where there are several."""
    if ranks() == 1:
        return tensor
    tensor = tensor.clone()
    dist.all_reduce(tensor)
    return tensor / ranks()


def from_first(tensor: Tensor) -> Tensor:
    """The tensor of rank 0 in place of everybody's own."""
    if ranks() > 1:
        dist.broadcast(tensor, src=0)
    return tensor


def agree(digest: bytes, device: torch.device) -> bool:
    """Whether all ranks have the same digest (of one length)."""
    if ranks() == 1:
        return True
    mine = torch.frombuffer(bytearray(digest), dtype=torch.uint8).to(device)
    return bool((gathered(mine).view(ranks(), -1) == mine).all())
