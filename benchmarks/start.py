"""Profile of the start of a sweep: seconds from the command to each of its stages.

Each Python process of the sweep imports a ``sitecustomize`` that this benchmark writes, and so notes what it does
(benchmarks/follow.py). The product knows nothing of it.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.statistics import spread
from raysslprune.commands.common import positive
from raysslprune.sweep_loader import known

CUSTOM = "from benchmarks import follow\nfollow.follow({folder!r})\n"


@dataclass(frozen=True, kw_only=True)
class Noted:
    """What a process noted: its first begin and its last end of each module and function, in seconds since 1970."""

    begin: dict[str, float]
    end: dict[str, float]
    first_end: dict[str, float]

    @staticmethod
    def read(file: Path) -> Noted:
        lines = [line.split() for line in file.read_text().splitlines()]
        found = [(kind, name, float(at)) for kind, name, at in lines]
        ends = [(name, at) for kind, name, at in found if kind == "end"]
        return Noted(
            begin={name: at for kind, name, at in reversed(found) if kind == "begin"},
            end=dict(ends),
            first_end=dict(reversed(ends)),
        )


def arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--repeats", type=positive, default=3, help="how often (default: %(default)s)")
    add("--sweep", default="fig3", choices=known(), help="sweep, at laptop scale with a seed (default: %(default)s)")
    add("--only", metavar="EXPR", help="a part of its points, as for a sweep")


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Measure seconds from the command to each stage of a sweep in an empty root."""
    profiles = [profile(options.sweep, options.only) for _ in range(options.repeats)]
    return {stage: spread([one[stage] for one in profiles]) for stage in profiles[0]}


def profile(sweep: str, only: str | None) -> dict[str, float]:
    """Run a sweep, or a part of it, once; return seconds from the command to each stage, in order."""
    with tempfile.TemporaryDirectory(prefix="start-") as folder:
        notes, custom = Path(folder, "notes"), Path(folder, "custom")
        for made in (notes, custom):
            made.mkdir()
        (custom / "sitecustomize.py").write_text(CUSTOM.format(folder=str(notes)))
        paths = [str(custom), str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
        command = [sys.executable, "-m", "raysslprune.sweep", sweep, "--seeds", "1", "--root", f"{folder}/runs"]
        command += ["--only", only] if only else []
        begun = time.time()
        subprocess.run(command, check=True, capture_output=True, env=environment)
        ended = time.time()
        processes = [Noted.read(file) for file in notes.iterdir()]
    return {stage: at - begun for stage, at in stages(processes).items()} | {"exit": ended - begun}


def stages(processes: Sequence[Noted]) -> dict[str, float]:
    """Return the time of each stage, in seconds since 1970. Of the workers, the one that updates first counts."""
    driver = next(one for one in processes if "raysslprune.execution.Execution.train" in one.begin)
    update, trial = "raysslprune.training.loop.Loop.update", "raysslprune.cluster.tune.JobTrial"
    workers = [one for one in processes if update in one.begin]
    first = min(workers, key=lambda one: one.first_end[update])
    return {
        "modules of the command imported": driver.begin["raysslprune.sweep_loader.load"],
        "planned": driver.begin["raysslprune.execution.Execution.train"],
        "Ray and Tune imported": driver.end["raysslprune.cluster.tune"],
        "Ray begins to start": driver.begin["raysslprune.cluster.nodes._init"],
        "Ray started": driver.end["raysslprune.cluster.nodes._init"],
        "Tune begins": driver.begin["raysslprune.cluster.tune.run"],
        "worker's process begins": first.begin["process"],
        "worker begins to import Tune": first.begin["raysslprune.cluster.tune"],
        "worker is there": first.begin[f"{trial}.setup"],
        "worker gets its first job": first.begin[f"{trial}.prepare"],
        "worker has imported torch": first.end["torch"],
        "worker's first training begins": first.begin["raysslprune.training.runner.Runner.run"],
        "worker has an optimiser": first.first_end["torch.optim.Optimizer.__init__"],
        "first update": first.first_end[update],
        "last worker's first update": max(one.first_end[update] for one in workers),
        "last update": max(one.end[update] for one in workers),
        "Tune ends": driver.end["raysslprune.cluster.tune.run"],
        "Ray has ended": driver.end["raysslprune.cluster.nodes.shut_down"],
        "drawing begins": driver.begin["raysslprune.present.present_sweep"],
        "drawn": driver.end["raysslprune.present.present_sweep"],
        "command ends": driver.begin["raysslprune.process.end"],
    }
