"""What all commands do: a pipe that closes, and a fault of our own."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from raysslprune import __main__ as command

Capture = pytest.CaptureFixture[str]


@pytest.mark.parametrize("arguments", [("sweep", "table1"), ("sweep", "fig3", "--scale", "smoke", "--dry-run")])
def test_a_reader_that_has_enough_is_no_error(arguments: tuple[str, ...], tmp_path: Path) -> None:
    """As `| head`; what is written is written."""
    ours, theirs = os.pipe()
    os.close(ours)
    command = [sys.executable, "-m", "raysslprune", *arguments, "--root", str(tmp_path / "runs")]
    with os.fdopen(theirs, "w") as closed:
        run = subprocess.run(command, stdout=closed, stderr=subprocess.PIPE, text=True)
    assert (run.returncode, run.stderr) == (0, "")
    assert (tmp_path / "runs/results").exists() == (arguments[1] == "table1")


# ------------------------------------------------------------------------------------- completion


@pytest.mark.parametrize("name", [name for name in command.COMMANDS if name not in ("sweep", "completion")])
def test_our_own_fault_is_one_sentence_and_a_log(
    name: str, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of sweep: test_sweep.py."""

    def fail(*_: object) -> int:
        raise ZeroDivisionError("ours\nalone")

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(command.load(name), "_parser", fail)
    assert command.main([name]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    (log,) = tmp_path.iterdir()
    assert line == (f"raysslprune: internal error in raysslprune: ZeroDivisionError: ours alone; details in {log}")
    assert "Traceback" in log.read_text()
