"""Estimate what jobs and plans cost: seconds, GPU-hours and bytes."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from raysslprune.catalogue import data_parts
from raysslprune.paper.recipes import PIXELS, VIEWS, Net
from raysslprune.plan.graph import Job, Plan
from raysslprune.spec import (
    SVM,
    Train,
)
from raysslprune.store.record import Record
from raysslprune.words import what


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What jobs take.

    seconds: that each has left, on one worker, by id. guessed: ids of the trainings whose speed nobody has measured.
    disk: bytes of all artefacts. unsized: the networks whose weights are missing from it, as their size is not known.
    """

    seconds: dict[str, float]
    guessed: frozenset[str]
    disk: int
    unsized: tuple[str, ...]


START = 20.0
"""Seconds from the command to the first training: Ray's start, and torch's import in each worker."""

SVMS = 10.0
"""Seconds that the linear SVMs of one network are taken to need."""

OVERHEAD = 0.15
"""Seconds that a job takes beside its training: reading, writing, Tune's own work."""


def cost_of(jobs: Iterable[Job], records: Mapping[str, Record], nets: Mapping[str, Net]) -> Cost:
    """The expected cost of what is left of ``jobs``, by the speeds that ``records`` measured, else by ``nets``."""
    jobs = list(jobs)
    speeds = _Speeds(jobs, records, nets)

    def seconds(job: Job) -> float:
        if job.is_trained(records):
            return OVERHEAD
        if isinstance(job.train.recipe, SVM):
            return OVERHEAD + SVMS
        return OVERHEAD + job.samples / speeds.of(job)[0]

    left = [job for job in jobs if not job.is_trained(records)]
    return Cost(
        seconds={job.id: seconds(job) for job in jobs},
        guessed=frozenset(job.id for job in left if speeds.of(job)[1] == GUESSED),
        disk=_disk(jobs, nets).kept,
        unsized=tuple(dict.fromkeys(job.train.arch for job in jobs if job.train.arch not in nets)),
    )


# ------------------------------------------------------------------------------------- what figures cost


@dataclass(frozen=True, kw_only=True)
class Work:
    """Trainings that are alike: of one task on one data set with one network.

    what: in words, as ``rotnet on imagenet, resnet50``. samples: seen by all of them. source: of the speed; a key of
    SOURCES. hours: of all of them, on one device. left: of those, hours that are still to be spent.
    """

    what: str
    trainings: int
    samples: int
    images_per_second: float
    source: str
    hours: float
    left: float


MEASURED, STATED, GUESSED, ON_CPU = "measured", "stated", "guessed", "on the CPU"
SOURCES = {
    MEASURED: "the median speed of the trainings in this store that were done on a GPU",
    STATED: "a published speed of ResNet-50; of other networks by their multiply-adds; divided by the task's views; "
    "three times that where the trunk is frozen; nothing for pruned weights; unmeasured",
    GUESSED: "nothing is known of the network: as those in the middle of paper.recipes.NETS",
    ON_CPU: "fitted by scikit-learn; not counted",
}


