"""Networks: a trunk that gives features, which pruning sees, and a task's head, which it never sees.

A new architecture is a file here and a line in ``catalogue.ARCHITECTURES``: a function from the number of image
channels to a trunk, a module with an int attribute ``width`` that takes images (n, channels, h, w) to features
(n, width).
Its layers are ones that :func:`draw` knows, and it has no dropout: no global random state may decide a result.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import cache

import torch
from torch import Tensor, nn

from raysslprune import catalogue
from raysslprune.models import checkpoint
from raysslprune.models.checkpoint import read as read_checkpoint

__all__ = [
    "Network",
    "convolutions",
    "draw",
    "from_torchvision",
    "network",
    "outline",
    "prunable",
    "read_checkpoint",
    "trunk",
]


class Network(nn.Module):
    """trunk: images (n, c, h, w) to features (n, width). head: features to outputs (n, outputs)."""

    def __init__(self, trunk: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.trunk = trunk
        self.head = head

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.trunk(images))


def trunk(arch: str, channels: int) -> nn.Module:
    """The trunk on the meta device: shapes and names, no memory.

    Raises ValueError for an unknown name, TypeError where the name stands for what is not a trunk.
    """
    make = catalogue.resolve("architecture", catalogue.ARCHITECTURES, arch)
    with torch.device("meta"):
        made = make(channels)
    if not (isinstance(made, nn.Module) and isinstance(getattr(made, "width", None), int)):
        raise TypeError(f"architecture {arch!r} gave no module with an int attribute 'width', its number of features")
    return made


@cache
def outline(arch: str, channels: int) -> nn.Module:
    """The same, made once: to be asked for names and shapes, and not to be changed. Raises as :func:`trunk` does."""
    return trunk(arch, channels)


def network(
    arch: str,
    channels: int,
    head: Callable[[int], nn.Module],
    generator: torch.Generator,
    device: torch.device,
) -> Network:
    """A network with weights drawn from ``generator``, the same on every device; no global random state is used.

    head: from the number of features to the layers after the trunk, ones that :func:`draw` knows. They are drawn
    last, so that the trunk is the same under every head. Raises as :func:`trunk` and :func:`draw` do.
    """
    body = trunk(arch, channels)
    width = body.width
    assert isinstance(width, int)
    with torch.device("meta"):
        model = Network(body, head(width))
    model.to_empty(device="cpu")
    draw(model.trunk, generator)
    draw(model.head, generator)
    return model.to(device)


def draw(module: nn.Module, generator: torch.Generator) -> None:
    """Draw all weights in place. Convolutions: Kaiming normal by fan-out. Linear: torch's own default distribution.

    Batch-norm begins neutral. Raises TypeError for a tensor that it does not know, which would be left as it is.
    """
    for part in module.modules():
        known = {"weight", "bias"}
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu", generator=generator)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
        elif isinstance(part, nn.Linear):
            bound = 1 / math.sqrt(part.in_features)
            nn.init.uniform_(part.weight, -bound, bound, generator=generator)
            if part.bias is not None:
                nn.init.uniform_(part.bias, -bound, bound, generator=generator)
        elif isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d):
            part.reset_parameters()
            known |= {"running_mean", "running_var", "num_batches_tracked"}
        else:
            known = set()
        own = [*part.named_parameters(recurse=False), *part.named_buffers(recurse=False)]
        if unknown := [name for name, _ in own if name not in known]:
            raise TypeError(f"models.draw does not know how to initialise {unknown[0]!r} of {type(part).__name__}")


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


def from_torchvision(arch: str, state_dict: Mapping[str, Tensor], channels: int = 3) -> dict[str, Tensor]:
    """The state dict of a torchvision model as that of our network's trunk: ``trunk.*``, on the CPU, no head.

    ``vgg*`` are torchvision's ``vgg*_bn``. Raises ValueError, in one sentence, for weights of another architecture.
    """
    fitted = checkpoint.fit(state_dict, trunk(arch, channels).state_dict(), arch)
    return {f"trunk.{name}": tensor for name, tensor in fitted.items()}
