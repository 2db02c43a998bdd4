"""Calibration: give a network that was never trained the BatchNorm statistics of its data.

With a running mean of 0 and a variance of 1, signals die in deep untrained networks under sparse masks, and whatever is
compared with them seems to have learned something.
"""

from __future__ import annotations

import torch
from torch import nn

from raysslprune.data import Dataset

IMAGES = 1024
"""Images of a batch: each batch is normalised by its own statistics, so their number is a part of the result."""


def batch_norms(module: nn.Module) -> list[nn.BatchNorm1d | nn.BatchNorm2d]:
    """The BatchNorm layers of a module."""
    return [part for part in module.modules() if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d)]


@torch.no_grad()
def calibrate(net: nn.Module, data: Dataset) -> None:
    """Set running statistics to means over the training images, and leave ``net`` in evaluation mode.

    One pass in the order of the data, without augmentation, in training mode; the last batch is as large as it comes,
    and counts by its images. A network without BatchNorm does not change.
    """
    norms = [norm for norm in batch_norms(net) if norm.running_mean is not None]
    if norms:
        statistics = [b for norm in norms for b in (norm.running_mean, norm.running_var) if b is not None]
        sums = [torch.zeros_like(statistic, dtype=torch.float64) for statistic in statistics]
        momenta = [norm.momentum for norm in norms]
        for norm in norms:
            norm.momentum = 1.0  # the running statistics become those of the last batch
        net.train()
        for images, _ in data.batches(data.train, IMAGES):
            net(images)
            for total, statistic in zip(sums, statistics, strict=True):
                total += len(images) * statistic.double()
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        for total, statistic in zip(sums, statistics, strict=True):
            statistic.copy_(total / len(data.train))
    net.eval()
