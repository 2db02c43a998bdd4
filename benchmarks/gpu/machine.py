"""The machine and the versions: what the numbers of the other parts are numbers of."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Iterator
from typing import Any

import torch
import torchvision

from benchmarks.gpu import timing
from benchmarks.gpu.results import Line, Measured
from benchmarks.gpu.run import Run
from raysslprune import __version__

FACTS = ("driver_version", "compute_mode", "mig.mode.current", "power.limit", "clocks.max.sm", "clocks.max.mem")
CLOCKS = ("clocks.sm", "clocks.mem", "power.draw", "temperature.gpu")
"""Fields to query from nvidia-smi."""


def lines(run: Run) -> Iterator[Line]:
    yield Measured(name="software", values=versions())
    yield Measured(name="device", values=device(run.device))


def versions() -> dict[str, Any]:
    return {
        "raysslprune": __version__,
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "CUDA": torch.version.cuda or "none",
        "cuDNN": torch.backends.cudnn.version() or "none",
        "python": platform.python_version(),
    }


def device(device: torch.device) -> dict[str, Any]:
    found: dict[str, Any] = {"cores": len(os.sched_getaffinity(0)), "processor": platform.machine()}
    if device.type != "cuda":
        return {"name": "CPU", **found, "threads": torch.get_num_threads()}
    has = torch.cuda.get_device_properties(device)
    return {
        "name": has.name,
        "count": torch.cuda.device_count(),
        "capability": f"{has.major}.{has.minor}",
        "multiprocessors": has.multi_processor_count,
        "memory, GiB": has.total_memory / 2**30,
        **found,
        **asked(device, FACTS),
    }


def clocks(device: torch.device, tflops: float) -> dict[str, Any]:
    """Return clocks, power and temperature while the device multiplies matrices; empty if they are unknown.

    tflops: speed of these products in TFLOP/s, which sets their number.
    """
    if device.type != "cuda":
        return {}
    a = torch.randn(8192, 8192, device=device, dtype=torch.bfloat16)
    for _ in range(round(1e12 * tflops / 8192**3)):  # two seconds of work, which nothing here waits for
        torch.mm(a, a)
    found = asked(device, CLOCKS)
    timing.synchronise(device)
    return found


def asked(device: torch.device, names: tuple[str, ...]) -> dict[str, str]:
    """Query nvidia-smi about the device; return an empty dict if it is missing or does not answer."""
    which = f"--id=GPU-{torch.cuda.get_device_properties(device).uuid}"
    command = ["nvidia-smi", which, f"--query-gpu={','.join(names)}", "--format=csv,noheader"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=5)
    except (OSError, subprocess.TimeoutExpired):
        return {}
    values = [value.strip() for value in answer.stdout.split(",")]
    return dict(zip(names, values, strict=True)) if answer.returncode == 0 and len(values) == len(names) else {}
