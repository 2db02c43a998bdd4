"""Whole sweeps in which something fails."""

from __future__ import annotations

import os
import re
import shutil
import signal
import tempfile
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.helpers.commands import Finished, done_steps, finish, start, sweep, table_of
from tests.helpers.processes import frozen_at_work, wait_until

BROKEN = """
from dataclasses import replace

from raysslprune.lottery import imp, winning_ticket
from raysslprune.paper.scales import SETTINGS
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
    """One of them: a worker finds the data gone. It looks in --data, relative to the command's folder."""
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
        "raysslprune: steps that failed or were skipped: 4; the results above do not include them"
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
from raysslprune.paper.scales import SETTINGS
from raysslprune.sweepfile import Figure, Point
FIGURE = Figure(title="Four chains from one dense network")
def points(scale, seed):
    for rewind in (64, 128, 192, 256):
        chain = imp(task="labels", data="digits", arch="conv4", recipe=SETTINGS[scale].recipes["labels"], seed=seed,
                    levels=40, keep=0.9, rewind=rewind)
        yield Point(step=chain.rounds[-1], task="labels", init=f"rewound to {rewind}", level=39, seed=seed)
"""


def trained_by(folder: Path) -> dict[str, str]:
    """The worker process of each step, in the order of each worker, from Ray's logs of its actors."""
    logs = sorted(folder.glob("ray/session_*/logs/worker-*.out"))
    return {step: log.stem for log in logs for step in re.findall("^([0-9a-f]{16}): ", log.read_text(), re.MULTILINE)}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_all_workers_work_though_trainings_are_over_before_one_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tune alone would cancel the second worker's start whenever the first is free: see raysslprune.cluster.reuse.

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


@pytest.mark.slow
def test_a_sweep_waits_for_another_on_its_root_if_asked_to(finished: Finished, tmp_path: Path) -> None:
    """And then finds the steps of the other done, and trains none."""
    root = tmp_path / "runs"
    first = start("fig3", "--scale", "smoke", "--root", str(root))
    wait_until(lambda: (root / "lock").exists() and (root / "lock").read_text() == str(first.pid))
    second = start("fig3", "--scale", "smoke", "--root", str(root), "--wait")
    assert finish(first).code == 0
    done = done_steps(root)
    result = finish(second)
    assert result.code == 0, result.err
    assert result.err.count(f"waiting for {root}: another sweep (process {first.pid}) is running on {root}") == 1
    assert "trainings to run" not in result.err
    assert done_steps(root) == done
    assert table_of(root) == finished.table
