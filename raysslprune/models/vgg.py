"""VGGs (Simonyan and Zisserman 2014, https://arxiv.org/abs/1409.1556) with batch-norm and without their MLP.

The paper's *modified* VGGs (3.3, Appendix C): one fully-connected layer, here the head, stands for three. The features
are averaged over the image, so that images of 32 pixels or more will do. Layers and names are those of torchvision's
``vgg*_bn``.
"""

from __future__ import annotations

from torch import Tensor, nn
from torchvision.models.vgg import cfgs, make_layers


class Trunk(nn.Module):
    """Images (n, channels, h, w), 32 pixels or more each way, to features (n, 512)."""

    width = 512

    def __init__(self, configuration: str, channels: int) -> None:
        super().__init__()
        self.features = make_layers(cfgs[configuration], batch_norm=True)
        self.features[0] = nn.Conv2d(channels, 64, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        return self.features(images).mean(dim=(2, 3))


def vgg11(channels: int) -> Trunk:
    return Trunk("A", channels)


def vgg13(channels: int) -> Trunk:
    return Trunk("B", channels)


def vgg16(channels: int) -> Trunk:
    return Trunk("D", channels)


def vgg19(channels: int) -> Trunk:
    return Trunk("E", channels)
