"""This process as a program: its standard streams, and the signals that ask it to end.

A command calls :func:`begin` before it imports anything slow, so this module imports next to nothing.
"""

from __future__ import annotations

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
"""Seconds from a signal until this process ends whatever it is doing."""


RAY_THREAD = "raysslprune-ray"
"""The name of the thread that calls Ray."""


class _Program:
    """What is known of this process once it has begun as a program."""

    begun = False
    unwinds = False  # whether a signal raises KeyboardInterrupt; while modules are imported it ends the process at once
    over = False  # the exit code is known
    asked: int | None = None  # the first signal; later ones change nothing
    stderr = 2  # where sentences go, while a sweep sends descriptor 2 to its log


def begin() -> None:
    """Open the standard streams that are closed, and handle the signals that end a program.

    A signal that was ignored when this process started, as under nohup, stays ignored.
    """
    if _Program.begun:
        return
    _Program.begun = True
    _open_streams()
    _Program.stderr = os.dup(2)
    read, write = os.pipe()
    os.set_blocking(write, False)
    signal.set_wakeup_fd(write)
    threading.Thread(target=_end_in_time, args=(read,), daemon=True).start()
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _handle)


@contextmanager
def unwinding() -> Iterator[None]:
    """Let a signal raise KeyboardInterrupt in the main thread meanwhile; after it the exit code is known."""
    _Program.unwinds = True
    try:
        yield
    finally:
        _Program.unwinds, _Program.over = False, True


@contextmanager
def importing() -> Iterator[None]:
    """Let a signal end the process at once meanwhile: an exception could be lost in a module's import."""
    before, _Program.unwinds = _Program.unwinds, False
    try:
        yield
    finally:
        _Program.unwinds = before


def exit_code(code: int) -> int:
    """The code to exit with: 128 + the signal's number where one kept the command from its end, else ``code``."""
    return 128 + _Program.asked if code and _Program.asked is not None else code


def end(code: int) -> NoReturn:
    """Exit; without Ray's exit hooks where a thread still waits for a Ray that is dead, since they would wait, too."""
    if any(thread.name == RAY_THREAD for thread in threading.enumerate()):
        with suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def keep_sigterm() -> None:
    """Put Python's own SIGTERM handling back in the place of the stack trace that Ray's C++ side prints."""
    handler = signal.getsignal(signal.SIGTERM)
    if handler is not None and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, handler)


def _handle(number: int, frame: object) -> None:
    if _Program.asked is not None:
        return
    _Program.asked = number
    if _Program.unwinds:
        raise KeyboardInterrupt
    if not _Program.over:
        _leave(number)


def _end_in_time(wakeups: int) -> None:
    """End the process GRACE seconds after a signal. The interpreter's C handler writes its number to ``wakeups``,
    also while the main thread waits in C for something that never comes.
    """
    number = 0
    while number not in SIGNALS:
        number = os.read(wakeups, 1)[0]
    time.sleep(GRACE)
    _leave(number)


def _leave(number: int) -> NoReturn:
    with suppress(OSError):
        os.write(_Program.stderr, b"raysslprune: stopped\n")
    os._exit(128 + number)


def _open_streams() -> None:
    """Put the null device where a standard stream is closed: a file opened next would get its descriptor, and what
    is printed.
    """
    for descriptor, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(descriptor)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest that is free: this one
        if getattr(sys, name) is None:
            stream = open(descriptor, "w" if descriptor else "r", closefd=False)  # noqa: SIM115 (as long as the process)
            setattr(sys, name, stream)
