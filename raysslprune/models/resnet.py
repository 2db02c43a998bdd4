"""ResNets (He et al. 2015, https://arxiv.org/abs/1512.03385) as torchvision defines them, without the last layer.

``*_cifar`` have the stem that is usual for 32-pixel images, one 3x3 convolution of stride 1 and no max-pool: with
that of ImageNet such an image would be 8x8 pixels before the first block. The paper (3.3) names ResNet-50 for
ImageNet and ResNet-18 for CIFAR-10; it does not describe the stem.
"""

from __future__ import annotations

from torch import nn
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

STAGES = {18: (BasicBlock, [2, 2, 2, 2]), 34: (BasicBlock, [3, 4, 6, 3]), 50: (Bottleneck, [3, 4, 6, 3])}
"""Number of layers to the kind of block, and how many of them each of the four stages has."""


class Trunk(ResNet):
    """Images (n, channels, h, w) to features (n, width): 512, or 2048 with 50 layers."""

    def __init__(self, depth: int, channels: int, *, cifar: bool = False) -> None:
        super().__init__(*STAGES[depth])
        self.width = self.fc.in_features
        self.fc = nn.Identity()
        if cifar:
            self.conv1 = nn.Conv2d(channels, 64, 3, padding=1, bias=False)
            self.maxpool = nn.Identity()
        else:
            self.conv1 = nn.Conv2d(channels, 64, 7, stride=2, padding=3, bias=False)


def resnet18(channels: int) -> Trunk:
    return Trunk(18, channels)


def resnet34(channels: int) -> Trunk:
    return Trunk(34, channels)


def resnet50(channels: int) -> Trunk:
    return Trunk(50, channels)


def resnet18_cifar(channels: int) -> Trunk:
    return Trunk(18, channels, cifar=True)


def resnet34_cifar(channels: int) -> Trunk:
    return Trunk(34, channels, cifar=True)


def resnet50_cifar(channels: int) -> Trunk:
    return Trunk(50, channels, cifar=True)
