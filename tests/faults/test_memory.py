"""Memory, files and processes that a sweep uses and frees. soak_memory.py does the same with 2,000 steps."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.helpers import CHECKOUT
from tests.helpers.commands import done_steps, finish, start
from tests.helpers.processes import descendants, wait_until
from tests.tools import soak_memory
from tests.tools.soak import begun
from tests.tools.soak_memory import Look, Soak

# ------------------------------------------------------------------------------------- the measure itself


def test_what_grows_is_seen() -> None:
    """A driver that takes 50 kB a training, a worker that takes none, and files that are not closed."""
    soak = Soak()
    for done in range(0, 2001, 50):
        driver = Look(1, 150 + 0.05 * done, 250, 40 + done // 100, 30)
        soak.looks.append((done, {"driver": driver, "worker": Look(2, 900, 1800, 88, 50)}, done / 100))
    _, numbers, faults = soak_memory.judge(soak, {"driver": 40, "worker": 15})
    assert numbers["driver"]["grown_mb_per_1000"] == 50  # pyright: ignore[reportIndexIssue]
    assert faults == ["driver: grew by 50.0 MB for 1,000 trainings, over 40", "driver: files went from 42 to 59"]
    assert soak_memory.judge(soak, {"driver": 60})[2] == faults[1:]


def test_a_process_is_looked_at() -> None:
    before = soak_memory.look_at(os.getpid())
    held, files = bytearray(b"x" * 50_000_000), [open(os.devnull) for _ in range(20)]  # noqa: SIM115
    after = soak_memory.look_at(os.getpid())
    for file in files:
        file.close()
    assert before
    assert after
    assert 45 < after.own - before.own < 60, len(held)
    assert after.files - before.files == 20
    assert soak_memory.look_at(2**22 + 1) is None


# ------------------------------------------------------------------------------------- real sweeps


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_hundred_steps() -> None:
    """Bounds ten times as wide, because growth at the start weighs more than in 2,000 steps: 22 MB for workers."""
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:  # short: Ray's sockets are in it
        soak, faults = soak_memory.run(150, 1.0, Path(folder))
    wide = {role: 10 * bound for role, bound in soak_memory.GROWTH.items()}
    _, _, over = soak_memory.judge(soak, wide)
    assert faults == []
    assert over == []


TWICE = """
import os, sys
from tests.helpers.processes import descendants
from raysslprune import sweep

for seeds in ("1", "2", "3"):
    assert sweep.main(["tiny.py", "--seeds", seeds, "--root", "runs"]) == 0
    left = [name for _, name in descendants(os.getpid()) if "ray" in name]
    print(len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task")), len(left), file=sys.__stderr__)
"""


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_process_that_runs_several_sweeps_gets_its_files_and_processes_back(tmp_path: Path) -> None:
    """As a notebook does. Ray itself keeps its driver's log, two sockets and two threads or three of each start, and
    gRPC has up to three more or less at work from one moment to the next.
    """
    (tmp_path / "tiny.py").write_text(soak_memory.SWEEP)
    env = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    run = subprocess.run([sys.executable, "-c", TWICE], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    counts = [tuple(map(int, line.split())) for line in run.stderr.splitlines() if line.replace(" ", "").isdecimal()]
    (files, threads, left), *others = counts
    assert len(others) == 2
    assert left == 0
    for sweeps, now in enumerate(others, 1):
        assert now[0] <= files + 3 * sweeps, counts
        assert now[1] <= threads + 3 + 3 * sweeps, counts
        assert now[2] == 0


def ended(family: dict[int, str], seconds: float) -> bool:
    """Return whether all these processes, by their ids and start times, end in time."""
    try:
        wait_until(lambda: all(begun(pid) != since for pid, since in family.items()), seconds)
    except TimeoutError:
        return False
    return True


@dataclass(frozen=True, kw_only=True)
class Family:
    """A running sweep, the processes that it started (id to start time), and separately Ray's two agents."""

    process: subprocess.Popen[str]
    others: dict[int, str]
    agents: dict[int, str]


def at_work(folder: Path, seeds: int) -> Family:
    """Start a sweep of tiny trainings, in a folder of its own that has TMPDIR in it."""
    (folder / "tiny.py").write_text(soak_memory.SWEEP)
    (folder / "tmp").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(folder / "tmp"))
        patch.setenv("RAY_TMPDIR", "/tmp")  # short: Ray's sockets are in it
        process = start("tiny.py", "--seeds", str(seeds), cwd=folder)
    wait_until(lambda: len(done_steps(folder / "runs")) >= 2 or process.poll() is not None)
    names = {process.pid: "", **dict(descendants(process.pid))}
    family = {pid: since for pid in names if (since := begun(pid))}
    agents = {pid: since for pid, since in family.items() if "Agent" in names[pid]}
    assert len(agents) == 2
    assert any("JobTrial" in name for name in names.values())
    return Family(process=process, others={p: s for p, s in family.items() if p not in agents}, agents=agents)


@pytest.fixture(scope="module")
def orphans(tmp_path_factory: pytest.TempPathFactory) -> dict[int, str]:
    """The agents of a killed sweep: they wait a minute for a head that does not answer."""
    family = at_work(tmp_path_factory.mktemp("killed"), seeds=200)
    family.process.kill()
    assert finish(family.process).code == -signal.SIGKILL
    assert ended(family.others, 15)
    return family.agents


@pytest.mark.slow
@pytest.mark.usefixtures("orphans")
@pytest.mark.parametrize("how", ["success", "Ctrl-C"])
def test_no_process_outlives_a_sweep(how: str, tmp_path: Path) -> None:
    """Ray's agents too; and a local Ray leaves nothing in the folder for temporary files."""
    family = at_work(tmp_path, seeds=20 if how == "success" else 200)
    if how == "Ctrl-C":
        os.kill(family.process.pid, signal.SIGINT)
    command = finish(family.process, 120)
    assert command.code == {"success": 0, "Ctrl-C": 130}[how], command.err
    if how == "Ctrl-C":
        assert command.err.splitlines()[-1].startswith("raysslprune: stopped; finished steps are kept; ")
        assert "Traceback" not in command.err
        assert command.out == ""
    assert ended(family.others | family.agents, 15)
    assert list((tmp_path / "tmp").glob("raysslprune-t*")) == []


@pytest.mark.slow
def test_no_process_outlives_a_sweep_that_was_killed(orphans: dict[int, str]) -> None:
    assert ended(orphans, 90)
