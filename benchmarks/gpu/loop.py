"""Our loop over a bare one, images/s, and what both make of the device: model FLOPs over a measured ceiling."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.gpu import timing
from benchmarks.gpu.cases import Bare, Case, cifar, digits, imagenet, ours
from benchmarks.gpu.machine import clocks
from benchmarks.gpu.results import Check, Line, Measured, Said
from benchmarks.gpu.run import Run
from benchmarks.statistics import spread
from raysslprune import models
from raysslprune.paper.recipes import NETS
from raysslprune.spec import PRECISIONS
from raysslprune.training.device import arithmetic


def lines(run: Run) -> Iterator[Line]:
    ceilings = {precision: ceiling(run, precision) for precision in PRECISIONS}
    values: dict[str, Any] = {f"{name}, TFLOP/s": spread(rates) for name, rates in ceilings.items()}
    yield Measured(name="ceiling, matrix products", values=values | clocks(run.device, max(ceilings["bf16"])))
    for make in cases(run):
        case = make()
        yield from counted(case)
        for precision in reversed(PRECISIONS):  # the quickest first
            yield measured(run, case.in_precision(precision), max(ceilings[precision]))


def cases(run: Run) -> list[Callable[[], Case]]:
    """Return functions that make the cases, the most important first, so that data is made only when needed."""
    device = run.device
    batch, size = run.choose(512, 512, 4), run.choose(224, 224, 32)
    made: list[Callable[[], Case]] = [
        partial(digits, "conv4", device),
        partial(cifar, "resnet18-cifar", device, batch),
        partial(digits, "resnet8", device),
        partial(cifar, "vgg19", device, batch),
        partial(imagenet, "resnet50", device, run.choose(256, 256, 2), size),
    ]
    return made if run.on_gpu or not run.quick else [made[0], made[2]]


def measured(run: Run, case: Case, ceiling: float) -> Line:
    """Measure our loop and a bare one. ceiling: TFLOP/s in the case's precision."""
    name = f"{case.arch}, {case.data.size} px, batch {case.recipe.batch}, {case.recipe.precision}"
    try:
        ways = {"bare": Bare(case), "ours": ours(case)}
        rates = timing.rates(ways, case.recipe.batch, run.pace)
    except torch.OutOfMemoryError:
        return Said(name=name, says="skipped, since the GPU has too little memory")
    flops = update_flops(case.arch, case.data.channels, case.data.classes, case.data.size)
    used = {"ours, of the ceiling": max(rates["ours"]) * flops / (ceiling * 1e12)}
    return Measured(name=name, values=timing.compared(rates, to="bare") | used)


def ceiling(run: Run, precision: str) -> list[float]:
    """Measure TFLOP/s of products of square matrices, as the device computes them in a recipe's precision."""
    size = run.choose(8192, 8192, 256)
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    a, b = (torch.randn(size, size, device=run.device).to(dtype) for _ in range(2))
    product = torch.empty_like(a)
    multiply = partial(torch.mm, a, b, out=product)
    with arithmetic(precision, run.device):
        timing.seconds(multiply, run.device, 3)
        times = max(1, round(run.choose(0.2, 0.1, 0.01) / timing.seconds(multiply, run.device)))
        return [2e-12 * size**3 * times / timing.seconds(multiply, run.device, times) for _ in range(3)]


# ------------------------------------------------------------------------------------- floating-point operations


def counted(case: Case) -> Iterator[Line]:
    """Compare torch's count of a forward pass with that in paper/recipes.py, from which GPU-hours are estimated."""
    net = NETS[case.arch]
    channels, classes = (1, 10) if net.pixels == 8 else (3, 1000 if net.pixels == 224 else 10)
    yield Check(
        name=f"{case.arch}, multiply-adds of an image of {net.pixels} px",
        found=forward_flops(case.arch, channels, classes, net.pixels) / 2,
        expected=net.macs,
        tolerance=0,
        why="both count the convolutions and linear layers exactly",
    )


def forward_flops(arch: str, channels: int, classes: int, size: int) -> float:
    """Return the operations of a forward pass of one image; a multiply-add counts as two."""
    return _flops(arch, channels, classes, size, lambda net, images: net(images))


def update_flops(arch: str, channels: int, classes: int, size: int) -> float:
    """Return the operations of a forward and a backward pass of one image."""
    return _flops(arch, channels, classes, size, lambda net, images: net(images).sum().backward())


def _flops(arch: str, channels: int, classes: int, size: int, do: Callable[[nn.Module, torch.Tensor], Any]) -> float:
    """Count by torch, per image of a batch of two (BatchNorm needs two), on the meta device, which computes nothing."""
    trunk = models.trunk(arch, channels)
    assert isinstance(trunk.width, int)
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        do(models.Network(trunk, nn.Linear(trunk.width, classes)), torch.empty(2, channels, size, size))
    return counter.get_total_flops() / 2
