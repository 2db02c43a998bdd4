"""Cost of handing out jobs, as seen with trainings that do nothing on a real Ray on this machine."""

from __future__ import annotations

import argparse
import resource
import tempfile
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, Any

from raysslprune.commands.common import positive

if TYPE_CHECKING:
    from raysslprune.plan.graph import Plan

SWEEP = "fig3"
"""Sweep whose jobs are handed out, at laptop scale, with as many seeds as the number of jobs needs."""

WARM = 100
"""Jobs before the measurement begins, while workers start."""


def arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--jobs", type=_jobs, nargs="+", default=[300, 1_000, 3_000, 10_000], help="how many (default: %(default)s)")
    add("--slots", type=positive, default=2, help="workers at once (default: %(default)s)")


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Measure jobs per second, and the driver's CPU time and memory for each, at each number of jobs."""
    sizes = sorted(options.jobs)
    measured = [_measured(size, options.slots) for size in sizes]
    names = [f"{size:,} jobs" for size in sizes]
    return {part: {name: column[part] for name, column in zip(names, measured, strict=True)} for part in measured[0]}


def _measured(size: int, slots: int) -> dict[str, float]:
    from benchmarks import no_training
    from raysslprune.terminal.progress import output_to

    meter = no_training.Meter(WARM)
    with tempfile.TemporaryDirectory(prefix="dispatch-") as folder, output_to(f"{folder}/log"):
        no_training.run(plan_of(size), folder, slots, meter)
    begin, end, jobs = meter.begin, meter.end, size - WARM
    assert begin
    assert end
    return {
        "jobs/s": jobs / (end.wall - begin.wall),
        "ms of the driver's CPU time, a job": 1e3 * (end.cpu - begin.cpu) / jobs,
        "kB of the driver's memory, a job": (end.memory - begin.memory) / 1e3 / jobs,
        "MB of the driver's memory, at most": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3,
    }


def plan_of(size: int) -> Plan:
    """Return the plan of the first ``size`` jobs of the sweep, parents before children."""
    from raysslprune.plan.graph import make_plan
    from raysslprune.sweep_loader import load

    each = len(make_plan(load(SWEEP, "laptop", 1).points).jobs)
    whole = make_plan(load(SWEEP, "laptop", size // each + 1).points)
    return replace(whole, jobs=dict(islice(whole.jobs.items(), size)))


def _jobs(text: str) -> int:
    if not text.isdecimal() or int(text) < 2 * WARM:
        raise argparse.ArgumentTypeError(f"{text!r:.40} is not a whole number from {2 * WARM}")
    return int(text)
