"""The searcher, without Tune: the jobs that it gives, and jobs and workers that die."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.tune.experiment import Trial

from raysslprune.cluster.options import Capacity, RunOptions
from raysslprune.cluster.ray_thread import ClusterError
from raysslprune.cluster.tune import MACHINES_WITHIN, RETRIES, SETTLED, JobScheduler, ReadyJobs, TrialEvents
from raysslprune.lottery import imp, winning_ticket
from raysslprune.messages import NO_MACHINES
from raysslprune.paper.recipes import NETS
from raysslprune.paper.scales import SETTINGS
from raysslprune.plan.cost import cost_of
from raysslprune.plan.graph import Job, Plan, make_plan
from raysslprune.plan.schedule import Schedule
from raysslprune.store.record import Damaged, StoreError, snapshot_name
from raysslprune.store.steps import Store
from raysslprune.sweep_loader import load
from raysslprune.sweepfile import Point
from raysslprune.training.make_masks import NoExchange
from raysslprune.training.runner import Runner


class Watcher:
    """A watcher that records its events."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.failed: dict[str, str] = {}
        self.lost: list[tuple[str, str, float]] = []
        self.skipped = 0
        self.notes: list[str] = []
        self.waiting = "", ""
        self.waited: list[tuple[str, str]] = []

    def slots_are(self, count: int) -> None: ...

    def waits(self, what: str, sentence: str) -> None:
        if what != self.waiting[0]:
            self.waited.append((what, sentence))
        self.waiting = what, sentence

    def job_started(self, job: Job, workers: int = 1) -> None: ...

    def process_lost(self, job: Job, why: str, seconds: float) -> None:
        self.lost.append((job.id, why, seconds))

    def job_done(self, job: Job, facts: Mapping[str, Any]) -> None:
        self.done.append(job.id)

    def job_failed(self, job: Job, why: str, skipped: int) -> None:
        self.failed[job.id] = why
        self.skipped += skipped

    def note(self, sentence: str) -> None:
        self.notes.append(sentence)


def drive(graph: Plan, store: Store, spoil: Mapping[str, str] | None = None) -> Watcher:
    """Play Tune's part in this process: ask for a trial, run it, tell the result.

    spoil: job id to a file of its own that loses its last byte as soon as the job is done, once.
    """
    watcher, spoil = Watcher(), dict(spoil or {})
    records, _ = store.survey(graph.ids)
    pending = graph.pending(records)
    schedule = Schedule(pending, cost_of(graph.jobs.values(), records, NETS).seconds)
    searcher = ReadyJobs(schedule, graph, store, "/the/data", watcher, RunOptions(), lambda: Capacity(cpus=1, gpus=0))
    runner = Runner(store=store, exchange=NoExchange())
    for number in range(200):
        config = searcher.suggest(str(number))
        if not isinstance(config, dict):
            assert config == searcher.FINISHED
            return watcher
        assert (config["root"], config["data"]) == (store.address, "/the/data")
        job = json.loads(searcher.assignment(str(number))["job"])
        try:
            result = {"facts": json.dumps(runner.run(job))}
        except Damaged as damage:
            result = {"damaged": damage.step_id, "why": damage.why}
        except ValueError as error:
            result = {"error": str(error), "traceback": "a traceback"}
        if "facts" in result and (name := spoil.pop(job["train"], None)):
            path = Path(store.path(f"steps/{job['train']}/{name}"))
            path.write_bytes(path.read_bytes()[:-1])
        searcher.on_trial_complete(str(number), result)
    raise AssertionError("it did not end")


@pytest.fixture(scope="module")
def graph() -> Plan:
    return make_plan(load("fig3", "smoke", 1).points)


def test_damage_that_a_job_meets_is_made_again_first(graph: Plan, tmp_path: Path) -> None:
    store = Store(str(tmp_path / "runs"))
    store.create()
    dense = next(iter(graph.jobs.values()))
    assert dense.snapshots
    name = snapshot_name(min(dense.snapshots))
    watcher = drive(graph, store, {dense.id: name})
    assert watcher.failed == {}
    assert len(watcher.notes) == 1
    assert watcher.notes[0].startswith(f"step {dense.id}: {name} does not match its checksum")
    assert watcher.done.count(dense.id) == 2
    assert set(watcher.done) == set(graph.jobs)
    records, damaged = store.survey(graph.ids)
    assert damaged == []
    assert graph.pending(records) == []


