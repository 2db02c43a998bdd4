"""Publish a sweep's progress as metrics beside Ray's own, for Prometheus and Grafana: docs/monitoring.md.

The sweep's own process publishes them, through Ray's agent on its node. This needs ``ray[default]``; without it nothing
is published. No failure here stops a sweep.
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
from raysslprune.spec import SVM, Prune, Train

PREFIX = "raysslprune_"

KIND = ("task", "arch", "data")
"""Tags that distinguish trainings. A step's id is not a tag: each value makes a time series that stays forever."""

CHAIN = (*KIND, "seed")

GAUGES: dict[str, tuple[str, tuple[str, ...]]] = {
    "steps": ("Steps by state; waiting: for other steps; ready: only for a slot.", ("state",)),
    "slots": ("Workers that the machines of the cluster have room for, as far as --slots allows.", ()),
    "waiting": ("1 while all trainings wait, for machines or for cores that others hold.", ("reason",)),
    "lost_processes": ("Times that a job's process died since the command started.", ()),
    "images_per_second": ("Samples per second of the running trainings; the sum is the total.", KIND),
    "rounds": ("Prunings so far, in the chain that is furthest ahead.", CHAIN),
    "density": ("Fraction left of the weights that the chain furthest ahead prunes.", CHAIN),
}
COUNTERS: dict[str, tuple[str, tuple[str, ...]]] = {
    "samples": ("Samples seen by trainings.", KIND),
    "training_seconds": ("Seconds that the finished trainings took.", KIND),
}
LOOK_EVERY = 2.0
"""Seconds between observations of the running jobs."""

WINDOW = 30.0
"""Seconds over which images per second are averaged; many trainings at laptop scale are shorter than LOOK_EVERY."""

SKEW = 5.0
"""Maximum difference in seconds between the clocks of two nodes."""


def _to_all(event: str) -> Callable[..., None]:
    def call(self: Watchers, *arguments: Any) -> None:
        for watcher in self.watchers:
            getattr(watcher, event)(*arguments)

    return call


class Watchers:
    """A watcher that passes each event on to several others."""

    def __init__(self, *watchers: Watcher) -> None:
        self.watchers = watchers

    slots_are = _to_all("slots_are")
    waits = _to_all("waits")
    job_started = _to_all("job_started")
    job_done = _to_all("job_done")
    job_failed = _to_all("job_failed")
    process_lost = _to_all("process_lost")
    note = _to_all("note")


P = ParamSpec("P")


def _harmless(method: Callable[Concatenate[Monitor, P], None]) -> Callable[Concatenate[Monitor, P], None]:
    """Decorate a method: one runs at a time, and no exception is raised; the first is printed to Ray's log."""

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
    """Publisher of a running schedule's metrics; it implements tune.Watcher."""

    def __init__(self, schedule: Schedule, done_before: Iterable[Job] = ()) -> None:
        """done_before: jobs that were finished in the store at the start."""
        self.schedule, self.done_before = schedule, list(done_before)
        self._lock, self._broken = threading.Lock(), False
        self._metrics: dict[str, Any] = {}
        self._slots, self._lost, self._waiting = 0, 0, ""
        self._started: dict[str, float] = {}
        self._seen: dict[str, int] = {}  # samples of running jobs at the last observation
        self._counted: dict[str, int] = {}  # the part of these that is published
        self._samples: dict[tuple[str, ...], int] = {}
        self._looks: dict[tuple[str, ...], deque[tuple[float, int]]] = {}
        self._furthest: dict[tuple[str, ...], tuple[int, float]] = {}
        for job in self.done_before:
            self._pruned(job)

    # ------------------------------------------------------------------ events

    @_harmless
    def slots_are(self, count: int) -> None:
        self._slots = count

    @_harmless
    def waits(self, what: str, sentence: str) -> None:
        self._waiting = what

    @_harmless
    def job_started(self, job: Job, workers: int = 1) -> None:
        self._forget(job)
        self._started[job.id] = time.time()

    @_harmless
    def job_done(self, job: Job, facts: Mapping[str, Any]) -> None:
        self._pruned(job)
        if facts["begun"] > self._started[job.id] - SKEW:  # else only masks were made, for an older training
            begin = facts["resumed_at"] or job.train.begins_at
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
        """Do nothing: a sentence is not a metric."""

    # ------------------------------------------------------------------ observations

    @contextmanager
    def watching(self, training: Callable[[], Mapping[str, tuple[int, int]]]) -> Iterator[None]:
        """Publish within this context only. training: returns (samples seen, total) by job id."""
        stop = threading.Event()
        thread = threading.Thread(target=self._keep_looking, args=(training, stop), daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()
            self.look({})

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
        """Publish the current state. training: (samples seen, total) by job id."""
        for job in tuple(self.schedule.running.values()):
            if job.id in training and not isinstance(job.train.recipe, SVM):  # an SVM counts fits
                seen = training[job.id][0]
                if job.id in self._seen:  # the first observation does not show where it started
                    self._add(job, seen - self._seen[job.id])
                self._seen[job.id] = seen
        for state, count in self._states().items():
            self._set("steps", count, (state,))
        self._set("slots", self._slots)
        self._set("lost_processes", self._lost)
        for reason in ("machines", "cores"):
            self._set("waiting", float(self._waiting == reason), (reason,))
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

    # ------------------------------------------------------------------ values

    def _add(self, job: Job, samples: int) -> None:
        if samples <= 0:
            return  # a training that went back to its checkpoint
        kind = _kind(job.train)
        self._looks.setdefault(kind, deque([(time.monotonic() - LOOK_EVERY, 0)]))
        self._samples[kind] = self._samples.get(kind, 0) + samples
        self._counted[job.id] = self._counted.get(job.id, 0) + samples
        self._count("samples", samples, kind)

    def _pruned(self, job: Job) -> None:
        for mask in job.masks:
            if isinstance(mask, Prune) and isinstance(mask.of, Train):
                chain = (*_kind(mask.of), str(mask.of.seed))
                reached = (len(mask.rounds), mask.target_density)
                self._furthest[chain] = max(reached, self._furthest.get(chain, reached))

    def _forget(self, job: Job) -> None:
        self._seen.pop(job.id, None)
        self._counted.pop(job.id, None)

    def _set(self, name: str, value: float, tags: tuple[str, ...] = ()) -> None:
        about, keys = GAUGES[name]
        if name not in self._metrics:
            self._metrics[name] = metrics.Gauge(PREFIX + name, about, keys)
        self._metrics[name].set(value, dict(zip(keys, tags, strict=True)))

    def _count(self, name: str, more: float, tags: tuple[str, ...]) -> None:
        about, keys = COUNTERS[name]
        if name not in self._metrics:
            self._metrics[name] = metrics.Counter(PREFIX + name, about, keys)
        self._metrics[name].inc(more, dict(zip(keys, tags, strict=True)))


def _kind(step: Train) -> tuple[str, ...]:
    return step.task, step.arch, step.data
