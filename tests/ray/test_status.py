"""A sweep seen from another terminal, killed, and resumed."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from raysslprune import __main__ as command
from tests.helpers.commands import done_steps, finish, start
from tests.helpers.processes import wait_until

Capture = pytest.CaptureFixture[str]


def said(root: Path | str, capsys: Capture) -> dict[str, list[str]]:
    """Output of ``raysslprune status``: values by name."""
    assert command.main(["status", "--root", str(root)]) == 0
    told = capsys.readouterr()
    assert told.err == ""
    found: dict[str, list[str]] = {}
    for line in told.out.splitlines():
        found.setdefault(line[:10].strip(), []).append(line[11:])
    return found


@pytest.mark.slow
def test_a_real_sweep_is_looked_at_killed_and_goes_on(tmp_path: Path, capsys: Capture) -> None:
    root = tmp_path / "runs"
    sweep = start("fig3", "--scale", "smoke", "--root", str(root))
    wait_until(lambda: len(done_steps(root)) >= 8, 250)
    os.kill(sweep.pid, signal.SIGSTOP)  # so that it is not done before it was looked at
    assert said(root, capsys)["state"][0].startswith("running since ")
    assert command.main(["sweep", "fig3", "--scale", "smoke", "--root", str(root), "--draw"]) == 0
    assert (root / "drafts/smoke/fig3.png").is_file()
    capsys.readouterr()
    os.kill(sweep.pid, signal.SIGKILL)
    sweep.communicate()
    assert f"process {sweep.pid} on " in said(root, capsys)["state"][0]
    last = finish(start("fig3", "--scale", "smoke", "--root", str(root)))
    assert last.code == 0, last.err
    told = said(root, capsys)
    assert "the last one ended" in told["state"][0]
    assert told["trainings"] == ["28 of 28 done"]
