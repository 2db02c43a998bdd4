"""The one thread that calls Ray.

Ray waits in C++, for ever where a raylet died, and no exception of Python's reaches it there; one that comes in the
midst of its start leaves half of it running. So whoever runs a sweep only waits for this thread, and can always leave.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress

from raysslprune import process

PATIENCE = 10.0
"""Seconds that the thread has to shut Ray down once nobody waits for its work any more."""


class ClusterError(Exception):
    """The cluster can't be used. The message is a sentence for the user."""


class RayThread:
    """Runs one piece of work that calls Ray."""

    def __init__(self) -> None:
        self._left = threading.Event()
        self._over = threading.Event()  # nobody needs to wait any more
        self._ended = threading.Event()  # the thread's work came to its end
        self._error: BaseException | None = None

    def run(self, work: Callable[[], None], check: Callable[[], None] = lambda: None) -> None:
        """Run ``work`` and wait for its end, calling ``check`` meanwhile. Raises what they raise, and what
        :meth:`abandon` was given.

        Interrupted, as by Ctrl-C, it waits PATIENCE seconds more for the thread, which :meth:`check` tells.
        """
        if any(other.name == process.RAY_THREAD for other in threading.enumerate()):
            raise ClusterError(
                "another run() works with Ray in this program, or the Ray of one has died, and Ray can't be started "
                "twice: wait for it, or restart the program (in a notebook, its kernel)"
            )
        thread = threading.Thread(target=self._run, args=(work,), name=process.RAY_THREAD, daemon=True)
        try:
            thread.start()
            while not self._over.wait(0.1):
                process.keep_sigterm()
                check()
        finally:
            self._left.set()
            self._wait_for_the_end()
        if self._error is not None:
            raise self._error

    def abandon(self, error: Exception) -> None:
        """Have :meth:`run` raise ``error``, though the thread may wait for ever."""
        self._error = self._error or error
        self._left.set()
        self._over.set()

    def check(self) -> None:
        """Raise KeyboardInterrupt if nobody waits any more; to be called by the work, between its calls of Ray."""
        if self._left.is_set():
            raise KeyboardInterrupt

    def _run(self, work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:
            self._error = self._error or error
        finally:
            self._ended.set()
            self._over.set()

    def _wait_for_the_end(self) -> None:
        """For PATIENCE seconds, whoever presses Ctrl-C meanwhile. Thread.join would take it for the thread's end."""
        end = time.monotonic() + PATIENCE
        while not self._ended.is_set() and time.monotonic() < end:
            with suppress(KeyboardInterrupt):
                self._ended.wait(0.2)
