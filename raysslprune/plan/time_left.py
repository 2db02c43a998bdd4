"""Estimate the remaining time of a schedule from the expected and the observed speed of its jobs."""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace

from raysslprune.plan.cost import OVERHEAD, Kind, kind_of
from raysslprune.plan.graph import Job
from raysslprune.plan.schedule import Schedule

PRIOR = 2.0
"""Weight of the expected speed against observations, in seconds of expected work."""

SMOOTH = 5.0
"""Time constant, in seconds, with which the displayed time follows a changed estimate."""


@dataclass(frozen=True)
class _Work:
    """Expected and actual seconds of some work on one worker."""

    expected: float = 0.0
    taken: float = 0.0

    def __add__(self, other: _Work) -> _Work:
        return _Work(self.expected + other.expected, self.taken + other.taken)

    def pace(self, prior: float) -> float:
        """Ratio of actual to expected time; ``prior`` if no such work was observed."""
        return (PRIOR * prior + self.taken) / (PRIOR + self.expected)


@dataclass(frozen=True)
class _Running:
    """A running training.

    since: time when first observed. first, now: progress then and now, 0 to 1. samples, seen: samples then and now.
    """

    job: Job
    workers: int
    since: float
    first: float
    now: float
    samples: int
    seen: int

    def work(self, now: float, expected: float) -> _Work:
        """Work since the first observation. expected: expected seconds of the whole training on one worker."""
        return _Work(expected * (self.now - self.first), (now - self.since) * self.workers)


class TimeLeft:
    """Estimate of the remaining time that falls steadily: it counts samples and learns the speed of each kind.

    is_starting: True until a training is seen to run. Until then the time is that of the trainings alone, and stands
    still: how long Ray and the first imports of torch take depends on what else the machine does (45 s and more than
    200 s were seen on two busy cores), so a constant that is counted down would run out too early.
    """

    def __init__(
        self,
        schedule: Schedule,
        expected: Mapping[str, float],
        guessed: Collection[str] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """expected: seconds of jobs on one worker, by id. guessed: ids of jobs of unmeasured speed."""
        self.schedule, self.expected, self.guessed, self.clock = schedule, expected, guessed, clock
        self.slots = 1
        self._at = clock()
        self._look_at = -math.inf
        self._done: defaultdict[Kind, _Work] = defaultdict(_Work)
        self._running: dict[str, _Running] = {}
        self._workers: dict[str, int] = {}
        self._left: float | None = None
        self.is_guess, self.is_starting = False, True

    def started(self, job: Job, workers: int) -> None:
        self._workers[job.id] = workers

    def done(self, job: Job, seconds: float) -> None:
        """Record a finished job. seconds: time of its training on one worker."""
        self.ended(job)
        self._begin()
        if self.expected[job.id] > OVERHEAD:  # else only masks were made, for an older training
            self._done[kind_of(job)] += _Work(self.expected[job.id], seconds)

    def ended(self, job: Job) -> None:
        """Remove a job that no longer runs."""
        self._workers.pop(job.id, None)
        self._running.pop(job.id, None)

    def look(self, training: Mapping[str, tuple[int, int]]) -> None:
        """Observe running jobs: (samples seen, total) by job id. This uses at most a fiftieth of the time."""
        now = self.clock()
        if now < self._look_at:
            return
        self._see(training, now)
        estimate = self._estimate(now)
        if self.is_starting:
            self._left, self._at = estimate, now
        # it counts down only to the estimate, or a training that takes longer than expected would have 0 s left
        left = estimate if self._left is None else max(self._left - (now - self._at), min(self._left, estimate))
        self._left = left + (estimate - left) * -math.expm1(-(now - self._at) / SMOOTH)
        self._at = now
        self._look_at = now + 50 * (self.clock() - now)

    @property
    def seconds(self) -> float:
        if self.schedule.finished:
            return 0.0
        if self._left is None:
            self.look({})
        return max(0.0, (self._left or 0.0) - (0.0 if self.is_starting else self.clock() - self._at))

    @property
    def images_per_second(self) -> float | None:
        """Mean speed of the running trainings; None while unknown."""
        now, running = self.clock(), self._running.copy().values()
        rates = [(one.seen - one.samples) / (now - one.since) for one in running if now > one.since]
        return sum(rates) / len(rates) if any(rates) else None

    def _begin(self) -> None:
        """Start the countdown, if it does not run."""
        if self.is_starting:
            self.is_starting, self._at = False, self.clock()

    def _see(self, training: Mapping[str, tuple[int, int]], now: float) -> None:
        for job_id, job in self.schedule.running.copy().items():
            seen, end = training.get(job_id, (0, 0))
            if not end:
                continue
            self._begin()
            begin = min(job.train.begins_at, seen)
            part = (seen - begin) / max(1, end - begin)
            at = self._running.get(job_id)
            if at is None or part < at.first:  # a process died, and another starts again
                at = _Running(job, self._workers.get(job_id, 1), now, part, part, seen, seen)
            self._running[job_id] = replace(at, now=part, seen=seen)
        for job_id in self._running.keys() - self.schedule.running.copy().keys():
            self._running.pop(job_id, None)

    def _estimate(self, now: float) -> float:
        running = self._running.copy()
        seen = self._done.copy()
        own = {job_id: at.work(now, self.expected[job_id]) for job_id, at in running.items()}
        for job_id, work in own.items():
            seen[kind_of(running[job_id].job)] += work
        every = sum(seen.values(), _Work())
        overall = every.pace(1.0)
        left, unseen = 0.0, False
        for job_id, job in {**self.schedule.waiting.copy(), **self.schedule.running.copy()}.items():
            kind = kind_of(job)
            pace, part = seen[kind].pace(overall), 0.0
            if job_id in running:
                pace, part = own[job_id].pace(pace), running[job_id].now
            left += pace * self.expected[job_id] * (1 - part)
            unseen |= job_id in self.guessed and not seen[kind].expected
        self.is_guess = unseen
        path = self.schedule.path_left({job_id: at.now for job_id, at in running.items()})
        return max(left / max(1, self.slots), overall * path)
