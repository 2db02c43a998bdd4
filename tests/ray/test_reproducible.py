"""The same sweep gives the same bytes, however it is run. After kills: test_sweep. Two workers a step: test_train."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.commands import Finished, table_of

PROGRAM = """
import random, sys
from raysslprune import sweep
from raysslprune.plan.schedule import Schedule

seed, *arguments = sys.argv[1:]
if seed:  # what has the longest path of work behind it goes first: here that is anything
    made, draw = Schedule.__init__, random.Random(int(seed))
    Schedule.__init__ = lambda self, jobs, seconds: made(self, jobs, {job.id: draw.random() for job in jobs})
sys.exit(sweep.main(arguments))
"""


def run(root: Path, slots: int, seed: str = "") -> list[str]:
    """Run fig3 at scale smoke; return the order in which its trainings started."""
    command = ["fig3", "--scale", "smoke", "--root", str(root), "--json-lines", "--slots", str(slots)]
    program = [sys.executable, "-c", PROGRAM, seed, *command]
    done = subprocess.run(program, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    events = [json.loads(line) for line in done.stderr.splitlines()]
    return [event["step"] for event in events if event["event"] == "started"]


def same_bytes(root: Path, finished: Finished) -> None:
    assert table_of(root) == finished.table
    names = {path.relative_to(finished.root) for path in finished.root.glob("steps/*/*") if path.name != "SUCCESS"}
    assert names == {path.relative_to(root) for path in root.glob("steps/*/*") if path.name != "SUCCESS"}
    assert [name for name in names if (root / name).read_bytes() != (finished.root / name).read_bytes()] == []


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_more_or_fewer_processes_and_another_order_give_the_same_bytes(finished: Finished, tmp_path: Path) -> None:
    """All weights, all masks, and the table."""
    one, three = run(tmp_path / "one", 1), run(tmp_path / "three", 3, "7")
    for name in ("one", "three"):
        same_bytes(tmp_path / name, finished)
    assert set(one) == set(three)
    assert one != three, "the orders are the same: nothing was tested"