@dataclass(frozen=True, kw_only=True)
class Disk:
    """Bytes of artefacts. weights: the final ones of all trainings; needed: of those that something reads; kept: all
    that stays of this plan, by what it says about weights."""

    weights: int
    needed: int
    snapshots: int
    masks: int
    kept: int


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What a plan comes to when all of it is made. steps: trainings and masks. left: trainings to run."""

    points: int
    steps: int
    trainings: int
    masks: int
    left: int
    without_sharing: int
    work: tuple[Work, ...]
    disk: Disk

    @property
    def hours(self) -> float:
        return sum(work.hours for work in self.work)

    @property
    def hours_left(self) -> float:
        return sum(work.left for work in self.work)


def estimate(
    graph: Plan, records: Mapping[str, Record], nets: Mapping[str, Net], device: str, measured: Iterable[Job] = ()
) -> Estimate:
    """What a plan comes to on one ``device``: ``cuda``, or ``cpu`` for one core of it.

    measured: more jobs that ``records`` may know the speed of.
    """
    jobs = graph.jobs.values()
    speeds = _Speeds([*jobs, *measured], records, nets, device)
    alike: dict[str, list[Job]] = {}
    for job in jobs:
        alike.setdefault(what(job.train), []).append(job)
    masks = sum(len(job.masks) for job in jobs)
    return Estimate(
        points=len(graph.points),
        steps=len(jobs) + masks,
        trainings=len(jobs),
        masks=masks,
        left=graph.trainings_left(records),
        without_sharing=graph.trainings_without_sharing(),
        work=tuple(_worked(name, group, records, speeds) for name, group in alike.items()),
        disk=_disk(jobs, nets),
    )


def _worked(what: str, jobs: Sequence[Job], records: Mapping[str, Record], speeds: _Speeds) -> Work:
    samples = sum(job.samples for job in jobs)
    left = sum(job.samples for job in jobs if not job.is_trained(records))
    speed, source = speeds.of(jobs[0])
    return Work(
        what=what,
        trainings=len(jobs),
        samples=samples,
        images_per_second=speed,
        source=source,
        hours=samples / speed / 3600,
        left=left / speed / 3600,
    )


def _disk(jobs: Iterable[Job], nets: Mapping[str, Net]) -> Disk:
    """Of networks that ``nets`` has. Without what a task remembers, which is in the snapshots of NPID."""
    weights = needed = snapshots = masks = kept = 0
    for job in jobs:
        net = nets.get(job.train.arch)
        if net:
            size = 4 * net.parameters
            weights += size
            needed += size * job.weights
            kept += size * (job.weights or job.keep)
            snapshots += size * len(job.snapshots)
            masks += net.prunable // 8 * len(job.masks)
    return Disk(weights=weights, needed=needed, snapshots=snapshots, masks=masks, kept=kept + snapshots + masks)


class _Speeds:
    """Samples a second of each job's training."""

    def __init__(
        self, jobs: Iterable[Job], records: Mapping[str, Record], nets: Mapping[str, Net], device: str | None = None
    ) -> None:
        """device: only what was measured on such a device counts, and what is stated of it."""
        measured: dict[Kind, list[float]] = {}
        for job in jobs:
            if job.id in records and not isinstance(job.train.recipe, SVM):
                facts = records[job.id].facts
                if device is None or facts["device"].startswith(device):
                    each = facts["images_per_second"] / facts.get("workers", 1)
                    measured.setdefault(kind_of(job), []).append(each)
        speeds = ((kind, [value for value in values if value]) for kind, values in measured.items())
        self.measured = {kind: median(values) for kind, values in speeds if values}  # 0: resumed at its very end
        speeds = {arch: net.on_gpu if device == "cuda" else net.images_per_second for arch, net in nets.items()}
        self.stated = {arch: speed for arch, speed in speeds.items() if speed}
        self.pixels = {arch: net.pixels for arch, net in nets.items()}
        self.middle = median(self.stated.values()) if self.stated else 1000.0

    def of(self, job: Job) -> tuple[float, str]:
        """With where it is from, a key of SOURCES."""
        step = job.train
        if isinstance(step.recipe, SVM):
            return math.inf, ON_CPU
        if kind_of(job) in self.measured:
            return self.measured[kind_of(job)], MEASURED
        cost = FORWARD if step.trunk_frozen else VIEWS.get(step.task, 1)
        if step.arch not in self.stated:
            return self.middle / cost, GUESSED
        native = self.pixels[step.arch]
        pixels = PIXELS.get(_source(step), native)
        return self.stated[step.arch] * (native / pixels) ** 2 / cost, STATED


FORWARD = 1 / 3
"""Of a training's multiplications, those that are forward: all that a frozen trunk takes."""


Kind = tuple[str, str, str, bool]
"""Network, task, source of the data, whether the trunk is frozen."""


def kind_of(job: Job) -> Kind:
    """Trainings of one kind are about as fast."""
    step = job.train
    return step.arch, step.task, _source(step), step.trunk_frozen


def _source(step: Train) -> str:
    return data_parts(step.data)[0]


def cores() -> int:
    """That this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
