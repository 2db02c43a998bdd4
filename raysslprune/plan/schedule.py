"""The order in which jobs run: among those that are ready, the one with the longest path of work behind it first."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from heapq import heapify, heappop, heappush
from itertools import count

from raysslprune.plan.graph import Job

MIN_SHARE = 1 / 4
"""Smallest share of its workers that a job may start with. With fewer, a wrong estimate of the work behind it costs
more than idle workers do."""

SMALL = 64
"""Number of entries of the queue that may be out of date, beside as many as there are ready jobs."""


class Schedule:
    """Scheduler of pending jobs whose parents are done: the one with the longest path of work behind it comes first.

    Nothing overtakes that job. If fewer workers are free than it may have, it starts with these if that delays
    nothing (``share``); if not, all workers that become free are kept for it until there are enough. Otherwise the
    small jobs, of which there are always some, would hold up a large one and the chain behind it.
    """

    def __init__(self, pending: Iterable[Job], seconds: Mapping[str, float]) -> None:
        """Add pending jobs, parents before children. seconds: expected time of each job on one worker, by id."""
        self.jobs: dict[str, Job] = {}  # all jobs ever added
        self.waiting: dict[str, Job] = {}
        self.running: dict[str, Job] = {}
        self.failed: dict[str, Job] = {}
        self.skipped: dict[str, Job] = {}
        self._seconds = seconds
        self._needs: dict[str, set[str]] = {}
        self._needed_by: dict[str, set[str]] = {}
        self._ready: dict[str, int] = {}  # waiting jobs that could run now, numbered as they became ready
        self._queue: list[tuple[float, int, str]] = []  # heap of these: (-path, number, id), and of entries out of date
        self._numbers = count()
        self._most: dict[int, int] = {}  # maximum workers by number of parts
        self._left = 0.0  # seconds of all waiting and running jobs
        self._path: dict[str, float] = {}
        self.add(pending)

    def add(self, pending: Iterable[Job]) -> None:
        """Add jobs, parents before children; skip those that were added before."""
        new: list[str] = []
        for job in pending:
            if job.id in self.jobs or job.id in self.waiting or job.id in self.running:
                continue
            self.jobs[job.id] = job
            if any(parent.id in self.failed or parent.id in self.skipped for parent in job.parents):
                self.skipped[job.id] = job
                continue
            self._most.setdefault(job.parts, 1)
            self._wait(job)
            new.append(job.id)
        self._measure(new)

    @property
    def finished(self) -> bool:
        return not self.waiting and not self.running

    @property
    def ready(self) -> int:
        """Number of waiting jobs that could run now."""
        return len(self._ready)

    @property
    def longest_path(self) -> float:
        """Seconds that unlimited workers would need, each job on as many as it may have."""
        return self.path_left({})

    def path_left(self, done: Mapping[str, float]) -> float:
        """Return the longest path in seconds. done: finished fractions of running jobs, by id. Thread-safe."""
        paths = (self._path[i] for i in tuple(self.waiting))
        begun = (self._path[i] - done.get(i, 0.0) * self._time(job) for i, job in self.running.copy().items())
        return max((*paths, *begun), default=0.0)

    def next(self, fits: Callable[[Job], bool] = lambda _job: True) -> Job | None:
        """Start and return the next job; None while none is ready, or while it does not fit."""
        job_id = self._first()
        if job_id is None or not fits(self.waiting[job_id]):
            return None
        heappop(self._queue)
        del self._ready[job_id]
        self.running[job_id] = self.waiting.pop(job_id)
        return self.running[job_id]

    def allow(self, most: Callable[[int], int]) -> None:
        """Set the maximum workers of a job, which is 1 before this call. most: returns it for a number of parts."""
        allowed = {parts: most(parts) for parts in self._most}
        if allowed != self._most:
            self._most = allowed
            self._measure([*self.running, *self.waiting])

    def share(self, job: Job, free: int, slots: int) -> int:
        """Return how many of the ``free`` workers, out of ``slots``, the next job starts with; 0 if it waits for more.

        It gets its maximum if that many are free. Otherwise it gets as many free ones as divide its parts evenly, if
        this delays nothing: if its path, plus the time lost, ends before all slots could finish all remaining work.
        """
        most = self._most[job.parts]
        if most <= free:
            return most
        few = max((count for count in range(1, free + 1) if job.parts % count == 0), default=0)
        if few < MIN_SHARE * most:
            return 0
        path = self._path[job.id] + self._seconds[job.id] * (1 / few - 1 / most)
        return few if path <= self._left / slots else 0

    def done(self, job_id: str) -> None:
        del self.running[job_id]
        self._left -= self._seconds[job_id]
        for child in sorted(self._needed_by.pop(job_id, ())):
            self._needs[child].discard(job_id)
            self._offer(child)

    def fail(self, job_id: str) -> None:
        """Mark a running job as failed, and skip all jobs that need it."""
        self.failed[job_id] = self.running.pop(job_id)
        self._left -= self._seconds[job_id]
        stack = [job_id]
        while stack:
            for child in self._needed_by.pop(stack.pop(), ()):
                if child in self.waiting:
                    self.skipped[child] = self.waiting.pop(child)
                    self._left -= self._seconds[child]
                    stack.append(child)

    def redo(self, job_id: str, first: Job) -> None:
        """Put a running job back, to run again after ``first``, whose artefacts were found damaged.

        ``first`` is the job itself or an ancestor of it. Other waiting children of ``first`` wait for it too.
        """
        job = self.running.pop(job_id)
        self._left -= self._seconds[job_id]
        self._set_path(first.id, max(self._path.get(first.id, 0.0), self._path[job_id]))
        self.failed.pop(first.id, None)
        for back in (first, job):
            if back.id not in self.waiting and back.id not in self.running:
                self._wait(back)
        for child in [job, *first.children]:
            if child is not first and child.id in self.waiting:
                self._depend(child, on=[first])
        self._offer(first.id)
        self._offer(job_id)

    def _first(self) -> str | None:
        """Return the ready job with the longest path, of several the one that became ready first."""
        while self._queue:
            path, number, job_id = self._queue[0]
            if self._ready.get(job_id) == number and self._path[job_id] == -path:
                return job_id
            heappop(self._queue)
        return None

    def _wait(self, job: Job) -> None:
        self.waiting[job.id] = job
        self._left += self._seconds[job.id]
        self._depend(job, on=job.parents)

    def _depend(self, job: Job, on: Iterable[Job]) -> None:
        """Make a job wait for those of ``on`` that are not finished."""
        needs = self._needs.setdefault(job.id, set())
        for other in on:
            if other.id in self.waiting or other.id in self.running:
                needs.add(other.id)
                self._needed_by.setdefault(other.id, set()).add(job.id)
                self._ready.pop(job.id, None)

    def _measure(self, job_ids: Collection[str]) -> None:
        """Compute the paths of jobs, given mostly parents before children, and offer those that are ready."""
        for job_id in job_ids:
            self._set_path(job_id, self._time(self._job(job_id)))
        for job_id in reversed(list(job_ids)):
            self._lengthen(job_id)
        for job_id in job_ids:
            self._offer(job_id)

    def _job(self, job_id: str) -> Job:
        return self.waiting.get(job_id) or self.running[job_id]

    def _time(self, job: Job) -> float:
        """Return the seconds of a job on its maximum number of workers."""
        return self._seconds[job.id] / self._most[job.parts]

    def _lengthen(self, job_id: str) -> None:
        """Lengthen the paths of all jobs that this one waits for."""
        stack = [job_id]
        while stack:
            child = stack.pop()
            for parent in self._needs[child]:
                path = self._time(self._job(parent)) + self._path[child]
                if path > self._path[parent]:
                    self._set_path(parent, path)
                    stack.append(parent)

    def _set_path(self, job_id: str, path: float) -> None:
        self._path[job_id] = path
        if job_id in self._ready:
            self._enqueue(job_id)

    def _offer(self, job_id: str) -> None:
        if job_id in self.waiting and job_id not in self._ready and not self._needs[job_id]:
            self._ready[job_id] = next(self._numbers)
            self._enqueue(job_id)

    def _enqueue(self, job_id: str) -> None:
        heappush(self._queue, self._entry(job_id))
        if len(self._queue) > 2 * len(self._ready) + SMALL:
            self._queue = [self._entry(ready) for ready in self._ready]
            heapify(self._queue)

    def _entry(self, job_id: str) -> tuple[float, int, str]:
        return -self._path[job_id], self._ready[job_id], job_id
