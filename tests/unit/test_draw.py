"""``sweep --draw``: what is done so far, drawn."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from raysslprune import __main__ as command
from raysslprune.plan.graph import make_plan
from raysslprune.store.record import versions
from raysslprune.store.steps import Store
from raysslprune.sweep_loader import load
from raysslprune.sweepfile import Point

Capture = pytest.CaptureFixture[str]


def everything(root: Path) -> dict[str, tuple[bytes, int]]:
    files = [path for path in root.rglob("*") if path.is_file()]
    return {str(path.relative_to(root)): (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


TICKETS = """
from raysslprune.paper.scales import SETTINGS
from raysslprune.sweepfile import Curve, Figure, Point

FIGURE = Figure(title="Tickets")


def points(scale, seed):
    s = SETTINGS[scale]
    chain = s.imp("labels", seed=seed, levels=2, keep=0.5)
    for level in (0, 1, 2):
        yield Point(step=s.ticket(chain, level), task="labels", init="winning ticket", level=level, seed=seed)
"""
FACTS = {"seconds": 1.0, "images_per_second": 1.0, "begun": 0.0, "host": "here", "device": "cpu",
         "versions": versions()}  # fmt: skip
METRICS = {"top1": 50.0, "density": 0.5, "density_in_scope": 0.5, "collapsed_layers": 0.0}


def finish_points(points: Sequence[Point], root: Path) -> None:
    """Commit all that is behind them, as if it had been trained."""
    store = Store(str(root))
    store.create()
    for job in make_plan(points).jobs.values():
        for step in (job.train, *job.masks):
            store.commit(step, {}, METRICS, FACTS)


@pytest.fixture
def half(tmp_path: Path) -> Path:
    """A folder with tickets.py, and a root with two of its three points."""
    (tmp_path / "tickets.py").write_text(TICKETS)
    finish_points(load(tmp_path / "tickets.py", "smoke", 1).points[:2], tmp_path / "runs")
    return tmp_path


DRAW = ("tickets.py", "--scale", "smoke", "--seeds", "1", "--draw")
LOOK = f"""
import sys
from raysslprune.sweep import main
code = main({list(DRAW)!r})
print(*sorted({{name.partition(".")[0] for name in sys.modules}} & {{"ray", "torch"}}), file=sys.stderr)
sys.exit(code)
"""


def test_a_draft_of_what_is_done_while_a_sweep_runs(half: Path) -> None:
    root = half / "runs"
    store = Store(str(root))
    store.write("results/smoke/tickets.parquet", b"what the last sweep has left")
    with store.lock():
        before = everything(root)
        run = subprocess.run([sys.executable, "-c", LOOK], cwd=half, capture_output=True, text=True)
        after = everything(root)
    assert run.returncode == 0, run.stderr
    draft, imported = run.stderr.splitlines()
    assert draft == "raysslprune: tickets: 1 of 3 points are not done; this is a draft of what is done"
    assert imported == "", "neither Ray nor torch"
    tables = [f"{end}.parquet" for end in ("", "-runs", "-steps", "-claims")]
    drafts = {f"drafts/smoke/tickets{suffix}" for suffix in (*tables, ".png", ".pdf")}
    assert after.keys() - before.keys() == drafts
    assert {name: file for name, file in after.items() if name in before} == before, "all else is as it was"
    assert pq.read_table(root / "drafts/smoke/tickets.parquet").column("level").to_pylist() == [0, 1]
    assert {str(root / name) for name in drafts} <= set(run.stdout.splitlines())
    assert "Tickets" in run.stdout


def test_nothing_to_draw_is_said(half: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(half)
    Store(str(tmp_path / "made")).create()
    for root, why in (("made", "tickets: none of its 3 points is finished"), ("none", "there are no results in ")):
        assert command.main(["sweep", *DRAW, "--root", str(tmp_path / root)]) == 1
        assert capsys.readouterr().err.startswith(f"raysslprune: {why}")
    assert [path.name for path in (tmp_path / "made").iterdir()] == ["raysslprune.json"]
    assert not (tmp_path / "none").exists()


def test_a_search_and_a_listing_are_drawn(tmp_path: Path, capsys: Capture) -> None:
    root = tmp_path / "runs"
    finish_points(load("rewind", "smoke", 1).points[:2], root)
    before = everything(root)
    assert command.main(["sweep", "rewind", "table1", "--scale", "smoke", "--root", str(root), "--draw"]) == 0
    told = capsys.readouterr()
    assert "What was chosen" in told.out
    assert told.err == "raysslprune: rewind: its search has not ended; this is a draft of what is done\n"
    new = everything(root).keys() - before.keys()
    assert {"drafts/smoke/rewind.png", "drafts/smoke/table1.parquet"} <= new
    assert all(name.startswith("drafts/smoke/") for name in new)


@pytest.mark.parametrize("other", [["--dry-run"], ["--explain", "0"]])
def test_one_look_at_a_time(other: list[str], capsys: Capture) -> None:
    assert command.main(["sweep", "fig3", "--draw", *other]) == 2
    assert capsys.readouterr().err == "raysslprune: --draw can't be combined with --dry-run or --explain\n"