def test_a_failed_job_is_named_its_children_skipped_and_others_go_on(graph: Plan, tmp_path: Path) -> None:
    store = Store(str(tmp_path / "runs"))
    store.create()
    whole = drive(graph, store)
    assert set(whole.done) == set(graph.jobs)
    dense = next(iter(graph.jobs.values()))
    other = Store(str(tmp_path / "other"))
    other.create()
    watcher = Watcher()
    schedule = Schedule(graph.jobs.values(), dict.fromkeys(graph.jobs, 1.0))
    searcher = ReadyJobs(schedule, graph, other, "", watcher, RunOptions(), lambda: Capacity(cpus=100, gpus=0))
    trial = 0
    while isinstance(config := searcher.suggest(str(trial)), dict):
        broken = json.loads(searcher.assignment(str(trial))["job"])["train"] == dense.id
        result = {"error": "it broke", "traceback": "where it broke"} if broken else {"facts": "{}"}
        searcher.on_trial_complete(str(trial), result)
        trial += 1
    assert config == searcher.FINISHED
    behind = {job.id for job in graph.jobs.values() if dense in ancestors(job)}
    assert set(watcher.done) == set(graph.jobs) - behind - {dense.id}
    assert watcher.skipped == len(behind) > 0
    log = tmp_path / "other" / "logs" / f"{dense.id}.log"
    assert watcher.failed == {dense.id: f"it broke; details in {log}"}
    assert "where it broke" in log.read_text()


def test_what_is_added_when_a_job_ends_is_handed_out_too(graph: Plan, tmp_path: Path) -> None:
    """As a search does, whether the job was done or failed."""
    first, *others = (job for job in graph.jobs.values() if not job.parents)
    added = [*graph.behind(graph.points[:1]), *others]
    schedule = Schedule([first], dict.fromkeys(graph.jobs, 1.0))
    watcher = Watcher()
    searcher = ReadyJobs(
        schedule,
        graph,
        Store(str(tmp_path)),
        "",
        watcher,
        RunOptions(),
        lambda: Capacity(cpus=1, gpus=0),
        after_each=lambda: schedule.add(added[: len(schedule.jobs) + 1]),
    )
    handed = 0
    while isinstance(searcher.suggest(str(handed)), dict):
        searcher.on_trial_complete(
            str(handed), {"error": "it broke", "traceback": "where"} if handed == 1 else {"facts": "{}"}
        )
        handed += 1
    assert searcher.suggest("last") == searcher.FINISHED
    assert schedule.jobs.keys() == {job.id for job in (first, *added)}
    assert len(watcher.done) + len(watcher.failed) == handed == len(schedule.jobs)
    assert len(watcher.failed) == 1


def test_a_job_begins_with_the_workers_that_are_free(tmp_path: Path) -> None:
    """Trainings in sixteen parts on 24 GPUs: sixteen workers, then the eight that are left, then none."""
    graph = make_plan(load("fig10", "paper", 1).points)
    jobs = [job for job in graph.jobs.values() if job.parts == 16]
    now, watcher = 1000.0, Watcher()
    searcher = ReadyJobs(
        Schedule(jobs, {job.id: 1.0 - place / 100 for place, job in enumerate(jobs)}),
        graph,
        Store(str(tmp_path)),
        "",
        watcher,
        RunOptions(gpus_per_worker=1),
        lambda: Capacity(cpus=96, gpus=24),
        clock=lambda: now,
    )
    assert [searcher.suggest(trial)["workers"] for trial in ("a", "b")] == [16, 8]
    assert searcher.suggest("c") is None
    assert [(run.workers, run.begun) for run in searcher.running.values()] == [(16, 1000), (8, 1000)]
    searcher.on_trial_complete("a", {"facts": "{}"})
    assert searcher.suggest("c")["workers"] == 16
    now += 50
    lost = searcher.running["b"].job
    searcher.process_lost("b", "a node went")
    assert watcher.lost == [(lost.id, "a node went", 50)]
    again = searcher.suggest("d")
    assert (searcher.running["d"].job, again["workers"]) == (lost, 8)


def ancestors(job: Job) -> set[Job]:
    return set(job.parents).union(*(ancestors(parent) for parent in job.parents))


