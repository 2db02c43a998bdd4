"""Small relatives of the paper's architectures, for 8x8 and 32x32 images on a laptop. Batch-norm everywhere."""

from __future__ import annotations

from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock


class Conv5(nn.Module):
    """Five 3x3 convolutions for 32x32 images, the first with stride 2; features averaged over the image."""

    width = 64

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *_conv(channels, 16, stride=2),
            *_conv(16, 16),
            nn.MaxPool2d(2),
            *_conv(16, 32),
            nn.MaxPool2d(2),
            *_conv(32, 32),
            *_conv(32, 64),
        )

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images).mean(dim=(2, 3))


class ResNet8(nn.Module):
    """A ResNet of three stages, 16, 32 and 64 wide, with a block of two 3x3 convolutions each."""

    width = 64

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(*_conv(channels, 16), BasicBlock(16, 16), _wider(16), _wider(32))

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images).mean(dim=(2, 3))


class AlexNet8(nn.Module):
    """A small AlexNet for images of 8 pixels or more: five convolutions, then an MLP with most of the weights."""

    width = 512

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *_conv(channels, 16),
            *_conv(16, 32),
            nn.MaxPool2d(2),
            *_conv(32, 48),
            *_conv(48, 32),
            *_conv(32, 32),
            nn.AdaptiveMaxPool2d(2),
        )
        self.mlp = nn.Sequential(*_linear(4 * 32, 512), *_linear(512, 512))

    def forward(self, images: Tensor) -> Tensor:
        return self.mlp(self.features(images).flatten(1))


def _conv(width_in: int, width: int, stride: int = 1) -> list[nn.Module]:
    convolution = nn.Conv2d(width_in, width, 3, stride, padding=1, bias=False)
    return [convolution, nn.BatchNorm2d(width), nn.ReLU(inplace=True)]


def _linear(width_in: int, width: int) -> list[nn.Module]:
    return [nn.Linear(width_in, width, bias=False), nn.BatchNorm1d(width), nn.ReLU(inplace=True)]


def _wider(width: int) -> BasicBlock:
    """A block that halves the image and doubles the width."""
    shortcut = nn.Sequential(nn.Conv2d(width, 2 * width, 1, stride=2, bias=False), nn.BatchNorm2d(2 * width))
    return BasicBlock(width, 2 * width, stride=2, downsample=shortcut)
