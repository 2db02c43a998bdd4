"""Cost of one update, computed without a GPU: operations, bytes, operators, and the minimum time of each.

The loop's own update runs on tensors without values, and each operator that it calls is counted.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from unittest import mock

if TYPE_CHECKING:
    from torch import nn

    from raysslprune.spec import Recipe
    from raysslprune.training.loop import Loop

NETS = {
    "conv4": ("digits", 64),
    "resnet8": ("digits", 64),
    "resnet18-cifar-half": ("cifar10", 512),
    "resnet18-cifar": ("cifar10", 512),
    "vgg19": ("cifar10", 512),
    "resnet50": ("imagenet", 256),
}
"""Data set, for the shape of images, and samples of an update, by network."""

TF32, BF16, BANDWIDTH = 495e12, 989e12, 4.8e12
"""Dense operations and bytes a second of an H200 SXM. See NVIDIA's data sheet "H200 Tensor Core GPU"; its 989 and 1,979
TFLOPS are with sparsity, so halved."""

LAUNCH = 5e-6
"""Seconds from one operator to the next in eager PyTorch. Assumed, not measured."""


@dataclass
class Counts:
    """Counts of one update. operators: only those that compute; views and shapes cost nothing on the device."""

    operators: int = 0
    bytes: int = 0
    flops: int = 0


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Count the update of each network; ``ms`` are lower bounds, of which the largest counts."""
    return {net: _row(net) for net in options.nets}


def _row(net: str) -> dict[str, float]:
    data, batch = NETS[net]
    counts = count(net, data, batch)
    return {
        "batch": batch,
        "GFLOP": round(counts.flops / 1e9, 1),
        "GB": round(counts.bytes / 1e9, 2),
        "operators": counts.operators,
        "ms, TF32": round(counts.flops / TF32 * 1e3, 2),
        "ms, bf16": round(counts.flops / BF16 * 1e3, 2),
        "ms, memory": round(counts.bytes / BANDWIDTH * 1e3, 2),
        "ms, launches": round(counts.operators * LAUNCH * 1e3, 2),
    }


def count(net: str, data: str, batch: int) -> Counts:
    """Run two updates on labels, with half of the weights masked, and count the second, which is like all others."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    loop, counts = _loop(net, data, batch), Counts()
    views = torch.empty(batch, loop.data.channels, loop.data.size, loop.data.size, device="meta")
    loop.ready = [
        (views.to(memory_format=torch.channels_last), torch.zeros(batch, dtype=torch.int64, device="meta"))
    ] * 2
    loop.next_update()
    with FlopCounterMode(display=False) as flops, counting(counts):
        loop.next_update()
    counts.flops = flops.get_total_flops()
    # the fused optimiser: reads weights, gradients and momentum, writes weights and momentum
    counts.operators += 1
    counts.bytes += 5 * sum(4 * weight.numel() for weight in loop.trained.parameters())
    return counts


def _loop(net: str, data: str, batch: int) -> Loop:
    """Make a training on ``meta``, whose tensors have shapes but no values, with images of the data's shape."""
    import torch

    from raysslprune import masks, models
    from raysslprune.data import resident
    from raysslprune.paper.recipes import PIXELS
    from raysslprune.spec import Init, Recipe, Train
    from raysslprune.training import loop as training

    channels, size, classes = 1 if data == "digits" else 3, PIXELS[data], 1000 if data == "imagenet" else 10
    images = torch.zeros(classes, channels, size, size, dtype=torch.uint8), torch.arange(classes)
    recipe = Recipe(samples=10 * batch, batch=batch, lr=0.1, momentum=0.9, weight_decay=5e-4)
    step = Train(task="labels", data=data, arch=net, recipe=recipe, seed=0, start=Init(seed=0))
    shapes = {name: weight.shape for name, weight in models.prunable(models.trunk(net, channels)).items()}
    with mock.patch.object(training, "optimizer", _Fused):
        loop = training.Loop(
            step=step, data=resident(images, images), mask=masks.full(shapes), device=torch.device("meta")
        )
    loop.trained.train()
    return loop


class _Fused:
    """A substitute for the fused optimiser, which has no kernel for ``meta``."""

    def __init__(self, recipe: Recipe, module: nn.Module, **_: object) -> None:
        self.parameters = list(module.parameters())
        self.param_groups: list[dict[str, Any]] = []

    def zero_grad(self) -> None:
        for parameter in self.parameters:
            parameter.grad = None

    def step(self) -> None:
        """Do nothing: :func:`count` adds the optimiser's step."""


def counting(counts: Counts) -> Any:
    """Return a context that counts each operator that computes, and the bytes that it reads and writes."""
    from torch import Tensor
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves

    class Counting(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            made = func(*args, **(kwargs or {}))
            views = any(returned.alias_info and not returned.alias_info.is_write for returned in func._schema.returns)
            if not views and func.overloadpacket.__name__ not in FREE:
                counts.operators += 1
                touched = [leaf for leaf in tree_leaves((args, made)) if isinstance(leaf, Tensor)]
                counts.bytes += sum(tensor.numel() * tensor.element_size() for tensor in touched)
            return made

    return Counting()


FREE = {"detach", "empty_like", "new_empty", "empty", "_unsafe_view"}
"""Operators that launch nothing, although torch does not mark them as views."""


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--nets", nargs="+", default=list(NETS), choices=NETS, help="which (default: all)")