S = SETTINGS["smoke"]


def graph_of(*bn_batches: int) -> Plan:
    """Plan of a chain of two rounds for each of these sizes of a part of a batch of 64."""
    points = []
    for bn_batch in bn_batches:
        recipe = replace(S.recipes["labels"], bn_batch=bn_batch)
        chain = imp(
            task="labels",
            data=S.data,
            arch=S.arch,
            recipe=recipe,
            seed=0,
            levels=1,
            keep=0.5,
            rewind=S.rewind["labels"],
        )
        step = winning_ticket(chain, 1, task="labels", recipe=recipe)
        points.append(Point(step=step, task=f"{bn_batch}", init="a", level=1, seed=0))
    return make_plan(points)


def train_of(assignment: Mapping[str, Any]) -> str:
    return json.loads(assignment["job"])["train"]


class Tune:
    """Stand-in for Tune, which asks a searcher for trials by number."""

    def __init__(
        self,
        root: Path,
        graph: Plan,
        *,
        options: RunOptions | None = None,
        cpus: int = 1,
        after_each: Callable[[], None] = lambda: None,
    ) -> None:
        self.watcher, self.store = Watcher(), Store(str(root))
        self.store.create()
        self.schedule = Schedule(graph.jobs.values(), dict.fromkeys(graph.jobs, 1.0))
        self.cpus, self.trials = cpus, 0
        self.searcher = ReadyJobs(
            self.schedule,
            graph,
            self.store,
            "",
            self.watcher,
            options or RunOptions(),
            lambda: Capacity(cpus=self.cpus, gpus=0),
            after_each=after_each,
        )

    def ask(self) -> Any:
        """Return the next trial's configuration; its name is ``last``."""
        self.trials += 1
        return self.searcher.suggest(self.last)

    def ask_for_job(self) -> str:
        """Return the id of the next trial's job, on a worker that is there."""
        assert isinstance(self.ask(), dict)
        return self.begin(self.last)

    def begin(self, trial: str) -> str:
        """Start a trial on a worker; return the id of its job."""
        self.searcher.at_work.add(trial)
        return train_of(self.searcher.assignment(trial))

    @property
    def last(self) -> str:
        return f"trial {self.trials}"


def test_a_job_whose_process_dies_again_and_again_fails(tmp_path: Path) -> None:
    ended: list[int] = []
    tune = Tune(tmp_path, graph_of(0), after_each=lambda: ended.append(1))
    jobs = set()
    for _ in range(RETRIES + 1):
        jobs.add(tune.ask_for_job())
        tune.searcher.process_lost(tune.last, "Failure\nthe node was reclaimed\n")
    (job,) = jobs
    assert [(lost, why) for lost, why, _ in tune.watcher.lost] == [(job, "the node was reclaimed")] * RETRIES
    said = tune.watcher.failed[job]
    assert said.startswith(
        f"its process died {RETRIES + 1} times without writing a new checkpoint: the node was reclaimed"
    )
    assert tune.watcher.skipped == 1
    assert len(ended) == RETRIES + 1
    assert tune.ask() == tune.searcher.FINISHED
    assert "Failure\nthe node" in (tmp_path / f"logs/{job}.log").read_text()


def test_a_job_that_gets_on_is_tried_without_end(tmp_path: Path) -> None:
    """Spot instances may end far more often than a long training has retries."""
    tune = Tune(tmp_path, graph_of(0))
    for death in range(3 * RETRIES):
        job = tune.ask_for_job()
        if death % RETRIES == 0:
            tune.store.save_checkpoint(job, b"state")
            os.utime(tmp_path / "checkpoints" / job, (death, death))
        tune.searcher.process_lost(tune.last, "gone")
    assert len(tune.watcher.lost) == 3 * RETRIES
    assert tune.watcher.failed == {}


def test_the_work_that_is_repeated_is_counted_from_the_last_checkpoint(tmp_path: Path) -> None:
    clock = SimpleNamespace(now=1000.0)
    tune = Tune(tmp_path, graph_of(0))
    tune.searcher.clock = lambda: clock.now
    job = tune.ask_for_job()
    clock.now = 1030.0
    tune.searcher.process_lost(tune.last, "gone")
    tune.ask()
    tune.store.save_checkpoint(job, b"state")
    os.utime(tmp_path / "checkpoints" / job, (1070, 1070))
    clock.now = 1075.0
    tune.searcher.process_lost(tune.last, "gone")
    tune.ask()
    clock.now = 1077.0
    tune.searcher.process_lost(tune.last, "")
    assert [seconds for _, _, seconds in tune.watcher.lost] == [30.0, 5.0, 2.0]
    assert tune.watcher.lost[-1][1] == "no cause is known"


