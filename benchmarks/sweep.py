"""Efficiency of a whole command: the share of the machine's time that goes into training."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from typing import Any

from benchmarks.statistics import spread
from raysslprune.commands.common import positive
from raysslprune.plan.cost import cores


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Measure seconds of training over (wall seconds x cores) for fig3, three seeds, from the command to the figure."""
    from raysslprune import results
    from raysslprune.plan.graph import make_plan
    from raysslprune.store.steps import Store
    from raysslprune.sweep_loader import load

    fig3 = load("fig3", "laptop", 3)
    graph = make_plan(fig3.points)
    walls, trainings = [], []
    for _ in range(options.repeats):
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
        "wall_seconds": spread(walls),
        "training_seconds": spread(trainings),
        "efficiency": spread([t / (w * cores()) for t, w in zip(trainings, walls, strict=True)]),
    }


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--repeats", type=positive, default=1, help="how often (default: %(default)s)")
