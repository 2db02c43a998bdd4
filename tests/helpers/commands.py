"""Sweeps as a user starts them, and what they leave."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Command:
    """A finished ``python -m raysslprune.sweep``."""

    code: int
    out: str
    err: str


SWEEP = (sys.executable, "-m", "raysslprune.sweep")


def start(*arguments: str, cwd: Path | None = None, program: Sequence[str] = SWEEP) -> subprocess.Popen[str]:
    """``python -m raysslprune.sweep`` with these arguments, as a user starts it, in a process group of its own.

    program: another program in its place.
    """
    process = subprocess.Popen(
        [*program, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
        cwd=cwd,
        start_new_session=True,
    )
    STARTED.append(process)
    return process


STARTED: list[subprocess.Popen[Any]] = []


def finish(process: subprocess.Popen[str], timeout: float = 280) -> Command:
    """Wait for it. One that hangs is killed, and the test fails."""
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    return Command(code=process.returncode, out=out, err=err)


def sweep(*arguments: str, cwd: Path | None = None) -> Command:
    """Run a sweep to its end."""
    return finish(start(*arguments, cwd=cwd))


def done_steps(root: Path) -> dict[str, int]:
    """The finished steps of a root, with the time at which each was finished, in nanoseconds."""
    return {path.parent.name: path.stat().st_mtime_ns for path in root.glob("steps/*/SUCCESS")}


@dataclass(frozen=True, kw_only=True)
class Finished:
    """fig3 at scale smoke, run once without interruption."""

    root: Path
    command: Command

    @property
    def table(self) -> bytes:
        return table_of(self.root)


def table_of(root: Path) -> bytes:
    """The bytes of fig3's table at scale smoke."""
    return (root / "results/smoke/fig3.parquet").read_bytes()


SHAREABLE = """
from dataclasses import replace

from raysslprune.lottery import imp, winning_ticket
from raysslprune.paper.scales import SETTINGS
from raysslprune.sweepfile import Curve, Figure, Point

FIGURE = Figure(title="t", references=(Curve(task="labels", init="a"),))


def points(scale, seed):
    s = SETTINGS[scale]
    recipe = replace(s.recipes["labels"], bn_batch=16, batch=64)
    chain = imp(task="labels", data="digits", arch=s.arch, recipe=recipe, seed=seed, levels=1, keep=0.5,
                rewind=s.rewind["labels"])
    for level in (0, 1):
        step = winning_ticket(chain, level, task="labels", recipe=recipe)
        yield Point(step=step, task="labels", init="a", level=level, seed=seed)
"""
"""A sweep file of trainings that several workers may share."""
