"""A schedule that is played without Ray."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, ClassVar

from raysslprune.cluster.prometheus import Monitor
from raysslprune.lottery import imp, winning_ticket
from raysslprune.paper.scales import SETTINGS
from raysslprune.plan.graph import Job, make_plan
from raysslprune.plan.schedule import Schedule
from raysslprune.sweepfile import Point

S = SETTINGS["smoke"]
RECIPE = S.recipes["rotnet"]
KIND = ("rotnet", S.arch, S.data)


def chain(seed: int = 0, levels: int = 3, keep: float = 0.5) -> list[Job]:
    """The jobs of a RotNet chain, dense first; each but the last makes the next one's mask."""
    rounds = imp(
        task="rotnet", data=S.data, arch=S.arch, recipe=RECIPE, seed=seed, levels=levels, keep=keep,
        rewind=S.rewind["rotnet"],
    )  # fmt: skip
    step = winning_ticket(rounds, levels, task="rotnet", recipe=RECIPE)
    return list(make_plan([Point(step=step, task="rotnet", init="", level=levels, seed=seed)]).jobs.values())


def facts(seconds: float = 2.0, resumed_at: int | None = None, ago: float = 0.0) -> dict[str, Any]:
    return {"seconds": seconds, "images_per_second": 1.0, "begun": time.time() - ago, "resumed_at": resumed_at}


class Fake:
    """One of Ray's metrics; keeps by name and tags' values what it is told."""

    values: ClassVar[dict[tuple[str, ...], float]] = {}
    about: ClassVar[dict[str, str]] = {}

    def __init__(self, name: str, description: str, tag_keys: tuple[str, ...]) -> None:
        self.name, self.keys = name.removeprefix("raysslprune_"), tag_keys
        self.about[self.name] = description

    def set(self, value: float, tags: Mapping[str, str]) -> None:
        assert tuple(tags) == self.keys
        self.values[self.name, *tags.values()] = value

    def inc(self, value: float, tags: Mapping[str, str]) -> None:
        assert value > 0
        self.set(self.values.get((self.name, *tags.values()), 0) + value, tags)


class Played:
    """A schedule whose jobs end as one says, with its monitor."""

    def __init__(self, jobs: list[Job], before: list[Job] | None = None) -> None:
        self.schedule = Schedule(jobs, {job.id: 1.0 for job in jobs})
        self.monitor = Monitor(self.schedule, before or [])

    def start(self) -> Job:
        job = self.schedule.next()
        assert job is not None
        self.monitor.job_started(job)
        return job

    def done(self, job: Job, **about: Any) -> None:
        self.schedule.done(job.id)
        self.monitor.job_done(job, facts(**about))

    def states(self) -> dict[str, float]:
        self.monitor.look({})
        return {tags[1]: value for tags, value in Fake.values.items() if tags[0] == "steps" and value}


Values = dict[tuple[str, ...], float]