def test_what_dies_twice_or_was_never_handed_out_is_passed_over(tmp_path: Path) -> None:
    tune = Tune(tmp_path, graph_of(0))
    tune.ask()
    tune.searcher.process_lost("another", "gone")
    tune.searcher.process_lost(tune.last, "gone")
    tune.searcher.process_lost(tune.last, "gone")
    tune.searcher.on_trial_complete(tune.last, {"facts": "{}"})
    assert len(tune.watcher.lost) == 1
    assert tune.watcher.done == []


def test_a_node_that_will_not_do_ends_the_sweep_and_fails_no_job(tmp_path: Path) -> None:
    tune = Tune(tmp_path, graph_of(0, 16), cpus=2)
    tune.ask()
    tune.searcher.on_trial_complete(tune.last, {"unfit": "node 10.0.0.9 lacks data: voc07"})
    with pytest.raises(ClusterError, match=r"^node 10\.0\.0\.9 lacks data: voc07$"):
        tune.ask()
    assert tune.watcher.failed == {}


def test_a_worker_that_can_not_start_is_tried_again_and_then_ends_the_sweep(tmp_path: Path) -> None:
    tune = Tune(tmp_path, graph_of(0))
    for _ in range(RETRIES + 1):
        assert isinstance(tune.ask(), dict)
        broken = {"broken": "node 10.0.0.9 can't start a worker: KeyError: 'x'", "traceback": "where\nKeyError: 'x'"}
        tune.searcher.on_trial_complete(tune.last, broken)
    assert [why for _, why, _ in tune.watcher.lost] == ["KeyError: 'x'"] * RETRIES
    with pytest.raises(ClusterError, match=r"^node 10\.0\.0\.9 can't start a worker: KeyError: 'x'$"):
        tune.ask()
    assert tune.watcher.failed == {}


def test_workers_that_share_a_training_are_all_counted(tmp_path: Path) -> None:
    """Three cores, trainings of two workers and of one: never more workers than cores, and what fits starts."""
    graph = graph_of(16, 32, 0)
    tune = Tune(tmp_path, graph, options=RunOptions(workers_per_step=2), cpus=3)
    out: dict[str, dict[str, Any]] = {}
    handed: list[int] = []
    for _ in range(100):
        while isinstance(config := tune.ask(), dict):
            out[tune.last] = config
            handed.append(config["workers"])
            assert sum(other["workers"] for other in out.values()) <= tune.cpus
        if config == tune.searcher.FINISHED:
            break
        assert out, "nothing runs, and nothing is handed out"
        trial, _ = out.popitem()
        if len(handed) == 3:
            tune.searcher.process_lost(trial, "gone")
        else:
            tune.searcher.on_trial_complete(trial, {"facts": "{}"})
    assert sorted(handed[:2]) == [1, 2], "one core is left beside two, and is used"
    assert len(handed) == len(graph.jobs) + 1
    assert set(tune.watcher.done) == set(graph.jobs)
    assert len(tune.watcher.lost) == 1


def test_where_nodes_went_nothing_is_handed_out_until_there_is_room(tmp_path: Path) -> None:
    tune = Tune(tmp_path, graph_of(16, 0), cpus=3)
    first = tune.ask()
    assert first["workers"] == 1
    tune.cpus = 0
    assert tune.ask() is None
    tune.searcher.process_lost("trial 1", "its node went")
    assert tune.ask() is None
    tune.cpus = 1
    assert isinstance(tune.ask(), dict)
    assert tune.ask() is None


# ------------------------------------------------------------------------------------- machines that are not there yet


def has(cpus: float = 0, gpus: float = 0, **more: Capacity) -> Capacity:
    return Capacity(cpus=cpus, gpus=gpus, **more)


