"""The training loop beside a bare one."""

from __future__ import annotations

import argparse
import time
from typing import Any

from raysslprune.bench.statistics import spread


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Images/s of our loop, with augmentation, mask and checks, over a bare loop on the same resident tensors."""
    import torch

    from raysslprune import data, masks, models
    from raysslprune.scales import SETTINGS
    from raysslprune.spec import Init, Train
    from raysslprune.train import Loop

    torch.set_num_threads(1)
    setting = SETTINGS["laptop"]
    digits = data.load(setting.data)
    shapes = {name: w.shape for name, w in models.prunable(models.trunk(setting.arch, digits.channels)).items()}
    half = sum(shape.numel() for shape in shapes.values()) // 2

    def ours(task: str) -> float:
        step = Train(
            task=task,
            data=setting.data,
            arch=setting.arch,
            recipe=setting.recipes[task],
            seed=0,
            start=Init(seed=0),
        )
        mask = masks.random(shapes, half, torch.Generator().manual_seed(0))
        return Loop(step=step, data=digits, mask=mask).run().images_per_second

    def bare() -> float:
        recipe = setting.recipes["labels"]
        generator = torch.Generator().manual_seed(0)
        net = models.network(
            setting.arch, digits.channels, lambda w: torch.nn.Linear(w, digits.classes), generator, torch.device("cpu")
        )
        net = net.to(memory_format=torch.channels_last)
        assert isinstance(digits.train, data.Resident)
        images = digits.normalise(digits.train.images).contiguous(memory_format=torch.channels_last)
        labels = digits.train.labels
        optimizer = torch.optim.SGD(
            net.parameters(),
            lr=recipe.lr,
            momentum=recipe.momentum,
            nesterov=recipe.nesterov,
            weight_decay=recipe.weight_decay,
            fused=True,
        )
        net.train()
        seen, begun = 0, time.perf_counter()
        while seen < recipe.samples:
            first = seen % (len(images) - recipe.batch)
            batch = slice(first, first + recipe.batch)
            loss = torch.nn.functional.cross_entropy(net(images[batch]), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            seen += recipe.batch
        return seen / (time.perf_counter() - begun)

    bare()  # the first run of a process pays for its warm-up
    runs = [{"bare": bare(), "labels": ours("labels"), "rotnet": ours("rotnet")} for _ in range(options.repeats)]
    return {
        "images_per_second": {name: spread([run[name] for run in runs]) for name in runs[0]},
        "over_bare": {task: spread([run[task] / run["bare"] for run in runs]) for task in ("labels", "rotnet")},
    }


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--repeats", type=int, default=7, help="how often (default: %(default)s)")
