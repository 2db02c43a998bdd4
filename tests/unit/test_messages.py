"""Sentences on stderr: what they may hold."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from raysslprune.messages import say


@pytest.mark.parametrize(
    "arguments", [["completion", "bash"], ["check", "digits"], ["sweep", "--version"]], ids=" ".join
)
def test_what_can_not_be_printed_is_said(arguments: list[str]) -> None:
    """However late it is found out: at the exit, Python itself would say it in its own way."""
    command = [sys.executable, "-m", "raysslprune", *arguments]
    with open("/dev/full", "w") as full:
        buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
        run = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, env=buffered, check=False)
    assert run.returncode == 1
    (line,) = run.stderr.splitlines()
    assert line.startswith("raysslprune: ")
    assert line.endswith("No space left on device")


def test_a_sentence_steers_no_terminal_and_has_an_end(capsys: pytest.CaptureFixture[str]) -> None:
    assert say("a \x1b[31m\u202e b\n c" + "x" * 10**6, 2) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("raysslprune: a \ufffd[31m\ufffd b cx")
    assert line.isprintable()
    assert len(line) < 6000
