"""Processes of a sweep: finding them, waiting, stopping them; and several ranks of one program."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tests.helpers import CHECKOUT


def descendants(*ancestors: int) -> list[tuple[int, str]]:
    """(process id, command line) of all that these processes have started, and what those have."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
            parents.setdefault(parent, []).append(int(entry.name))
    found: list[tuple[int, str]] = []
    stack = [*ancestors]
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


def on_ranks(module: str, world: int, *arguments: object) -> None:
    """Run ``python -m MODULE RANK ARGUMENTS`` in so many processes at once, each to a good end."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", module, str(rank), *map(str, arguments)],
            cwd=CHECKOUT,
            stderr=subprocess.PIPE,
            text=True,
        )
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
