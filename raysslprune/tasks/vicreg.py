"""VICReg (Bardes et al. 2022): views of one image are alike, and the embedding's components vary, independently."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from raysslprune import catalogue, parallel
from raysslprune.data import Dataset
from raysslprune.tasks.two_views import TwoViews, mlp

EPSILON = 1e-4
"""Added to the variance before the root, as in the authors' code."""


@dataclass(kw_only=True)
class VICReg(TwoViews, catalogue.VICReg):
    """VICReg: invariance of the views, variance and covariance of the components over the batch, on all ranks."""

    whole_batch = True

    def head(self, width: int, data: Dataset) -> nn.Module:
        return mlp(width, self.hidden, self.hidden, self.dimension, last_bias=False)

    def loss(self, net: Callable[[Tensor], Tensor], *parts: Tensor) -> Tensor:
        first, second = (parallel.together(net(images)) for images in parts)
        invariance = F.mse_loss(first, second)
        (spread, shared), (others, others_shared) = moments(first), moments(second)
        variance, covariance = (spread + others) / 2, shared + others_shared
        return self.invariance * invariance + self.variance * variance + self.covariance * covariance


def moments(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Mean of max(0, 1 - standard deviation) over the components, and sum of squared covariances over their number.

    rows: (n, f). Both moments divide by n - 1 (Bardes et al., equations 1 to 4).
    """
    centred = rows - rows.mean(0)
    covariance = centred.T @ centred / (len(rows) - 1)
    variance = covariance.diagonal()
    apart = (covariance.square().sum() - variance.square().sum()) / rows.shape[1]
    return F.relu(1 - (variance + EPSILON).sqrt()).mean(), apart
