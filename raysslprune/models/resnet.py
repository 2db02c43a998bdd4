"""ResNets (He et al. 2015, https://arxiv.org/abs/1512.03385) as torchvision defines them, without the last layer.

``*_cifar`` have the usual stem for 32-pixel images, one 3x3 convolution of stride 1 and no max-pool: ImageNet's stem
would reduce such an image to 8x8 pixels before the first block. The paper (3.3) names ResNet-50 for
ImageNet and ResNet-18 for CIFAR-10; it does not describe the stem.
"""

from __future__ import annotations

from functools import partial

from torch import nn
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

STAGES = {18: (BasicBlock, [2, 2, 2, 2]), 34: (BasicBlock, [3, 4, 6, 3]), 50: (Bottleneck, [3, 4, 6, 3])}
"""Kind of block, and number of blocks in each of the four stages, by number of layers."""


class Trunk(ResNet):
    """A trunk from images (n, channels, h, w) to features (n, width). width: 8 * first, or 32 * first for depth 50.

    first: channels of the first convolution and the first stage; each further stage has twice as many.
    """

    def __init__(self, depth: int, channels: int, *, cifar: bool = False, first: int = 64) -> None:
        block, counts = STAGES[depth]
        super().__init__(block, counts)
        if first != 64:
            self.inplanes, self.bn1 = first, nn.BatchNorm2d(first)
            for stage, count in enumerate(counts):
                layer = self._make_layer(block, first << stage, count, stride=1 if stage == 0 else 2)
                setattr(self, f"layer{stage + 1}", layer)
        self.width = (first << 3) * block.expansion
        self.fc = nn.Identity()
        if cifar:
            self.conv1 = nn.Conv2d(channels, first, 3, padding=1, bias=False)
            self.maxpool = nn.Identity()
        else:
            self.conv1 = nn.Conv2d(channels, first, 7, stride=2, padding=3, bias=False)


resnet18, resnet34, resnet50 = (partial(Trunk, depth) for depth in (18, 34, 50))
resnet18_cifar, resnet34_cifar, resnet50_cifar = (partial(Trunk, depth, cifar=True) for depth in (18, 34, 50))
resnet18_cifar_half = partial(Trunk, 18, cifar=True, first=32)
"""ResNet-18 for CIFAR at half the width: 2.8 million weights, a quarter of the work."""
