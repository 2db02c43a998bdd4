"""The one thread that calls Ray.

Ray waits in C++, forever if a raylet has died, where no Python exception reaches it; an exception while Ray starts
leaves half of it running. So the thread that runs a sweep only waits for this one, and can always stop waiting.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress

from raysslprune import process
from raysslprune.store.record import StoreError

PATIENCE = 10.0
"""Seconds that the thread gets to shut Ray down after :meth:`RayThread.run` was interrupted or abandoned."""


class ClusterError(StoreError):
    """The cluster can't be used. It is a StoreError because callers treat both alike."""


class RayThread:
    """A thread that runs one function that calls Ray."""

    def __init__(self) -> None:
        self._left = threading.Event()  # run() no longer waits for the work
        self._over = threading.Event()  # run() need not wait any more
        self._ended = threading.Event()  # the work has returned or raised
        self._error: BaseException | None = None

    def run(self, work: Callable[[], None], check: Callable[[], None] = lambda: None) -> None:
        """Run ``work`` and wait for its end, calling ``check`` meanwhile.

        After an interrupt (Ctrl-C), it waits up to PATIENCE seconds for the work, in which :meth:`check` then raises.
        Raises what ``work`` or ``check`` raises, and the error given to :meth:`abandon`.
        """
        if any(other.name == process.RAY_THREAD for other in threading.enumerate()):
            raise ClusterError(
                "another run() in this program is using Ray, or its Ray has died, and Ray can't be started twice: "
                "wait for it, or restart the program (in a notebook, its kernel)"
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
        """Make :meth:`run` raise ``error``, even if the thread waits forever."""
        self._error = self._error or error
        self._left.set()
        self._over.set()

    def check(self) -> None:
        """Raise KeyboardInterrupt if :meth:`run` no longer waits. The work calls this between its calls to Ray."""
        if self._left.is_set():
            raise KeyboardInterrupt

    def _run(self, work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:
            self._error = self._error or error
        finally:
            threading.current_thread().name = f"{process.RAY_THREAD}, ended"  # the next run() may use the name at once
            self._ended.set()
            self._over.set()

    def _wait_for_the_end(self) -> None:
        """Wait up to PATIENCE seconds for the work, even if Ctrl-C is pressed again, which would end Thread.join."""
        end = time.monotonic() + PATIENCE
        while not self._ended.is_set() and time.monotonic() < end:
            with suppress(KeyboardInterrupt):
                self._ended.wait(0.2)
