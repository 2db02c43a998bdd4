"""``Experiment.run`` in a program: in a thread, with the program's signal handlers, with a Ray that dies."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.commands import Finished, done_steps, table_of
from tests.helpers.processes import descendants, wait_until

PROGRAM = """
import os, signal, sys, threading
from raysslprune.experiment import Experiment
fig3 = Experiment.load("fig3", scale="smoke", seeds=int(sys.argv[2]), root=sys.argv[1])
mine = lambda number, frame: print("mine", flush=True)
signal.signal(signal.SIGTERM, mine)
before = dict(os.environ), {number: signal.getsignal(number) for number in signal.valid_signals()}

def work():
    try:
        fig3.run()
    except Exception as error:
        print("raised", type(error).__name__, error, flush=True)

for _ in range(2):
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert before == (dict(os.environ), {number: signal.getsignal(number) for number in signal.valid_signals()})
print("on", flush=True)
sys.stdout.flush()
os._exit(3)
"""


@pytest.mark.slow
def test_a_run_in_a_thread_changes_nothing_of_the_program(tmp_path: Path, finished: Finished) -> None:
    root = tmp_path / "runs"
    call = [sys.executable, "-c", PROGRAM, str(root), "1"]
    done = subprocess.run(call, capture_output=True, text=True, timeout=200)
    assert done.returncode == 3, done.stderr
    assert "raised" not in done.stdout
    assert done.stdout.endswith("on\n")
    assert table_of(root) == finished.table


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_ray_that_dies_ends_the_run_and_not_the_program(tmp_path: Path) -> None:
    """The first run by the death of one part, the second by the death of the other.

    Workers go on until they notice that their raylet is gone, so there is more to do than that takes.
    """
    root = tmp_path / "runs"
    call = [sys.executable, "-c", PROGRAM, str(root), "200"]
    with subprocess.Popen(call, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as program:
        dead: set[int] = set()

        def alive(name: str) -> list[int]:
            return [pid for pid, line in descendants(program.pid) if f"/{name} " in line and pid not in dead]

        for name in ("raylet", "gcs_server"):
            wait_until(lambda name=name: bool(alive(name)))  # the next run's
            before = len(done_steps(root))
            wait_until(lambda before=before: len(done_steps(root)) > before)
            (pid,) = alive(name)
            dead |= {pid for pid, _ in descendants(program.pid)}
            os.kill(pid, 9)
        out, err = program.communicate(timeout=250)
    assert program.returncode == 3, err
    assert out.count("raised ClusterError Ray died: ") == 2, out
    assert out.endswith("on\n")
    assert "Traceback" not in err


NOBODY = ["setpriv", "--reuid=12345", "--regid=12345", "--clear-groups"]
READS_ALL = ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]  # the interpreter may be root's alone


@pytest.mark.slow
@pytest.mark.skipif(os.getuid() != 0 or not shutil.which("setpriv"), reason="needs root, and setpriv")
def test_a_user_without_a_home_is_told_what_to_set(tmp_path: Path) -> None:
    """As in a container with a random user: no HOME, no entry in passwd."""
    folder = Path(f"/tmp/raysslprune-{os.getpid()}")  # pytest's own folders are root's alone
    folder.mkdir()
    try:
        os.chown(folder, 12345, 12345)
        environment = {name: value for name, value in os.environ.items() if name not in ("HOME", "USER", "LOGNAME")}
        environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
        call = [sys.executable, "-m", "raysslprune.sweep", "fig6", "--scale", "smoke", "--root", str(folder / "runs")]
        run = subprocess.run(
            [*NOBODY, *READS_ALL, *call], env=environment, cwd=folder, capture_output=True, text=True, timeout=200
        )
        assert run.returncode == 1, run.stderr
        assert run.stderr.splitlines()[-1] == (
            "raysslprune: Ray needs a home folder, and this user has none; set HOME to a folder that this user owns"
        )
        run = subprocess.run(
            [*NOBODY, *READS_ALL, *call],
            env={**environment, "HOME": str(folder)},
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=200,
        )
        assert run.returncode == 0, run.stderr
    finally:
        shutil.rmtree(folder)
