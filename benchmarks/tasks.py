"""Metrics that each task learns on digits."""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import replace
from typing import Any

from benchmarks.statistics import over_seeds
from raysslprune.commands.common import positive


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Measure each task at laptop scale: its own metrics, and linear classifiers on its and on untrained features.

    The steps are those of a sweep, one after the other on one core.
    """
    import torch

    from raysslprune import catalogue, lottery
    from raysslprune.paper.scales import FEW, SETTINGS
    from raysslprune.plan.graph import make_plan
    from raysslprune.spec import Init, Train
    from raysslprune.store.steps import Store
    from raysslprune.sweepfile import Point
    from raysslprune.training.make_masks import NoExchange
    from raysslprune.training.runner import Runner

    torch.set_num_threads(1)
    s = SETTINGS["laptop"]
    linear, svm = (probe.recipe for probe in s.linear)
    s4l = f"s4l:{FEW}"

    def step(task: str, data: str, recipe: str, seed: int, **changes: Any) -> Train:
        made = replace(s.recipes[recipe], **changes)
        return Train(task=task, data=data, arch=s.arch, recipe=made, seed=seed, start=Init(seed=seed))

    steps: dict[str, list[Train]] = {}
    part, few = f"{s.data}:{FEW}", f"labels:{FEW}"
    for seed in range(options.repeats):
        for task in catalogue.TASKS:
            dense = step(task, s.data, s4l if task == "s4l" else task, seed)
            named = {
                task: dense,
                f"{task}: linear": lottery.linear(dense, data=s.data, recipe=linear),
                f"{task}: SVM": lottery.linear(dense, data=s.data, recipe=svm),
            }
            for name, one in named.items():
                steps.setdefault(name, []).append(one)
        tenth = step("labels", part, few, seed)
        many = step("labels", part, few, seed, batch=s.recipes[s4l].batch)
        for name, few_labels in {"labels 10%": tenth, "labels 10%, as many updates as s4l": many}.items():
            steps.setdefault(name, []).append(few_labels)
            steps.setdefault(f"{name}: linear", []).append(lottery.linear(few_labels, data=s.data, recipe=linear))
        for name, probe in (("untrained: linear", linear), ("untrained: SVM", svm)):
            steps.setdefault(name, []).append(lottery.untrained(tenth, data=s.data, recipe=probe))
    points = [
        Point(step=one, task=name, init="", level=0, seed=one.seed) for name, made in steps.items() for one in made
    ]
    measured: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        store = Store(folder)
        store.create()
        runner = Runner(store=store, exchange=NoExchange())
        for job in make_plan(points).jobs.values():
            runner.run(job.to_plain())
        for name, made in steps.items():
            records = [record for one in made if (record := store.record(one.id))]
            for metric in records[0].metrics:
                if metric.endswith(("top1", "accuracy", "map")):
                    values = [record.metrics[metric] for record in records]
                    measured[f"{name} {metric}"] = over_seeds(values)
    return measured


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--repeats", type=positive, default=3, help="how often (default: %(default)s)")
