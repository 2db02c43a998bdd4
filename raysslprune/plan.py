"""From the points that sweeps ask for to what must run, in which order, and what that costs.

The unit of work is a *job*: one training and the masks that are made beside it. A Prune is made where its
training ran, while the weights are at hand. A random mask is made by the first training that uses it. An imported one
is made by none: the first that uses it only looks whether it is there.

What stays of a finished job: its metrics, its masks, the snapshots that others are rewound to; and its final
weights, of all jobs or, where the disk is small, only of those that something in the plan reads.
"""

from __future__ import annotations

import heapq
import math
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from statistics import median

from raysslprune.names import data_parts
from raysslprune.recipes import PIXELS, VIEWS, Net
from raysslprune.spec import (
    SVM,
    Final,
    Imported,
    Init,
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
from raysslprune.store import WEIGHTS, Record, snapshot_name
from raysslprune.sweepfile import Point


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


def make(points: Iterable[Point], weights_of: Iterable[Train] = (), keep_all: bool = True) -> Plan:
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


FEWEST = 1 / 4
"""Of the workers that a job may have, those that it begins with, at least. With fewer, a wrong guess of what comes
after it costs more than idle workers do."""


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
        if few < FEWEST * most:
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


def cost(jobs: Iterable[Job], records: Mapping[str, Record], nets: Mapping[str, Net]) -> Cost:
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
    GUESSED: "nothing is known of the network: as those in the middle of recipes.NETS",
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


# ------------------------------------------------------------------------------------- in words


def title(step: Train) -> str:
    """For people: task, level of pruning, where its weights come from, seed."""
    start = step.start
    begins = (
        f"from {start.of.task}" if isinstance(start, Final) else "rewound" if isinstance(start, Rewind) else "drawn"
    )
    return f"{_task(step)} seed {step.seed}, {describe(step.mask)}, {begins}"


def titles(jobs: Iterable[Job]) -> dict[str, str]:
    """By id. To titles that several jobs have it adds what these differ in."""
    alike: dict[str, list[Train]] = {}
    for job in jobs:
        alike.setdefault(job.title, []).append(job.train)
    named: dict[str, str] = {}
    for shared, steps in alike.items():
        named |= told_apart(shared, {step.id: _facts(step) for step in steps} if len(steps) > 1 else {steps[0].id: {}})
    return named


def told_apart(shared: str, facts: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """Names for steps, by id, that all begin with ``shared`` and go on with the first facts that tell them apart.

    facts: of each step, by kinds; the most telling kinds come first. Steps that differ in nothing of that get their
    ids, which ``--explain`` takes.
    """
    named = dict.fromkeys(facts, shared)
    for kind in dict.fromkeys(kind for some in facts.values() for kind in some):
        longer = {i: ", ".join(filter(None, (name, facts[i].get(kind, "")))) for i, name in named.items()}
        if len(set(longer.values())) > len(set(named.values())):
            named = longer
    counts = Counter(named.values())
    return {i: name if counts[name] == 1 else f"{name}, step {i[:8]}" for i, name in named.items()}


def _facts(step: Train) -> dict[str, str]:
    """What a title leaves out: of the training, of the one that it starts from, and of the one that its mask is of."""
    density, start = left(step.mask), step.start
    facts = {
        "rewind": f"to {start.samples:,}" if isinstance(start, Rewind) else "",
        "left": "" if math.isnan(density) else f"{100 * density:.3g}% left",
        "arch": step.arch,
        "data": step.data,
        "scope": _scope(step.mask),
        "begins": begins(step),
        **recipe_facts(step),
    }
    origins = {"from": None if isinstance(start, Init) else start.of, "mask of": _origin(step.mask)}
    for word, origin in origins.items():
        if origin is not None and origin is not step:
            told = {"task": origin.task, "data": origin.data, "begins": begins(origin), **recipe_facts(origin)}
            facts |= {f"{word} {kind}": f"{word} {fact}" for kind, fact in told.items()}
    return facts


def begins(step: Train) -> str:
    """On what a network was trained first of all, and from which draw of its weights."""
    while not isinstance(step.start, Init):
        step = step.start.of
    return f"begun on {step.task}" + (f", draw {step.start.draw}" if step.start.draw else "")


def recipe_facts(step: Train) -> dict[str, str]:
    """A training's length and all else of its recipe, by fields."""
    values = {field.name: getattr(step.recipe, field.name) for field in fields(step.recipe)}
    options = dict(values.pop("options", ()))
    samples = {"samples": f"{values.pop('samples'):,} samples"} if "samples" in values else {}
    return samples | {name: f"{name} {value}" for name, value in {**options, **values}.items()}


def _scope(mask: Mask | None) -> str:
    while isinstance(mask, Shuffle):
        mask = mask.of
    return mask.scope if isinstance(mask, Prune | RandomPrune) else ""


def _origin(mask: Mask | None) -> Train | None:
    """The dense training that a mask was first pruned from."""
    while isinstance(mask, Shuffle):
        mask = mask.of
    if isinstance(mask, Prune):
        return prunings(mask)[-1].of
    return mask.nonzero if isinstance(mask, RandomPrune) else None


def left(mask: Mask | None) -> float:
    """The fraction of what is pruned that a mask leaves, but for rounding and natural zeros. NaN of an imported one."""
    if isinstance(mask, RandomPrune):
        return mask.keep**mask.level
    if isinstance(mask, Imported):
        return math.nan
    if isinstance(mask, Shuffle):
        return left(mask.of)
    if mask is None:
        return 1.0
    behind = prunings(mask)
    return math.prod(one.keep for one in behind) * left(behind[-1].of.mask)


def _task(step: Train) -> str:
    """What is trained, where the task alone does not say it."""
    return ("linear SVMs" if isinstance(step.recipe, SVM) else "linear") if step.trunk_frozen else step.task


def what(step: Train) -> str:
    """As ``rotnet on imagenet, resnet50``."""
    return f"{_task(step)} on {step.data}, {step.arch}"


def describe(mask: Mask | None) -> str:
    """As ``dense``, ``rotnet mask 7``, ``random mask 3``, ``imported mask 1a2b3c4d``, ``shuffled labels mask 2``."""
    if mask is None:
        return "dense"
    if isinstance(mask, RandomPrune):
        return f"random mask {mask.level}"
    if isinstance(mask, Imported):
        return f"imported mask {mask.digest[:8]}"
    if isinstance(mask, Shuffle):
        return f"shuffled {describe(mask.of)}"
    behind = prunings(mask)
    return f"{behind[-1].of.task} mask {len(behind)}"


def prunings(mask: Prune) -> list[Prune]:
    """All that lead to this mask, itself first."""
    behind = [mask]
    while isinstance(before := behind[-1].of.mask, Prune):
        behind.append(before)
    return behind


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
