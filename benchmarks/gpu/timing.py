"""Measure speed: the device waited for, warmed up, and ways that are compared by turns within one run."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from benchmarks.statistics import spread

Way = Callable[[int], float]
"""Function that does a number of updates and returns images/s."""

WARM_UP = 5
"""Updates on a GPU before anything is timed: it loads kernels, cuDNN tries its algorithms, graphs are recorded."""

MAX_UPDATES = 20_000
"""Maximum number of updates in one measurement."""


@dataclass(frozen=True)
class Pace:
    """Length of measurements. seconds: rough time of each. repeats: number. warm_up: updates before, done twice."""

    seconds: float
    repeats: int
    warm_up: int = WARM_UP


def synchronise(device: torch.device) -> None:
    """Wait until the device has finished all its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds(do: Callable[[], Any], device: torch.device, times: int = 1) -> float:
    """Return the seconds that ``times`` calls of ``do`` take, until the device is done."""
    synchronise(device)
    begun = time.perf_counter()
    for _ in range(times):
        do()
    synchronise(device)
    return time.perf_counter() - begun


def rates(ways: Mapping[str, Way], batch: int, pace: Pace) -> dict[str, list[float]]:
    """Measure images/s of each way in each repeat; the ways take turns.

    batch: images of an update. All ways do as many updates as the fastest can in the pace's time.
    """
    for way in ways.values():
        way(pace.warm_up)
    fastest = max(way(pace.warm_up) for way in ways.values())
    count = min(MAX_UPDATES, max(pace.warm_up, round(pace.seconds * fastest / batch)))
    measured: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(pace.repeats):
        for name, way in ways.items():
            measured[name].append(way(count))
    return measured


def compared(measured: Mapping[str, list[float]], to: str) -> dict[str, Any]:
    """Return the spread of images/s of each way, and of the ratio of each other way to ``to`` in one repeat."""
    found: dict[str, Any] = {f"{name}, images/s": spread(values) for name, values in measured.items()}
    for name, values in measured.items():
        if name != to:
            found[f"{name} over {to}"] = spread([a / b for a, b in zip(values, measured[to], strict=True)])
    return found