class Growing(Tune):
    """Tune on a cluster that grows: ``now`` is what it has. Its clock is ``now_s``, in seconds."""

    def __init__(self, root: Path, graph: Plan, now: Capacity, options: RunOptions | None = None) -> None:
        super().__init__(root, graph, options=options)
        self.now, self.now_s, self.placed = now, 1000.0, 0
        self.searcher.capacity = lambda: self.now
        self.searcher.clock = lambda: self.now_s
        self.searcher.placed = lambda: self.placed

    def ask_for_all(self) -> int:
        """Ask until nothing is handed out; return how many jobs were."""
        count = 0
        while self.ask() is not None:
            count += 1
        return count


@pytest.fixture(scope="module")
def wide() -> Plan:
    """Thirty jobs without parents."""
    recipe = replace(S.recipes["labels"], samples=64)
    step = next(iter(make_plan(load("fig3", "smoke", 1).points).jobs.values())).train
    steps = [replace(step, recipe=replace(recipe, lr=0.01 * (number + 1)), start=step.start) for number in range(30)]
    plan = make_plan([Point(step=one, task=f"{i}", init="a", level=1, seed=0) for i, one in enumerate(steps)])
    assert sum(not job.parents for job in plan.jobs.values()) == 30
    return plan


@pytest.mark.parametrize(
    ("now", "slots", "handed"),
    [
        (has(4), None, 4),
        (has(4), 3, 3),
        (has(4, most=has(64), machine=has(8)), None, 12),  # and the eight of one machine
        (has(60, most=has(64), machine=has(8)), None, 64),
        (has(4, most=has(64), machine=has(8)), 6, 6),
        (has(0, most=has(64), machine=has(8)), None, 8),
        (has(4, most=has(64), machine=has(0)), None, 5),  # of machines of unknown size, one slot
        (has(0, machine=has(0)), 16, 1),  # what may come is known from the user alone
        (has(4, machine=has(4)), 16, 8),
        (has(4, machine=has(4)), None, 4),
    ],
)
def test_jobs_are_for_what_is_there_and_one_machine_more(
    now: Capacity, slots: int | None, handed: int, wide: Plan, tmp_path: Path
) -> None:
    tune = Growing(tmp_path, wide, now, RunOptions(slots=slots))
    assert tune.ask_for_all() == min(handed, 30)


def test_with_each_machine_that_comes_the_next_is_asked_for(wide: Plan, tmp_path: Path) -> None:
    tune = Growing(tmp_path, wide, has(0, most=has(12), machine=has(4)))
    handed = []
    for cores in (0, 4, 8, 12, 12):
        tune.now = replace(tune.now, cpus=cores)
        handed.append(tune.ask_for_all())
    assert handed == [4, 4, 4, 0, 0]


@pytest.fixture
def large(tmp_path: Path) -> Growing:
    """Trainings for sixteen workers each, on a cluster that may have 64 GPUs, four in a machine; none is there."""
    plan = make_plan(load("fig10", "paper", 1).points)
    jobs = [job for job in plan.jobs.values() if job.parts == 16 and not job.parents]
    assert len(jobs) >= 2
    now = has(0, 0, most=has(256, 64), machine=has(48, 4))
    tune = Growing(tmp_path, plan, now, RunOptions(gpus_per_worker=1))
    tune.searcher.schedule = tune.schedule = Schedule(jobs[:2], {job.id: 1000.0 for job in jobs})
    return tune


def test_a_job_for_more_than_a_machine_is_asked_for_whole_and_one_at_a_time(large: Growing) -> None:
    assert large.ask()["workers"] == 16
    assert large.ask_for_all() == 0
    large.now = replace(large.now, cpus=192, gpus=16)
    assert large.ask()["workers"] == 16
    assert large.ask_for_all() == 0


def test_after_machines_did_not_come_a_job_begins_with_those_that_are_there(large: Growing) -> None:
    """Until the cluster changes: then the others are asked for again."""
    large.now = replace(large.now, cpus=96, gpus=8)
    assert large.ask()["workers"] == 16
    large.searcher.on_trial_complete(large.last, {"lost": "its workers did not start: no room"})
    assert large.ask()["workers"] == 8
    large.searcher.on_trial_complete(large.last, {"lost": "a node went"})
    large.now = replace(large.now, cpus=144, gpus=12)
    assert large.ask()["workers"] == 16


