"""Networks: a trunk that gives features and can be pruned, and a task's head, which is never pruned.

A new architecture is a file here and a line in ``catalogue.ARCHITECTURES``: a function from the number of image
channels to a trunk, a module with an int attribute ``width`` that takes images (n, channels, h, w) to features
(n, width).
Use only layers that :func:`draw` can initialise, and no dropout: no result may depend on global random state.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import cache, partial

import torch
from torch import Tensor, nn

from raysslprune import catalogue
from raysslprune.models import checkpoint
from raysslprune.models.checkpoint import read as read_checkpoint

__all__ = ["Network", "convolutions", "draw", "from_torchvision", "multiply_adds", "network"]
__all__ += ["outline", "prunable", "read_checkpoint", "trunk"]


class Network(nn.Module):
    """A trunk, from images (n, c, h, w) to features (n, width), and a head, from features to outputs (n, outputs)."""

    def __init__(self, trunk: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.trunk = trunk
        self.head = head

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.trunk(images))


def trunk(arch: str, channels: int) -> nn.Module:
    """The trunk on the meta device: shapes and names, no memory.

    Raises ValueError for an unknown name, TypeError if the named object does not make a trunk.
    """
    make = catalogue.resolve("architecture", catalogue.ARCHITECTURES, arch)
    with torch.device("meta"):
        made = make(channels)
    if not (isinstance(made, nn.Module) and isinstance(getattr(made, "width", None), int)):
        raise TypeError(
            f"architecture {arch!r} must return a module with an int attribute 'width', its number of features"
        )
    return made


@cache
def outline(arch: str, channels: int) -> nn.Module:
    """The cached result of :func:`trunk`, for names and shapes; do not change it. Raises as :func:`trunk` does."""
    return trunk(arch, channels)


def network(
    arch: str, channels: int, head: Callable[[int], nn.Module], generator: torch.Generator, device: torch.device
) -> Network:
    """A network with weights drawn from ``generator``, the same on every device; no global random state is used.

    head: function from the number of features to the layers after the trunk. Their weights are drawn last, so that the
    trunk is the same under every head. Raises as :func:`trunk` and :func:`draw` do.
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

    Batch-norm starts as the identity. Raises TypeError for a tensor of any other layer: it would stay uninitialised.
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

    Biases and BatchNorm are left out, and so is the head (paper 3.3), if ``module`` is a trunk.
    """
    return {
        f"{name}.weight": part.weight
        for name, part in module.named_modules()
        if isinstance(part, nn.Conv2d | nn.Linear)
    }


def convolutions(module: nn.Module) -> list[str]:
    """Names of the convolutions' weights, in the order of definition."""
    return [f"{name}.weight" for name, part in module.named_modules() if isinstance(part, nn.Conv2d)]


def multiply_adds(net: nn.Module, channels: int, size: int) -> dict[str, int]:
    """Multiply-adds of each convolution and linear layer for one image, by the name of the layer's weight.

    net: a new network on the meta device, which is put into evaluation mode. channels, size: shape of the square image.
    A layer that the network uses several times counts each time.
    """
    counts: dict[str, int] = {}

    def count(name: str, layer: nn.Module, _inputs: object, output: Tensor) -> None:
        assert isinstance(layer, nn.Conv2d | nn.Linear)
        counts[name] = counts.get(name, 0) + output.numel() * layer.weight[0].numel()

    for name, part in net.named_modules():
        if isinstance(part, nn.Conv2d | nn.Linear):
            part.register_forward_hook(partial(count, f"{name}.weight"))
    with torch.no_grad():
        net.eval()(torch.empty(1, channels, size, size, device="meta"))
    return counts


def from_torchvision(arch: str, state_dict: Mapping[str, Tensor], channels: int = 3) -> dict[str, Tensor]:
    """Convert the state dict of a torchvision model to that of our network's trunk: ``trunk.*``, on the CPU, no head.

    ``vgg*`` are torchvision's ``vgg*_bn``. Raises ValueError, in one sentence, for weights of another architecture.
    """
    fitted = checkpoint.fit(state_dict, trunk(arch, channels).state_dict(), arch)
    return {f"trunk.{name}": tensor for name, tensor in fitted.items()}
