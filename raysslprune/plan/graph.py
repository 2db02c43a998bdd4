"""From the points that sweeps ask for to a graph of jobs: what must run, and what each job waits for.

The unit of work is a *job*: one training and the masks that are made beside it. A Prune is made where its
training ran, while the weights are at hand. A random mask is made by the first training that uses it. An imported one
is made by none: the first that uses it only looks whether it is there.

What stays of a finished job: its metrics, its masks, the snapshots that others are rewound to; and its final
weights, of all jobs or, where the disk is small, only of those that something in the plan reads.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from raysslprune.spec import (
    Final,
    Imported,
    Mask,
    Prune,
    RandomPrune,
    Rewind,
    Shuffle,
    Step,
    Train,
    closure,
    dump,
)
from raysslprune.store.record import WEIGHTS, Record, snapshot_name
from raysslprune.sweepfile import Point
from raysslprune.words import title


@dataclass(eq=False, kw_only=True)
class Job:
    """train: the training. before, after: masks to make. snapshots: sample counts whose state others rewind to.

    weights: whether something in the plan reads the final weights, beside the masks that are made here. keep: whether
    they are written even if nothing does.
    """

    train: Train
    before: list[Mask] = field(default_factory=list)
    after: list[Mask] = field(default_factory=list)
    snapshots: set[int] = field(default_factory=set)
    weights: bool = False
    keep: bool = True
    parents: list[Job] = field(default_factory=list)
    children: list[Job] = field(default_factory=list)

    @property
    def id(self) -> str:
        return self.train.id

    @property
    def title(self) -> str:
        return title(self.train)

    @property
    def masks(self) -> list[Mask]:
        return self.before + self.after

    @property
    def parts(self) -> int:
        """Workers that can share the training, at most."""
        return self.train.recipe.parts

    @property
    def samples(self) -> int:
        """Samples that the training sees."""
        return self.train.recipe.samples - self.train.first_sample

    def is_done(self, records: Mapping[str, Record]) -> bool:
        return self.is_trained(records) and all(mask.id in records for mask in self.masks)

    def is_trained(self, records: Mapping[str, Record]) -> bool:
        """Whether the training is done and has all that is wanted of it: snapshots, and weights that are still read."""
        record = records.get(self.id)
        if record is None or not all(snapshot_name(samples) in record.files for samples in self.snapshots):
            return False
        if WEIGHTS in record.files:
            return True
        return not self.weights and all(mask.id in records or isinstance(mask, Shuffle) for mask in self.after)

    def to_plain(self) -> dict[str, object]:
        """What a worker needs, as JSON data."""
        return {
            "graph": dump([self.train, *self.masks]),
            "train": self.id,
            "before": [m.id for m in self.before],
            "after": [m.id for m in self.after],
            "snapshots": sorted(self.snapshots),
            "weights": self.weights,
            "keep": self.keep,
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

    def not_imported(self, records: Mapping[str, Record]) -> list[Imported]:
        """The masks from elsewhere that are yet to be put into the store, which no job can do."""
        masks = [mask for job in self.jobs.values() for mask in job.masks]
        return [mask for mask in masks if isinstance(mask, Imported) and mask.id not in records]

    def pending(self, records: Mapping[str, Record]) -> list[Job]:
        """The jobs with something left to do, be it only a mask."""
        return [job for job in self.jobs.values() if not job.is_done(records)]

    def behind(self, points: Iterable[Point]) -> list[Job]:
        """The jobs that these points need, parents before children."""
        needed = {job.id for point in points for job in _ancestors(self.jobs[point.step.id])}
        return [job for job in self.jobs.values() if job.id in needed]

    def trainings_left(self, records: Mapping[str, Record]) -> int:
        """How many trainings must run."""
        return sum(not job.is_trained(records) for job in self.jobs.values())

    def trainings_without_sharing(self) -> int:
        """Trainings of a grid in which every point, alone, makes all that it needs."""
        needed = _trainings_behind(self.jobs.values())
        return sum(needed[point.step.id] for point in self.points)

    def maker(self, step_id: str, job: Job) -> Job | None:
        """Which job makes a step that ``job`` reads: an ancestor, or itself for a mask that it can make as well."""
        for ancestor in _ancestors(job):
            if step_id in (ancestor.id, *(mask.id for mask in ancestor.masks)):
                return ancestor
        return job if any(step_id == mask.id for j in self.jobs.values() for mask in j.masks) else None


def make_plan(points: Iterable[Point], weights_of: Iterable[Train] = (), keep_all: bool = True) -> Plan:
    """The plan of all points together; a step that several need is one job.

    weights_of: trainings among them whose final weights are read by something that is no step, as a figure.
    keep_all: keep the final weights of all trainings, not only of those that need them.
    """
    points = tuple(points)
    jobs: dict[str, Job] = {}
    made: set[Step] = set()
    for step in closure(point.step for point in points):
        if not isinstance(step, Train):
            continue
        job = jobs[step.id] = Job(train=step, keep=keep_all)
        needed: dict[Job, None] = {}
        if isinstance(step.start, Rewind):
            parent = jobs[step.start.of.id]
            parent.snapshots.add(step.start.samples)
            needed[parent] = None
        if isinstance(step.start, Final):
            parent = jobs[step.start.of.id]
            parent.weights = True
            needed[parent] = None
        if step.mask is not None:
            source = _trained_for(step.mask)
            if source is not None:
                needed[jobs[source.id]] = None
            for mask in _masks_behind(step.mask):
                if mask not in made:
                    made.add(mask)
                    (jobs[source.id].after if source is not None else job.before).append(mask)
                if isinstance(mask, RandomPrune) and mask.nonzero is not None:
                    jobs[mask.nonzero.id].weights = True  # for more such masks later, of as many levels as one likes
        job.parents = list(needed)
        for parent in needed:
            parent.children.append(job)
    for step in weights_of:
        jobs[step.id].weights = True
    return Plan(points=points, jobs=jobs)


# ------------------------------------------------------------------------------------- behind a step


def _trained_for(mask: Mask) -> Train | None:
    """The training that a mask comes from, None for one that needs none: imported, or random."""
    while isinstance(mask, Shuffle):
        mask = mask.of
    if isinstance(mask, Imported):
        return None
    return mask.of if isinstance(mask, Prune) else mask.nonzero


def _masks_behind(mask: Mask) -> list[Mask]:
    """The mask and those it is shuffled from, first things first."""
    behind = [mask]
    while isinstance(behind[-1], Shuffle):
        behind.append(behind[-1].of)
    return behind[::-1]


def _trainings_behind(jobs: Iterable[Job]) -> dict[str, int]:
    """How many trainings each job takes from nothing, itself among them, by id. jobs: parents before children.

    Where all parents but one are also parents of that one, as along a chain, there is nothing to walk.
    """
    counts: dict[str, int] = {}
    walked: dict[frozenset[Job], int] = {}
    for job in jobs:
        last = next((p for p in job.parents if all(q is p or q in p.parents for q in job.parents)), None)
        if last is not None:
            counts[job.id] = counts[last.id] + 1
        else:
            parents = frozenset(job.parents)
            if parents not in walked:
                walked[parents] = len(_ancestors(job))
            counts[job.id] = walked[parents]
    return counts


def _ancestors(job: Job) -> set[Job]:
    """And itself."""
    found: set[Job] = set()
    stack = [job]
    while stack:
        one = stack.pop()
        if one not in found:
            found.add(one)
            stack += one.parents
    return found
