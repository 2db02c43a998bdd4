"""A worker's imports."""

from __future__ import annotations

import subprocess
import sys

import pytest

from raysslprune.cluster import tune

ONCE = """
import gc, sys
from raysslprune.cluster.imports import import_all

import_all()
assert gc.isenabled()
frozen, before = gc.get_freeze_count(), set(sys.modules)
import torch
from raysslprune.cluster import train
from raysslprune.training import runner

net = torch.nn.Linear(2, 1)
optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
optimizer.zero_grad()
net(torch.ones(1, 2)).sum().backward()
optimizer.step()
print(len(set(sys.modules) - before), frozen > 100_000)
"""


def test_after_it_an_update_imports_nothing() -> None:
    run = subprocess.run([sys.executable, "-c", ONCE], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert run.stdout.split() == ["0", "True"]
    assert run.stderr == "", "at the end, libraries of torch report what was not freed"


def test_a_worker_imports_all_before_its_first_job_and_reports_what_can_not_be_imported(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def no_torch() -> None:
        raise ImportError("libtorch.so is missing")

    monkeypatch.setattr(tune, "import_all", no_torch)
    monkeypatch.setattr(tune, "get_node_ip_address", lambda: "10.0.0.7")
    trial = tune.JobTrial.__new__(tune.JobTrial)
    trial.config = {"workers": 1, "gpus": 0}
    trial.setup(trial.config)
    result = trial.step()
    assert result["broken"] == "node 10.0.0.7 can't start a worker: ImportError: libtorch.so is missing"
