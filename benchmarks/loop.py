"""Speed of the training loop beside a bare one and the usual one, with torchvision's transforms in a DataLoader."""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from unittest import mock

from benchmarks.statistics import spread
from raysslprune.commands.common import positive

if TYPE_CHECKING:
    from torch import Tensor, nn

    from raysslprune.data import Dataset
    from raysslprune.spec import Recipe
    from raysslprune.training.loop import Loop

NETS = ("conv4", "resnet18-cifar", "vgg19")
UPDATES, BATCH = 3, 128
"""Updates and batch of the networks for CIFAR, where the paper's batch of 512 would only take longer."""

WORKERS = 2
"""Number of the DataLoader's processes."""


@dataclass(frozen=True)
class Case:
    """A training to time."""

    arch: str
    recipe: Recipe
    data: Dataset
    task: str = "labels"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--repeats", type=positive, default=7, help="how often (default: %(default)s)")
    parser.add_argument("--nets", nargs="+", default=list(NETS), choices=NETS, help="which (default: all)")
    parser.add_argument(
        "--compile", action="store_true", help="the bare loop by torch.compile too; needs a C++ compiler, and minutes"
    )


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Measure images/s on one core. The bare loop has its images ready and only does forward, backward and update."""
    import torch

    if options.compile and not any(map(shutil.which, ("g++", "clang++", os.environ.get("CXX", "")))):
        raise ValueError("--compile needs a C++ compiler, g++ or clang++")
    torch.set_num_threads(1)
    return {net: _net(net, options.repeats, options.compile) for net in options.nets}


def _net(arch: str, repeats: int, compiled: bool) -> dict[str, Any]:
    case = _training(arch)
    compilation = _compilation(case) if compiled else {}  # first, before other ways import the same modules
    ways: dict[str, Callable[[], float]] = {
        "bare": lambda: _bare(case),
        "ours": lambda: _loop(case).run().images_per_second,
        "usual": lambda: _usual(case),
        "usual, processes kept": lambda: _usual(case, kept=True),
        "input, ours": lambda: _input(case),
        "input, usual": lambda: _usual_input(case),
    }
    if arch == "conv4":
        rotnet = replace(case, task="rotnet")
        ways["ours on RotNet"] = lambda: _loop(rotnet).run().images_per_second
    if compiled:
        ways["bare, compiled"] = lambda: _bare(case, compiled=True)
    for way in ways.values():
        way()  # the first time pays for the warm-up
    runs = [{name: way() for name, way in ways.items()} for _ in range(repeats)]
    ratios = [("ours", "bare"), ("ours", "usual"), ("ours", "usual, processes kept"), ("input, ours", "input, usual")]
    ratios += [("ours on RotNet", "bare")] if arch == "conv4" else []
    ratios += [("bare, compiled", "bare")] if compiled else []
    return {
        **compilation,
        "images/s": {name: spread([run[name] for run in runs]) for name in ways},
        "over": {f"{a} / {b}": spread([run[a] / run[b] for run in runs]) for a, b in ratios},
    }


def _compilation(case: Case) -> dict[str, float]:
    """Measure seconds until the first update is done: with an empty cache on disk, and again with the cache filled."""
    import torch

    seconds = {}
    with tempfile.TemporaryDirectory() as cache, mock.patch.dict(os.environ, TORCHINDUCTOR_CACHE_DIR=cache):
        for when in ("first time", "again"):
            torch.compiler.reset()
            begun = time.perf_counter()
            _bare(replace(case, recipe=replace(case.recipe, samples=case.recipe.batch)), compiled=True)
            seconds[f"seconds to compile, {when}"] = time.perf_counter() - begun
    return seconds


def _training(arch: str) -> Case:
    """Make a case: the full laptop training, or a few updates of the paper's on random images of CIFAR-10's shape."""
    import torch

    from raysslprune import data
    from raysslprune.paper.recipes import appendix_d
    from raysslprune.paper.scales import SETTINGS

    if arch == "conv4":
        setting = SETTINGS["laptop"]
        return Case(arch, setting.recipes["labels"], data.load(setting.data))
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (1024, 3, 32, 32), dtype=torch.uint8, generator=generator)
    labels = torch.arange(1024) % 10
    recipe = replace(
        appendix_d("labels", "cifar10", arch), batch=BATCH, samples=UPDATES * BATCH, schedule="constant", decay_at=()
    )
    return Case(arch, recipe, data.resident((images, labels), (images[:10], labels[:10])))


def _loop(case: Case) -> Loop:
    """Make the training loop of a case, with a random half of the weights masked."""
    from raysslprune.spec import Init, Train
    from raysslprune.training.loop import Loop

    step = Train(task=case.task, data="", arch=case.arch, recipe=case.recipe, seed=0, start=Init(seed=0))
    return Loop(step=step, data=case.data, mask=_half(case))


def _half(case: Case) -> dict[str, Tensor]:
    import torch

    from raysslprune import masks, models

    shapes = {n: w.shape for n, w in models.prunable(models.trunk(case.arch, case.data.channels)).items()}
    count = sum(shape.numel() for shape in shapes.values()) // 2
    return masks.random(shapes, count, torch.Generator().manual_seed(0))


def _bare(case: Case, compiled: bool = False) -> float:
    import torch
    from torch.nn.functional import cross_entropy

    from raysslprune.data import Resident
    from raysslprune.training.loop import optimizer

    net = _network(case).to(memory_format=torch.channels_last)
    assert isinstance(case.data.train, Resident)
    images = case.data.normalise(case.data.train.images).contiguous(memory_format=torch.channels_last)
    labels, update = case.data.train.labels, optimizer(case.recipe, net)
    net = torch.compile(net) if compiled else net
    seen, batch, begun = 0, case.recipe.batch, time.perf_counter()
    while seen < case.recipe.samples:
        first = seen % (len(images) - batch)
        loss = cross_entropy(net(images[first : first + batch]), labels[first : first + batch])
        update.zero_grad()
        loss.backward()
        update.step()
        seen += batch
    return seen / (time.perf_counter() - begun)


def _usual(case: Case, kept: bool = False) -> float:
    """Return images/s of the usual script: images one by one in a DataLoader's processes, masks in each forward pass.

    kept: keep the processes from epoch to epoch; by default a DataLoader starts new ones.
    """
    from torch.nn.functional import cross_entropy
    from torch.nn.utils import prune

    from raysslprune.training.loop import optimizer

    net = _network(case)
    for name, keep in _half(case).items():
        layer, _, parameter = f"trunk.{name}".rpartition(".")
        prune.custom_from_mask(net.get_submodule(layer), parameter, keep)
    update = optimizer(case.recipe, net)
    loader = _loader(case, kept)
    if kept:
        next(iter(loader))  # starts its processes
    seen, begun = 0, time.perf_counter()
    while seen < case.recipe.samples:
        for images, labels in loader:
            loss = cross_entropy(net(images), labels)
            update.zero_grad()
            loss.backward()
            update.step()
            seen += len(images)
            if seen >= case.recipe.samples:
                break
    return seen / (time.perf_counter() - begun)


def _input(case: Case) -> float:
    """Return images/s of our loop's batches, without training on them."""
    loop, seen, begun = _loop(_long(case)), 0, time.perf_counter()
    while seen < loop.end:
        seen += len(loop.next_batch()[0])
    return seen / (time.perf_counter() - begun)


