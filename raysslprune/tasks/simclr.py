"""SimCLR (Chen et al. 2020): which of all other views in the batch is of the same image?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from raysslprune import catalogue, parallel
from raysslprune.data import Dataset
from raysslprune.tasks.two_views import TwoViews, mlp


@dataclass(kw_only=True)
class SimCLR(TwoViews, catalogue.SimCLR):
    """SimCLR: tell each view's partner from all other views of the batch, also of those on other ranks."""

    whole_batch = True

    def head(self, width: int, data: Dataset) -> nn.Module:
        return mlp(width, self.hidden, self.dimension)

    def loss(self, net: Callable[[Tensor], Tensor], *parts: Tensor) -> Tensor:
        first, second = (parallel.together(rows) for rows in F.normalize(net(torch.cat(parts))).chunk(2))
        return nt_xent(first, second, self.temperature)


def nt_xent(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    """Mean cross-entropy of each row's partner among all other rows, by their cosines over the temperature.

    first, second: (n, f), of length 1; row i of one is the partner of row i of the other (Chen et al., equation 1).
    """
    rows = torch.cat([first, second])
    itself = torch.eye(len(rows), dtype=torch.bool, device=rows.device)
    partner = torch.arange(len(rows), device=rows.device).roll(len(first))
    return F.cross_entropy((rows @ rows.T / temperature).masked_fill(itself, -torch.inf), partner)
