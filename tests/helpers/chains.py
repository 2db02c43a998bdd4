"""Whole chains, planned and run in this process."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from pathlib import Path

from raysslprune.plan.graph import make_plan
from raysslprune.spec import Recipe, Train
from raysslprune.store.steps import Store
from raysslprune.sweepfile import Point


def execute(steps: Iterable[Train], root: Path, snapshots: Collection[int] = ()) -> Store:
    """Plan the trainings and run the jobs in the plan's order, each as the JSON that a worker gets. Without Ray.

    snapshots: that all trainings keep, beside those that others are rewound to.
    """
    from raysslprune.training.make_masks import NoExchange
    from raysslprune.training.runner import Runner

    store = Store(str(root))
    store.create()
    runner = Runner(store=store, exchange=NoExchange())
    points = [Point(step=step, task=step.task, init="", level=0, seed=step.seed) for step in steps]
    for job in make_plan(points).jobs.values():
        if isinstance(job.train.recipe, Recipe):
            job.snapshots |= set(snapshots)
        runner.run(json.loads(json.dumps(job.to_plain())))
    return store
