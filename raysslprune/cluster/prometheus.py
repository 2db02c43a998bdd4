"""Publish a sweep's progress as metrics beside Ray's own, for Prometheus and Grafana: docs/monitoring.md.

They are published by the sweep's own process, through Ray's agent on its node, which needs ``ray[default]``; without
it nothing is. No failure here stops a sweep.
"""

from __future__ import annotations

import functools
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, Concatenate, ParamSpec

from ray.util import metrics

from raysslprune.cluster.tune import Watcher
from raysslprune.plan.graph import Job
from raysslprune.plan.schedule import Schedule
from raysslprune.spec import SVM, Prune, Train, prunings, target_density

PREFIX = "raysslprune_"

KIND = ("task", "arch", "data")
"""What trainings are told apart by. Never by a step's id: each value of a tag is a time series for ever."""

CHAIN = (*KIND, "seed")

GAUGES: dict[str, tuple[str, tuple[str, ...]]] = {
    "steps": ("Steps by state; those that wait for others are waiting, those that wait for a slot ready.", ("state",)),
    "slots": ("Workers that the cluster has room for.", ()),
    "lost_processes": ("Times that a job's process died, since the command began.", ()),
    "images_per_second": ("Samples seen a second, by the trainings that run now; the sum is over all.", KIND),
    "rounds": ("Prunings so far, of the chain that is furthest.", CHAIN),
    "density": ("Fraction left of the weights that are pruned, in the chain that is furthest.", CHAIN),
}
COUNTERS: dict[str, tuple[str, tuple[str, ...]]] = {
    "samples": ("Samples seen by trainings.", KIND),
    "training_seconds": ("Seconds that the trainings took which are done.", KIND),
}
EXPORTED = {f"ray_{PREFIX}{name}" for name in GAUGES} | {f"ray_{PREFIX}{name}_total" for name in COUNTERS}
"""The names that Prometheus sees."""

LOOK_EVERY = 2.0
"""Seconds between looks at what runs."""

WINDOW = 30.0
"""Seconds that images a second are a mean over; many trainings at laptop scale are shorter than a look."""

SKEW = 5.0
"""Seconds that the clocks of two nodes may differ by."""


class Watchers:
    """Several watchers as one."""

    def __init__(self, *watchers: Watcher) -> None:
        self.watchers = watchers

    def slots_are(self, count: int) -> None:
        for watcher in self.watchers:
            watcher.slots_are(count)

    def job_started(self, job: Job, workers: int = 1) -> None:
        for watcher in self.watchers:
            watcher.job_started(job, workers)

    def job_done(self, job: Job, facts: Mapping[str, Any]) -> None:
        for watcher in self.watchers:
            watcher.job_done(job, facts)

    def job_failed(self, job: Job, why: str, skipped: int) -> None:
        for watcher in self.watchers:
            watcher.job_failed(job, why, skipped)

    def process_lost(self, job: Job, why: str, seconds: float) -> None:
        for watcher in self.watchers:
            watcher.process_lost(job, why, seconds)

    def note(self, sentence: str) -> None:
        for watcher in self.watchers:
            watcher.note(sentence)


P = ParamSpec("P")


def _harmless(method: Callable[Concatenate[Monitor, P], None]) -> Callable[Concatenate[Monitor, P], None]:
    """One at a time, and what it raises is only printed, once: to Ray's log, while a sweep runs."""

    @functools.wraps(method)
    def safe(self: Monitor, /, *args: P.args, **kwargs: P.kwargs) -> None:
        with self._lock:
            try:
                method(self, *args, **kwargs)
            except Exception:
                if not self._broken:
                    self._broken = True
                    traceback.print_exc()

    return safe


