"""The searcher without Tune, and whole sweeps in which things break."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import tempfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from raysslprune import plan
from raysslprune.cluster import Capacity, Workers
from raysslprune.fanout import ReadyJobs
from raysslprune.recipes import NETS
from raysslprune.run import NoExchange, Runner
from raysslprune.store import Damaged, Store, snapshot_name
from raysslprune.sweep import load
from tests.helpers.commands import Finished, done_steps, finish, start, sweep, table_of
from tests.helpers.processes import frozen_at_work, wait_until


class Watcher:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.failed: dict[str, str] = {}
        self.lost: list[tuple[str, str, float]] = []
        self.skipped = 0
        self.notes: list[str] = []

    def slots_are(self, count: int) -> None: ...

    def job_started(self, job: plan.Job, workers: int = 1) -> None: ...

    def process_lost(self, job: plan.Job, why: str, seconds: float) -> None:
        self.lost.append((job.id, why, seconds))

    def job_done(self, job: plan.Job, facts: Mapping[str, Any]) -> None:
        self.done.append(job.id)

    def job_failed(self, job: plan.Job, why: str, skipped: int) -> None:
        self.failed[job.id] = why
        self.skipped += skipped

    def note(self, sentence: str) -> None:
        self.notes.append(sentence)


def drive(graph: plan.Plan, store: Store, spoil: Mapping[str, str] | None = None) -> Watcher:
    """Play Tune's part in this process: ask for a trial, run it, tell the result.

    spoil: job id to a file of its own that loses its last byte as soon as the job is done, once.
    """
    watcher, spoil = Watcher(), dict(spoil or {})
    records, _ = store.survey(graph.ids)
    pending = graph.pending(records)
    schedule = plan.Schedule(pending, plan.cost(graph.jobs.values(), records, NETS).seconds)
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
def graph() -> plan.Plan:
    return plan.make(load("fig3", "smoke", 1).points)


def test_damage_that_a_job_meets_is_made_again_first(graph: plan.Plan, tmp_path: Path) -> None:
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


def test_a_failed_job_is_named_its_children_skipped_and_others_go_on(graph: plan.Plan, tmp_path: Path) -> None:
    store = Store(str(tmp_path / "runs"))
    store.create()
    whole = drive(graph, store)
    assert set(whole.done) == set(graph.jobs)
    dense = next(iter(graph.jobs.values()))
    other = Store(str(tmp_path / "other"))
    other.create()
    watcher = Watcher()
    schedule = plan.Schedule(graph.jobs.values(), dict.fromkeys(graph.jobs, 1.0))
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


def test_what_is_added_when_a_job_ends_is_handed_out_too(graph: plan.Plan, tmp_path: Path) -> None:
    """As a search does; whether the job was done or failed."""
    first, *others = (job for job in graph.jobs.values() if not job.parents)
    added = [*graph.behind(graph.points[:1]), *others]
    schedule = plan.Schedule([first], dict.fromkeys(graph.jobs, 1.0))
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
    graph = plan.make(load("fig10", "paper", 1).points)
    jobs = [job for job in graph.jobs.values() if job.parts == 16]
    now, watcher = 1000.0, Watcher()
    searcher = ReadyJobs(
        plan.Schedule(jobs, {job.id: 1.0 - place / 100 for place, job in enumerate(jobs)}),
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


def ancestors(job: plan.Job) -> set[plan.Job]:
    return set(job.parents).union(*(ancestors(parent) for parent in job.parents))


BROKEN = """
from dataclasses import replace

from raysslprune.lottery import imp, winning_ticket
from raysslprune.scales import SETTINGS
from raysslprune.spec import Init, Train
from raysslprune.sweepfile import Curve, Figure, Point

FIGURE = Figure(title="t", references=(Curve(task="good", init="a"),))


def points(scale, seed):
    s = SETTINGS[scale]
    recipe = s.recipes["labels"]
    for name, data, changes in (
        ("good", s.data, {}),
        ("wild", s.data, {"lr": 1e30}),
        ("lost", "probe:Source", {}),
    ):
        chain = imp(task="labels", data=data, arch=s.arch, recipe=replace(recipe, **changes), seed=seed, levels=1,
                    keep=0.5, rewind=s.rewind["labels"])
        for level in (0, 1):
            step = winning_ticket(chain, level, task="labels", recipe=chain.dense.recipe)
            yield Point(step=step, task=name, init="a", level=level, seed=seed)
"""

PROBE = """
from raysslprune.data import DataError


class Source:
    def __init__(self, argument): ...

    def locate(self, root, fetch=False): ...

    def load(self, root):
        raise DataError(f"the disk under {root} went away")
