"""Choice of the learning rate of the scale ``cifar10-fast``, on images held out of the training set."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from raysslprune import catalogue
from raysslprune.commands.common import positive
from raysslprune.paper.scales import CIFAR, SETTINGS

if TYPE_CHECKING:
    from torch.nn import Module

HELD_OUT = "10%-held-out"
RATES = (0.05, 0.1, 0.2, 0.4, 0.8)


def resnet18_cifar_eighth(channels: int) -> Module:
    """ResNet-18 for CIFAR at an eighth of the width, on which a CPU finishes the whole recipe."""
    from raysslprune.models.resnet import Trunk

    return Trunk(18, channels, cifar=True, first=8)


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Measure top-1 of each rate on a tenth of the training images, after a training on (a part of) the others.

    Warm-up and decay are the recipe's, in proportion to its length.
    """
    import torch

    from raysslprune import data
    from raysslprune.spec import Init, Train
    from raysslprune.training.loop import Loop

    setting = SETTINGS["cifar10-fast"]
    fast, device = setting.recipes["labels"], torch.device("cuda" if torch.cuda.is_available() else "cpu")
    name = f"{options.dataset}:{HELD_OUT}" + ("" if options.part == "all" else f":{options.part}")
    seen = data.load(name, options.data)
    samples = round(options.epochs * len(seen.train))
    # autocast makes a CPU slower
    precision = fast.precision if device.type == "cuda" else "float32"
    recipe = replace(fast, samples=samples, warmup=fast.warmup * samples // fast.samples, precision=precision)
    found: dict[str, Any] = {"images": len(seen.train), "of": CIFAR, "updates": -(-samples // recipe.batch)}
    for rate in options.rates:
        top1 = []
        for seed in range(options.seeds):
            step = Train(
                task="labels", data=name, arch=options.arch, recipe=replace(recipe, lr=rate), seed=seed,
                start=Init(seed=seed),
            )  # fmt: skip
            top1.append(Loop(step=step, data=seen, device=device).run().metrics["top1_validation"])
            print(f"rate {rate}, seed {seed}: {top1[-1]:.2f}", file=sys.stderr, flush=True)
        found[f"top-1 at {rate}"] = sum(top1) / len(top1)
    return found


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", type=catalogue.data_root, default="", help="where data sets lie")
    parser.add_argument("--dataset", default="cifar10", help="cifar10, or parquet/NAME (default: %(default)s)")
    parser.add_argument("--arch", default=SETTINGS["cifar10-fast"].arch, help="network (default: %(default)s)")
    parser.add_argument("--part", default="all", metavar="N%-of-images", help="train on this part of the other images")
    parser.add_argument("--epochs", type=float, default=15, help="the recipe's: %(default)s")
    parser.add_argument("--seeds", type=positive, default=1, help="trainings of each rate (default: %(default)s)")
    parser.add_argument("--rates", type=float, nargs="+", default=RATES, help="highest learning rates (default: five)")