def test_a_job_that_may_begin_with_what_is_there_waits_for_no_machine(wide: Plan, tmp_path: Path) -> None:
    """Where that delays nothing, as its path is short."""
    plan = make_plan(load("fig10", "paper", 1).points)
    jobs = [job for job in plan.jobs.values() if job.parts == 16 and not job.parents]
    now = has(96, 8, most=has(192, 16), machine=has(96, 8))
    tune = Growing(tmp_path, plan, now, RunOptions(gpus_per_worker=1))
    seconds = {job.id: 1.0 + place / 100 for place, job in enumerate(jobs)}
    assert len(jobs) > 3
    tune.searcher.schedule = tune.schedule = Schedule(jobs, seconds)
    assert tune.ask()["workers"] == 8


def test_what_all_jobs_wait_for_is_reported_once_and_no_more_when_one_is_at_work(wide: Plan, tmp_path: Path) -> None:
    tune = Growing(tmp_path, wide, has(0, free=has(0), most=has(2), machine=has(1)))
    assert tune.ask_for_all() == 1
    said = "waiting for machines: 0 of 2 cores are there; `ray status` says why"
    assert tune.watcher.waiting == ("machines", said)
    tune.now = has(1, free=has(1), most=has(2), machine=has(1))
    tune.ask()
    assert tune.watcher.waiting == ("", ""), "it is about to begin"
    tune.searcher.at_work.add(next(iter(tune.searcher.running)))
    tune.now = has(1, free=has(0), most=has(2), machine=has(1))
    tune.ask_for_all()
    assert tune.watcher.waited == [("machines", said), ("", "")]


def test_gpus_are_counted_where_they_are_asked_for(wide: Plan, tmp_path: Path) -> None:
    now = has(8, 0, free=has(8), most=has(56, 8), machine=has(24, 4))
    tune = Growing(tmp_path, wide, now, RunOptions(gpus_per_worker=0.5))
    tune.ask_for_all()
    assert tune.watcher.waiting[1] == "waiting for machines: 0 of 8 GPUs are there; `ray status` says why"


def test_machines_that_all_went_are_waited_for(wide: Plan, tmp_path: Path) -> None:
    tune = Growing(tmp_path, wide, has(2, free=has(2)))
    assert tune.ask_for_all() == 2
    for trial in list(tune.searcher.running):
        tune.searcher.at_work.add(trial)
        tune.searcher.process_lost(trial, "its node went")
    tune.now = has(0, free=has(0))
    assert tune.ask_for_all() == 0
    assert tune.watcher.waiting == ("machines", "waiting for machines: 0 of 2 cores are there; `ray status` says why")


def test_without_any_machine_for_an_hour_a_sweep_ends_with_a_code_of_its_own(wide: Plan, tmp_path: Path) -> None:
    tune = Growing(tmp_path, wide, has(0, free=has(0), most=has(2), machine=has(1)))
    tune.ask_for_all()
    tune.now_s += MACHINES_WITHIN
    assert tune.ask() is None
    tune.now = has(1, free=has(1), most=has(2), machine=has(1))
    tune.ask_for_all()
    tune.now = has(0, free=has(0), most=has(2), machine=has(1))
    tune.ask()
    tune.now_s += MACHINES_WITHIN  # since the last one went
    assert tune.ask() is None
    tune.now_s += 1
    said = "no training could begin for 60 min: 0 of 2 cores are there; `ray status` says why; finished steps are kept"
    with pytest.raises(ClusterError, match=f"^{said}"):
        tune.ask()
    assert tune.searcher.code == NO_MACHINES == 75
    assert not tune.watcher.failed


def test_cores_that_others_hold_are_waited_for_without_end(wide: Plan, tmp_path: Path) -> None:
    tune = Growing(tmp_path, wide, has(2, free=has(0)))
    assert tune.ask_for_all() == 2
    assert tune.watcher.waiting == ("", ""), "Ray may be about to give them"
    tune.now_s += SETTLED
    tune.ask()
    said = "waiting for cores: others hold the cluster's cores; `ray status` shows what is in use"
    assert tune.watcher.waiting == ("cores", said)
    tune.now_s += 10 * MACHINES_WITHIN
    assert tune.ask() is None
    tune.placed = 1  # a worker of its own starts
    tune.ask()
    assert tune.watcher.waited == [("cores", said), ("", "")]


# ------------------------------------------------------------------------------------- workers that go on


DONE = {"facts": "{}"}


