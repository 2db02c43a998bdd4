"""Depths to which Figures 4 and 9 prune a network."""

from __future__ import annotations

from raysslprune import catalogue
from raysslprune.sweepfile import Unfit

_RESNET18 = (5, 10, 15)
STAGES = {
    "resnet8": (3, 6),
    **dict.fromkeys(("resnet18", "resnet18-cifar", "resnet18-cifar-half"), _RESNET18),
    **dict.fromkeys(("resnet34", "resnet34-cifar"), (7, 16, 29)),
    **dict.fromkeys(("resnet50", "resnet50-cifar"), (11, 24, 43)),
}
"""Number of convolutions up to the end of each stage but the last, shortcuts included. The paper does not say to which
depths ResNet-50 is pruned."""

CONVOLUTIONS = {
    "conv4": (1, 2, 3),
    "conv5": (1, 3, 4),
    **dict.fromkeys(("alexnet8", "alexnet", "alexnet-bn"), (1, 3, 5)),
    "vgg11": (2, 4, 6),
    "vgg13": (4, 6, 8),
    "vgg16": (4, 7, 10),
    "vgg19": (4, 8, 12),
}
"""Convolutions to which networks without stages are pruned. Those of VGGs end at a max-pool."""


def depths(arch: str) -> dict[str, str]:
    """The depths to which a network is pruned, as scopes by their titles, from shallow to deep; the last is all of it.

    A network of one's own is pruned to a quarter, a half, and three quarters of its convolutions, rounded up. Raises
    Unfit if it has only one, ValueError if it can't be imported.
    """
    if arch in STAGES:
        found = {f"up to {stage}" if stage > 1 else "stage 1": end for stage, end in enumerate(STAGES[arch], 1)}
    else:
        ends = CONVOLUTIONS.get(arch) or _quarters(_convolutions(arch))
        if not ends:
            raise Unfit(f"{arch} has a single convolution, so it can't be pruned down to a depth")
        found = {f"up to {end}" if end > 1 else "convolution 1": end for end in ends}
    return {title: f"convs:{end}" for title, end in found.items()} | {"whole network": "all"}


def _quarters(count: int) -> list[int]:
    return sorted({-(-part * count // 4) for part in (1, 2, 3)} - {0, count})


def _convolutions(arch: str) -> int:
    """Number of convolutions of a network, which is made for this without memory for its weights."""
    import torch  # takes a second; only a network of one's own needs it

    make = catalogue.resolve("architecture", catalogue.ARCHITECTURES, arch)
    with torch.device("meta"):
        return sum(isinstance(part, torch.nn.Conv2d) for part in make(3).modules())
