"""The graph of jobs for the points of sweeps: which jobs must run, and which others each waits for.

The unit of work is a *job*: one training and the masks that are made beside it. A Prune is made by the process of its
training, while the weights are in memory. A random mask is made by the first training that uses it. An imported one is
not made: the first training that uses it only checks that it exists.

A finished job keeps its metrics, its masks, the snapshots that other jobs rewind to, and its final weights. To
save disk space, it may keep its weights only if something in the plan reads them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import reduce
from operator import or_

from raysslprune.spec import (
    External,
    Final,
    Imported,
    ImportedWeights,
    Mask,
    Prune,
    RandomPrune,
    Rewind,
    Start,
    Step,
    Train,
    closure,
    dump,
    read_by,
    reads_end,
)
from raysslprune.store.record import WEIGHTS, Record, snapshot_name
from raysslprune.sweepfile import Point
from raysslprune.words import title


@dataclass(eq=False, kw_only=True)
class Job:
    """A training and its masks. before, after: masks made before or after it. snapshots: samples at which to save it.

    weights: True if something in the plan reads the final weights, besides the masks made here. keep: True if they are
    written even if nothing reads them.
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
        """Maximum number of workers that can share the training."""
        return self.train.recipe.parts

    @property
    def samples(self) -> int:
        """Number of samples that the training sees."""
        return self.train.recipe.samples - self.train.begins_at

    def is_done(self, records: Mapping[str, Record]) -> bool:
        return self.is_trained(records) and all(mask.id in records for mask in self.masks)

    def is_trained(self, records: Mapping[str, Record]) -> bool:
        """Return whether the training is done, with all its snapshots, and its weights if they are still needed."""
        record = records.get(self.id)
        if record is None or not all(snapshot_name(samples) in record.files for samples in self.snapshots):
            return False
        if WEIGHTS in record.files:
            return True
        return not self.weights and all(mask.id in records or not reads_end(mask) for mask in self.after)

    def to_plain(self) -> dict[str, object]:
        """Return the job as JSON data, for a worker."""
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
    """Points of sweeps, and the jobs that they need, by id, every parent before its children.

    weights: imported weights that the jobs read; no job makes them.
    """

    points: tuple[Point, ...]
    jobs: dict[str, Job]
    weights: tuple[ImportedWeights, ...] = ()

    @property
    def ids(self) -> list[str]:
        """Ids of all steps: trainings, masks, and imported weights."""
        made = [i for job in self.jobs.values() for i in (job.id, *(m.id for m in job.masks))]
        return [*made, *(step.id for step in self.weights)]

    def not_imported(self, records: Mapping[str, Record]) -> list[External]:
        """Imported masks and weights that are not in the store yet; no job can put them there."""
        masks = [mask for job in self.jobs.values() for mask in job.masks if isinstance(mask, Imported)]
        return [step for step in (*masks, *self.weights) if step.id not in records]

    def pending(self, records: Mapping[str, Record]) -> list[Job]:
        """Return the jobs that have something left to do, even if only a mask."""
        return [job for job in self.jobs.values() if not job.is_done(records)]

    def behind(self, points: Iterable[Point]) -> list[Job]:
        """Return the jobs that these points need, parents before children."""
        needed = {job.id for point in points for job in _ancestors(self.jobs[point.step.id])}
        return [job for job in self.jobs.values() if job.id in needed]

    def trainings_left(self, records: Mapping[str, Record]) -> int:
        """Number of trainings that must run."""
        return sum(not job.is_trained(records) for job in self.jobs.values())

    def trainings_without_sharing(self) -> int:
        """Return the number of trainings if every point made all its ancestors by itself."""
        needed: dict[str, int] = {}  # a job and its ancestors as bits of an int: linear time along a long chain
        for number, job in enumerate(self.jobs.values()):
            needed[job.id] = reduce(or_, (needed[parent.id] for parent in job.parents), 1 << number)
        return sum(needed[point.step.id].bit_count() for point in self.points)

    def maker(self, step_id: str, job: Job) -> Job | None:
        """Return the job that makes a step that ``job`` reads: an ancestor, or ``job`` if it can make that mask.

        For imported weights return ``job``: run again, it reports that they must be imported again.
        """
        for ancestor in _ancestors(job):
            if step_id in (ancestor.id, *(mask.id for mask in ancestor.masks)):
                return ancestor
        others = (*(mask for j in self.jobs.values() for mask in j.masks), *self.weights)
        return job if any(step_id == other.id for other in others) else None


def make_plan(points: Iterable[Point], weights_of: Iterable[Train] = (), keep_all: bool = True) -> Plan:
    """Make the plan of all points together; a training that several points need is one job.

    weights_of: trainings in the plan whose final weights are read by something other than a step, such as a figure.
    keep_all: keep the final weights of all trainings, not only those that are read.
    """
    points = tuple(points)
    jobs: dict[str, Job] = {}
    made: set[Step] = set()
    weights: list[ImportedWeights] = []
    for step in closure((point.step for point in points), read_by):
        if isinstance(step, ImportedWeights):
            weights.append(step)
        if not isinstance(step, Train):
            continue
        job = jobs[step.id] = Job(train=step, keep=keep_all)
        reads = _keep_start(jobs, step.start)
        for mask in _masks_of(step):
            origin, makes = mask.origin, job.before
            if isinstance(origin, Prune) and origin.reads_start:
                assert isinstance(origin.of, Train)
                reads += _keep_start(jobs, origin.of.first_start)
            if (source := _trained_for(origin)) is not None:
                reads.append(source)
                makes = jobs[source.id].after
                jobs[source.id].snapshots.update(origin.snapshots if isinstance(origin, Prune) else ())
            makes += [one for one in dict.fromkeys((origin, mask)) if one not in made]
            made.update(makes)
            if isinstance(origin, RandomPrune) and origin.nonzero is not None:
                jobs[origin.nonzero.id].weights = True  # further such masks, of any level, may need them
        job.parents = [jobs[other.id] for other in dict.fromkeys(reads)]
        for parent in job.parents:
            parent.children.append(job)
    for step in weights_of:
        jobs[step.id].weights = True
    return Plan(points=points, jobs=jobs, weights=tuple(weights))


# ------------------------------------------------------------------------------------- ancestors of a step


def _keep_start(jobs: Mapping[str, Job], start: Start) -> list[Train]:
    """Have the weights kept from which a training starts; return the training that they are of, if any."""
    match start:
        case Rewind(of=of, samples=samples):
            jobs[of.id].snapshots.add(samples)
        case Final(of=Train() as of):
            jobs[of.id].weights = True
        case _:
            return []
    return [of]


def _masks_of(step: Train) -> list[Mask]:
    """Return the mask of a training, after the masks that are needed to make it in a job of that training."""
    found: list[Mask] = []
    mask = step.mask
    while mask is not None:
        found.append(mask)
        origin = mask.origin
        mask = origin.of.mask if isinstance(origin, Prune) and origin.judges_start else None
    return found[::-1]


def _trained_for(origin: Prune | RandomPrune | Imported) -> Train | None:
    """Return the training that a mask is made after.

    None if it needs none, or only the state that one begins with: if it is imported, or pruned from imported weights.
    """
    match origin:
        case Prune() if origin.judges_start:
            return None
        case Prune(of=Train() as source) | RandomPrune(nonzero=source):
            return source
        case _:
            return None


def _ancestors(job: Job) -> set[Job]:
    """Return the ancestors of a job, and the job itself."""
    found: set[Job] = set()
    stack = [job]
    while stack:
        one = stack.pop()
        if one not in found:
            found.add(one)
            stack += one.parents
    return found