def test_a_worker_goes_on_until_no_job_is_left_for_it(graph: Plan, tmp_path: Path) -> None:
    """One trial for each of two workers, unless nothing is ready for one; the longest path is always first."""
    tune = Tune(tmp_path, graph, cpus=2)
    at_work: dict[str, str] = {}
    ended = 0
    while not tune.schedule.finished:
        while isinstance(tune.ask(), dict):
            at_work[tune.last] = tune.begin(tune.last)
        trial = next(iter(at_work))
        del at_work[trial]
        paths = tune.schedule._path
        best = max((paths[i] for i in tune.schedule._ready), default=0.0)
        if given := tune.searcher.go_on(trial, DONE):
            at_work[trial] = train_of(given)
            assert paths[at_work[trial]] >= best
            assert tune.searcher.running[trial].job.id == at_work[trial]
            assert trial in tune.searcher.at_work
        else:
            ended += 1
            assert not tune.schedule.ready
        assert len(tune.searcher.running) <= 2
    assert sorted(tune.watcher.done) == sorted(graph.jobs)
    assert ended < len(graph.jobs) / 2
    assert tune.searcher.running == {}
    assert tune.searcher.at_work == set()
    assert tune.ask() == tune.searcher.FINISHED


def test_a_worker_first_takes_the_job_that_waits_for_a_machine(wide: Plan, tmp_path: Path) -> None:
    tune = Growing(tmp_path, wide, has(1, most=has(3), machine=has(2)))
    assert tune.ask_for_all() == 3
    one, *others = tune.searcher.running
    tune.begin(one)
    waiting = [tune.searcher.running[trial].job.id for trial in others]
    assert train_of(tune.searcher.go_on(one, DONE) or {}) == waiting[0]
    assert train_of(tune.searcher.go_on(one, DONE) or {}) not in waiting[:1]
    assert set(tune.searcher.running) == {one, *others}
    jobs = [run.job.id for run in tune.searcher.running.values()]
    assert len({*jobs, *tune.watcher.done}) == 5, "none is handed out twice, and none is lost"
    assert {*jobs} == {*tune.schedule.running}
    assert tune.begin(others[0]) == tune.searcher.running[others[0]].job.id


def test_where_the_last_jobs_wait_for_machines_a_free_worker_is_left_to_them(tmp_path: Path) -> None:
    tune = Growing(tmp_path, graph_of(0, 16), has(1, most=has(2), machine=has(1)))
    assert tune.ask_for_all() == 2
    one, other = tune.searcher.running
    tune.begin(one)
    job = tune.searcher.running[other].job
    while tune.searcher.go_on(one, DONE):
        job = tune.searcher.running[other].job
    assert one not in tune.searcher.running
    assert tune.searcher.running[other].job is job
    assert tune.begin(other) == job.id


def test_a_worker_does_not_go_on_with_a_job_for_several(large: Growing, wide: Plan) -> None:
    """Nor with a smaller one, which would overtake it."""
    now = large.now = has(192, 16, most=has(192, 16))
    jobs = [*large.schedule.waiting.values()][:1]
    short = next(job for job in wide.jobs.values() if not job.parents)
    large.searcher.schedule = large.schedule = Schedule([short], {short.id: 1.0, jobs[0].id: 1000.0})
    large.schedule.allow(lambda parts: large.searcher.options.workers(parts, now))
    large.ask_for_job()
    large.schedule.add(jobs)
    assert large.searcher.go_on(large.last, DONE) is None
    assert large.ask()["workers"] == 16
    assert large.searcher.go_on(large.last, DONE) is None


def test_without_room_a_worker_does_not_go_on(wide: Plan, tmp_path: Path) -> None:
    tune = Tune(tmp_path, wide, cpus=2)
    first = tune.ask_for_job()
    tune.ask_for_job()
    tune.cpus = 1
    assert tune.searcher.go_on("trial 1", DONE) is None
    assert tune.watcher.done == [first]
    assert train_of(tune.searcher.go_on("trial 2", DONE) or {}) in wide.jobs


@pytest.mark.parametrize(
    "result", [{"unfit": "node 10.0.0.9 lacks data"}, {"broken": "can't", "traceback": "KeyError"}]
)
def test_a_worker_that_can_not_work_gets_no_other_job(result: dict[str, Any], wide: Plan, tmp_path: Path) -> None:
    tune = Tune(tmp_path, wide, cpus=2)
    tune.ask_for_job()
    assert tune.searcher.go_on("trial 1", result) is None
    assert not tune.watcher.done
    assert not tune.watcher.failed


