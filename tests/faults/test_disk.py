"""A disk that is full or no longer writable in the middle of a sweep: one sentence, and the sweep can be resumed.

A real sweep with Ray, on a root in a tmpfs of its own, in a mount namespace of its own. Needs root's rights.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.helpers.commands import Command, Finished, done_steps, finish, table_of
from tests.helpers.processes import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

SIZE = 64 << 20
"""Of the disk. A sweep of fig3 at scale smoke leaves less."""


class Disk:
    """A tmpfs that only the processes started here see."""

    def __init__(self, folder: Path, holder: int) -> None:
        self.folder, self.holder = folder, holder

    @property
    def root(self) -> Path:
        """The sweep's folder, as seen from here."""
        return Path(f"/proc/{self.holder}/root{self.folder}/runs")

    def start(self, *command: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            ["nsenter", f"--target={self.holder}", "--mount", f"--wd={self.folder.parent}", *command],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )

    def done(self, *command: str) -> bool:
        """Run a command; return whether it succeeded."""
        process = self.start(*command)
        self.complaint = process.communicate(timeout=60)[1]
        return process.returncode == 0

    def do(self, *command: str) -> None:
        assert self.done(*command), self.complaint

    def sweep(self) -> subprocess.Popen[str]:
        command = ["-m", "raysslprune.sweep", "fig3", "--scale", "smoke", "--root", str(self.folder / "runs")]
        return self.start(sys.executable, *command)

    def fill(self) -> Path:
        """Fill it to the last byte; return the file that does so."""
        filler = self.root.parent / "filler"
        with open(filler, "wb", 0) as file:
            try:
                while True:
                    file.write(bytes(1 << 16))
            except OSError:
                return filler


@contextmanager
def namespace(folder: Path) -> Iterator[Disk]:
    holder = subprocess.Popen(["unshare", "--mount", "--propagation=private", "sleep", "infinity"])
    try:
        mine = os.readlink("/proc/self/ns/mnt")
        wait_until(lambda: os.readlink(f"/proc/{holder.pid}/ns/mnt") != mine, 10)
        disk = Disk(folder, holder.pid)
        disk.do("mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(folder))
        yield disk
    finally:
        holder.kill()
        holder.wait()


def _permitted() -> bool:
    if os.geteuid() or not all(map(shutil.which, ("unshare", "nsenter", "mount"))):
        return False
    command: Sequence[str] = ("unshare", "--mount", "--propagation=private", "mount", "-t", "tmpfs", "tmpfs", "/mnt")
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    if not _permitted():
        pytest.skip("needs the rights to mount a tmpfs in a namespace of its own")
    (tmp_path / "disk").mkdir()
    with namespace(tmp_path / "disk") as disk:
        yield disk


def ended(process: subprocess.Popen[str], words: str) -> Command:
    """Check a sweep whose disk failed: exit code 1, and a last sentence with these words, without a traceback."""
    command = finish(process)
    assert command.code == 1, command
    assert "Traceback" not in command.err + command.out
    assert "internal error in raysslprune" not in command.err
    said = [line for line in command.err.splitlines() if not re.match(r"\d+ of \d+ (steps|trainings)", line)]
    assert len([line for line in said if words in line]) == 1, command.err
    assert said[-1].startswith("raysslprune: "), command.err
    assert words in said[-1], command.err
    assert not any(line.startswith("failed: ") for line in said), command.err
    return command


def goes_on(disk: Disk, finished: Finished, before: dict[str, int]) -> None:
    """The same command does the rest, keeps what was done, and gives the table of an undisturbed sweep."""
    assert before, "it failed before anything was finished"
    again = finish(disk.sweep())
    assert again.code == 0, again.err
    now = done_steps(disk.root)
    assert {step: now.get(step) for step in before} == before, "finished steps were lost or made again"
    assert now.keys() == done_steps(finished.root).keys()
    assert table_of(disk.root) == finished.table
    assert not list(disk.root.rglob("*.part"))


def test_a_disk_that_is_full(disk: Disk, finished: Finished) -> None:
    process = disk.sweep()
    wait_until(lambda: len(done_steps(disk.root)) >= 6)
    filler = disk.fill()
    ended(process, "No space left on device")
    before = done_steps(disk.root)
    filler.unlink()
    goes_on(disk, finished, before)


def test_a_disk_that_turns_read_only(disk: Disk, finished: Finished) -> None:
    """The files that a sweep holds open (log, lock) are on another disk: with open files none can be remounted."""
    disk.do(
        sys.executable,
        "-c",
        f"from raysslprune.store.steps import Store; Store({str(disk.folder / 'runs')!r}).create()",
    )
    (disk.root / "logs").mkdir()
    disk.do("mount", "-t", "tmpfs", "tmpfs", str(disk.folder / "runs" / "logs"))
    for path in (disk.root / "lock", disk.root / "logs" / "lock"):
        path.touch()
    disk.do("mount", "--bind", *(str(disk.folder / "runs" / name) for name in ("logs/lock", "lock")))
    process = disk.sweep()
    wait_until(lambda: len(done_steps(disk.root)) >= 6)
    while not disk.done("mount", "-o", "remount,ro", str(disk.folder)):  # refused while a file is being written
        assert process.poll() is None
        time.sleep(0.01)
    ended(process, "Read-only file system")
    before = done_steps(disk.root)
    disk.do("mount", "-o", "remount,rw", str(disk.folder))
    goes_on(disk, finished, before)


def test_a_disk_that_is_full_before_anything_is_trained(disk: Disk) -> None:
    disk.root.mkdir()
    disk.fill()
    command = ended(disk.sweep(), "No space left on device")
    assert len(command.err.splitlines()) == 1
    assert not done_steps(disk.root)
