"""Estimate how long a schedule will still take, from what its jobs should take and how fast they are seen to run."""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from raysslprune.plan.cost import OVERHEAD, START, Kind, kind_of
from raysslprune.plan.graph import Job
from raysslprune.plan.schedule import Schedule

PRIOR = 2.0
"""Seconds of expected work that the expectation weighs against what is seen."""

SMOOTH = 5.0
"""Seconds in which the time that is shown follows an estimate that has changed."""


@dataclass
class _Work:
    """Seconds on one worker that some work should have taken, and that it took."""

    expected: float = 0.0
    taken: float = 0.0

    def add(self, other: _Work) -> None:
        self.expected += other.expected
        self.taken += other.taken

    def pace(self, prior: float) -> float:
        """How many times as long as expected such work takes; ``prior`` where nothing of it was seen."""
        return (PRIOR * prior + self.taken) / (PRIOR + self.expected)


@dataclass(frozen=True)
class _Running:
    """A training at work: on how many workers; when it was seen first, how far it was then, and is now (0 to 1)."""

    job: Job
    workers: int
    since: float
    first: float
    samples: int
    now: float = 0.0
    seen: int = 0


class TimeLeft:
    """The time left, which falls steadily: it counts samples, and learns the speed of each kind of training."""

    def __init__(
        self,
        schedule: Schedule,
        expected: Mapping[str, float],
        guessed: Collection[str] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """expected: seconds of each job on one worker, by id. guessed: of jobs whose speed nobody has measured."""
        self.schedule, self.expected, self.guessed, self.clock = schedule, expected, guessed, clock
        self.slots = 1
        self._begun = self._at = clock()
        self._look_at = -math.inf
        self._done: defaultdict[Kind, _Work] = defaultdict(_Work)
        self._running: dict[str, _Running] = {}
        self._workers: dict[str, int] = {}
        self._left: float | None = None
        self.is_guess = False

    def started(self, job: Job, workers: int) -> None:
        self._workers[job.id] = workers

    def done(self, job: Job, seconds: float) -> None:
        """seconds: on one worker, that its training took."""
        self.ended(job)
        if self.expected[job.id] > OVERHEAD:  # else only masks were made, beside an older training
            self._done[kind_of(job)].add(_Work(self.expected[job.id], seconds))

    def ended(self, job: Job) -> None:
        """It no longer runs."""
        self._workers.pop(job.id, None)
        self._running.pop(job.id, None)

    def look(self, training: Mapping[str, tuple[int, int]]) -> None:
        """Take in what runs now: job id to samples seen, and of all. It takes at most a fiftieth of the time."""
        now = self.clock()
        if now < self._look_at:
            return
        self._see(training, now)
        estimate = self._estimate(now)
        left = estimate if self._left is None else self._left - (now - self._at)
        self._left = left + (estimate - left) * -math.expm1(-(now - self._at) / SMOOTH)
        self._at = now
        self._look_at = now + 50 * (self.clock() - now)

    @property
    def seconds(self) -> float:
        if self.schedule.finished:
            return 0.0
        if self._left is None:
            self.look({})
        return max(0.0, (self._left or 0.0) - (self.clock() - self._at))

    @property
    def images_per_second(self) -> float | None:
        """The mean of the trainings that run, None while it can't be told."""
        now = self.clock()
        rates = [
            (one.seen - one.samples) / (now - one.since) for one in self._running.copy().values() if now > one.since
        ]
        return sum(rates) / len(rates) if any(rates) else None

    def _see(self, training: Mapping[str, tuple[int, int]], now: float) -> None:
        for job_id, job in self.schedule.running.copy().items():
            seen, end = training.get(job_id, (0, 0))
            if not end:
                continue
            begin = min(job.train.first_sample, seen)
            part = (seen - begin) / max(1, end - begin)
            at = self._running.get(job_id)
            if at is None or part < at.first:  # a process died, and another begins again
                at = _Running(job, self._workers.get(job_id, 1), now, part, seen)
            self._running[job_id] = _Running(job, at.workers, at.since, at.first, at.samples, part, seen)
        for job_id in self._running.keys() - self.schedule.running.copy().keys():
            self._running.pop(job_id, None)

    def _estimate(self, now: float) -> float:
        running = self._running.copy()
        seen: defaultdict[Kind, _Work] = defaultdict(_Work)
        for kind, work in self._done.copy().items():
            seen[kind].add(work)
        own = {job_id: self._work(at, now) for job_id, at in running.items()}
        for job_id, work in own.items():
            seen[kind_of(running[job_id].job)].add(work)
        every = _Work()
        for work in seen.values():
            every.add(work)
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
        starting = 0.0 if every.expected else max(0.0, START - (now - self._begun))
        path = self.schedule.path_left({job_id: at.now for job_id, at in running.items()})
        return starting + max(left / max(1, self.slots), overall * path)

    def _work(self, at: _Running, now: float) -> _Work:
        """What a running training has done since it was seen first."""
        return _Work(self.expected[at.job.id] * (at.now - at.first), (now - at.since) * at.workers)
