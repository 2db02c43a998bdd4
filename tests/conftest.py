"""What the tests that run whole chains, with Ray or without, share."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

from raysslprune import plan
from raysslprune.spec import Recipe, Train
from raysslprune.store import Store
from raysslprune.sweepfile import Point

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("RAY_worker_niceness", "0")  # Ray's own 15 starves its workers beside the other half of the tests
signal.signal(
    signal.SIGINT, signal.default_int_handler
)  # a shell's background jobs ignore Ctrl-C, and so their children

STARTS_RAY = (
    "test_sweep",
    "test_fanout",
    "test_nodes",
    "test_exchange",
    "test_monitor",
    "test_s3",
    "test_security",
    "test_memory",
    "test_reproducible",
    "test_disk",
    "test_ray_up",
    "test_notebook",
    "test_docs",
    "test_installed",
    "test_status",
    "test_environment",
    "test_pty",
    "test_threads",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.stem not in STARTS_RAY)


class OneRay(LoadScopeScheduling):
    """Of pytest's two processes one runs all that starts Ray, which takes both cores, and it begins with that.

    The other runs the rest, file by file, so that a file's fixtures are made once.
    """

    def _split_scope(self, nodeid: str) -> str:
        stem = Path(nodeid.partition("::")[0]).stem
        return "ray" if stem in STARTS_RAY else stem


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> OneRay:
    """Used with ``-n 2``; ``-n 0`` runs all in one process."""
    return OneRay(config, log)


class Bomb:
    """Makes a folder when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self.target),)


@dataclass(frozen=True, kw_only=True)
class Command:
    """A finished ``python -m raysslprune.sweep``."""

    code: int
    out: str
    err: str


def start(*arguments: str, cwd: Path | None = None) -> subprocess.Popen[str]:
    """``python -m raysslprune.sweep`` with these arguments, as a user starts it, in a process group of its own."""
    process = subprocess.Popen(
        [sys.executable, "-m", "raysslprune.sweep", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
        cwd=cwd,
        start_new_session=True,
    )
    STARTED.append(process)
    return process


@pytest.fixture(autouse=True)
def nothing_left_running() -> Iterator[None]:
    """A test that fails half way must not leave its sweep behind."""
    yield
    while STARTED:
        process = STARTED.pop()
        if process.poll() is None:
            process.kill()
            process.communicate()


STARTED: list[subprocess.Popen[Any]] = []


def finish(process: subprocess.Popen[str], timeout: float = 280) -> Command:
    """Wait for it. One that hangs is killed, and the test fails."""
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    return Command(code=process.returncode, out=out, err=err)


def sweep(*arguments: str, cwd: Path | None = None) -> Command:
    """Run a sweep to its end."""
    return finish(start(*arguments, cwd=cwd))


def done_steps(root: Path) -> dict[str, int]:
    """The finished steps of a root, with the time at which each was finished, in nanoseconds."""
    return {path.parent.name: path.stat().st_mtime_ns for path in root.glob("steps/*/SUCCESS")}


def descendants(pid: int) -> list[tuple[int, str]]:
    """(process id, command line) of all that a process has started, and what these have."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
            parents.setdefault(parent, []).append(int(entry.name))
    found: list[tuple[int, str]] = []
    stack = [pid]
    while stack:
        for child in parents.get(stack.pop(), []):
            stack.append(child)
            try:
                found.append((child, Path(f"/proc/{child}/cmdline").read_text().replace("\0", " ")))
            except OSError:
                continue
    return found


def processes_of(root: Path) -> list[str]:
    """Command lines of processes that still name this root, after a moment to end."""
    time.sleep(3)
    listing = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    return [line for line in listing.splitlines() if str(root) in line]


def wait_until(condition: Callable[[], bool], seconds: float = 120) -> None:
    """Until it is true. Raises TimeoutError."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"not within {seconds} s")
        time.sleep(0.02)


def trials(ancestor: int, busy: bool = False) -> list[int]:
    """The workers that a sweep or a raylet started; those that have a job in their title, if ``busy``."""
    name = "ray::JobTrial: " if busy else "ray::JobTrial"
    return [pid for pid, line in descendants(ancestor) if line.startswith(name)]


def frozen_at_work(ancestor: int) -> int:
    """Stop a worker of a sweep or a raylet in the middle of a step, and give its process id."""
    found: list[int] = []

    def caught() -> bool:
        for pid in trials(ancestor, busy=True):
            os.kill(pid, signal.SIGSTOP)
            if pid in trials(ancestor, busy=True):
                found.append(pid)
                return True
            os.kill(pid, signal.SIGCONT)
        return False

    wait_until(caught)
    return found[0]


def on_ranks(script: str, world: int, *arguments: object) -> None:
    """Run ``python script RANK ARGUMENTS`` in so many processes at once, each to a good end."""
    processes = [
        subprocess.Popen([sys.executable, script, str(rank), *map(str, arguments)], stderr=subprocess.PIPE, text=True)
        for rank in range(world)
    ]
    try:
        for process in processes:
            _, complaint = process.communicate(timeout=200)
            assert process.returncode == 0, complaint
    finally:
        for process in processes:
            if process.poll() is None:
                process.kill()
                process.communicate()


@dataclass(frozen=True, kw_only=True)
class Finished:
    """fig3 at scale smoke, run once without interruption."""

    root: Path
    command: Command

    @property
    def table(self) -> bytes:
        return table_of(self.root)


def table_of(root: Path) -> bytes:
    """The bytes of fig3's table at scale smoke."""
    return (root / "results/smoke/fig3.parquet").read_bytes()


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """Shared by all tests that compare with it: don't write to its root, copy it."""
    root = tmp_path_factory.mktemp("finished") / "runs"
    command = sweep("fig3", "--scale", "smoke", "--root", str(root))
    assert command.code == 0, command.err
    return Finished(root=root, command=command)


def execute(steps: Iterable[Train], root: Path, snapshots: Collection[int] = ()) -> Store:
    """Plan the trainings and run the jobs in the plan's order, each as the JSON that a worker gets. Without Ray.

    snapshots: that all trainings keep, beside those that others are rewound to.
    """
    from raysslprune.run import NoExchange, Runner

    store = Store(str(root))
    store.create()
    runner = Runner(store=store, exchange=NoExchange())
    points = [Point(step=step, task=step.task, init="", level=0, seed=step.seed) for step in steps]
    for job in plan.make(points).jobs.values():
        if isinstance(job.train.recipe, Recipe):
            job.snapshots |= set(snapshots)
        runner.run(json.loads(json.dumps(job.to_plain())))
    return store
