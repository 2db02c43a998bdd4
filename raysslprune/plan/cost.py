"""Estimate what jobs and plans cost: seconds, GPU-hours and bytes."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from raysslprune.catalogue import data_parts, sized
from raysslprune.paper.recipes import PIXELS, TARGETS, VIEWS, Net
from raysslprune.plan.graph import Job, Plan
from raysslprune.spec import SVM, Train
from raysslprune.store.record import Record
from raysslprune.words import what


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Expected cost of jobs.

    seconds: remaining time of each job on one worker, by id. guessed: ids of the trainings whose speed is a guess.
    disk: bytes of all artefacts. unsized: networks whose weights are not counted in ``disk``: their size is unknown.
    """

    seconds: dict[str, float]
    guessed: frozenset[str]
    disk: int
    unsized: tuple[str, ...]


START = 20.0
"""Seconds from the command to the first training, for plans: Ray's start, and torch's import in each worker. A
machine with more to do needs longer: on two busy cores 45 s and more than 200 s were seen."""

SVMS = 10.0
"""Assumed seconds for the linear SVMs of one network."""

OVERHEAD = 0.15
"""Seconds that a job takes besides its training: reading, writing, Tune's own work."""


def cost_of(jobs: Iterable[Job], records: Mapping[str, Record], nets: Mapping[str, Net]) -> Cost:
    """Return the expected remaining cost of ``jobs``, from the speeds in ``records``, else from those of ``nets``."""
    jobs = list(jobs)
    speeds = Speeds(jobs, records, nets)

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
    """Trainings of one task on one data set with one network.

    what: description, as ``rotnet on imagenet, resnet50``. samples: total samples seen. source: origin of the speed, a
    key of SOURCES. hours: total hours on one device. left: hours still to be spent.
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
    STATED: "not measured; a published speed of ResNet-50, scaled to other networks by their multiply-adds; divided by "
    "the task's number of views, or tripled with a frozen trunk; pruned networks count as no faster",
    GUESSED: "the median speed of the networks in paper.recipes.NETS, for a network of unknown speed",
    ON_CPU: "fitted by scikit-learn; not counted",
}


@dataclass(frozen=True, kw_only=True)
class Disk:
    """Bytes of artefacts. weights: final weights of all trainings; needed: those that something reads;
    kept: all artefacts that this plan keeps."""

    weights: int
    needed: int
    snapshots: int
    masks: int
    kept: int


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Total cost of a plan, in counts. left: trainings still to run. without_sharing: trainings if none were shared."""

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
    """Estimate the cost of a plan on one ``device``: ``cuda``, or ``cpu`` for one core.

    measured: further jobs whose speed may be in ``records``.
    """
    jobs = graph.jobs.values()
    speeds = Speeds([*jobs, *measured], records, nets, device)
    alike: dict[str, list[Job]] = {}
    for job in jobs:
        alike.setdefault(what(job.train), []).append(job)

    def work(name: str, group: Sequence[Job]) -> Work:
        speed, source = speeds.of(group[0])
        samples = sum(job.samples for job in group)
        left = sum(job.samples for job in group if not job.is_trained(records))
        return Work(
            what=name,
            trainings=len(group),
            samples=samples,
            images_per_second=speed,
            source=source,
            hours=samples / speed / 3600,
            left=left / speed / 3600,
        )

    masks = sum(len(job.masks) for job in jobs)
    return Estimate(
        points=len(graph.points),
        steps=len(jobs) + masks,
        trainings=len(jobs),
        masks=masks,
        left=graph.trainings_left(records),
        without_sharing=graph.trainings_without_sharing(),
        work=tuple(work(name, group) for name, group in alike.items()),
        disk=_disk(jobs, nets),
    )


def _disk(jobs: Iterable[Job], nets: Mapping[str, Net]) -> Disk:
    """Return the disk space of networks in ``nets``, without tasks' state, such as NPID's memory in snapshots."""
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


class Speeds:
    """Speeds of jobs' trainings, in samples per second and worker."""

    def __init__(
        self, jobs: Iterable[Job], records: Mapping[str, Record], nets: Mapping[str, Net], device: str | None = None
    ) -> None:
        """Collect speeds measured on, or stated for, ``device``: ``cuda`` or ``cpu``; None: any."""
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
        self.nets, self.stated = nets, {arch: speed for arch, speed in speeds.items() if speed}
        self.middle = median(self.stated.values()) if self.stated else 1000.0

    def of(self, job: Job) -> tuple[float, str]:
        """Return a job's speed, and its origin, a key of SOURCES."""
        step = job.train
        if isinstance(step.recipe, SVM):
            return math.inf, ON_CPU
        if kind_of(job) in self.measured:
            return self.measured[kind_of(job)], MEASURED
        trained = VIEWS.get(step.task, 1) + FORWARD * TARGETS.get(step.task, 0)
        cost = FORWARD if step.trunk_frozen else trained
        if step.arch not in self.stated:
            return self.middle / cost, GUESSED
        return self.stated[step.arch] / _enlargement(step, self.nets[step.arch]) / cost, STATED


SMALL = 100_000_000
"""Maximum multiply-adds of a sample in a small network: a large GPU takes less time to compute an update of 64 samples
than to launch it. Chosen, not measured."""

TOGETHER = 4
"""Number of trainings of small networks that share a GPU by default."""


def gpu_share(jobs: Iterable[Job], nets: Mapping[str, Net]) -> float:
    """Return the fraction of a GPU for each training: 1 / TOGETHER if all networks are known and small, else 1."""

    def is_small(step: Train) -> bool:
        net = nets.get(step.arch)
        return net is not None and 0 < net.macs * _enlargement(step, net) <= SMALL

    return 1 / TOGETHER if all(is_small(job.train) for job in jobs) else 1.0


FORWARD = 1 / 3
"""Share of a training's multiplications that the forward pass needs; a frozen trunk needs no others."""


Kind = tuple[str, str, str, bool]
"""Network, task, source of the data, and whether the trunk is frozen."""


def kind_of(job: Job) -> Kind:
    """Return the kind of a job's training; trainings of one kind are about equally fast."""
    step = job.train
    return step.arch, step.task, _source(step), step.trunk_frozen


def _source(step: Train) -> str:
    return data_parts(step.data)[0]


def _enlargement(step: Train, net: Net) -> float:
    """Area of a step's images, relative to those that the network is meant for."""
    source, argument, _ = data_parts(step.data)
    stated = sized(argument)[1] if source == "folder" else None
    return ((stated or PIXELS.get(source, net.pixels)) / net.pixels) ** 2


def cores() -> int:
    """Number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
