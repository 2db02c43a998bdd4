"""What a sweep starts, and when: its workers' processes, and the imports that its end needs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers import CHECKOUT

LOOKING = """
import json, os
from pathlib import Path

import ray
from raysslprune.cluster import nodes, tune

SEEN = Path(__file__).parent / "seen"


class Looking(tune.JobTrial):
    def _outcome(self, job):
        environment = dict(ray.get_runtime_context().runtime_env)
        variables = {name: os.environ.get(name) for name in nodes.SETTINGS}
        SEEN.mkdir(exist_ok=True)
        (SEEN / str(os.getpid())).write_text(json.dumps([environment, variables]))
        return super()._outcome(job)
"""

PROGRAM = """
import json, sys

import ray
from looking import SEEN, Looking
from raysslprune.cluster import nodes, tune
from raysslprune.execution import Execution
from raysslprune.experiment import Experiment
from raysslprune.spec import Init, Recipe, Train
from raysslprune.sweepfile import Curve, Figure, Point


def points(scale, seed):
    recipe = Recipe(samples=64, batch=64, bn_batch=16, lr=0.05)
    step = Train(task="labels", data="digits", arch="conv4", recipe=recipe, seed=seed, start=Init(seed=seed))
    yield Point(step=step, task="a", init="b", level=1, seed=seed)


def train(self, *arguments):
    assert "matplotlib" not in sys.modules
    failed = trains(self, *arguments)
    print(json.dumps({"ready to draw": "raysslprune.figures.curves" in sys.modules, "mlflow": "mlflow" in sys.modules}))
    return failed


tune.JobTrial, trains, Execution.train = Looking, Execution.train, train
figure = Figure(title="t", references=(Curve(task="a", init="b"),))
if sys.argv[1] == "the program's":
    ray.init(address="local", num_cpus=1, include_dashboard=False)
Experiment.of(points, figure, name="own", scale="smoke", root="runs").run(slots=1)
workers = [json.loads(file.read_text()) for file in SEEN.iterdir()]
print(json.dumps({"workers": workers, "settings": nodes.SETTINGS}))
"""


@pytest.mark.slow
@pytest.mark.parametrize("whose", ["the sweep's", "the program's"])
def test_workers_have_all_settings_and_an_environment_of_their_own_only_on_the_ray_of_others(
    whose: str, tmp_path: Path
) -> None:
    """With a runtime environment of its own, Ray would start another process for each; and Matplotlib is at hand."""
    (tmp_path / "looking.py").write_text(LOOKING)
    command = [sys.executable, "-c", PROGRAM, whose]
    run = subprocess.run(command, cwd=tmp_path, env=environment(tmp_path), capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    lines = [json.loads(line) for line in run.stdout.splitlines() if line.startswith("{")]
    assert lines[0] == {"ready to draw": True, "mlflow": False}
    ((found, variables),) = lines[-1]["workers"]
    assert variables == lines[-1]["settings"]
    assert bool(found) == (whose == "the program's")


def environment(folder: Path) -> dict[str, str]:
    """Return this process's variables without Ray's settings, and with the folder on the path of all Pythons."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "TUNE_"))}
    return {**clean, "PYTHONPATH": f"{CHECKOUT}{os.pathsep}{folder}", "RAY_TMPDIR": "/tmp"}
