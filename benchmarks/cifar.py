"""A training on CIFAR-10."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from typing import Any

from raysslprune import catalogue


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Train on CIFAR-10 with the paper's recipe, shortened to ``--epochs``, with its decays in proportion."""
    import torch

    from raysslprune import data
    from raysslprune.paper.recipes import CIFAR, appendix_d
    from raysslprune.spec import Init, Train
    from raysslprune.training.loop import Hooks, Loop

    paper = appendix_d(options.task, "cifar10", options.arch)
    samples = round(options.epochs * CIFAR)
    recipe = replace(paper, samples=samples, decay_at=tuple(at * samples // paper.samples for at in paper.decay_at))
    step = Train(task=options.task, data=options.dataset, arch=options.arch, recipe=recipe, seed=0, start=Init(seed=0))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")

    def shown(seen: int, end: int) -> None:
        print(f"\r{seen:,} of {end:,} samples", end="" if seen < end else "\n", file=sys.stderr, flush=True)

    loop = Loop(step=step, data=data.load(options.dataset, options.data), device=device, hooks=Hooks(progress=shown))
    outcome = loop.run()
    return {
        "device": torch.cuda.get_device_name() if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads",
        "samples": loop.seen,
        "seconds": outcome.seconds,
        "images_per_second": outcome.images_per_second,
        **outcome.metrics,
    }


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", type=catalogue.data_root, default="", help="where data sets lie")
    parser.add_argument("--dataset", default="cifar10", help="cifar10, or parquet/NAME (default: %(default)s)")
    parser.add_argument("--task", default="labels", choices=["labels", "rotnet", "exemplar"])
    parser.add_argument("--arch", default="resnet18-cifar", choices=["resnet18-cifar", "vgg19"])
    parser.add_argument("--epochs", type=float, default=160, help="the paper's: 160; 180 for exemplar")