class Monitor:
    """Publishes a schedule at work. A tune.Watcher."""

    def __init__(self, schedule: Schedule, done_before: Iterable[Job] = ()) -> None:
        """done_before: jobs that the store already had."""
        self.schedule, self.done_before = schedule, list(done_before)
        self._lock, self._broken = threading.Lock(), False
        self._gauges: dict[str, metrics.Gauge] = {}
        self._counters: dict[str, metrics.Counter] = {}
        self._slots, self._lost = 0, 0
        self._started: dict[str, float] = {}
        self._seen: dict[str, int] = {}  # by running jobs, at the last look
        self._counted: dict[str, int] = {}  # of that, in what is published
        self._samples: dict[tuple[str, ...], int] = {}
        self._looks: dict[tuple[str, ...], deque[tuple[float, int]]] = {}
        self._furthest: dict[tuple[str, ...], tuple[int, float]] = {}

    # ------------------------------------------------------------------ events

    @_harmless
    def slots_are(self, count: int) -> None:
        self._slots = count

    @_harmless
    def job_started(self, job: Job, workers: int = 1) -> None:
        self._forget(job)
        self._started[job.id] = time.time()

    @_harmless
    def job_done(self, job: Job, facts: Mapping[str, Any]) -> None:
        self._pruned(job)
        if facts["begun"] > self._started[job.id] - SKEW:  # else only masks were made, beside an older training
            begin = facts["resumed_at"] or job.train.first_sample
            self._add(job, job.train.recipe.samples - begin - self._counted.get(job.id, 0))
            self._count("training_seconds", max(facts["seconds"], 1e-9), _kind(job.train))  # Ray refuses 0
        self._forget(job)

    @_harmless
    def job_failed(self, job: Job, why: str, skipped: int) -> None:
        self._forget(job)

    @_harmless
    def process_lost(self, job: Job, why: str, seconds: float) -> None:
        self._lost += 1
        self._forget(job)

    def note(self, sentence: str) -> None:
        """Nothing: there are no sentences among metrics."""

    # ------------------------------------------------------------------ looks

    @contextmanager
    def watching(self, training: Callable[[], Mapping[str, tuple[int, int]]]) -> Iterator[None]:
        """Publish meanwhile, asking ``training`` for job id to (samples seen, of all), and never again after."""
        stop = threading.Event()
        thread = threading.Thread(target=self._keep_looking, args=(training, stop), daemon=True)
        self._begin()
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()
            self.look({})

    @_harmless
    def _begin(self) -> None:
        for job in self.done_before:
            self._pruned(job)

    def _keep_looking(self, training: Callable[[], Mapping[str, tuple[int, int]]], stop: threading.Event) -> None:
        while True:
            seen: Mapping[str, tuple[int, int]] = {}
            with suppress(Exception):
                seen = training()
            self.look(seen)
            if stop.wait(LOOK_EVERY):
                return

    @_harmless
    def look(self, training: Mapping[str, tuple[int, int]]) -> None:
        """Publish what is the case now. training: job id to samples seen, and of all."""
        for job in tuple(self.schedule.running.values()):
            if job.id in training and not isinstance(job.train.recipe, SVM):  # which counts fits
                seen = training[job.id][0]
                if job.id in self._seen:  # the first time there is no telling where it began
                    self._add(job, seen - self._seen[job.id])
                self._seen[job.id] = seen
        for state, count in self._states().items():
            self._set("steps", count, (state,))
        self._set("slots", self._slots)
        self._set("lost_processes", self._lost)
        now = time.monotonic()
        for kind, looks in self._looks.items():
            looks.append((now, self._samples[kind]))
            while len(looks) > 2 and looks[1][0] <= now - WINDOW:
                looks.popleft()
            (since, before), (_, after) = looks[0], looks[-1]
            rate = (after - before) / (now - since) if now > since else 0.0
            self._set("images_per_second", rate, kind)
        for chain, (rounds, density) in self._furthest.items():
            self._set("rounds", rounds, chain)
            self._set("density", density, chain)

    def _states(self) -> dict[str, int]:
        s = self.schedule
        waiting, running, ready = len(s.waiting), len(s.running), s.ready
        failed, skipped = len(s.failed), len(s.skipped)
        return {
            "waiting": waiting - ready,
            "ready": ready,
            "running": running,
            "done": len(self.done_before) + len(s.jobs) - waiting - running - failed - skipped,
            "failed": failed,
            "skipped": skipped,
        }

    # ------------------------------------------------------------------ what is published

    def _add(self, job: Job, samples: int) -> None:
        if samples <= 0:
            return  # a training that went back to its checkpoint
        kind = _kind(job.train)
        if kind not in self._looks:
            self._looks[kind] = deque([(time.monotonic() - LOOK_EVERY, 0)])
        self._samples[kind] = self._samples.get(kind, 0) + samples
        self._counted[job.id] = self._counted.get(job.id, 0) + samples
        self._count("samples", samples, kind)

    def _pruned(self, job: Job) -> None:
        for mask in job.masks:
            if isinstance(mask, Prune):
                chain = (*_kind(mask.of), str(mask.of.seed))
                self._furthest[chain] = max(
                    (len(prunings(mask)), target_density(mask)), self._furthest.get(chain, (0, 1.0))
                )

    def _forget(self, job: Job) -> None:
        self._seen.pop(job.id, None)
        self._counted.pop(job.id, None)

    def _set(self, name: str, value: float, tags: tuple[str, ...] = ()) -> None:
        about, keys = GAUGES[name]
        if name not in self._gauges:
            self._gauges[name] = metrics.Gauge(PREFIX + name, about, keys)
        self._gauges[name].set(value, dict(zip(keys, tags, strict=True)))

    def _count(self, name: str, more: float, tags: tuple[str, ...]) -> None:
        about, keys = COUNTERS[name]
        if name not in self._counters:
            self._counters[name] = metrics.Counter(PREFIX + name, about, keys)
        self._counters[name].inc(more, dict(zip(keys, tags, strict=True)))


def _kind(step: Train) -> tuple[str, ...]:
    return step.task, step.arch, step.data
