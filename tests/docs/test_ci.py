"""The checks as hosted CI runs them."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.helpers import CHECKOUT

SCRIPT = (CHECKOUT / ".ci/run").read_text()
(JOB,) = yaml.safe_load((CHECKOUT / ".github/workflows/ci.yml").read_text())["jobs"].values()
PARTS = JOB["strategy"]["matrix"]["part"]


def commands() -> list[list[str]]:
    """The words of each command of the workflow, for each part."""
    lines = [step["run"] for step in JOB["steps"] if "run" in step]
    return [shlex.split(line.replace("${{ matrix.part }}", part)) for line in lines for part in PARTS]


def test_the_workflow_calls_all_parts_of_the_script_and_nothing_else() -> None:
    every = re.search(r"^\[ \$# -gt 0 \] \|\| parts=\((.*)\)$", SCRIPT, re.M)
    assert every
    assert commands() == [[".ci/run", part] for part in every[1].split()]
    for part in PARTS:
        assert re.search(rf"^ +{part}\) \S", SCRIPT, re.M), part


def test_contributing_lists_the_commands_of_the_parts() -> None:
    text = (CHECKOUT / "CONTRIBUTING.md").read_text()
    run = re.findall(r"\$python (-m [^;&]*?) (?:&&|;;)", SCRIPT)
    assert len(run) == 4
    for command in run:
        assert f".venv/bin/python {command.replace('$python', '.venv/bin/python')}\n" in text


@pytest.mark.slow
def test_a_part_runs_and_an_unknown_one_is_refused(tmp_path: Path) -> None:
    """Lint, in a clone with the README's environment; the other parts are what runs this test."""
    script = str(CHECKOUT / ".ci/run")
    done = subprocess.run([script, "lint"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "All checks passed!" in done.stdout
    refused = subprocess.run([script, "typos"], cwd=tmp_path, capture_output=True, text=True)
    assert refused.returncode == 2
    assert "no part is called 'typos'; there are tests, lint, types, slow" in refused.stderr
