"""The profile of a sweep's start: what its processes note, and the stages that are made of it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import follow, start
from tests.helpers import CHECKOUT

FOLLOWED = """
import sys
from benchmarks import follow

follow.follow(sys.argv[1])
from raysslprune import sweep_loader

for seeds in (1, 2):
    sweep_loader.load("fig3", "smoke", seeds)
try:
    sweep_loader.load("fig3", "smoke")
except TypeError:
    pass
"""


def test_a_process_notes_imports_and_each_call(tmp_path: Path) -> None:
    run = subprocess.run([sys.executable, "-c", FOLLOWED, str(tmp_path)], cwd=CHECKOUT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    (file,) = tmp_path.iterdir()
    module, load = "raysslprune.sweep_loader", "raysslprune.sweep_loader.load"
    lines = [line.split() for line in file.read_text().splitlines()]
    assert [(kind, name) for kind, name, _ in lines if name not in ("torch", "raysslprune.process")] == [
        ("begin", "process"),
        ("begin", module),
        ("end", module),
        *[("begin", load), ("end", load)] * 3,
    ]
    times = [float(at) for _, _, at in lines]
    assert times == sorted(times)


def test_first_and_last_times_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "1").write_text("begin a 1.5\nend a 2\nbegin a 3\nbegin b 3.5\nend a 4.25\n")
    noted = start.Noted.read(tmp_path / "1")
    assert noted.begin == {"a": 1.5, "b": 3.5}
    assert noted.end == {"a": 4.25}
    assert noted.first_end == {"a": 2}


def test_every_stage_is_of_something_that_is_noted() -> None:
    """Whatever is not noted is missing in the dictionaries; the worker that updates first counts."""
    names = ["process", *follow.EVENTS]
    names += [f"{module}.{name}" for module, functions in follow.EVENTS.items() for name in functions]
    own = {name for name in names if "Loop" not in name}
    driver = start.Noted(**{kind: dict.fromkeys(own, 1.0) for kind in ("begin", "end", "first_end")})
    late, soon = (
        start.Noted(**{kind: dict.fromkeys(names, at) for kind in ("begin", "end", "first_end")}) for at in (5.0, 3.0)
    )
    for other in (late, soon):
        del other.begin["raysslprune.execution.Execution.train"]
    found = start.stages([late, driver, soon])
    assert found["planned"] == 1
    assert found["first update"] == found["worker has imported torch"] == 3
    assert found["last worker's first update"] == found["last update"] == 5


@pytest.mark.slow
def test_the_stages_of_a_real_sweep_follow_each_other() -> None:
    part = ["--repeats", "1", "--only", "task == 'labels' and level <= 0"]
    run = subprocess.run(
        [sys.executable, "-m", "benchmarks", "--json", "start", *part], cwd=CHECKOUT, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    seconds = {stage: found["median"] for stage, found in json.loads(run.stdout).items() if "median" in found}
    order = ["planned", "Ray begins to start", "Ray started", "Tune begins", "worker gets its first job"]
    order += ["worker has imported torch", "first update", "last update", "Tune ends", "Ray has ended"]
    order += ["drawing begins", "drawn", "command ends", "exit"]
    times = [seconds[stage] for stage in order]
    assert times == sorted(times)
    assert times[0] > 0
