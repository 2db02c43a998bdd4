"""Input: views made on the device, and JPEGs decoded there beside threads on the cores."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision.io import ImageReadMode, decode_jpeg

from benchmarks.gpu import timing
from benchmarks.gpu.cases import Case, noise
from benchmarks.gpu.results import Line, Measured, Said
from benchmarks.gpu.run import Run
from benchmarks.input import photographs
from benchmarks.statistics import spread
from raysslprune.data.images import decode
from raysslprune.paper.recipes import VIEWS, appendix_d
from raysslprune.plan.cost import cores


def lines(run: Run) -> Iterator[Line]:
    count = run.choose(512, 256, 8)
    for task in run.choose(("labels", "exemplar"), ("labels", "exemplar"), ("labels",)):
        yield views(run, task, "cifar10", 32, 2 * count)
        if run.on_gpu:
            yield views(run, task, "imagenet", 224, count)
    yield decoding(run)


def views(run: Run, task: str, data: str, size: int, count: int) -> Line:
    """Measure the loop's batches without training on them: draws, look-ups, crops and colours of resident images."""
    arch = "resnet18-cifar" if data == "cifar10" else "resnet50"
    paper = appendix_d(task, data, arch)
    recipe = replace(paper, batch=count, bn_batch=0, schedule="constant", decay_at=(), warmup=0)
    case = Case("conv4", recipe, noise(3, size, 2 * count, run.device))
    loop = case.loop(10**6, task=task)
    per_batch = count * VIEWS.get(task, 1)

    def way(updates: int) -> float:
        return updates * per_batch / timing.seconds(loop.next_batch, run.device, updates)

    rates = timing.rates({"views": way}, per_batch, run.pace)
    return Measured(name=f"{task} on {data}, {size} px", values={"views/s": spread(rates["views"])})


def decoding(run: Run) -> Line:
    """Measure decoding of JPEGs of ImageNet's size in memory: by Pillow in threads, by torchvision on the device."""
    encoded = jpegs(run.choose(96, 48, 4))
    packed = [torch.frombuffer(bytearray(image), dtype=torch.uint8) for image in encoded]
    on_device = partial(decode_jpeg, packed, mode=ImageReadMode.RGB, device=run.device)
    try:
        pixels = list(on_device())
    except RuntimeError as error:
        return Said(name="decoding", says=f"skipped: this torchvision does not decode on the device ({error})")
    with ThreadPoolExecutor(cores()) as pool:
        in_threads = partial(_all, pool, encoded)
        taken = [[timing.seconds(do, run.device) for do in (in_threads, on_device)] for _ in range(run.choose(6, 4, 2))]
    taken = taken[1:]  # the first time warms up
    values: dict[str, Any] = {
        "threads, images/s": spread([len(encoded) / threads for threads, _ in taken]),
        "device, images/s": spread([len(encoded) / device for _, device in taken]),
        "device over threads": spread([threads / device for threads, device in taken]),
        "threads used": cores(),
        "mean difference of a pixel, of 255": apart(encoded, pixels),
    }
    return Measured(name="decoding", values=values)


def jpegs(count: int) -> list[bytes]:
    with tempfile.TemporaryDirectory() as folder:
        photographs(Path(folder), count)
        return [path.read_bytes() for path in sorted(Path(folder).glob("train/all/*.jpg"))]


def _all(pool: ThreadPoolExecutor, encoded: Sequence[bytes]) -> list[Any]:
    return list(pool.map(lambda image: np.asarray(decode(image)), encoded))


def apart(encoded: Sequence[bytes], pixels: Sequence[Tensor]) -> float:
    """Return the mean difference between Pillow's pixels and others, on the scale from 0 to 255."""
    pillow = (np.asarray(decode(image)).transpose(2, 0, 1).astype(float) for image in encoded)
    return float(np.mean([np.abs(one - other.cpu().numpy()).mean() for one, other in zip(pillow, pixels, strict=True)]))