def _usual_input(case: Case) -> float:
    loader, end, seen = _loader(case, kept=True), _long(case).recipe.samples, 0
    next(iter(loader))
    begun = time.perf_counter()
    while seen < end:
        for images, _ in loader:
            seen += len(images)
    return seen / (time.perf_counter() - begun)


def _long(case: Case) -> Case:
    """Return the case with 10,240 samples, enough to measure the input."""
    return replace(case, recipe=replace(case.recipe, samples=10_240))


def _network(case: Case) -> nn.Module:
    import torch

    from raysslprune import models

    generator = torch.Generator().manual_seed(0)
    return models.network(
        case.arch, case.data.channels, lambda w: torch.nn.Linear(w, case.data.classes), generator, torch.device("cpu")
    )


def _loader(case: Case, kept: bool) -> Any:
    """Make a DataLoader with the recipe's shift, flip and normalisation, by torchvision's transforms."""
    import torch
    from PIL import Image
    from torch.utils.data import DataLoader
    from torchvision import transforms

    from raysslprune.data import Resident

    recipe, split = case.recipe, case.data.train
    assert isinstance(split, Resident)
    mean, std = ((each.flatten() / 255).tolist() for each in (case.data.mean, case.data.std))
    change = transforms.Compose(
        [
            transforms.RandomCrop(split.size, padding=recipe.pad),
            *([transforms.RandomHorizontalFlip()] if recipe.flip else []),
            transforms.ToTensor(),
            transforms.Normalize(mean, std),
        ]
    )
    pixels = split.images.permute(0, 2, 3, 1).squeeze(3).numpy()  # as torchvision.datasets.CIFAR10 has them

    class Images(torch.utils.data.Dataset[tuple[Any, int]]):
        def __len__(self) -> int:
            return len(pixels)

        def __getitem__(self, index: int) -> tuple[Any, int]:
            return change(Image.fromarray(pixels[index])), int(split.labels[index])

    return DataLoader(
        Images(), recipe.batch, shuffle=True, num_workers=WORKERS, persistent_workers=kept, drop_last=True
    )
