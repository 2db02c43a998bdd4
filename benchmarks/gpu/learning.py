"""A learning check: the paper's recipe on CIFAR-10's labels, shortened to what fits; or on images made up."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks.gpu import timing
from benchmarks.gpu.cases import Case
from benchmarks.gpu.results import Check, Line, Measured, Said
from benchmarks.gpu.run import Run
from raysslprune import data
from raysslprune.data import DataError, Dataset
from raysslprune.paper.recipes import appendix_d
from raysslprune.spec import Init, Train
from raysslprune.training.loop import Loop

SETS = ("parquet/cifar10", "parquet/cifar10/plain_text", "cifar10")
"""Names that CIFAR-10 may have in a folder of data sets; the first that exists is read."""

MADE_UP = "made-up images"

ENOUGH = 4
"""Minimum number of epochs after which test accuracy is checked."""

SHARE = 0.8
"""Fraction of the remaining time in which to train; the rest is for evaluation, and for slower moments."""


def lines(run: Run) -> Iterator[Line]:
    name = found_name(run.data) or MADE_UP
    images = (made_up(run) if name == MADE_UP else data.load(name, run.data)).to(run.device)
    if name == MADE_UP:
        yield Said(name="data", says=f"images made up, as there is no CIFAR-10 in {run.data}")
    arch = "resnet18-cifar" if run.on_gpu else "resnet8"
    paper = appendix_d("labels", "cifar10", "resnet18-cifar")
    recipe = replace(paper, batch=run.choose(512, 512, 64), precision=run.choose("bf16", "bf16", "float32"))
    case = Case(arch, replace(recipe, schedule="constant", decay_at=()), images)
    case.loop(timing.WARM_UP).run()
    speed = case.loop(run.choose(50, 20, 5)).run().images_per_second
    epochs = min(paper.samples / 50_000, max(1, SHARE * run.left * speed // len(images.train)))
    samples = round(epochs * len(images.train))
    decay_at = tuple(at * samples // paper.samples for at in paper.decay_at)
    recipe = replace(recipe, samples=samples, decay_at=decay_at)
    step = Train(task="labels", data=name, arch=arch, recipe=recipe, seed=0, start=Init(seed=0))
    outcome = Loop(step=step, data=images, device=run.device).run()
    shown = {k: v for k, v in outcome.metrics.items() if k.startswith(("top1", "train_loss", "natural_sparsity"))}
    facts = {"images/s": outcome.images_per_second, "seconds": outcome.seconds}
    yield Measured(name=f"{arch} on {name}, {epochs:g} epochs, {recipe.precision}", values=shown | facts)
    if epochs >= ENOUGH:
        yield learned(arch, outcome.metrics["top1"])


def learned(arch: str, top1: float) -> Check:
    return Check(
        name=f"{arch}: test accuracy, percent",
        found=top1,
        expected=100,
        tolerance=40,
        why=f"60% or more after {ENOUGH} epochs or more; chance is 10%",
    )


def found_name(root: str) -> str | None:
    """Return the name that CIFAR-10 has in the folder ``root``; None if it is not there."""
    for name in SETS:
        with suppress(DataError):
            data.source(name).locate(Path(root))
            return name
    return None


def made_up(run: Run) -> Dataset:
    """Make images of ten patterns under noise; the recipe's views shift them."""
    generator = torch.Generator().manual_seed(0)
    patterns = torch.randn(10, 3, 8, 8, generator=generator).repeat_interleave(4, 2).repeat_interleave(4, 3)
    splits = []
    for count in run.choose((50_000, 10_000), (10_000, 2_000), (640, 200)):
        labels = torch.arange(count) % 10
        noisy = patterns[labels] + 0.5 * torch.randn(count, 3, 32, 32, generator=generator)
        splits.append(((128 + 32 * noisy).clamp(0, 255).to(torch.uint8), labels))
    return data.resident(splits[0], splits[1])
