"""A program of this package as the shell sees it: exit codes, standard streams, signals."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1]
PROGRAM = """
import os, sys, time
from raysslprune import process
process.GRACE = {grace}
process.begin()
from raysslprune.commands.common import reports_errors
from raysslprune.messages import say

@reports_errors()
def main(arguments=None):
{body}

process.end(main())
"""


def program(
    body: str, grace: float = 20.0, before: Callable[[], object] | None = None, stdin: int | None = None
) -> subprocess.Popen[bytes]:
    """A program whose main has this body; it has begun when it has printed ``ready``."""
    text = PROGRAM.format(body=textwrap.indent(textwrap.dedent(body), "    "), grace=grace)
    return subprocess.Popen(
        [sys.executable, "-c", text],
        preexec_fn=before,  # pyright: ignore[reportArgumentType]
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def ready(running: subprocess.Popen[bytes]) -> subprocess.Popen[bytes]:
    assert running.stdout is not None
    assert running.stdout.readline() == b"ready\n"
    return running


WAITS = "print('ready', flush=True); time.sleep(60); return 0"


@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
def test_a_signal_ends_it_with_one_sentence_and_the_code_of_the_shell(number: signal.Signals) -> None:
    with ready(program(WAITS)) as running:
        running.send_signal(number)
        out, err = running.communicate(timeout=20)
    assert (running.returncode, out, err) == (128 + number, b"", b"raysslprune: stopped\n")


def test_the_first_signal_says_how_it_ends() -> None:
    body = """
    try:
        print('ready', flush=True)
        time.sleep(60)
    finally:
        print('ready', flush=True)
        time.sleep(1)
    """
    with ready(program(body)) as running:
        running.send_signal(signal.SIGTERM)
        ready(running)  # it has handled the first: of signals that wait together Python takes the lowest number
        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGINT):
            running.send_signal(number)
        _, err = running.communicate(timeout=20)
    assert (running.returncode, err) == (143, b"raysslprune: stopped\n")


def test_a_sentence_of_the_command_is_the_only_one() -> None:
    body = """
    try:
        print('ready', flush=True)
        time.sleep(60)
    except KeyboardInterrupt:
        return say('stopped; nothing was exported', 130)
    """
    with ready(program(body)) as running:
        running.send_signal(signal.SIGHUP)
        _, err = running.communicate(timeout=20)
    assert (running.returncode, err) == (129, b"raysslprune: stopped; nothing was exported\n")


def test_an_error_on_the_way_out_does_not_hide_the_signal() -> None:
    body = """
    try:
        print('ready', flush=True)
        time.sleep(60)
    finally:
        raise OSError(5, 'Input/output error')
    """
    with ready(program(body)) as running:
        running.send_signal(signal.SIGHUP)
        running.communicate(timeout=20)
    assert running.returncode == 129


def test_work_that_is_done_is_not_called_stopped() -> None:
    """The signal came too late."""
    body = """
    try:
        print('ready', flush=True)
        time.sleep(60)
    except KeyboardInterrupt:
        return 0
    """
    with ready(program(body)) as running:
        running.send_signal(signal.SIGTERM)
        _, err = running.communicate(timeout=20)
    assert (running.returncode, err) == (0, b"")


@pytest.mark.parametrize(
    "body",
    [
        "while True:\n    try:\n        print('ready', flush=True)\n        time.sleep(60)\n"
        "    except BaseException:\n        pass",
        "import ctypes\nlock, mutex = ctypes.CDLL(None).pthread_mutex_lock, ctypes.create_string_buffer(64)\n"
        "lock(mutex)\nprint('ready', flush=True)\nlock(mutex)",
    ],
    ids=["swallowed", "in C"],
)
def test_nothing_can_keep_it_from_its_end_for_long(body: str) -> None:
    with ready(program(body, grace=0.5)) as running:
        running.send_signal(signal.SIGTERM)
        _, err = running.communicate(timeout=20)
    assert (running.returncode, err) == (143, b"raysslprune: stopped\n")


@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
def test_while_modules_are_imported_there_is_nothing_to_unwind(number: signal.Signals, tmp_path: Path) -> None:
    """An exception in the midst of an import would be a traceback, or be taken for a module that is missing."""
    (tmp_path / "slow.py").write_text("import time; print('ready', flush=True); time.sleep(60)")
    script = tmp_path / "program.py"
    script.write_text(
        "from raysslprune import process\nprocess.begin()\ntry:\n    import slow\nfinally:\n    print('no')"
    )
    with ready(subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, stderr=subprocess.PIPE)) as run:
        run.send_signal(number)
        out, err = run.communicate(timeout=20)
    assert (run.returncode, out, err) == (128 + number, b"", b"raysslprune: stopped\n")


@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
def test_what_was_ignored_at_the_start_stays_ignored(number: signal.Signals) -> None:
    """As nohup ignores SIGHUP, and a shell Ctrl-C for what it starts with ``&``."""
    body = "print('ready', flush=True); sys.stdin.readline(); return 0"
    with ready(program(body, before=lambda: signal.signal(number, signal.SIG_IGN), stdin=subprocess.PIPE)) as on:
        on.send_signal(number)
        _, err = on.communicate(b"go on\n", timeout=20)
    assert (on.returncode, err) == (0, b"")


@pytest.mark.parametrize("closed", [(0,), (1,), (2,), (0, 1, 2)], ids=str)
def test_closed_streams_are_nobody_else_s(closed: tuple[int, ...], tmp_path: Path) -> None:
    """A file that is opened next would get the descriptor, and with it whatever is printed."""
    kept = tmp_path / "kept"
    body = f"""
    with open({str(kept)!r}, 'wb') as file:
        print('printed', flush=True)
        print('said', file=sys.stderr, flush=True)
        os.write(1, b'by descriptor'), os.write(2, b'by descriptor')
        file.write(b'%d' % (file.fileno() > 2))
    return say('a sentence', 0)
    """

    def close() -> None:
        for descriptor in closed:
            os.close(descriptor)

    with program(body, before=close) as running:
        out, err = running.communicate(timeout=20)
    assert running.returncode == 0
    assert kept.read_bytes() == b"1"
    assert out == (b"" if 1 in closed else b"printed\nby descriptor")
    assert err == (b"" if 2 in closed else b"said\nby descriptorraysslprune: a sentence\n")


def test_an_import_of_the_package_handles_nothing() -> None:
    """A program that uses the package keeps its own signals."""
    text = """
import signal
before = {number: signal.getsignal(number) for number in signal.valid_signals()}
import raysslprune, raysslprune.experiment, raysslprune.sweep, raysslprune.__main__
assert before == {number: signal.getsignal(number) for number in signal.valid_signals()}
assert signal.set_wakeup_fd(-1) == -1
"""
    subprocess.run([sys.executable, "-c", text], check=True, timeout=60)
