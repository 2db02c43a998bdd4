"""From the points that sweeps ask for to what must run, in which order, and what that costs.

The unit of work is a *job*: one training and the masks that are made beside it. A Prune is made where its
training ran, while the weights are at hand. A random mask is made by the first training that uses it.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from statistics import median

from raysslprune.recipes import Net
from raysslprune.spec import SVM, Final, Mask, Point, Prune, RandomPrune, Rewind, Shuffle, Step, Train, closure, dump
from raysslprune.store import Record, snapshot_name


@dataclass(eq=False, kw_only=True)
class Job:
    """train: the training. before, after: masks to make. snapshots: sample counts whose state others rewind to."""

    train: Train
    before: list[Mask] = field(default_factory=list)
    after: list[Mask] = field(default_factory=list)
    snapshots: set[int] = field(default_factory=set)
    parents: list[Job] = field(default_factory=list)
    children: list[Job] = field(default_factory=list)

    @property
    def id(self) -> str:
        return self.train.id

    @property
    def title(self) -> str:
        """For people: task, level of pruning, where its weights come from, seed."""
        step = self.train
        start = step.start
        begins = (
            f"from {start.of.task}" if isinstance(start, Final) else "rewound" if isinstance(start, Rewind) else "drawn"
        )
        what = ("linear SVMs" if isinstance(step.recipe, SVM) else "linear") if step.trunk_frozen else step.task
        return f"{what} seed {step.seed}, {_describe(step.mask)}, {begins}"

    @property
    def masks(self) -> list[Mask]:
        return self.before + self.after

    @property
    def samples(self) -> int:
        """Samples that the training sees."""
        return self.train.recipe.samples - self.train.first_sample

    def is_done(self, records: Mapping[str, Record]) -> bool:
        return self.is_trained(records) and all(mask.id in records for mask in self.masks)

    def is_trained(self, records: Mapping[str, Record]) -> bool:
        """Whether the training is done and has every snapshot that is wanted of it."""
        record = records.get(self.id)
        return record is not None and all(snapshot_name(samples) in record.files for samples in self.snapshots)

    def to_plain(self) -> dict[str, object]:
        """What a worker needs, as JSON data."""
        return {
            "graph": dump([self.train, *self.masks]),
            "train": self.id,
            "before": [m.id for m in self.before],
            "after": [m.id for m in self.after],
            "snapshots": sorted(self.snapshots),
        }


@dataclass(frozen=True, kw_only=True)
class Plan:
    """points: as asked for. jobs: by id, every parent before its children."""

    points: tuple[Point, ...]
    jobs: dict[str, Job]

    @property
    def ids(self) -> list[str]:
        """Of every step: trainings and masks."""
        return [i for job in self.jobs.values() for i in (job.id, *(m.id for m in job.masks))]

    def pending(self, records: Mapping[str, Record]) -> list[Job]:
        """The jobs with something left to do, be it only a mask."""
        return [job for job in self.jobs.values() if not job.is_done(records)]

    def trainings_left(self, records: Mapping[str, Record]) -> int:
        """How many trainings must run."""
        return sum(not job.is_trained(records) for job in self.jobs.values())

    def trainings_without_sharing(self) -> int:
        """Trainings of a grid in which every point, alone, makes all that it needs."""
        ancestors: dict[Job, int] = {}
        for job in self.jobs.values():
            ancestors[job] = len(_ancestors(job))
        return sum(ancestors[self.jobs[point.step.id]] for point in self.points)

    def maker(self, step_id: str, job: Job) -> Job | None:
        """Which job makes a step that ``job`` reads: an ancestor, or itself for a mask that it can make as well."""
        for ancestor in _ancestors(job):
            if step_id in (ancestor.id, *(mask.id for mask in ancestor.masks)):
                return ancestor
        return job if any(step_id == mask.id for j in self.jobs.values() for mask in j.masks) else None


def make(points: Iterable[Point]) -> Plan:
    """The plan of all points together; a step that several need is one job."""
    points = tuple(points)
    jobs: dict[str, Job] = {}
    made: set[Step] = set()
    for step in closure(point.step for point in points):
        if not isinstance(step, Train):
            continue
        job = jobs[step.id] = Job(train=step)
        needed: dict[Job, None] = {}
        if isinstance(step.start, Rewind):
            parent = jobs[step.start.of.id]
            parent.snapshots.add(step.start.samples)
            needed[parent] = None
        if isinstance(step.start, Final):
            needed[jobs[step.start.of.id]] = None
        if step.mask is not None:
            source = _trained_for(step.mask)
            if source is not None:
                needed[jobs[source.id]] = None
            for mask in _masks_behind(step.mask):
                if mask not in made:
                    made.add(mask)
                    (jobs[source.id].after if source is not None else job.before).append(mask)
        job.parents = list(needed)
        for parent in needed:
            parent.children.append(job)
    return Plan(points=points, jobs=jobs)


class Schedule:
    """Hands out pending jobs whose parents are done; of those, the one with the longest path of work behind it."""

    def __init__(self, pending: Iterable[Job], seconds: Mapping[str, float]) -> None:
        """pending: parents before children. seconds: what each job is expected to take, by id."""
        self.waiting = {job.id: job for job in pending}
        self.running: dict[str, Job] = {}
        self.failed: dict[str, Job] = {}
        self.skipped: dict[str, Job] = {}
        self._needs = {i: {p.id for p in job.parents if p.id in self.waiting} for i, job in self.waiting.items()}
        self._needed_by: dict[str, set[str]] = {}
        for job_id, needs in self._needs.items():
            for parent in needs:
                self._needed_by.setdefault(parent, set()).add(job_id)
        self._path: dict[str, float] = {}
        for job_id in reversed(self.waiting):
            behind = max((self._path[child] for child in self._needed_by.get(job_id, ())), default=0.0)
            self._path[job_id] = seconds[job_id] + behind
        self._ready: list[tuple[float, int, str]] = []
        self._order = 0
        for job_id in self.waiting:
            self._offer(job_id)

    @property
    def finished(self) -> bool:
        return not self.waiting and not self.running

    @property
    def longest_path(self) -> float:
        """Seconds that even endless workers would need."""
        return max((self._path[i] for i in (*self.waiting, *self.running)), default=0.0)

    def next(self) -> Job | None:
        """The next job, now running; None while none is ready."""
        while self._ready:
            job_id = heapq.heappop(self._ready)[2]
            if job_id in self.waiting and not self._needs[job_id]:
                self.running[job_id] = self.waiting.pop(job_id)
                return self.running[job_id]
        return None

    def done(self, job_id: str) -> None:
        del self.running[job_id]
        for child in sorted(self._needed_by.pop(job_id, ())):
            self._needs[child].discard(job_id)
            self._offer(child)

    def fail(self, job_id: str) -> None:
        """The job can't be done; nothing that needs it is tried."""
        self.failed[job_id] = self.running.pop(job_id)
        stack = [job_id]
        while stack:
            for child in self._needed_by.pop(stack.pop(), ()):
                if child in self.waiting:
                    self.skipped[child] = self.waiting.pop(child)
                    stack.append(child)

    def redo(self, job_id: str, first: Job) -> None:
        """Put a running job back, to run again after ``first``, whose artefacts turned out to be damaged.

        ``first`` is the job itself or an ancestor of it. Other waiting children of ``first`` wait for it too.
        """
        job = self.running.pop(job_id)
        self._path[first.id] = max(self._path.get(first.id, 0.0), self._path[job_id])
        self.failed.pop(first.id, None)
        for back in (first, job):
            if back.id not in self.waiting and back.id not in self.running:
                self.waiting[back.id] = back
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

    def _offer(self, job_id: str) -> None:
        if job_id in self.waiting and not self._needs[job_id]:
            self._order += 1
            heapq.heappush(self._ready, (-self._path[job_id], self._order, job_id))


