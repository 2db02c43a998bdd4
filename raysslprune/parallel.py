"""Several processes that train one network: what they must agree on. Each function does nothing where there is one.

Ranks hold consecutive parts of a batch, so rank 0 has its beginning, and joining by rank restores its order.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor


def ranks() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def gathered(part: Tensor) -> Tensor:
    """The parts (n, ...) of all ranks as one (ranks * n, ...), in the order of ranks, the same on each."""
    if ranks() == 1:
        return part
    part = part.contiguous()
    parts = [torch.empty_like(part) for _ in range(ranks())]
    dist.all_gather(parts, part)
    return torch.cat(parts)


def from_first(tensor: Tensor) -> Tensor:
    """The tensor of rank 0 in place of everybody's own."""
    if ranks() > 1:
        dist.broadcast(tensor, src=0)
    return tensor
