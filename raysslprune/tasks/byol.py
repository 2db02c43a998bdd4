"""BYOL (Grill et al. 2020): predict what a moving average of the network says of the other view."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from raysslprune import catalogue
from raysslprune.data import Dataset
from raysslprune.models import Network
from raysslprune.spec import Recipe
from raysslprune.tasks.two_views import Average, TwoViews, mlp


@dataclass(kw_only=True)
class BYOL(TwoViews, catalogue.BYOL):
    """BYOL: a predictor after the projector tells the other view's projection by a moving average, without negatives.

    state: ``average.*``, the moving average of trunk and projector; ``updates``, their number.
    """

    def begin(self, data: Dataset, generator: torch.Generator) -> None:
        self.state = {"updates": torch.zeros((), device=data.device)}

    def head(self, width: int, data: Dataset) -> nn.Module:
        """The projector, then the predictor."""
        projector = mlp(width, self.hidden, self.dimension)
        return nn.Sequential(projector, mlp(self.dimension, self.hidden, self.dimension))

    def meet(self, net: Network, recipe: Recipe) -> None:
        self.average = Average(net.trunk, net.head.get_submodule("0"), recipe)
        self.total = max(1, recipe.reached(recipe.samples) // recipe.batch)
        self.state |= {f"average.{name}": weight for name, weight in self.average.net.named_parameters()}

    def twin(self) -> nn.Module:
        return self.average.net.trunk

    def loss(self, net: Callable[[Tensor], Tensor], *parts: Tensor) -> Tensor:
        first, second = parts
        predicted = net(first), net(second)
        return apart(predicted[0], self.average(second)) + apart(predicted[1], self.average(first))

    def updated(self) -> None:
        self.average.follow(self.keeps())
        self.state["updates"] += 1

    def keeps(self) -> Tensor:
        """How much of the average this update keeps: from ``ema`` at the first to 1 at the end, by half a cosine."""
        return 1 - (1 - self.ema) * ((self.state["updates"] * (math.pi / self.total)).cos() + 1) / 2


def apart(predicted: Tensor, wanted: Tensor) -> Tensor:
    """Mean squared distance of rows at length 1, which is 2 - 2 cosine (Grill et al., equation 2). Both (n, f)."""
    return 2 - 2 * (F.normalize(predicted) * F.normalize(wanted)).sum(1).mean()