@dataclass(frozen=True, kw_only=True)
class Cost:
    """seconds: that each job has left, on one worker, by id. disk: bytes of all artefacts of those jobs."""

    seconds: dict[str, float]
    disk: int


START = 20.0
"""Seconds from the command to the first training: Ray's start, and torch's import in each worker."""

SVMS = 10.0
"""Seconds that the linear SVMs of one network are taken to need."""

OVERHEAD = 0.15
"""Seconds that a job takes beside its training: reading, writing, Tune's own work."""


def cost(jobs: Iterable[Job], records: Mapping[str, Record], nets: Mapping[str, Net]) -> Cost:
    """The expected cost of what is left of ``jobs``, by the speeds that ``records`` measured, else by ``nets``."""
    measured: dict[tuple[str, str, bool], list[float]] = {}
    jobs = list(jobs)
    for job in jobs:
        if job.id in records and not isinstance(job.train.recipe, SVM):
            measured.setdefault(_kind(job), []).append(records[job.id].facts["images_per_second"])
    stated = {arch: net.images_per_second for arch, net in nets.items()}
    medians = {kind: median(values) for kind, values in measured.items()}
    fallback = median(stated.values()) if stated else 1000.0

    def seconds(job: Job) -> float:
        if job.is_trained(records):
            return OVERHEAD
        if isinstance(job.train.recipe, SVM):
            return OVERHEAD + SVMS
        return OVERHEAD + job.samples / medians.get(_kind(job), stated.get(job.train.arch, fallback))

    disk = 0
    for job in jobs:
        net = nets.get(job.train.arch)
        if net:
            disk += 4 * net.parameters * (1 + len(job.snapshots)) + net.prunable // 8 * len(job.masks)
    return Cost(seconds={job.id: seconds(job) for job in jobs}, disk=disk)


def _kind(job: Job) -> tuple[str, str, bool]:
    """Trainings of one kind are about as fast."""
    return job.train.arch, job.train.task, job.train.trunk_frozen


def _describe(mask: Mask | None) -> str:
    """As ``dense``, ``rotnet mask 7``, ``random mask 3``, ``shuffled labels mask 2``."""
    if mask is None:
        return "dense"
    if isinstance(mask, RandomPrune):
        return f"random mask {mask.level}"
    if isinstance(mask, Shuffle):
        return f"shuffled {_describe(mask.of)}"
    level, train = 1, mask.of
    while isinstance(train.mask, Prune):
        level, train = level + 1, train.mask.of
    return f"{train.task} mask {level}"


def _trained_for(mask: Mask) -> Train | None:
    """The training that a mask comes from, None for a random one that needs none."""
    while isinstance(mask, Shuffle):
        mask = mask.of
    return mask.of if isinstance(mask, Prune) else mask.nonzero


def _masks_behind(mask: Mask) -> list[Mask]:
    """The mask and those it is shuffled from, first things first."""
    behind = [mask]
    while isinstance(behind[-1], Shuffle):
        behind.append(behind[-1].of)
    return behind[::-1]


def _ancestors(job: Job) -> set[Job]:
    found: set[Job] = set()
    stack = [job]
    while stack:
        one = stack.pop()
        if one not in found:
            found.add(one)
            stack += one.parents
    return found
