"""The searcher, without Tune: what it hands out, and what it makes of jobs and workers that die."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from raysslprune.cluster.nodes import Capacity, ClusterError, Workers
from raysslprune.cluster.tune import RETRIES, ReadyJobs
from raysslprune.lottery import imp, winning_ticket
from raysslprune.paper.recipes import NETS
from raysslprune.paper.scales import SETTINGS
from raysslprune.plan.cost import cost_of
from raysslprune.plan.graph import Job, Plan, make_plan
from raysslprune.plan.schedule import Schedule
from raysslprune.store.record import Damaged, snapshot_name
from raysslprune.store.steps import Store
from raysslprune.sweep import load
from raysslprune.sweepfile import Point
from raysslprune.training.make_masks import NoExchange
from raysslprune.training.runner import Runner


class Watcher:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.failed: dict[str, str] = {}
        self.lost: list[tuple[str, str, float]] = []
        self.skipped = 0
        self.notes: list[str] = []

    def slots_are(self, count: int) -> None: ...

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
    searcher = ReadyJobs(schedule, graph, store, "/the/data", watcher, Workers(), lambda: Capacity(cpus=1, gpus=0))
    runner = Runner(store=store, exchange=NoExchange())
    for number in range(200):
        config = searcher.suggest(str(number))
        if not isinstance(config, dict):
            assert config == searcher.FINISHED
            return watcher
        assert (config["root"], config["data"]) == (store.address, "/the/data")
        job = json.loads(config["job"])
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
    searcher = ReadyJobs(schedule, graph, other, "", watcher, Workers(), lambda: Capacity(cpus=100, gpus=0))
    trial = 0
    while isinstance(config := searcher.suggest(str(trial)), dict):
        broken = json.loads(config["job"])["train"] == dense.id
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
    """As a search does; whether the job was done or failed."""
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
        Workers(),
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
        Workers(gpus=1),
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
    assert (json.loads(again["job"])["train"], again["workers"]) == (lost.id, 8)


def ancestors(job: Job) -> set[Job]:
    return set(job.parents).union(*(ancestors(parent) for parent in job.parents))


S = SETTINGS["smoke"]


def graph_of(*bn_batches: int) -> Plan:
    """A chain of two rounds for each of these parts of a batch of 64."""
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


class Tune:
    """Plays Tune's part: trials asked of a searcher, by number."""

    def __init__(
        self,
        root: Path,
        graph: Plan,
        *,
        workers: Workers | None = None,
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
            workers or Workers(),
            lambda: Capacity(cpus=self.cpus, gpus=0),
            after_each=after_each,
        )

    def ask(self) -> Any:
        """The next trial's configuration; its name is ``last``."""
        self.trials += 1
        return self.searcher.suggest(self.last)

    @property
    def last(self) -> str:
        return f"trial {self.trials}"


def test_a_job_whose_process_dies_again_and_again_fails(tmp_path: Path) -> None:
    ended: list[int] = []
    tune = Tune(tmp_path, graph_of(0), after_each=lambda: ended.append(1))
    jobs = set()
    for _ in range(RETRIES + 1):
        jobs.add(json.loads(tune.ask()["job"])["train"])
        tune.searcher.process_lost(tune.last, "Failure\nthe node was reclaimed\n")
    (job,) = jobs
    assert [(lost, why) for lost, why, _ in tune.watcher.lost] == [(job, "the node was reclaimed")] * RETRIES
    said = tune.watcher.failed[job]
    assert said.startswith(f"its process failed {RETRIES + 1} times without a new checkpoint: the node was reclaimed")
    assert tune.watcher.skipped == 1
    assert len(ended) == RETRIES + 1
    assert tune.ask() == tune.searcher.FINISHED
    assert "Failure\nthe node" in (tmp_path / f"logs/{job}.log").read_text()


def test_a_job_that_gets_on_is_tried_without_end(tmp_path: Path) -> None:
    """Spot instances may go far more often than a long training has retries."""
    tune = Tune(tmp_path, graph_of(0))
    for death in range(3 * RETRIES):
        job = json.loads(tune.ask()["job"])["train"]
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
    job = json.loads(tune.ask()["job"])["train"]
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
    """Three cores for trainings by two and by one: never more workers than cores, and what fits is not held up."""
    graph = graph_of(16, 32, 0)
    tune = Tune(tmp_path, graph, workers=Workers(per_step=2), cpus=3)
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
