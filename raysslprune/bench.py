"""``python -m raysslprune.bench loop`` and ``... sweep``: how much of the machine reaches the training.

Ratios within one run, because machines are noisy; what each means stands in docs/performance.md.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from raysslprune.progress import cores


def loop(repeats: int) -> dict[str, Any]:
    """Images/s of our loop, with augmentation, mask and checks, over a bare loop on the same resident tensors."""
    import torch

    from raysslprune import data, masks, models
    from raysslprune.recipes import SETTINGS
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
        net = models.network(setting.arch, digits.channels, digits.classes, generator, torch.device("cpu"))
        net = net.to(memory_format=torch.channels_last)
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
    runs = [{"bare": bare(), "labels": ours("labels"), "rotnet": ours("rotnet")} for _ in range(repeats)]
    return {
        "images_per_second": {name: _spread([run[name] for run in runs]) for name in runs[0]},
        "over_bare": {task: _spread([run[task] / run["bare"] for run in runs]) for task in ("labels", "rotnet")},
    }


def sweep(repeats: int) -> dict[str, Any]:
    """Seconds of pure training over (wall seconds x cores) of fig3 with three seeds, from the command to the figure."""
    from raysslprune import plan, results
    from raysslprune.store import Store
    from raysslprune.sweep import load

    fig3 = load("fig3", "laptop", 3)
    graph = plan.make(fig3.points)
    walls, trainings = [], []
    for _ in range(repeats):
        with tempfile.TemporaryDirectory() as folder:
            root = os.path.join(folder, "runs")
            command = [sys.executable, "-m", "raysslprune.sweep", "fig3", "--seeds", "3", "--root", root]
            begun = time.perf_counter()
            subprocess.run(command, check=True, capture_output=True)
            walls.append(time.perf_counter() - begun)
            records, _ = Store(root).survey(graph.ids)
            assert len(results.table("fig3", "laptop", fig3.points, records)) == len(fig3.points)
            trainings.append(sum(records[job].facts["seconds"] for job in graph.jobs))
    return {
        "steps": len(graph.jobs),
        "wall_seconds": _spread(walls),
        "training_seconds": _spread(trainings),
        "efficiency": _spread([t / (w * cores()) for t, w in zip(trainings, walls, strict=True)]),
    }


BENCHMARKS: dict[str, tuple[Callable[[int], dict[str, Any]], int]] = {"loop": (loop, 7), "sweep": (sweep, 1)}
"""Name to the function and its number of repeats by default."""


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m raysslprune.bench", description=__doc__)
    parser.add_argument("name", choices=list(BENCHMARKS), help="loop: the training loop; sweep: the whole command")
    parser.add_argument("--repeats", type=int, help="how often (default: 7 loops, 1 sweep)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    options = parser.parse_args(arguments)
    run, repeats = BENCHMARKS[options.name]
    measured = run(options.repeats or repeats)
    machine = {"cores": cores(), "processor": platform.machine(), "python": platform.python_version()}
    if options.json:
        print(json.dumps({"benchmark": options.name, "machine": machine, **measured}, indent=1))
        return 0
    table = Table("", "median", "lowest", "highest", "n", box=None, padding=(0, 3, 0, 0))
    for name, values in measured.items():
        rows = values.items() if isinstance(values, dict) and "median" not in values else [("", values)]
        for part, value in rows:
            title = f"{name.replace('_', ' ')} {part}".strip()
            cells = [value] if isinstance(value, int) else [value[k] for k in ("median", "lowest", "highest", "n")]
            table.add_row(title, *(f"{c:,.3f}" if isinstance(c, float) and c < 10 else f"{c:,.0f}" for c in cells))
    Console().print(table)
    return 0


def _spread(values: Sequence[float]) -> dict[str, float]:
    return {"median": median(values), "lowest": min(values), "highest": max(values), "n": len(values)}


if __name__ == "__main__":
    sys.exit(main())
