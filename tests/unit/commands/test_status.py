"""``raysslprune status``: what another terminal sees of a sweep."""

from __future__ import annotations

import os
import platform
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from raysslprune import __main__ as command
from raysslprune.plan.graph import make_plan
from raysslprune.store import lock
from raysslprune.store.steps import STATUS, Store
from raysslprune.sweep_loader import load
from raysslprune.terminal import status
from tests.helpers.processes import wait_until

Capture = pytest.CaptureFixture[str]
AT_WORK = """
import os, sys, time
from rich.console import Console
from raysslprune.plan.cost import cost_of
from raysslprune.plan.schedule import Schedule
from raysslprune.terminal import status
from raysslprune.sweep_loader import load
from raysslprune.terminal.progress import Progress
from raysslprune.paper.recipes import NETS
from raysslprune.store.steps import Store
from raysslprune.plan.graph import make_plan
from raysslprune.sweepfile import Point

status.EVERY = 0.1
store, sweeps = Store(sys.argv[1]), [load("fig3", "smoke", 1)]
store.create()
graph = make_plan(sweeps[0].points)
seconds = cost_of(graph.jobs.values(), {}, NETS).seconds
with store.lock(), status.Reporter(store, sweeps, "smoke", graph, {}).reporting() as report:
    schedule = Schedule(graph.pending({}), seconds)
    progress = Progress(Console(file=open(os.devnull, "w")), schedule, seconds)
    first, second, third = schedule.next(), schedule.next(), schedule.next()
    schedule.done(first.id)
    schedule.fail(second.id)
    progress.job_failed(second, "the loss is nan; details in /there/logs/x.log", len(schedule.skipped))
    progress._seen = {third.id: (3, 8)}
    if sys.argv[2] == "waits":
        progress.waits("machines", "waiting for machines: 0 of 2 cores are there")
    report.progress = progress
    print(len(schedule.skipped), flush=True)
    sys.stdin.readline()
    if sys.argv[2] == "raise":
        raise KeyboardInterrupt
"""
"""A sweep without Ray: of its jobs one is done, one has failed, and one is at work."""


