"""Measurements on a trained network, every sample counted once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from raysslprune.data import Dataset

BATCH = 1024


@torch.inference_mode()
def accuracy(net: nn.Module, data: Dataset, images: Tensor, labels: Tensor) -> float:
    """Top-1 accuracy in percent on uint8 ``images`` (n, c, h, w) with ``labels`` (n,); ``net`` in eval mode."""
    hits = [
        (net(data.normalise(some)).argmax(1) == wanted).sum()
        for some, wanted in zip(images.split(BATCH), labels.split(BATCH), strict=True)
    ]
    return 100 * int(torch.stack(hits).sum()) / len(labels)
