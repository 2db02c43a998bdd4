"""Several processes that share a training: ``torchrun --nproc-per-node N -m benchmarks.gpu``.

Every rank first trains alone, then all together. Each writes a file; the first also shows it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from statistics import median
from typing import Any

import torch
import torch.distributed as dist

from benchmarks.gpu import timing
from benchmarks.gpu.cases import Case, cifar, ours
from benchmarks.gpu.correctness import TASKS, beside_alone, digits, half, step
from benchmarks.gpu.results import Line, Measured, Said
from benchmarks.gpu.run import Run
from benchmarks.statistics import spread
from raysslprune.training.loop import Loop, State


def lines(run: Run) -> Iterator[Line]:
    world = int(os.environ["WORLD_SIZE"])
    if run.on_gpu:
        torch.cuda.set_device(run.device)
    case = scaled(run, world)
    alone, single = weights(run, world), speeds(run, case)
    begin(run)
    yield Said(name="ranks", says=f"{world}, which exchange gradients by {dist.get_backend()}")
    ranks: list[Any] = [None] * world
    dist.all_gather_object(ranks, weights(run, world))
    for task in TASKS:
        yield from beside_alone(f"{task}, {world} ranks", [trained[task] for trained in ranks], alone[task])
    together = speeds(run, case)
    ratio = median(together) / median(single)
    yield Measured(
        name=f"{case.arch}, batch {case.recipe.batch} in {world} parts, {case.recipe.precision}",
        values={
            "alone, images/s": spread(single),
            "together, images/s": spread(together),
            "together over alone": ratio,
            "of linear": ratio / world,
        },
    )
    dist.destroy_process_group()


def begin(run: Run) -> None:
    """Join the ranks: by NCCL if each has a GPU of its own, else by gloo."""
    here = int(os.environ.get("LOCAL_WORLD_SIZE", os.environ["WORLD_SIZE"]))
    own = run.on_gpu and torch.cuda.device_count() >= here
    dist.init_process_group("nccl" if own else "gloo", timeout=timedelta(seconds=max(run.left, 1)))


def weights(run: Run, world: int) -> dict[str, State]:
    """Return the weights of each task's network after ten updates, whose batches one or ``world`` ranks can train."""
    recipe = {"samples": 80 * world, "batch": 8 * world, "bn_batch": 8}
    return {
        task: Loop(step=step(task, **recipe), data=digits(), mask=half(), device=run.device).run().weights
        for task in TASKS
    }


def scaled(run: Run, world: int) -> Case:
    """Make a case whose batch grows with the ranks, so that the part of each rank stays the same."""
    part = run.choose(512, 512, 2)
    case = cifar("resnet18-cifar" if run.on_gpu else "vgg11", run.device, part * world)
    return replace(case, recipe=replace(case.recipe, bn_batch=part, precision=run.choose("bf16", "bf16", "float32")))


def speeds(run: Run, case: Case) -> list[float]:
    """Measure images/s of our loop on this rank, once for each repeat."""
    way = ours(case)
    way(run.choose(timing.WARM_UP, timing.WARM_UP, 1))
    return [way(run.choose(100, 30, 1)) for _ in range(run.pace.repeats)]
