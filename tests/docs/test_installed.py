"""The wheel in an environment and a folder where nothing else of the project is: what a user has who cloned nothing."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.helpers import CHECKOUT
from tests.helpers.commands import Finished, table_of

PROJECT = CHECKOUT
UV = Path(sys.executable).with_name("uv")
CONSTRAINTS = ("-c", str(PROJECT / "constraints.txt"))

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


def run(*command: str | Path, cwd: Path, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        list(map(str, command)), cwd=cwd, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True
    )


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    built = run(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", folder, PROJECT, cwd=folder)
    assert built.returncode == 0, built.stderr
    (wheel,) = folder.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def programs(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """bin/ of a fresh environment that has the wheel and what it depends on."""
    folder = tmp_path_factory.mktemp("environment")
    made = run(sys.executable, "-m", "venv", folder / "venv", cwd=folder)
    assert made.returncode == 0, made.stderr
    programs = folder / "venv/bin"
    if UV.exists():  # half a minute, where pip takes several
        installed = run(UV, "pip", "install", "-q", "-p", programs / "python", *CONSTRAINTS, wheel, cwd=folder)
    else:
        installed = run(programs / "pip", "install", "-q", *CONSTRAINTS, wheel, cwd=folder)
    assert installed.returncode == 0, installed.stderr
    return programs


def test_everything_works_in_an_empty_folder(programs: Path, finished: Finished, tmp_path: Path) -> None:
    home, here = tmp_path / "home", tmp_path / "here"
    home.mkdir()
    here.mkdir()
    environment = {"PATH": f"{programs}:/usr/bin:/bin", "HOME": str(home), "LC_ALL": "C.UTF-8"}

    def done(*command: str) -> str:
        """What it says on stdout. It must end well."""
        ended = run(programs / command[0], *command[1:], cwd=here, environment=environment)
        assert ended.returncode == 0, f"{command}: {ended.stderr}"
        assert "Traceback" not in ended.stderr
        return ended.stdout

    package, *path = done(
        "python", "-c", "import raysslprune, sys; print(raysslprune.__file__, *sys.path, sep='\\n')"
    ).split()
    assert package.startswith(str(programs.parent)), "this is about another installation"
    assert not [place for place in path if place.startswith(str(PROJECT))]

    assert "fig3.png" in done("raysslprune", "sweep", "fig3", "--scale", "smoke")
    assert table_of(here / "runs") == finished.table
    assert done("python", "-m", "raysslprune.sweep", "fig3", "--scale", "smoke").count("fig3.parquet") == 1
    assert table_of(here / "runs") == finished.table
    assert "28 of 28 done" in done("raysslprune", "status")
    assert done("raysslprune", "sweep", "fig3", "--scale", "smoke", "--draw").count("drafts") == 6

    assert done("raysslprune", "report") == f"{here / 'report.html'}\n"
    page = (here / "report.html").read_text()
    for part in ("<style>", "<script", "<svg"):
        assert part in page
    assert re.search(r"labels +1 *$", done("raysslprune", "results", QUERY), re.M)
    rows = pq.read_table(here / "runs/results/smoke/fig3.parquet").to_pylist()
    step = next(row["step"] for row in rows if row["level"])
    done("raysslprune", "export", step[:8], "--out", "net")
    assert "Subnetwork" in done("python", "-c", "import raysslprune; print(type(raysslprune.load_subnetwork('net')))")
    assert "bites.py" not in done("raysslprune", "completion", "bash")
    assert sorted(os.listdir(here)) == ["net", "report.html", "runs"]


QUERY = "SELECT task, count(DISTINCT seed) AS seeds FROM results WHERE task = 'labels' GROUP BY ALL"
