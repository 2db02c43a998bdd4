"""VGGs (Simonyan and Zisserman 2014, https://arxiv.org/abs/1409.1556) with batch-norm and without their MLP.

These are the paper's *modified* VGGs (3.3, Appendix C): one fully-connected layer, here the head, replaces three.
Features are averaged over the image, so that any image of 32 pixels or more fits. Layers and names are torchvision's
of ``vgg*_bn``.
"""

from __future__ import annotations

from functools import partial

from torch import Tensor, nn
from torchvision.models.vgg import cfgs, make_layers


class Trunk(nn.Module):
    """A trunk from images (n, channels, h, w), h and w at least 32, to features (n, 512)."""

    width = 512

    def __init__(self, configuration: str, channels: int) -> None:
        super().__init__()
        self.features = make_layers(cfgs[configuration], batch_norm=True)
        self.features[0] = nn.Conv2d(channels, 64, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        return self.features(images).mean(dim=(2, 3))


vgg11, vgg13, vgg16, vgg19 = (partial(Trunk, configuration) for configuration in "ABDE")