def test_a_job_that_failed_is_named_and_its_worker_goes_on(wide: Plan, tmp_path: Path) -> None:
    tune = Tune(tmp_path, wide)
    first = tune.ask_for_job()
    second = train_of(tune.searcher.go_on(tune.last, {"error": "ValueError: no", "traceback": "where"}) or {})
    assert list(tune.watcher.failed) == [first] != [second]


def test_of_a_worker_that_died_its_present_job_is_lost(wide: Plan, tmp_path: Path) -> None:
    tune = Tune(tmp_path, wide)
    first = tune.ask_for_job()
    second = train_of(tune.searcher.go_on(tune.last, DONE) or {})
    tune.searcher.process_lost(tune.last, "gone")
    assert (tune.watcher.done, [job for job, _, _ in tune.watcher.lost]) == ([first], [second])
    assert second in tune.schedule.waiting
    assert first not in tune.schedule.waiting
    assert not tune.searcher.running


def test_jobs_that_are_added_when_one_ends_are_handed_out_at_once(wide: Plan, tmp_path: Path) -> None:
    jobs = [job for job in wide.jobs.values() if not job.parents][:2]
    tune = Tune(tmp_path, wide, after_each=lambda: tune.schedule.add(jobs))
    tune.searcher.schedule = tune.schedule = Schedule(jobs[:1], dict.fromkeys(wide.jobs, 1.0))
    assert tune.ask_for_job() == jobs[0].id
    assert train_of(tune.searcher.go_on(tune.last, DONE) or {}) == jobs[1].id


def test_an_exception_after_a_job_ends_the_sweep_as_itself(wide: Plan, tmp_path: Path) -> None:
    def fail() -> None:
        raise StoreError("the root is gone")

    tune = Tune(tmp_path, wide, after_each=fail)
    tune.ask_for_job()
    assert tune.searcher.go_on(tune.last, DONE) is None
    with pytest.raises(StoreError, match=r"^the root is gone$"):
        tune.ask()


# ------------------------------------------------------------------------------------- Tune's scheduler


class Listed:
    """A trial that counts how often its status is read."""

    looked = 0

    def __init__(self, trial_id: str) -> None:
        self.trial_id, self.state = trial_id, Trial.PENDING
        self.temporary_state = SimpleNamespace(ray_actor=SimpleNamespace(assign=SimpleNamespace(remote=self.give)))
        self.given: list[str] = []

    @property
    def status(self) -> str:
        Listed.looked += 1
        return self.state

    def give(self, job: dict[str, Any]) -> None:
        self.given.append(train_of(job))


def test_trials_start_in_their_order_without_a_look_at_all(wide: Plan, tmp_path: Path) -> None:
    scheduler = JobScheduler(Tune(tmp_path, wide).searcher)
    trials: list[Any] = [Listed(str(number)) for number in range(1000)]
    for trial in trials:
        scheduler.on_trial_add(None, trial)
    Listed.looked = 0
    for trial in trials:
        for _ in range(2):  # it stays the first until it runs
            assert scheduler.choose_trial_to_run(None) is trial
        trial.state = Trial.RUNNING
    assert scheduler.choose_trial_to_run(None) is None
    assert Listed.looked <= 4 * len(trials)
    assert not scheduler.pending


def test_a_trial_goes_on_or_is_stopped(wide: Plan, tmp_path: Path) -> None:
    tune = Tune(tmp_path, wide)
    scheduler, events = JobScheduler(tune.searcher), TrialEvents(tune.searcher)
    tune.ask()
    trial: Any = Listed(tune.last)
    events.on_trial_start(1, [], trial)
    assert scheduler.on_trial_result(None, trial, DONE) == scheduler.CONTINUE
    assert [*trial.given[:1], trial.given[1]] == [tune.watcher.done[0], tune.searcher.running[tune.last].job.id]
    tune.cpus = 0
    assert scheduler.on_trial_result(None, trial, DONE) == scheduler.STOP
    tune.searcher.on_trial_complete(tune.last, DONE)  # as Tune calls it then
    assert tune.watcher.done == trial.given
