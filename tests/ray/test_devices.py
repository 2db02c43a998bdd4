"""Cores or GPUs: what an own sweep says and does on a Ray that was told of a GPU."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch

pytestmark = pytest.mark.slow

PROGRAM = """
import sys
import ray
from raysslprune.plan import device
device.WORTH = float(sys.argv[2])
from raysslprune.cluster import patches
with patches.on_localhost():  # as a sweep starts it, but with a GPU
    ray.init(
        address="local", num_cpus=2, num_gpus=1, include_dashboard=False, log_to_driver=False, logging_level="ERROR"
    )
from raysslprune import Experiment
options = {"gpus_per_worker": 0} if sys.argv[3:] else {}
Experiment.load("fig3", scale="smoke", root=sys.argv[1]).run(**options)
"""


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU, and the first case would use it")
@pytest.mark.parametrize(
    ("worth", "options", "said"),
    [
        ("0", (), "raysslprune: trainings use 2 cores, because this machine can't compute on its GPU: "),
        ("1000000", (), "raysslprune: trainings use 2 cores and not 1 GPU: that is not clearly faster: "),
        ("0", ("cores",), ""),
    ],
)
def test_a_gpu_that_can_not_be_used_or_is_not_worth_it(
    worth: str, options: tuple[str, ...], said: str, tmp_path: Path
) -> None:
    root = tmp_path / "runs"
    command = [sys.executable, "-c", PROGRAM, str(root), worth, *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    told = [line for line in done.stderr.splitlines() if "trainings use" in line]
    assert len(told) == bool(said), done.stderr
    assert all(said in f"raysslprune: {line.removeprefix('raysslprune: ')}" for line in told)
    if worth == "1000000":
        assert told[0].endswith("; to use a GPU: --gpus-per-worker 0.25")
    runs = pq.read_table(root / "results/smoke/fig3-runs.parquet")
    assert set(runs["device"].to_pylist()) == {"cpu"}
