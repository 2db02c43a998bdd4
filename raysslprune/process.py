"""This process as a program: its standard streams, and the signals that ask it to end.

A command calls :func:`begin` before it imports anything slow, so this module imports next to nothing.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NoReturn

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
"""Ctrl-C; kill; the terminal was closed; Slurm's warning before its time limit."""

GRACE = 20.0
"""Seconds from a signal until this process is ended, whatever it is doing."""

RAY_THREAD = "raysslprune-ray"
"""Name of the thread that calls Ray."""


class _State:
    unwinds = False  # whether a signal raises KeyboardInterrupt; during imports it ends the process at once
    over = False  # the exit code is known
    first: int | None = None  # the first signal; later ones change nothing
    stderr = 2  # where sentences go; a sweep redirects descriptor 2 to its log


def begin() -> None:
    """Open the standard streams that are closed, and handle the signals that end a program.

    A signal that was ignored when this process started, as under nohup, stays ignored.
    """
    _open_streams()
    _State.stderr = os.dup(2)
    read, write = os.pipe()
    os.set_blocking(write, False)
    signal.set_wakeup_fd(write)
    threading.Thread(target=_end_in_time, args=(read,), daemon=True).start()
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _handle)


@contextmanager
def unwinding() -> Iterator[None]:
    """Let a signal raise KeyboardInterrupt in the main thread, until the exit code of the command is known."""
    _State.unwinds = True
    try:
        yield
    finally:
        _State.unwinds, _State.over = False, True


@contextmanager
def importing() -> Iterator[None]:
    """Let a signal end the process at once, since an exception could be lost in the import of a module."""
    before, _State.unwinds = _State.unwinds, False
    try:
        yield
    finally:
        _State.unwinds = before


@contextmanager
def collector_off() -> Iterator[None]:
    """Turn the garbage collector off, if it is on."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def exit_code(code: int) -> int:
    """Return 128 + the signal's number if a signal kept the command from finishing, else ``code``."""
    return 128 + _State.first if code and _State.first is not None else code


def end(code: int) -> NoReturn:
    """Exit. If a thread still waits for a dead Ray, skip all exit hooks, since Ray's would wait too."""
    if any(thread.name == RAY_THREAD for thread in threading.enumerate()):
        with suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def keep_sigterm() -> None:
    """Restore Python's SIGTERM handler, which Ray's C++ code replaces with one that prints a stack trace."""
    handler = signal.getsignal(signal.SIGTERM)
    if handler is not None and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, handler)


def _handle(number: int, frame: object) -> None:
    if _State.first is not None:
        return
    _State.first = number
    if _State.unwinds:
        raise KeyboardInterrupt
    if not _State.over:
        _exit_now(number)


def _end_in_time(wakeups: int) -> None:
    """End the process GRACE seconds after a signal, even if the main thread waits forever in C.

    wakeups: the pipe to which the interpreter's own C handler writes the number of each signal.
    """
    number = 0
    while number not in SIGNALS:
        number = os.read(wakeups, 1)[0]
    time.sleep(GRACE)
    _exit_now(number)


def _exit_now(number: int) -> NoReturn:
    with suppress(OSError):
        os.write(_State.stderr, b"raysslprune: stopped\n")
    os._exit(128 + number)


def _open_streams() -> None:
    """Open the null device for each standard stream that is closed.

    Otherwise the next file to be opened would get its descriptor, and everything that is printed.
    """
    for descriptor, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(descriptor)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # gets the lowest free descriptor: this one
        if getattr(sys, name) is None:
            stream = open(descriptor, "w" if descriptor else "r", closefd=False)  # noqa: SIM115 (as long as the process)
            setattr(sys, name, stream)
