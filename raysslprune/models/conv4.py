"""The laptop's net: four 3x3 convolutions with batch-norm for 8x8 images; 32,400 prunable weights on one channel."""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn


class Conv4(nn.Module):
    """A trunk from images (n, channels, h, w), h and w at least 4, to features (n, 64), averaged over the image."""

    width = 64

    def __init__(self, channels: int) -> None:
        super().__init__()
        layers: list[tuple[str, nn.Module]]
        layers = [*_block(1, channels, 16), ("pool1", nn.MaxPool2d(2)), *_block(2, 16, 32), *_block(3, 32, 32)]
        layers += [("pool2", nn.MaxPool2d(2)), *_block(4, 32, 64)]
        self.layers = nn.Sequential(OrderedDict(layers))

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images).mean(dim=(2, 3))


def _block(number: int, width_in: int, width: int) -> list[tuple[str, nn.Module]]:
    return [
        (f"conv{number}", nn.Conv2d(width_in, width, 3, padding=1, bias=False)),
        (f"bn{number}", nn.BatchNorm2d(width)),
        (f"relu{number}", nn.ReLU(inplace=True)),
    ]
