"""The order in which jobs run: of those that are ready, the one with the longest path of work behind it first."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Collection, Iterable, Mapping

from raysslprune.plan.graph import Job

MIN_SHARE = 1 / 4
"""Smallest share of its workers that a job may start with. With fewer, a wrong guess of what comes after it costs more
than idle workers do."""


class Schedule:
    """Hands out pending jobs whose parents are done; of those, the one with the longest path of work behind it.

    Nothing overtakes that one. Where not all the workers are free that it may have, it begins with those that are if it
    has time (``share``); if not, it gets all that become free until they are enough. Else small jobs, of which there
    are always some, would keep a large one waiting, and it the chain behind it.
    """

    def __init__(self, pending: Iterable[Job], seconds: Mapping[str, float]) -> None:
        """pending: parents before children. seconds: what each job is expected to take on one worker, by id."""
        self.jobs: dict[str, Job] = {}  # all that were ever given
        self.waiting: dict[str, Job] = {}
        self.running: dict[str, Job] = {}
        self.failed: dict[str, Job] = {}
        self.skipped: dict[str, Job] = {}
        self._seconds = seconds
        self._needs: dict[str, set[str]] = {}
        self._needed_by: dict[str, set[str]] = {}
        self._most: dict[int, int] = {}  # by parts
        self._left = 0.0  # seconds of all that is waiting or running
        self._path: dict[str, float] = {}
        self._ready: list[tuple[float, int, str]] = []
        self._order = 0
        self.add(pending)

    def add(self, pending: Iterable[Job]) -> None:
        """More jobs, parents before children; one that was given before is passed over."""
        new: dict[str, None] = {}
        for job in pending:
            if job.id in self.jobs or job.id in self.waiting or job.id in self.running:
                continue
            self.jobs[job.id] = job
            if any(parent.id in self.failed or parent.id in self.skipped for parent in job.parents):
                self.skipped[job.id] = job
                continue
            self.waiting[job.id] = job
            self._most.setdefault(job.parts, 1)
            self._left += self._seconds[job.id]
            self._depend(job, on=job.parents)
            new[job.id] = None
        self._measure(new)

    @property
    def finished(self) -> bool:
        return not self.waiting and not self.running

    @property
    def ready(self) -> int:
        """How many of those that wait could run now."""
        return sum(not self._needs.get(job_id, True) for job_id in tuple(self.waiting))  # asked by other threads, too

    @property
    def longest_path(self) -> float:
        """Seconds that even endless workers would need, with as many for each job as it may have."""
        return self.path_left({})

    def path_left(self, done: Mapping[str, float]) -> float:
        """The same once these fractions of running jobs are done, by id; other threads may ask, too."""
        paths = (self._path[i] for i in tuple(self.waiting))
        begun = (self._path[i] - done.get(i, 0.0) * self._time_of(job) for i, job in self.running.copy().items())
        return max((*paths, *begun), default=0.0)

    def next(self, fits: Callable[[Job], bool] = lambda _job: True) -> Job | None:
        """The next job, now running; None while none is ready, or while it does not fit."""
        while self._ready and (self._ready[0][2] not in self.waiting or self._needs[self._ready[0][2]]):
            heapq.heappop(self._ready)
        if not self._ready or not fits(self.waiting[self._ready[0][2]]):
            return None
        job_id = heapq.heappop(self._ready)[2]
        self.running[job_id] = self.waiting.pop(job_id)
        return self.running[job_id]

    def allow(self, most: Callable[[int], int]) -> None:
        """most: workers that a job of so many parts may have; it is one for each until this is called."""
        allowed = {parts: most(parts) for parts in self._most}
        if allowed != self._most:
            self._most, self._ready = allowed, []
            self._measure([*self.running, *self.waiting])

    def share(self, job: Job, free: int, slots: int) -> int:
        """How many of the ``free`` workers, out of ``slots``, the next job begins with; 0: it waits for more.

        As many as it may have. Else as many of the free ones as can share it, if this holds nobody up: if its path,
        longer by what it then loses, still ends before all slots together could have done all that is left.
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
        """The job can't be done; nothing that needs it is tried."""
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
        """Put a running job back, to run again after ``first``, whose artefacts turned out to be damaged.

        ``first`` is the job itself or an ancestor of it. Other waiting children of ``first`` wait for it too.
        """
        job = self.running.pop(job_id)
        self._left -= self._seconds[job_id]
        self._path[first.id] = max(self._path.get(first.id, 0.0), self._path[job_id])
        self.failed.pop(first.id, None)
        for back in (first, job):
            if back.id not in self.waiting and back.id not in self.running:
                self.waiting[back.id] = back
                self._left += self._seconds[back.id]
                self._depend(back, on=back.parents)
        for child in first.children:
            if child.id in self.waiting:
                self._depend(child, on=[first])
        if first is not job:
            self._depend(job, on=[first])
        self._offer(first.id)
        self._offer(job_id)

    def _depend(self, job: Job, on: Iterable[Job]) -> None:
        """On those that are not finished."""
        needs = self._needs.setdefault(job.id, set())
        for other in on:
            if other.id in self.waiting or other.id in self.running:
                needs.add(other.id)
                self._needed_by.setdefault(other.id, set()).add(job.id)

    def _measure(self, job_ids: Collection[str]) -> None:
        """The paths of jobs, parents before children or nearly so; and offer those that are ready."""
        for job_id in job_ids:
            self._path[job_id] = self._time(job_id)
        for job_id in reversed(list(job_ids)):
            self._lengthen(job_id)
        for job_id in job_ids:
            self._offer(job_id)

    def _time(self, job_id: str) -> float:
        return self._time_of(self.waiting.get(job_id) or self.running[job_id])

    def _time_of(self, job: Job) -> float:
        """On as many workers as it may have."""
        return self._seconds[job.id] / self._most[job.parts]

    def _lengthen(self, job_id: str) -> None:
        """The paths of all that a job waits for, now that it is behind them."""
        stack = [job_id]
        while stack:
            child = stack.pop()
            for parent in self._needs[child]:
                path = self._time(parent) + self._path[child]
                if path > self._path[parent]:
                    self._path[parent] = path
                    self._offer(parent)
                    stack.append(parent)

    def _offer(self, job_id: str) -> None:
        if job_id in self.waiting and not self._needs[job_id]:
            self._order += 1
            heapq.heappush(self._ready, (-self._path[job_id], self._order, job_id))
