"""The time left, compared with sweeps whose true end is known, on a simulated clock."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace

import pytest

from raysslprune.lottery import imp, random_reinit, winning_ticket
from raysslprune.paper.scales import SETTINGS
from raysslprune.plan.cost import OVERHEAD, kind_of
from raysslprune.plan.graph import Job, Plan, make_plan
from raysslprune.plan.schedule import Schedule
from raysslprune.plan.time_left import TimeLeft
from raysslprune.spec import Init, Train
from raysslprune.sweepfile import Point
from raysslprune.words import left_in_words

S = SETTINGS["smoke"]


def chains(levels: int = 6) -> Plan:
    points: list[Point] = []
    for task in ("labels", "rotnet"):
        chain = imp(
            task=task,
            data=S.data,
            arch=S.arch,
            recipe=S.recipes[task],
            seed=0,
            levels=levels,
            keep=0.5,
            rewind=S.rewind[task],
        )
        for level in range(1, levels + 1):
            ticket = winning_ticket(chain, level, task="labels", recipe=S.recipes["labels"])
            again = random_reinit(chain.masks[level], like=chain.dense, task="labels", recipe=S.recipes["labels"])
            for init, step in (("ticket", ticket), ("re-init", again)):
                points.append(Point(step=step, task=task, init=init, level=level, seed=0))
    return make_plan(points)


def trained(count: int, samples: int = 40_000) -> Plan:
    """Independent trainings."""
    recipe = replace(S.recipes["labels"], samples=samples)
    steps = [
        Train(task="labels", data=S.data, arch=S.arch, recipe=recipe, seed=seed, start=Init(seed=seed))
        for seed in range(count)
    ]
    return make_plan(Point(step=step, task="labels", init="", level=0, seed=step.seed) for step in steps)


class Sweep:
    """A schedule on a simulated clock. takes: gives the true seconds of a job, which differ from the expected ones."""

    def __init__(
        self,
        graph: Plan,
        expected: float,
        takes: Callable[[Job], float],
        slots: int = 2,
        start: float = 12.0,
        guessed: Collection[str] = (),
    ) -> None:
        self.time, self.slots, self.start, self.takes = 0.0, slots, start, takes
        seconds = dict.fromkeys(graph.jobs, expected)
        self.schedule = Schedule(graph.jobs.values(), seconds)
        self.left = TimeLeft(self.schedule, seconds, guessed, clock=lambda: self.time)
        self.left.slots = slots
        self.begun: dict[str, float] = {}
        self.shown: list[tuple[float, float, bool]] = []

    def training(self) -> Mapping[str, tuple[int, int]]:
        """Progress as the exchange reports it: none for jobs that have just started."""
        found: dict[str, tuple[int, int]] = {}
        for job_id, job in self.schedule.running.items():
            part = (self.time - self.begun[job_id]) / self.takes(job)
            first, end = job.train.begins_at, job.train.recipe.samples
            if part > 0:
                found[job_id] = (int(first + min(1.0, part) * (end - first)), end)
        return found

    def run(self, every: float = 0.5) -> list[tuple[float, float, bool]]:
        """Run to the end. Return for each time the seconds left, and whether they were a guess."""
        while not self.schedule.finished:
            if self.time >= self.start:
                for job_id, job in list(self.schedule.running.items()):
                    if self.time - self.begun[job_id] >= self.takes(job):
                        self.schedule.done(job_id)
                        self.left.done(job, self.takes(job))
                while len(self.schedule.running) < self.slots and (job := self.schedule.next()):
                    self.begun[job.id] = self.time
                    self.left.started(job, 1)
            self.left.look(self.training())
            self.shown.append((self.time, self.left.seconds, self.left.is_guess))
            self.time += every
        return self.shown


def judged(shown: list[tuple[float, float, bool]], settled: float) -> None:
    """Check that after ``settled`` of the time it rises by at most 2% of the total, and is right to 20% of it."""
    end = shown[-1][0]
    late = [(time, left) for time, left, _ in shown if time >= settled * end]
    lowest = late[0][1]
    for time, left in late:
        assert left <= lowest + 0.02 * end, f"{left:.0f} s left at {time:.0f} of {end:.0f} s, after {lowest:.0f} s"
        assert abs(left - (end - time)) <= 0.2 * end, f"{left:.0f} s left at {time:.0f} of {end:.0f} s"
        lowest = min(lowest, left)
    assert late[-1][1] <= 0.05 * end


@pytest.mark.parametrize("factor", [0.25, 1.0, 4.0])
def test_it_falls_steadily_whatever_was_expected(factor: float) -> None:
    judged(Sweep(chains(), expected=20.0, takes=lambda job: 20.0 * factor).run(), settled=0.3)


def test_each_kind_of_training_has_its_own_speed() -> None:
    """RotNet takes four times the expected time, labels half of it."""
    judged(
        Sweep(chains(), expected=20.0, takes=lambda job: 80.0 if job.train.task == "rotnet" else 10.0).run(),
        settled=0.5,
    )


@pytest.mark.parametrize("factor", [0.2, 1.0, 5.0])
def test_trainings_of_a_day_are_told_from_their_samples(factor: float) -> None:
    """Before the first one ends."""
    day = 86_400.0
    shown = Sweep(trained(2), expected=day, takes=lambda job: day * factor, slots=2).run(every=30.0)
    judged(shown, settled=0.02)


def test_it_does_not_stand_still_while_trainings_run() -> None:
    """Once something runs, no two observations give the same time."""
    shown = Sweep(trained(4), expected=100.0, takes=lambda job: 100.0, slots=2).run()
    running = [left for time, left, _ in shown if time > 20]
    assert all(later < earlier for earlier, later in itertools.pairwise(running))


def test_a_training_that_goes_on_after_a_death_is_not_taken_for_a_fast_one() -> None:
    """It is first observed in its middle: what was done before counts as done, but not as done in no time."""
    graph = trained(1)
    (job,) = graph.jobs.values()
    sweep = Sweep(graph, expected=100.0, takes=lambda job: 100.0, slots=1, start=0.0)
    assert sweep.schedule.next() is job
    sweep.left.started(job, 1)
    for second in range(0, 101, 5):
        sweep.time = float(second)
        sweep.left.look({job.id: (20_000 + 100 * second, 40_000)})  # 200 samples a second were expected to be 400
    assert sweep.left.seconds == pytest.approx(100, rel=0.05)


def test_work_that_several_workers_share_is_not_taken_for_slow() -> None:
    graph = trained(1)
    (job,) = graph.jobs.values()
    sweep = Sweep(graph, expected=400.0, takes=lambda job: 100.0, slots=4, start=0.0)
    assert sweep.schedule.next() is job
    sweep.schedule.allow(lambda parts: 4)
    sweep.left.started(job, 4)
    sweep.begun[job.id] = 0.0
    for second in range(1, 51):
        sweep.time = float(second)
        sweep.left.look(sweep.training())
    assert sweep.left.seconds == pytest.approx(50, rel=0.1)


def test_a_guess_is_one_until_something_of_its_kind_was_seen() -> None:
    graph = chains()
    guessed = {job.id for job in graph.jobs.values() if job.train.task == "rotnet"}
    sweep = Sweep(graph, expected=20.0, takes=lambda job: 2.0, guessed=guessed)
    shown = sweep.run()
    assert shown[0][2]
    assert not shown[-1][2]
    first = next(time for time, _, guess in shown if not guess)
    assert sweep.start < first < sweep.start + 5, "a second of one such training is enough"
    assert not any(guess for _, _, guess in Sweep(graph, 20.0, lambda job: 2.0).run())


def test_looking_costs_at_most_a_fiftieth_of_the_time() -> None:
    graph = trained(3)
    seconds = dict.fromkeys(graph.jobs, 1.0)
    schedule = Schedule(graph.jobs.values(), seconds)
    clock = [0.0]
    looks: list[float] = []

    class Slow(TimeLeft):
        def _estimate(self, now: float) -> float:
            looks.append(now)
            clock[0] += 1.0
            return super()._estimate(now)

    left = Slow(schedule, seconds, clock=lambda: clock[0])
    for _ in range(400):
        clock[0] += 0.5
        left.look({})
    assert 3 <= len(looks) <= 6


def test_kinds_differ_in_what_makes_trainings_fast() -> None:
    """Kinds differ by network, task, data and a frozen trunk, not by seed and level."""
    kinds = {kind_of(job) for job in chains().jobs.values()}
    assert len(kinds) == 2


def test_a_training_of_which_nothing_is_heard_never_has_nothing_left() -> None:
    """Expected to take 3 s, it has shown no progress after a minute, as while Ray starts on a busy machine."""
    times = [0.0]
    graph = trained(1)
    expected = dict.fromkeys(graph.jobs, 3.0)
    left = TimeLeft(Schedule(graph.jobs.values(), expected), expected, clock=lambda: times[-1])
    for second in range(60):
        times.append(second)
        left.look({})
    assert 2.9 <= left.seconds <= 3.1


def test_the_last_moments_are_not_called_nothing() -> None:
    assert left_in_words(0.4, guess=False) == left_in_words(0.0, guess=True) == "less than 1 s left"
    assert left_in_words(3.2, guess=False) == "3 s left"
    assert left_in_words(3.2, guess=False, starting=True) == "3 s once trainings begin"
    assert left_in_words(3.2, guess=True, starting=True) == "about 3 s once trainings begin, a guess"


@pytest.mark.parametrize("start", [5.0, 45.0])
def test_the_start_of_ray_is_not_taken_for_time_of_trainings(start: float) -> None:
    """However long it takes: until a training runs, the time is that of the trainings; then it is what is left."""
    sweep = Sweep(trained(4), expected=30.0, takes=lambda job: 30.0, slots=2, start=start)
    starting: list[tuple[float, bool]] = []
    look = sweep.left.look

    def watched(training: Mapping[str, tuple[int, int]]) -> None:
        look(training)
        starting.append((sweep.time, sweep.left.is_starting))

    sweep.left.look = watched  # pyright: ignore[reportAttributeAccessIssue]
    shown = sweep.run()
    end = shown[-1][0]
    assert [time for time, before in starting if before] == [time for time, _ in starting if time <= start]
    for time, left, _ in shown:
        assert left == pytest.approx(60 if time <= start else end - time, abs=1.5), time


def test_masks_alone_end_the_start_too() -> None:
    """A job whose training is done already reports no samples."""
    graph = trained(2)
    sweep = Sweep(graph, expected=OVERHEAD, takes=lambda job: OVERHEAD)
    job = sweep.schedule.next()
    assert job
    sweep.left.look({})
    assert sweep.left.is_starting
    sweep.schedule.done(job.id)
    sweep.left.done(job, 0.0)
    assert not sweep.left.is_starting
