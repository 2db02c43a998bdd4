"""Networks: a trunk that gives features, which pruning sees, and a linear head for a task, which it never sees.

A new architecture is a file here and a line in ``TRUNKS``.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from raysslprune.models import conv4

TRUNKS: dict[str, Callable[[int], nn.Module]] = {"conv4": conv4.Conv4}
"""Name to a function from the number of image channels to a trunk with an attribute ``features`` (its width)."""


class Network(nn.Module):
    """trunk: images (n, c, h, w) to features (n, f). head: features to outputs (n, outputs)."""

    def __init__(self, trunk: nn.Module, outputs: int) -> None:
        super().__init__()
        self.trunk = trunk
        self.head = nn.Linear(_width(trunk), outputs)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.trunk(images))


def trunk(arch: str, channels: int) -> nn.Module:
    """The trunk on the meta device: shapes and names, no memory. Raises ValueError for an unknown name."""
    if arch not in TRUNKS:
        raise ValueError(f"architecture {arch!r} is not one of {', '.join(TRUNKS)}")
    with torch.device("meta"):
        return TRUNKS[arch](channels)


def network(arch: str, channels: int, outputs: int, generator: torch.Generator, device: torch.device) -> Network:
    """A network with weights drawn from ``generator``, the same on every device; no global random state is used."""
    with torch.device("meta"):
        model = Network(trunk(arch, channels), outputs)
    model.to_empty(device="cpu")
    draw(model.trunk, generator)
    draw(model.head, generator)
    return model.to(device)


def draw(module: nn.Module, generator: torch.Generator) -> None:
    """Draw all weights in place. Convolutions: Kaiming normal by fan-out. Linear: torch's own default distribution."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu", generator=generator)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
        elif isinstance(part, nn.Linear):
            bound = 1 / math.sqrt(part.in_features)
            nn.init.uniform_(part.weight, -bound, bound, generator=generator)
            nn.init.uniform_(part.bias, -bound, bound, generator=generator)
        elif isinstance(part, nn.BatchNorm2d):
            part.reset_running_stats()
            nn.init.ones_(part.weight)
            nn.init.zeros_(part.bias)
        elif [*part.parameters(recurse=False), *part.buffers(recurse=False)]:
            raise TypeError(f"models.draw does not know how to initialise {type(part).__name__}")


def prunable(module: nn.Module) -> dict[str, Tensor]:
    """The weights that pruning may touch, by name, in the order of definition: convolutions and linear layers.

    Biases, BatchNorm and the head are not among them (paper 3.3): call this on a trunk.
    """
    return {
        f"{name}.weight": part.weight
        for name, part in module.named_modules()
        if isinstance(part, nn.Conv2d | nn.Linear)
    }


def convolutions(module: nn.Module) -> list[str]:
    """Names of the convolutions' weights, in the order of definition."""
    return [f"{name}.weight" for name, part in module.named_modules() if isinstance(part, nn.Conv2d)]


def _width(trunk: nn.Module) -> int:
    width = trunk.features
    assert isinstance(width, int)
    return width
