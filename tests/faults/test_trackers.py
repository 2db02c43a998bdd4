"""Sweeps and real trackers: an MLflow server in an environment of its own, and Weights & Biases' files."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from raysslprune.plan.graph import make_plan
from raysslprune.sweep_loader import load
from tests.helpers.commands import sweep

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

IDS = set(make_plan(load("fig3", "smoke", 1).points).ids)


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> str:
    """MLflow's program. The whole of MLflow does not fit the package's own versions."""
    folder = tmp_path_factory.mktemp("mlflow")
    subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
    installed = subprocess.run(
        [sys.executable, "-m", "uv", "pip", "install", "-q", "-p", folder / "venv/bin/python", "mlflow"],
        capture_output=True,
        text=True,
    )
    if installed.returncode:
        pytest.skip(f"MLflow can't be installed here: {installed.stderr[-200:]}")
    return str(folder / "venv/bin/mlflow")


@contextlib.contextmanager
def served(program: str, folder: Path, port: int) -> Iterator[None]:
    """A server that keeps its runs in ``folder``."""
    command = [
        program,
        "server",
        "--port",
        str(port),
        "--workers",
        "1",
        "--backend-store-uri",
        f"sqlite:///{folder}/x.db",
    ]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            end = time.monotonic() + 120
            while time.monotonic() < end:
                with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5):
                    break
                time.sleep(0.5)
            yield
        finally:
            process.terminate()


def all_runs(port: int) -> list[Any]:
    client = MlflowClient(tracking_uri=f"http://127.0.0.1:{port}")
    experiment = client.get_experiment_by_name("raysslprune")
    assert experiment is not None
    return list(client.search_runs([experiment.experiment_id], max_results=1000))


def test_a_server_that_was_away_has_each_step_once(program: str, tmp_path: Path) -> None:
    """The first command finds no server, the second catches up, the third adds nothing."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    call = ("fig3", "--scale", "smoke", "--curve-points", "3", "--track", f"mlflow:http://127.0.0.1:{port}")
    away = sweep(*call, cwd=tmp_path)
    assert away.code == 0, away.err
    assert "can't be reached" in away.err
    assert f"may lack {len(IDS)} finished steps" in away.err
    with served(program, tmp_path, port):
        for _ in range(2):
            back = sweep(*call, cwd=tmp_path)
            assert (back.code, back.err) == (0, "")
            assert back.out == away.out
        found = all_runs(port)
        assert sorted(run.data.tags["raysslprune.step"] for run in found) == sorted(IDS)
        assert {run.info.status for run in found} == {"FINISHED"}
        trained = [run for run in found if run.data.params["kind"] == "Train"]
        place = {"raysslprune.init": "winning ticket", "raysslprune.level": "0"}
        (dense,) = (run for run in trained if place.items() <= run.data.tags.items())
        assert {"lr", "batch", "samples", "task", "seed"} <= dense.data.params.keys()
        history = MlflowClient(tracking_uri=f"http://127.0.0.1:{port}").get_metric_history(dense.info.run_id, "top1")
        seen = sorted(metric.step for metric in history)
        assert seen[0] == 0
        assert seen[-1] == 19 * 64, "the 1,200 samples of the recipe, in whole updates"
        assert len(set(seen)) == len(seen) == 3


def test_weights_and_biases_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    call = ("fig6", "--scale", "smoke", "--track", "wandb:trial")
    for _ in range(2):
        done = sweep(*call, cwd=tmp_path)
        assert done.code == 0, done.err
        assert "raysslprune: " not in done.err
    ids = set(make_plan(load("fig6", "smoke", 1).points).ids)
    folders = [path.name for path in (tmp_path / "runs/wandb/trial").rglob("offline-run-*") if path.is_dir()]
    assert sorted(name.rpartition("-")[2] for name in folders) == sorted(ids)
