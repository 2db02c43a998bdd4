"""A search whose trainings are done when the test says so."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path

from raysslprune.lottery import imp, winning_ticket
from raysslprune.plan.cost import cost_of
from raysslprune.plan.graph import Job, make_plan
from raysslprune.plan.schedule import Schedule
from raysslprune.plan.search import Studies
from raysslprune.spec import Prune, Recipe, Rewind, Train
from raysslprune.store.record import snapshot_name, snapshots_in
from raysslprune.store.steps import Store
from raysslprune.sweepfile import Point

RECIPE = Recipe(samples=1600, batch=64, lr=0.05)
REWINDS = tuple(range(0, 1600, 160))
LEVELS = (1, 2, 3)


def hill(top: float, width: float = 300.0) -> Callable[[int], float]:
    """A smooth response over the rewinds."""
    return lambda rewind: 90 - 5 * ((rewind - top) / width) ** 2


def points(
    tasks: Sequence[str] = ("labels", "rotnet"), seeds: int = 2, rewinds: Sequence[int] = REWINDS
) -> list[Point]:
    found: list[Point] = []
    for seed in range(seeds):
        for task in tasks:
            for rewind in rewinds:
                chain = imp(task=task, data="digits", arch="conv4", recipe=RECIPE, seed=seed, levels=max(LEVELS),
                            keep=0.5, rewind=rewind)  # fmt: skip
                for level in LEVELS:
                    step = winning_ticket(chain, level, task="labels", recipe=RECIPE)
                    found.append(Point(step=step, task=task, init="t", level=level, seed=seed))
    dense = imp(task="labels", data="digits", arch="conv4", recipe=RECIPE, seed=0, levels=1, keep=0.5, rewind=0).dense
    return [Point(step=dense, task="labels", init="t", level=0, seed=0), *found]


def response(job: Job) -> float:
    """A hill at another place for each task and level, and noise from the id."""
    step = job.train
    level, mask = 0, step.mask
    while isinstance(mask, Prune):
        level, mask = level + 1, mask.of.mask
    noise = random.Random(job.id).gauss(0, 0.2)
    return hill(300 + 200 * level + (400 if "rotnet" in job.title else 0))(rewound_to(step)) + noise


class Killed(Exception):
    pass


class World:
    """A sweep's run, as the command makes it, on made-up trainings."""

    def __init__(
        self,
        root: Path,
        grid: Sequence[Point],
        *,
        broken: Callable[[Job], bool] = lambda job: False,
        ordinary: Sequence[Point] = (),
        workers: int = 3,
    ) -> None:
        self.grid, self.broken, self.workers = grid, broken, workers
        self.store = Store(str(root))
        self.store.create()
        self.plan = make_plan([*grid, *ordinary])
        records, damaged = self.store.survey(self.plan.ids)
        assert damaged == []
        seconds = cost_of(self.plan.jobs.values(), records, {}).seconds
        first = [point for point in (*grid, *ordinary) if point in ordinary or point.level == 0]
        pending = {job.id for job in self.plan.pending(records)}
        self.schedule = Schedule([job for job in self.plan.behind(first) if job.id in pending], seconds)
        self.notes: list[str] = []
        self.studies = Studies("rewind-laptop", grid, self.plan, self.schedule, records, self.store, self.notes.append)
        self.trained: list[str] = []

    def run(self, kill_after: int | None = None, *, told: bool = True, shuffle: random.Random | None = None) -> World:
        """To the end, or until so many jobs are done. told: whether the search hears of the last one."""
        running: list[Job] = []
        self.studies.advance()
        while not self.schedule.finished:
            while len(running) < self.workers and (job := self.schedule.next()):
                running.append(job)
            job = running.pop(shuffle.randrange(len(running)) if shuffle else 0)
            if self.broken(job):
                self.schedule.fail(job.id)
            else:
                make(self.store, job)
                self.trained.append(job.id)
                self.schedule.done(job.id)
            last = kill_after is not None and len(self.trained) >= kill_after
            if told or not last:
                self.studies.advance()
            if last:
                raise Killed
        assert self.studies.ended
        assert len(set(self.trained)) == len(self.trained)
        return self


def make(store: Store, job: Job) -> None:
    facts = {"images_per_second": 1.0}
    for mask in job.masks:
        store.commit(mask, {}, {"density": 0.5}, facts)
    record = store.record(job.id)
    kept = snapshots_in(record.files) if record else set()
    snapshots = {snapshot_name(samples): b"" for samples in job.snapshots | kept}
    store.commit(job.train, snapshots, {"top1": response(job)}, facts)


def rewind_of(point: Point) -> int:
    return rewound_to(point.step)


def rewound_to(step: Train) -> int:
    return step.start.samples if isinstance(step.start, Rewind) else 0
