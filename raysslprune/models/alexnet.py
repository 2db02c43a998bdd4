"""AlexNet as torchvision defines it (https://arxiv.org/abs/1404.5997), without the last layer, and with batch-norm.

``alexnet_bn`` is for the paper's figures. The paper does not say whether its AlexNet has batch-norm, but the
code of RotNet (https://github.com/gidariss/FeatureLearningRotNet) has it after every layer, and the learning rates of
Appendix D, 0.4 at batches of 4096 without warm-up and 0.5 at 8192, call for it. ``alexnet`` is for torchvision's
checkpoints.

Neither drops anything: torch draws dropout from its global random state. ``alexnet`` keeps the dropout layers, with
probability 0 and so without a draw, because the names of the other layers count them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial

from torch import nn
from torchvision.models import AlexNet


class Trunk(AlexNet):
    """A trunk from images (n, channels, h, w), h and w at least 63, to features (n, 4096).

    norms: put batch-norm after every convolution and linear layer, and drop their biases, which would have no effect.
    """

    width = 4096

    def __init__(self, channels: int, *, norms: bool = False) -> None:
        super().__init__(dropout=0.0)
        self.features[0] = nn.Conv2d(channels, 64, 11, stride=4, padding=2)
        self.classifier = self.classifier[:-1]
        if norms:
            self.features = nn.Sequential(*_with_norms(self.features))
            self.classifier = nn.Sequential(*_with_norms(self.classifier))


def _with_norms(layers: Iterable[nn.Module]) -> Iterator[nn.Module]:
    for layer in layers:
        if isinstance(layer, nn.Dropout):
            continue
        yield layer
        if isinstance(layer, nn.Conv2d):
            layer.register_parameter("bias", None)
            yield nn.BatchNorm2d(layer.out_channels)
        elif isinstance(layer, nn.Linear):
            layer.register_parameter("bias", None)
            yield nn.BatchNorm1d(layer.out_features)


alexnet, alexnet_bn = Trunk, partial(Trunk, norms=True)