"""


def test_what_fails_is_named_with_its_log_and_the_rest_is_shown(tmp_path: Path) -> None:
    """Among them data that a worker finds gone: it looks where --data says, as seen from the command's folder."""
    (tmp_path / "broken.py").write_text(BROKEN)
    (tmp_path / "probe.py").write_text(PROBE)
    result = sweep("broken.py", "--scale", "smoke", "--data", "sets", cwd=tmp_path)
    assert result.code == 1
    assert "Traceback" not in result.err + result.out
    failed = [line for line in result.err.splitlines() if line.startswith("failed: ")]
    assert len(failed) == 2
    lost = next(line for line in failed if "DataError" in line)
    assert f"the disk under {tmp_path}/sets went away" in lost
    assert all("1 steps that need it are skipped" in line for line in failed)
    wild = next(line for line in failed if line != lost)
    assert "FloatingPointError: the loss is " in wild
    assert "samples; there is no checkpoint" in wild
    for line in failed:
        log = next(word.rstrip(";") for word in line.split() if ".log" in word)
        assert "Traceback" in Path(log).read_text()
    assert result.err.splitlines()[-1] == (
        "raysslprune: steps that failed or were skipped: 4; the results above are without them"
    )
    assert "good" in result.out
    assert "wild" not in result.out


@pytest.mark.slow
def test_a_killed_worker_costs_its_job_only(finished: Finished, tmp_path: Path) -> None:
    root = tmp_path / "runs"
    process = start("fig3", "--scale", "smoke", "--root", str(root))
    wait_until(lambda: len(done_steps(root)) >= 2)
    os.kill(frozen_at_work(process.pid), signal.SIGKILL)
    result = finish(process)
    assert result.code == 0, result.err
    assert "failed" not in result.err
    assert sum(line.startswith("lost: ") for line in result.err.splitlines()) == 1
    assert "a process died 1 time; " in result.err
    assert table_of(root) == finished.table


WIDE = """
from raysslprune.lottery import imp
from raysslprune.scales import SETTINGS
from raysslprune.sweepfile import Figure, Point
FIGURE = Figure(title="Four chains from one dense network")
def points(scale, seed):
    for rewind in (64, 128, 192, 256):
        chain = imp(task="labels", data="digits", arch="conv4", recipe=SETTINGS[scale].recipes["labels"], seed=seed,
                    levels=40, keep=0.9, rewind=rewind)
        yield Point(step=chain.rounds[-1], task="labels", init=f"rewound to {rewind}", level=39, seed=seed)
"""


def trained_by(folder: Path) -> dict[str, str]:
    """Step to the worker process that trained it, in that order for each, by the logs that Ray keeps of its actors."""
    logs = sorted(folder.glob("ray/session_*/logs/worker-*.out"))
    return {step: log.stem for log in logs for step in re.findall("^([0-9a-f]{16}): ", log.read_text(), re.MULTILINE)}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_all_workers_work_though_trainings_are_over_before_one_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tune alone would cancel the second worker's start whenever the first is free: see raysslprune.warm.

    One job is ready at first, so that a second worker is started late; and a third takes the place of one that died.
    """
    (tmp_path / "wide.py").write_text(WIDE)
    root = tmp_path / "runs"
    with tempfile.TemporaryDirectory(prefix="w-", ignore_cleanup_errors=True) as name:  # sockets' names may not be long
        monkeypatch.setenv("RAY_TMPDIR", name)
        process = start("wide.py", "--scale", "smoke", "--root", str(root), cwd=tmp_path)
        wait_until(lambda: len({*trained_by(Path(name)).values()}) == 2 or process.poll() is not None, 300)
        assert process.poll() is None, "one worker did it all"
        os.kill(frozen_at_work(process.pid), signal.SIGKILL)
        result = finish(process)
        workers = trained_by(Path(name))
    assert result.code == 0, result.err
    assert len({*workers.values()}) == 3
    runs = pq.read_table(root / "results/smoke/wide-runs.parquet", columns=["begun", "step"]).sort_by("begun")
    last = Counter(workers[step] for step in runs["step"].to_pylist()[-30:])
    assert len(last) == 2
    assert min(last.values()) >= 3, last


@pytest.mark.slow
def test_two_sweeps_on_one_root_at_once(finished: Finished, tmp_path: Path) -> None:
    root = tmp_path / "runs"
    shutil.copytree(finished.root, root)
    shutil.rmtree(next((root / "steps").iterdir()))
    first = start("fig3", "--scale", "smoke", "--root", str(root))
    wait_until(lambda: (root / "lock").exists() and (root / "lock").read_text() == str(first.pid))
    second = sweep("fig3", "--scale", "smoke", "--root", str(root))
    assert second.code == 1
    assert second.err == (
        f"raysslprune: another sweep (process {first.pid}) is running on {root}; wait for it, or use another --root\n"
    )
    assert finish(first).code == 0
    assert table_of(root) == finished.table
