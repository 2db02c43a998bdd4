"""A program in a pseudo-terminal, as a person has it: what it shows, and the keys that are pressed."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

from tests.helpers.commands import STARTED

CTRL_C = b"\x03"
_STEERING = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[=>]|\r")


class Terminal:
    """Runs ``python ARGUMENTS`` as the foreground process of a new terminal."""

    def __init__(
        self,
        *arguments: str,
        columns: int = 100,
        cwd: Path | None = None,
        environment: Mapping[str, str] | None = None,
        stdout: Path | None = None,
        stderr: Path | None = None,
    ) -> None:
        """stdout, stderr: files in the place of the terminal, as by ``> FILE`` and ``2> FILE``."""
        self.master, slave = pty.openpty()
        termios.tcsetwinsize(slave, (40, columns))
        with ExitStack() as files:
            out, err = (files.enter_context(open(path, "wb")) if path else slave for path in (stdout, stderr))
            self.process = subprocess.Popen(
                [sys.executable, *arguments],
                stdin=slave,
                stdout=out,
                stderr=err,
                cwd=cwd,
                env={**os.environ, "TERM": "xterm-256color", **(environment or {})},
                start_new_session=True,
                preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
            )
        STARTED.append(self.process)
        os.close(slave)
        self._raw = b""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        while True:
            try:
                piece = os.read(self.master, 65536)
            except OSError:  # EIO: nobody has the other side open any more; EBADF: it was hung up
                return
            if not piece:
                return
            self._raw += piece

    @property
    def text(self) -> str:
        """All that was shown so far, without what steers the terminal."""
        return _STEERING.sub("", self._raw.decode(errors="replace"))

    def press(self, keys: bytes) -> None:
        os.write(self.master, keys)

    def hang_up(self) -> None:
        """Close the terminal's window."""
        os.close(self.master)

    def wait_for(self, words: str, seconds: float = 120) -> None:
        """Until it shows these words. Raises TimeoutError."""
        end = time.monotonic() + seconds
        while words not in self.text:
            if time.monotonic() > end or (self.process.poll() is not None and words not in self.text):
                raise TimeoutError(f"no {words!r} within {seconds} s, but:\n{self.text}")
            time.sleep(0.02)

    def finish(self, seconds: float = 280) -> int:
        """Wait for its end; gives the exit code, negative for a signal that killed it."""
        try:
            code = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise
        self._reader.join(5)
        return code


def sweep(*arguments: str, **given: object) -> Terminal:
    """``python -m raysslprune.sweep`` in a terminal."""
    return Terminal("-m", "raysslprune.sweep", *arguments, **given)  # pyright: ignore[reportArgumentType]


def sentences(text: str) -> list[str]:
    """What the command itself said on stderr."""
    return [line for line in text.replace("^C", "").splitlines() if line.startswith("raysslprune: ")]
