"""Several networks as one: their convolutions as groups of one convolution, and so on. In this benchmark only."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn


def grouped(nets: Sequence[nn.Module]) -> nn.Module:
    """Merge B networks of one architecture into one network, with copies of their weights.

    It maps their images side by side as channels, (n, B * channels, h, w), to (n, B, outputs). An update by the sum of
    the B losses updates each network by its own loss. Raises TypeError for an unknown layer that has weights.
    """
    return nn.Sequential(_merged(nets), nn.Unflatten(1, (len(nets), -1)))


class GroupedLinear(nn.Module):
    """B linear layers side by side: (n, B * in) to (n, B * out)."""

    def __init__(self, layers: Sequence[nn.Linear]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.stack([layer.weight.detach() for layer in layers]))
        biased = layers[0].bias is not None
        self.bias = nn.Parameter(torch.stack([layer.bias.detach() for layer in layers])) if biased else None

    def forward(self, features: Tensor) -> Tensor:
        rows = features.unflatten(1, (len(self.weight), -1)).transpose(0, 1)
        outputs = torch.bmm(rows, self.weight.transpose(1, 2)).transpose(0, 1)
        return (outputs if self.bias is None else outputs + self.bias).flatten(1)


def _merged(parts: Sequence[nn.Module]) -> nn.Module:
    first = parts[0]
    if isinstance(first, nn.Conv2d):
        return _convolution([part for part in parts if isinstance(part, nn.Conv2d)])
    if isinstance(first, nn.BatchNorm1d | nn.BatchNorm2d):
        return _batch_norm([part for part in parts if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d)])
    if isinstance(first, nn.Linear):
        return GroupedLinear([part for part in parts if isinstance(part, nn.Linear)])
    if own := [*first.named_parameters(recurse=False), *first.named_buffers(recurse=False)]:
        raise TypeError(f"networks can't be grouped: {own[0][0]!r} of {type(first).__name__} is not known")
    made = copy.copy(first)
    made._modules = {
        name: None if child is None else _merged([part.get_submodule(name) for part in parts])
        for name, child in first._modules.items()
    }
    return made


def _convolution(layers: Sequence[nn.Conv2d]) -> nn.Conv2d:
    first, count = layers[0], len(layers)
    made = nn.Conv2d(
        count * first.in_channels,
        count * first.out_channels,
        kernel_size=(first.kernel_size[0], first.kernel_size[1]),
        stride=(first.stride[0], first.stride[1]),
        padding=first.padding if isinstance(first.padding, str) else (first.padding[0], first.padding[1]),
        dilation=(first.dilation[0], first.dilation[1]),
        groups=count * first.groups,
        bias=first.bias is not None,
        device=first.weight.device,
        dtype=first.weight.dtype,
    )
    return _with_tensors(made, layers)


def _batch_norm(layers: Sequence[nn.BatchNorm1d | nn.BatchNorm2d]) -> nn.Module:
    first = layers[0]
    width = len(layers) * first.num_features
    made = type(first)(width, first.eps, first.momentum, first.affine, first.track_running_stats)
    like = next((tensor for tensor in first.state_dict().values() if tensor.is_floating_point()), torch.empty(0))
    return _with_tensors(made.to(like.device, like.dtype), layers)


@torch.no_grad()
def _with_tensors(made: Any, layers: Sequence[nn.Module]) -> Any:
    """Load the layers' tensors, concatenated, into ``made``; a scalar, a count of updates, is the first layer's."""
    states = [layer.state_dict() for layer in layers]
    joined = {n: torch.cat([s[n] for s in states]) if t.ndim else t for n, t in states[0].items()}
    made.load_state_dict(joined)
    return made
