"""The order in which jobs start, on made-up graphs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raysslprune.plan.graph import Job, Plan, make_plan
from raysslprune.plan.schedule import SMALL, Schedule
from raysslprune.spec import Init, Train
from raysslprune.sweepfile import Point
from tests.helpers.points import RECIPE, SWEEPS, fig3, points, wide


@pytest.fixture(params=SWEEPS)
def asked(request: pytest.FixtureRequest) -> list[Point]:
    return SWEEPS[request.param]


# ------------------------------------------------------------------------------------- make


@settings(max_examples=300)
@given(st.integers(1, 9).flatmap(lambda n: st.tuples(*(st.sets(st.integers(0, max(0, i - 1))) for i in range(n)))))
def test_trainings_without_sharing_of_any_graph(parents: tuple[set[int], ...]) -> None:
    dag = [sorted(numbers) if i else [] for i, numbers in enumerate(parents)]
    jobs = {job.id: job for job in jobs_of(dag)}
    graph = Plan(points=tuple(points(TRAINS[: len(dag)])), jobs=jobs)

    def behind(node: int) -> set[int]:
        return {node}.union(*(behind(parent) for parent in dag[node]))

    assert graph.trainings_without_sharing() == sum(len(behind(node)) for node in range(len(dag)))


Dag = list[list[int]]  # the parents of each node, all of them before it


@st.composite
def dags(draw: st.DrawFn) -> Dag:
    count = draw(st.integers(1, 9))
    return [sorted(draw(st.sets(st.integers(0, i - 1), max_size=3))) if i else [] for i in range(count)]


PARTS = (1, 2, 4, 8)
SHARED = {parts: replace(RECIPE, bn_batch=RECIPE.batch // parts if parts > 1 else 0) for parts in PARTS}
TRAINS = [
    Train(task="labels", data="digits", arch="conv4", recipe=SHARED[PARTS[i % 4]], seed=i, start=Init(seed=0))
    for i in range(9)
]
NUMBER = {train.id: number for number, train in enumerate(TRAINS)}


def jobs_of(dag: Dag) -> list[Job]:
    jobs = [Job(train=train) for train, _ in zip(TRAINS, dag, strict=False)]
    for job, parents in zip(jobs, dag, strict=True):
        job.parents = [jobs[parent] for parent in parents]
        for parent in parents:
            jobs[parent].children.append(job)
    return jobs


def descendants(dag: Dag, node: int) -> set[int]:
    children = [child for child, parents in enumerate(dag) if node in parents]
    return set(children).union(*(descendants(dag, child) for child in children))


def longest_path(dag: Dag, seconds: Sequence[float], pending: set[int], node: int) -> float:
    """Seconds from the start of ``node`` to the end of the last job behind it, through pending jobs only."""
    behind = [child for child, parents in enumerate(dag) if node in parents and child in pending]
    return seconds[node] + max((longest_path(dag, seconds, pending, child) for child in behind), default=0)


class Driver:
    """Driver of a schedule, like a cluster, that compares its answers with the definition."""

    def __init__(self, dag: Dag, seconds: Sequence[float], pending: set[int], data: st.DataObject) -> None:
        self.dag, self.seconds, self.data = dag, seconds, data
        self.jobs = jobs_of(dag)
        self.schedule = Schedule(
            [self.jobs[i] for i in sorted(pending)], {job.id: s for job, s in zip(self.jobs, seconds, strict=True)}
        )
        self.done = set(range(len(dag))) - pending
        self.waiting, self.running = set(pending), set[int]()
        self.failed, self.skipped = set[int](), set[int]()
        self.handed: Counter[int] = Counter()
        self.behind: dict[int, int] = {}
        self.workers = data.draw(st.integers(1, 4))

    def ready(self) -> set[int]:
        return {i for i in self.waiting if self.done.issuperset(self.dag[i])}

    def ask(self) -> int | None:
        """Start the next job; check that it may start."""
        ready, job = self.ready(), self.schedule.next()
        if job is None:
            must = {i for i in ready if i not in self.behind or self.behind[i] in self.done}
            assert not must, "a job whose parents are done was not handed out"
            return None
        number = NUMBER[job.id]
        assert job is self.jobs[number]
        assert number in ready, "handed out before its parents were done, or twice"
        self.waiting.remove(number)
        self.running.add(number)
        self.handed[number] += 1
        return number

    def turns(self) -> Iterator[int]:
        """Fill the workers, then yield a running job, drawn at random, that ends now; until nothing runs."""
        while True:
            assert self.schedule.finished == (not self.waiting and not self.running)
            assert {NUMBER[i] for i in self.schedule.waiting} == self.waiting
            assert {NUMBER[i] for i in self.schedule.running} == self.running
            while len(self.running) < self.workers and self.ask() is not None:
                pass
            if not self.running:
                assert not self.waiting, "nothing runs, yet there is something left to do"
                assert self.schedule.finished
                assert self.schedule.next() is None
                return
            number = self.data.draw(st.sampled_from(sorted(self.running)))
            yield number

    def succeed(self, number: int) -> None:
        self.schedule.done(self.jobs[number].id)
        self.running.remove(number)
        self.done.add(number)

    def back(self, number: int, _: int) -> None:
        self.succeed(number)

    def fail(self, number: int) -> None:
        """Waiting descendants of the job are skipped, except those behind a job that is done or running."""
        self.schedule.fail(self.jobs[number].id)
        self.running.remove(number)
        self.failed.add(number)
        while behind := {i for i in self.waiting if not (self.failed | self.skipped).isdisjoint(self.dag[i])}:
            self.skipped |= behind
            self.waiting -= behind

    def redo(self, number: int, first: int) -> None:
        self.schedule.redo(self.jobs[number].id, self.jobs[first])
        self.running.remove(number)
        self.waiting.add(number)
        if first != number:
            self.behind[number] = first  # may also wait for this one, be it no parent
        if first in self.done:
            self.done.remove(first)
            self.waiting.add(first)


SECONDS = st.lists(st.integers(1, 9), min_size=9, max_size=9)


def driver(dag: Dag, data: st.DataObject, *, all_pending: bool = False) -> Driver:
    nodes = st.sets(st.integers(0, len(dag) - 1), min_size=1)
    pending = set(range(len(dag))) if all_pending else data.draw(nodes)
    return Driver(dag, data.draw(SECONDS)[: len(dag)], pending, data)


# ------------------------------------------------------------------------------------- the schedule, on made-up graphs


@given(dags(), st.data())
def test_all_jobs_are_handed_out_once_after_their_parents(dag: Dag, data: st.DataObject) -> None:
    run = driver(dag, data)
    pending = set(run.waiting)
    for number in run.turns():
        run.succeed(number)
    assert run.handed == Counter(pending)
    assert run.schedule.failed == run.schedule.skipped == {}


@given(dags(), st.data())
def test_a_failure_skips_exactly_what_depends_on_it(dag: Dag, data: st.DataObject) -> None:
    run = driver(dag, data, all_pending=True)
    for number in run.turns():
        (run.fail if data.draw(st.booleans()) else run.succeed)(number)
    behind = set().union(*(descendants(dag, number) for number in run.failed))
    assert {NUMBER[i] for i in run.schedule.failed} == run.failed
    assert {NUMBER[i] for i in run.schedule.skipped} == behind
    assert run.handed == Counter(set(range(len(dag))) - behind)


@given(dags(), st.data())
def test_the_longest_remaining_path_goes_first(dag: Dag, data: st.DataObject) -> None:
    """Each job on its maximum of workers, which may change while they run, and is one at first."""
    run = driver(dag, data)
    run.workers = 1
    limit = 1
    while not run.schedule.finished:
        seconds = [run.seconds[i] / wide(limit)(job.parts) for i, job in enumerate(run.jobs)]
        length = {node: longest_path(dag, seconds, run.waiting, node) for node in run.waiting}
        assert run.schedule.longest_path == max(length.values())
        assert run.schedule.ready == len(run.ready())
        best = max(length[i] for i in run.ready())
        number = run.ask()
        assert number is not None
        assert length[number] == best
        if data.draw(st.booleans()):
            limit = data.draw(st.sampled_from(PARTS))
            run.schedule.allow(wide(limit))
        run.succeed(number)
    assert run.schedule.longest_path == 0


@given(dags(), st.data())
def test_a_job_shares_what_is_free_if_it_then_still_ends_in_time(dag: Dag, data: st.DataObject) -> None:
    """Compared with the definition, among jobs that end or start again."""
    run = driver(dag, data)
    limit, slots = data.draw(st.sampled_from(PARTS)), data.draw(st.integers(1, 12))
    most = wide(limit)
    run.schedule.allow(most)
    best = [run.seconds[i] / most(job.parts) for i, job in enumerate(run.jobs)]
    for number in run.turns():
        unfinished = run.waiting | run.running
        left = sum(run.seconds[i] for i in unfinished) / slots
        for ready in run.ready():
            job, free = run.jobs[ready], data.draw(st.integers(1, slots))
            after = longest_path(dag, best, unfinished, ready) - best[ready]
            possible = [few for few in PARTS if few <= min(free, most(job.parts))]
            few = max(possible)
            good = few == most(job.parts) or (few * 4 >= most(job.parts) and run.seconds[ready] / few + after <= left)
            assert run.schedule.share(job, free, slots) == (few if good else 0)
        (run.redo if data.draw(st.booleans()) and run.handed[number] < 3 else run.back)(number, number)


def test_what_failed_leaves_no_time_to_wait_for() -> None:
    """On 4 slots: 240 s of work in all are a minute, in which the shared job can end on one worker, in 40 s. When the
    other fails, 40 s of work are left, which take 10 s on all four."""
    first, behind, shared = jobs = jobs_of([[], [0], []])
    assert (first.parts, behind.parts, shared.parts) == (1, 2, 4)
    schedule = Schedule(jobs, {first.id: 100, behind.id: 100, shared.id: 40})
    schedule.allow(wide(4))
    assert schedule.next() is first
    assert [schedule.share(shared, free, 4) for free in (4, 3, 2, 1)] == [4, 2, 2, 1]
    schedule.fail(first.id)
    assert schedule.skipped.keys() == {behind.id}
    assert [schedule.share(shared, free, 4) for free in (4, 3, 2, 1)] == [4, 0, 0, 0]
    schedule.add([])
    assert schedule.next() is shared


def test_nothing_overtakes_the_longest_path() -> None:
    jobs = jobs_of([[], [], []])
    schedule = Schedule(jobs, {job.id: seconds for job, seconds in zip(jobs, (1, 3, 2), strict=True)})
    asked: list[Job] = []
    assert schedule.next(lambda job: asked.append(job) is not None) is None
    assert asked == [jobs[1]]
    assert not schedule.running
    assert [schedule.next(lambda _: True) for _ in range(4)] == [jobs[1], jobs[2], jobs[0], None]


@settings(max_examples=150)
@given(dags().filter(any), st.data())
def test_a_job_put_behind_its_damaged_parent_runs_again_and_all_finishes(dag: Dag, data: st.DataObject) -> None:
    run = driver(dag, data)
    expected = Counter(run.waiting)
    for number in run.turns():
        if dag[number] and sum(expected.values()) < 40 and data.draw(st.booleans()):
            parent = data.draw(st.sampled_from(dag[number]))
            expected.update({number: 1, parent: int(parent in run.done)})
            run.redo(number, parent)
        else:
            run.succeed(number)
    assert run.handed == +expected
    assert run.done == set(range(len(dag)))


@given(dags(), st.data())
def test_a_job_whose_own_artefact_is_damaged_runs_again(dag: Dag, data: st.DataObject) -> None:
    """As when a mask of a finished training is missing, and the weights turn out to be damaged."""
    run = driver(dag, data)
    expected = Counter(run.waiting)
    for number in run.turns():
        if sum(expected.values()) < 30 and data.draw(st.booleans()):
            expected[number] += 1
            run.redo(number, number)
        else:
            run.succeed(number)
    assert run.handed == expected


@settings(max_examples=150)
@given(dags(), st.data())
def test_a_job_put_behind_any_ancestor_runs_again(dag: Dag, data: st.DataObject) -> None:
    """As when the mask before the last is damaged, which a grandparent made."""
    run = driver(dag, data)
    expected = Counter(run.waiting)
    for number in run.turns():
        others = sorted(other for other in run.done if number in descendants(dag, other))
        if others and sum(expected.values()) < 40 and data.draw(st.booleans()):
            first = data.draw(st.sampled_from(others))
            expected.update({number: 1, first: 1})
            run.redo(number, first)
        else:
            run.succeed(number)
    assert run.handed == expected


@settings(max_examples=150)
@given(dags().filter(any), st.data())
def test_failures_after_repairs_leave_nothing_behind(dag: Dag, data: st.DataObject) -> None:
    run, repairs = driver(dag, data), 0
    for number in run.turns():
        how = data.draw(st.sampled_from(["succeed", "fail", "redo"]))
        lost = any(number in descendants(dag, failed) for failed in run.failed)  # not all that it reads can be made
        if how == "redo" and dag[number] and not lost and repairs < 8:
            repairs += 1
            run.redo(number, data.draw(st.sampled_from(dag[number])))
        else:
            (run.fail if how == "fail" else run.succeed)(number)
    assert run.schedule.finished
    assert len(run.done | run.failed | run.skipped) == len(dag)
    assert run.skipped <= set().union(*(descendants(dag, number) for number in run.failed))


def test_an_empty_schedule_is_finished() -> None:
    schedule = Schedule([], {})
    assert schedule.finished
    assert schedule.next() is None
    assert schedule.ready == schedule.longest_path == 0


def test_figure_3_begins_with_its_dense_trainings() -> None:
    """Behind each are a chain of 24 trainings, and then a training from drawn weights."""
    graph = make_plan(fig3("laptop", 1))
    jobs = graph.pending({})
    schedule = Schedule(jobs, {job.id: float(job.samples) for job in jobs})
    assert schedule.longest_path == (12 + 23 * 11 + 12) * 1200
    first = [schedule.next(), schedule.next(), schedule.next()]
    dense = {f"{task} seed 0, dense, drawn" for task in ("labels", "rotnet", "exemplar")}
    assert {job.title for job in first if job} == dense


# ------------------------------------------------------------------------------------- many ready jobs


class Counted(dict[str, float]):
    """Paths of jobs that count how often one is read."""

    reads = 0

    def __getitem__(self, key: str) -> float:
        self.reads += 1
        return super().__getitem__(key)


def test_the_next_of_many_ready_jobs_is_found_without_a_look_at_all() -> None:
    recipes = [replace(RECIPE, lr=0.001 * (number + 1)) for number in range(2000)]
    trains = [replace(TRAINS[0], recipe=recipe) for recipe in recipes]
    jobs = [Job(train=train) for train in trains]
    schedule = Schedule(jobs, {job.id: 1.0 + number % 7 for number, job in enumerate(jobs)})
    assert schedule.ready == len(jobs)
    schedule._path = paths = Counted(schedule._path)
    handed = []
    while job := schedule.next():
        handed.append(job)
        schedule.done(job.id)
    assert paths.reads <= 10 * len(jobs)
    expected = sorted(range(len(jobs)), key=lambda number: (-(number % 7), number))
    assert handed == [jobs[number] for number in expected]


@given(dags(), st.data())
def test_the_queue_is_a_search_through_all_ready_jobs(dag: Dag, data: st.DataObject) -> None:
    """Of the longest paths the job that became ready first; also after repairs, and with other numbers of workers."""
    run = driver(dag, data, all_pending=True)
    schedule, ready = run.schedule, list[str]()

    def look() -> None:
        ready[:] = [*(i for i in ready if i in schedule._ready), *(i for i in schedule._ready if i not in ready)]

    look()
    for repairs in range(100):
        expected = max(ready, key=schedule._path.__getitem__, default=None)
        job = schedule.next()
        assert (job and job.id) == expected
        if job is None:
            break
        look()
        if data.draw(st.booleans()):
            schedule.allow(wide(data.draw(st.sampled_from(PARTS))))
        if repairs < 5 and data.draw(st.booleans()):
            schedule.redo(job.id, data.draw(st.sampled_from([job, *job.parents])))
        else:
            schedule.done(job.id)
        look()
    assert schedule.finished


def test_the_queue_stays_small_though_paths_change_often() -> None:
    jobs = jobs_of([[] for _ in TRAINS])
    schedule = Schedule(jobs, {job.id: 1.0 for job in jobs})
    for change in range(1000):
        schedule.allow(wide(PARTS[change % 4]))
    assert len(schedule._queue) <= 2 * len(jobs) + SMALL
    assert len({schedule.next() for _ in jobs}) == len(jobs)
    assert schedule.next() is None
