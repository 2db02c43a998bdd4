"""Simulated use of large clusters by whole sweeps, with machines that die."""

from __future__ import annotations

import argparse
import math
from typing import TYPE_CHECKING, Any

from raysslprune.paper.scales import SETTINGS
from raysslprune.sweep_loader import known

if TYPE_CHECKING:
    from raysslprune.plan.graph import Plan

DAY = 86_400


def arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--sweeps", nargs="+", default=["all"], choices=["all", *known()], metavar="SWEEP", help="(default: all)")
    add("--scale", default="paper", choices=list(SETTINGS), help="of the sweeps (default: %(default)s)")
    add("--seeds", type=_count, nargs="+", help="how many (default: 1, and as many as the scale has)")
    add("--gpus", type=_count, nargs="+", default=[8, 32, 128, 512], help="of the cluster (default: %(default)s)")
    add("--per-node", type=_count, default=8, help="GPUs of a node (default: %(default)s)")
    add(
        "--life",
        type=_positive,
        nargs="+",
        default=[math.inf, 24, 12],
        help="hours that a node lives on average; inf: none dies (default: %(default)s)",
    )
    add("--draws", type=_count, default=1, help="of the deaths; the worst of them is shown (default: %(default)s)")
    add("--workers-per-step", type=_count, help="as of a sweep (default: as many as the recipe's batch has parts)")
    add(
        "--efficiency",
        type=_fraction,
        default=1.0,
        help="of a doubling of workers: 0.95 makes two 1.9 times as fast as one (default: %(default)s)",
    )


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Simulate sweeps by seeds, GPUs and hours that a node lives: the makespan, its bound, and the use of the GPUs."""
    from benchmarks.simulate import Cluster, Costs, bound, simulate
    from raysslprune.cluster.options import RunOptions
    from raysslprune.messages import FAILED, USAGE, say
    from raysslprune.paper.recipes import NETS
    from raysslprune.plan.cost import cost_of
    from raysslprune.plan.graph import make_plan
    from raysslprune.sweep_loader import load

    given = RunOptions(workers_per_step=options.workers_per_step, gpus_per_worker=1)
    costs = Costs(efficiency=options.efficiency)
    table: dict[str, Any] = {}
    for seeds in options.seeds or sorted({1, SETTINGS[options.scale].seeds}):
        names = known() if "all" in options.sweeps else options.sweeps
        graph = make_plan(point for name in names for point in load(name, options.scale, seeds).points)
        if not graph.jobs:
            raise SystemExit(say("there is nothing to train in these sweeps", USAGE))
        seconds = on_one_gpu(graph)
        expected = cost_of(graph.jobs.values(), {}, NETS).seconds  # by which a sweep orders its jobs
        for gpus in options.gpus:
            for life in options.life:
                cluster = Cluster(gpus=gpus, per_node=options.per_node, life=life * 3600)
                least = bound(graph, seconds, cluster, given, costs)
                draws = 1 if life == math.inf else options.draws
                outcome = max(
                    (
                        simulate(graph, seconds, cluster, expected=expected, options=given, costs=costs, seed=seed)
                        for seed in range(draws)
                    ),
                    key=lambda outcome: outcome.makespan,
                )
                if outcome.failed:
                    raise SystemExit(say(f"nodes that live {life:g} h never come to a checkpoint", FAILED))
                table[f"{seeds} seed{'s' * (seeds > 1)}, {gpus} GPUs, life {life:g} h"] = {
                    "days": outcome.makespan / DAY,
                    "bound": least.seconds / DAY,
                    "by": "path" if least.path > least.work else "work",
                    "bound/days": least.seconds / outcome.makespan,
                    "training": outcome.trained / outcome.alive,
                    "idle": outcome.idle / outcome.alive,
                    "starting": (outcome.starting + outcome.stopped) / outcome.alive,
                    "lost": outcome.lost / outcome.alive,
                    "deaths": outcome.deaths,
                }
    return table


def on_one_gpu(graph: Plan) -> dict[str, float]:
    """Return the seconds of each job's training on one GPU by id, as ``--dry-run`` counts them; of SVMs on a core."""
    from raysslprune import words
    from raysslprune.paper.recipes import NETS
    from raysslprune.plan.cost import SVMS, estimate

    speed = {work.what: work.images_per_second for work in estimate(graph, {}, NETS, "cuda").work}
    return {i: job.samples / speed[words.what(job.train)] if job.samples else SVMS for i, job in graph.jobs.items()}


def _count(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) <= 10_000:
        raise argparse.ArgumentTypeError(f"{text!r:.40} is not a whole number from 1 to 10,000")
    return int(text)


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not value > 0:
        raise argparse.ArgumentTypeError(f"{text!r:.40} is not a number above 0")
    return value


def _fraction(text: str) -> float:
    value = _positive(text)
    if value > 1:
        raise argparse.ArgumentTypeError(f"{text!r:.40} is not a number from 0 to 1")
    return value
