"""Looks: seeds are added to a sweep until its claims are decided.

After each look at the claims, the next seeds are trained only for the curves of those that are still undecided.
The looks are fixed before the first and share the probability of an error, so that looking often does not find what is
not there (results.claims.judge). What a look decides depends on the results alone, so an interrupted sweep resumes
where it was.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from raysslprune.plan.graph import Job, Plan
from raysslprune.plan.schedule import Schedule
from raysslprune.store.record import Record
from raysslprune.sweepfile import Claim, Curve, Dense, Point

FIRST = 3
"""Seeds of the first look; each further look has twice as many."""

MAX_SEEDS = 24

Undecided = Callable[[], Sequence[tuple[Claim, str]]]
"""A function that judges the finished points: the claims that are undecided, each with its panel or ''."""


def looks(max_seeds: int = MAX_SEEDS) -> tuple[int, ...]:
    """Return the numbers of seeds at which the claims are judged: 3, 6, 12 ... and at last ``max_seeds``."""
    found, seeds = list[int](), FIRST
    while seeds < max_seeds:
        found.append(seeds)
        seeds *= 2
    return (*found, max_seeds)


class Looks:
    """The looks of one sweep, which add jobs to a running schedule."""

    def __init__(
        self,
        at: Sequence[int],
        points: Sequence[Point],
        plan: Plan,
        schedule: Schedule,
        records: Mapping[str, Record],
        undecided: Undecided,
    ) -> None:
        """Take the first look's points. at: numbers of seeds. points: those of all seeds."""
        self.at, self.points, self.plan, self.schedule, self.undecided = at, points, plan, schedule, undecided
        self._pending = {job.id for job in plan.pending(records)}
        self._look = 0
        self._awaited = self._jobs([point for point in points if point.seed < at[0]])

    def advance(self) -> None:
        """Once a look's jobs have ended, add those of the next. Call this at the start and after each job."""
        self.schedule.add(self._awaited)
        while self._look < len(self.at) - 1 and not any(self._runs(job) for job in self._awaited):
            open_claims = self.undecided()
            self._look += 1
            known, seeds = self.at[self._look - 1], self.at[self._look]
            new = [point for point in self.points if known <= point.seed < seeds]
            self._awaited = self._jobs([p for p in new if any(needs(*one, p) for one in open_claims)])
            self.schedule.add(self._awaited)

    def _jobs(self, points: Sequence[Point]) -> list[Job]:
        return [job for job in self.plan.behind(points) if job.id in self._pending]

    def _runs(self, job: Job) -> bool:
        return job.id in self.schedule.waiting or job.id in self.schedule.running


def needs(claim: Claim, panel: str, point: Point) -> bool:
    """Return whether the claim, in this panel or in all if '', compares a point."""
    if panel and point.panel != panel:
        return False
    low, high = claim.within
    inside = not point.step.target_density < low / 1.01 and not point.step.target_density > high * 1.01
    for side in (claim.higher, claim.lower):
        if isinstance(side, Dense) and side.curve.covers(point.curve) and point.level == 0:
            return True
        if isinstance(side, Curve) and side.covers(point.curve) and inside:
            return True
    return False