@contextmanager
def at_work(root: Path, end: str = "well") -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Such a process, and how many jobs it skipped. A line on stdin ends it."""
    with subprocess.Popen(
        [sys.executable, "-c", AT_WORK, str(root), end],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        skipped = process.stdout.readline().strip()
        wait_until(lambda: '"failures": 1' in (root / STATUS).read_text(), 20)
        try:
            yield process, skipped
        finally:
            process.kill()


def said(root: Path | str, capsys: Capture) -> dict[str, list[str]]:
    """What ``raysslprune status`` prints: texts by their names."""
    assert command.main(["status", "--root", str(root)]) == 0
    told = capsys.readouterr()
    assert told.err == ""
    found: dict[str, list[str]] = {}
    for line in told.out.splitlines():
        found.setdefault(line[:10].strip(), []).append(line[11:])
    return found


def test_what_a_sweep_waits_for_is_told_in_place_of_what_it_trains(tmp_path: Path, capsys: Capture) -> None:
    root = tmp_path / "runs"
    with at_work(root, "waits") as (process, _):
        told = said(root, capsys)
        assert told["trainings"] == ["1 of 28 done"]
        assert told["now"] == ["waiting for machines: 0 of 2 cores are there"]
        process.kill()
        process.wait(10)
    assert "now" not in said(root, capsys)


def everything(root: Path) -> dict[str, tuple[bytes, int]]:
    files = [path for path in root.rglob("*") if path.is_file()]
    return {str(path.relative_to(root)): (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


def test_a_sweep_that_runs_is_told_and_one_that_was_killed(tmp_path: Path, capsys: Capture) -> None:
    root = tmp_path / "runs"
    with at_work(root) as (process, skipped):
        who = f"process {process.pid} on {platform.node()}"
        told = said(root, capsys)
        assert told["root"] == [str(root)]
        assert re.fullmatch(
            rf"running since \d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d, {re.escape(who)}; last update \d s ago",
            told["state"][0],
        )
        assert told["sweep"] == ["fig3 at scale smoke, 1 seed"]
        assert re.fullmatch(r"1 of 28 done, \d+ s once trainings begin", told["trainings"][0])
        (now,) = told["now"]
        assert now.endswith(" (37%)")
        counts, failure = told["failed"]
        assert counts == f"1, and {skipped} that need them"
        assert failure.endswith("): the loss is nan; details in /there/logs/x.log")
        assert told["to draw"] == [f"python -m raysslprune.sweep fig3 --scale smoke --root {root} --draw"]
        process.kill()
        process.wait(10)
        before = everything(root)
        told = said(root, capsys)
        assert everything(root) == before, "to look changes nothing"
    assert f"no sweep is running: {who} was killed or lost its connection; last update " in told["state"][0]
    assert told["trainings"] == ["1 of 28 done"]
    assert len(told["failed"]) == 2
    assert "now" not in told


@pytest.mark.parametrize(("end", "state"), [("well", "ended"), ("raise", "stopped")])
def test_a_sweep_that_has_ended_is_told(end: str, state: str, tmp_path: Path, capsys: Capture) -> None:
    root = tmp_path / "runs"
    with at_work(root, end) as (process, _):
        process.communicate("\n", timeout=20)
    told = said(root, capsys)
    assert f"no sweep is running; the last one {state} " in told["state"][0]
    assert told["trainings"] == ["1 of 28 done"]
    assert not (root / "lease").exists()


def test_one_that_is_suspended_was_last_heard_of_a_while_ago(tmp_path: Path, capsys: Capture) -> None:
    root = tmp_path / "runs"
    with at_work(root) as (process, _):
        os.kill(process.pid, signal.SIGSTOP)
        time.sleep(0.3)  # it may be writing
        then = time.time() - 250
        os.utime(root / STATUS, (then, then))
        state = said(root, capsys)["state"][0]
    assert state.startswith("running since ")
    assert state.endswith("; last update 4:10 min ago")


def test_another_machine_tells_by_the_lease(tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "runs"
    with at_work(root) as (process, _):
        monkeypatch.setattr(lock, "machine", lambda: "another")
        assert said(root, capsys)["state"][0].startswith("running since ")
        process.kill()
        process.wait(10)
        assert said(root, capsys)["state"][0].startswith("running since "), "nobody knows yet that it is dead"
        then = time.time() - lock.STALE - 1
        os.utime(root / "lease", (then, then))
        assert "was killed or lost its connection" in said(root, capsys)["state"][0]


def test_one_that_has_said_nothing_yet_is_not_taken_for_the_last_one(tmp_path: Path, capsys: Capture) -> None:
    root = tmp_path / "runs"
    with at_work(root) as (process, _):
        process.communicate("\n", timeout=20)
    with Store(str(root)).lock():
        told = said(root, capsys)
    assert told["state"] == [f"a sweep has just started: process {os.getpid()} on {platform.node()}"]
    assert set(told) == {"root", "state"}


@pytest.mark.parametrize("kind", ["missing", "empty", "made"])
def test_a_root_without_a_sweep(kind: str, tmp_path: Path, capsys: Capture) -> None:
    root = tmp_path / "runs"
    if kind != "missing":
        root.mkdir()
    if kind == "made":
        Store(str(root)).create()
        assert said(root, capsys)["state"] == ["no sweep is running, and none has left a report"]
        return
    assert command.main(["status", "--root", str(root)]) == 0
    assert capsys.readouterr().out == f"no sweep has run on {root}\n"
    assert root.exists() == (kind == "empty")
    assert not root.exists() or not any(root.iterdir())


def test_a_folder_of_something_else_is_refused(tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "letter.txt").touch()
    assert command.main(["status", "--root", str(tmp_path)]) == 1
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b"\xff", b'{"sweeps": ["fig3"]}'])
def test_a_damaged_snapshot_is_none(data: bytes, tmp_path: Path, capsys: Capture) -> None:
    store = Store(str(tmp_path / "runs"))
    store.create()
    store.write(STATUS, data)
    assert said(tmp_path / "runs", capsys)["state"] == ["no sweep is running, and none has left a report"]


def test_a_root_that_can_not_be_written_stops_no_sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, sweep = Store(str(tmp_path / "runs")), load("fig3", "smoke", 1)
    monkeypatch.setattr(status, "EVERY", 0.01)
    monkeypatch.setattr(store, "write", lambda *_: (_ for _ in ()).throw(OSError("no space left")))
    with status.Reporter(store, [sweep], "smoke", make_plan(sweep.points), {}).reporting():
        time.sleep(0.1)
