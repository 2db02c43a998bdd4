"""A sweep whose trainings do nothing: a real Ray, Tune and the sweep's own code, and a meter of what this costs."""

from __future__ import annotations

import io
import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

from rich.console import Console

from raysslprune.cluster import nodes, prometheus, tune
from raysslprune.cluster.options import RunOptions
from raysslprune.paper.recipes import NETS
from raysslprune.plan.cost import cost_of
from raysslprune.plan.graph import Job, Plan
from raysslprune.plan.schedule import Schedule
from raysslprune.store.steps import Store
from raysslprune.terminal.progress import Progress

FACTS = {
    "seconds": 0.001,
    "images_per_second": 1.0,
    "begun": 0.0,
    "resumed_at": None,
    "host": "",
    "device": "",
    "workers": 1,
    "images": 1,
    "versions": {},
}
"""Facts of a training that did nothing."""


class NoTraining(tune.JobTrial):
    """A trial whose jobs end at once, on workers that do not import torch."""

    def prepare(self, config: dict[str, Any]) -> str:
        self.exchange = tune.Exchange.connect()
        self.ready = True
        return ""

    def _outcome(self, job: dict[str, Any]) -> dict[str, Any]:
        return {"facts": json.dumps(FACTS)}


@dataclass(frozen=True)
class Used:
    """What this process has used: seconds on the clock, seconds of CPU time, bytes of memory."""

    wall: float
    cpu: float
    memory: int

    @staticmethod
    def now() -> Used:
        with open("/proc/self/statm") as file:
            pages = int(file.read().split()[1])
        return Used(time.perf_counter(), time.process_time(), pages * os.sysconf("SC_PAGE_SIZE"))


@dataclass
class Meter:
    """A watcher that notes what was used when the first ``warm`` jobs were done, and at the last one."""

    warm: int
    done: int = field(default=0, init=False)
    begin: Used | None = field(default=None, init=False)
    end: Used | None = field(default=None, init=False)

    def slots_are(self, count: int) -> None: ...
    def waits(self, what: str, sentence: str) -> None: ...
    def job_started(self, job: Job, workers: int) -> None: ...
    def job_failed(self, job: Job, why: str, skipped: int) -> None: ...
    def process_lost(self, job: Job, why: str, seconds: float) -> None: ...
    def note(self, sentence: str) -> None: ...

    def job_done(self, job: Job, facts: Mapping[str, Any]) -> None:
        self.done += 1
        self.end = Used.now()
        if self.done == self.warm:
            self.begin = self.end


def run(graph: Plan, root: str, slots: int, meter: Meter) -> None:
    """Run all jobs of a plan, with the display and the metrics of a sweep; none of them leaves anything in the root."""
    store = Store(os.path.join(root, "runs"))
    store.create()
    expected = cost_of(graph.jobs.values(), {}, NETS).seconds
    schedule = Schedule(graph.jobs.values(), expected)
    shown, metrics = Progress(Console(file=io.StringIO()), schedule, expected), prometheus.Monitor(schedule)
    with mock.patch.object(tune, "JobTrial", NoTraining), nodes.connected(cpus=slots):
        exchange = tune.Exchange.start()
        with shown.shown(), shown.watching(exchange.training), metrics.watching(exchange.training):
            watchers = prometheus.Watchers(shown, metrics, meter)
            tune.run(graph, schedule, store, "", watchers, RunOptions(slots=slots))
    assert len(graph.jobs) == meter.done
