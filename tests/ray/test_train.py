"""Several workers that share a training: the same result as one alone, and deaths among them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from tests.helpers import CHECKOUT
from tests.helpers.commands import SHAREABLE, finish, start, sweep
from tests.helpers.processes import descendants, wait_until


def facts_of(root: Path) -> list[dict[str, Any]]:
    records = [json.loads(path.read_text()) for path in root.glob("steps/*/SUCCESS")]
    return [record["facts"] for record in records if "workers" in record["facts"]]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_workers_give_what_one_gives(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(SHAREABLE)
    rows = {}
    for workers in ("1", "2"):
        root = tmp_path / workers
        result = sweep("own.py", "--scale", "smoke", "--root", str(root), "--workers-per-step", workers, cwd=tmp_path)
        assert result.code == 0, result.err
        assert {facts["workers"] for facts in facts_of(root)} == {int(workers)}
        rows[workers] = pq.read_table(root / "results/smoke/own.parquet").to_pylist()
    assert len(rows["1"]) == len(rows["2"]) == 2
    for one, two in zip(rows["1"], rows["2"], strict=True):
        assert one["density"] == two["density"]
        assert abs(one["value"] - two["value"]) < 1, "rounding grows over the updates, but not to a point"


@pytest.mark.slow
@pytest.mark.parametrize("training", [True, False], ids=["training", "starting"])
def test_one_of_two_workers_dies_and_the_training_is_handed_out_again(training: bool, tmp_path: Path) -> None:
    root = tmp_path / "runs"
    one = SHAREABLE.replace("(0, 1)", "(0,)")
    (tmp_path / "own.py").write_text(one.replace("batch=64)", "batch=64, samples=40000)") if training else one)
    command = ("own.py", "--scale", "smoke", "--root", str(root), "--workers-per-step", "2")
    process = start(*command, cwd=tmp_path)
    team: list[int] = []

    def there() -> bool:
        team[:] = [pid for pid, name in descendants(process.pid) if "RayTrainWorker" in name]
        loaded = all("libtorch" in Path(f"/proc/{pid}/maps").read_text() for pid in team)
        return len(team) == 2 and (loaded or not training)

    wait_until(there)
    time.sleep(5 if training else 1)  # until they have found each other, or before
    os.kill(team[1], signal.SIGKILL)
    result = finish(process)
    assert result.code == 0, result.err
    assert sum(line.startswith("lost: ") for line in result.err.splitlines()) == 1
    assert "failed: " not in result.err
    assert [facts["workers"] for facts in facts_of(root)] == [2]


TEAM = """
import os, signal, sys, threading
from tests.helpers.processes import descendants, wait_until
from raysslprune.cluster.nodes import connected
from raysslprune.cluster.train import Team, WorkerLost
from raysslprune.cluster.shared import Exchange
from raysslprune.training.runner import Runner
from raysslprune.spec import Init, Recipe, Train
from raysslprune.store.steps import Store

recipe = Recipe(samples=60_000, batch=64, bn_batch=16, lr=0.05, momentum=0.9, pad=1)
step = Train(task="labels", data="digits", arch="conv4", recipe=recipe, seed=0, start=Init(seed=0))

def train(root, doomed):
    store = Store(root)
    store.create()
    runner = Runner(store=store, exchange=Exchange.connect(), checkpoint_every=0.5)
    runner.train_by = Team(2, 0.0, "a team")
    if doomed:
        threading.Thread(target=kill_one, args=[store]).start()
        try:
            return runner.train(step, set())
        except WorkerLost:
            pass
    return runner.train(step, set())

def kill_one(store):
    wait_until(lambda: store.load_checkpoint(step.id) is not None)
    team = [pid for pid, name in descendants(os.getpid()) if "RayTrainWorker" in name]
    assert len(team) == 2, team
    os.kill(team[1], signal.SIGKILL)

with connected(cpus=2):
    exchange = Exchange.start()  # Ray ends what nobody holds
    (_, calm, _, facts), (_, disturbed, _, other) = (train(f"{sys.argv[1]}/{doomed}", doomed) for doomed in (0, 1))
assert calm == disturbed, "the weights are others"
print(facts["resumed_at"], other["resumed_at"], other["workers"])
"""


@pytest.mark.slow
def test_after_one_of_two_workers_died_both_go_on_from_the_last_checkpoint(tmp_path: Path) -> None:
    program = [sys.executable, "-c", TEAM, str(tmp_path)]
    done = subprocess.run(program, capture_output=True, text=True, cwd=CHECKOUT, timeout=280)
    assert done.returncode == 0, done.stderr
    calm, disturbed, workers = done.stdout.splitlines()[-1].split()
    assert (calm, workers) == ("None", "2")
    assert 0 < int(disturbed) < 60_000
    assert int(disturbed) % 64 == 0
