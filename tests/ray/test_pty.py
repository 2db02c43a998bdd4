"""Commands in a real terminal, with keys and signals, to their end."""

from __future__ import annotations

import os
import re
import signal
import sys
import time
from pathlib import Path

import pytest

from raysslprune.sweep import KEPT
from tests.helpers.commands import Finished, done_steps, table_of
from tests.helpers.processes import processes_of, wait_until
from tests.helpers.terminal import CTRL_C, Terminal, sentences, sweep

FIG3 = ("fig3", "--scale", "smoke", "--root")
STOPPED = f"raysslprune: {KEPT}"


def clean(text: str) -> None:
    """Check that there is nothing that only a developer understands."""
    for word in ("Traceback", "Exception ignored", "WARNING", "internal error in raysslprune"):
        assert word not in text, text


def test_a_sweep_ends_with_its_results(tmp_path: Path, finished: Finished) -> None:
    root = tmp_path / "runs"
    shown = sweep(*FIG3, str(root))
    assert shown.finish() == 0, shown.text
    clean(shown.text)
    assert "28 of 28 trainings to run" in shown.text
    assert "pruning       labels seed 0" in shown.text, "the live display"
    assert shown.text.rstrip().splitlines()[-1].endswith("fig3.pdf"), "nothing comes after the results"
    assert table_of(root) == finished.table
    again = sweep(*FIG3, str(root))
    assert again.finish() == 0
    clean(again.text)
    assert "trainings to run" not in again.text, "all is done"


@pytest.mark.slow
def test_ctrl_c_again_and_again_while_trainings_run(tmp_path: Path, finished: Finished) -> None:
    root = tmp_path / "runs"
    shown = sweep(*FIG3, str(root))
    wait_until(lambda: len(done_steps(root)) >= 3)
    for _ in range(6):
        shown.press(CTRL_C)
        time.sleep(0.2)
    assert shown.finish(40) == 130, shown.text
    clean(shown.text)
    assert sentences(shown.text) == [STOPPED]
    assert "failed" not in shown.text
    assert processes_of(root) == []
    before = done_steps(root)
    again = sweep(*FIG3, str(root))
    assert again.finish() == 0, again.text
    clean(again.text)
    assert before.items() <= done_steps(root).items()
    assert table_of(root) == finished.table


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "moment"),
    [  # all are handled alike: test_process; and SIGHUP is what closes a terminal, below
        *((signal.SIGINT, moment) for moment in ("importing", "starting", "training", "ending")),
        (signal.SIGTERM, "training"),
        (signal.SIGUSR1, "starting"),
    ],
    ids=lambda value: getattr(value, "name", value),
)
def test_a_signal_at_any_moment(number: signal.Signals, moment: str, tmp_path: Path) -> None:
    root = tmp_path / "runs"
    shown = sweep("fig6", "--scale", "smoke", "--root", str(root))
    if moment == "importing":
        time.sleep(0.3)
    elif moment == "starting":
        shown.wait_for("starting Ray")
    elif moment == "training":
        shown.wait_for("  now")
    else:
        shown.wait_for("fig6.pdf")
    shown.process.send_signal(number)
    code = shown.finish(40)
    clean(shown.text)
    if moment == "ending":
        assert code in (0, 128 + number, -number), "a shell shows 128 + its number for one that it killed, too"
        return
    assert code == 128 + number
    said = sentences(shown.text)
    assert said == [STOPPED] or (moment == "importing" and said == ["raysslprune: stopped"]), "it may be over by then"
    assert "failed" not in shown.text
    assert processes_of(root) == []


@pytest.mark.slow
def test_a_terminal_that_is_closed(tmp_path: Path, finished: Finished) -> None:
    root = tmp_path / "runs"
    shown = sweep(*FIG3, str(root))
    wait_until(lambda: len(done_steps(root)) >= 1)
    shown.hang_up()
    assert shown.finish(40) == 129
    assert processes_of(root) == []
    assert sweep(*FIG3, str(root)).finish() == 0
    assert table_of(root) == finished.table


@pytest.mark.slow
@pytest.mark.parametrize(
    ("columns", "environment"),
    [
        (100, {"PYTHONWARNINGS": "error", "TERM": "dumb"}),
        (20, {"LANG": "C", "LC_ALL": "C", "NO_COLOR": "1"}),
    ],
    ids=str,
)
def test_narrow_and_wide_and_plain(columns: int, environment: dict[str, str], tmp_path: Path) -> None:
    root = str(tmp_path / "runs")
    shown = sweep("fig6", "--scale", "smoke", "--root", root, columns=columns, environment=environment)
    assert shown.finish() == 0, shown.text
    clean(shown.text)
    assert re.sub(r"\s", "", shown.text).endswith("fig6.pdf"), "paths are not cut"


@pytest.mark.slow
def test_each_stream_may_be_a_file(tmp_path: Path) -> None:
    """Output to a file has no colours, and the terminal shows none of it."""
    out, err = tmp_path / "out", tmp_path / "err"
    shown = sweep("fig6", "--scale", "smoke", "--root", str(tmp_path / "runs"), stdout=out)
    assert shown.finish() == 0
    clean(shown.text + out.read_text())
    assert "fig6.pdf" in out.read_text()
    assert "fig6.pdf" not in shown.text
    assert "\x1b" not in out.read_text()
    again = sweep("fig6", "--scale", "smoke", "--root", str(tmp_path / "other"), stderr=err)
    assert again.finish() == 0
    clean(again.text + err.read_text())
    assert "fig6.pdf" in again.text
    assert "2 of 2 trainings to run" in err.read_text()
    assert "\x1b" not in err.read_text()


@pytest.mark.slow
def test_the_other_commands(finished: Finished, tmp_path: Path) -> None:
    root, step = str(finished.root), min(done_steps(finished.root))
    own = tmp_path / "own.py"
    own.write_text(
        "from raysslprune.paper.scales import SETTINGS\nfrom raysslprune.spec import Init, Train\n"
        "from raysslprune.sweepfile import Figure, Point\nFIGURE = Figure(title='Mine')\n"
        "def points(scale, seed):\n    s = SETTINGS[scale]\n"
        "    recipe, start = s.recipes['labels'], Init(seed=seed)\n"
        "    step = Train(task='labels', data=s.data, arch=s.arch, recipe=recipe, seed=seed, start=start)\n"
        "    yield Point(step=step, task='labels', init='', level=0, seed=seed)\n"
    )
    calls = [
        ("sweep", str(own), "--scale", "smoke", "--root", str(tmp_path / "runs")),
        ("sweep", "fig3", "--scale", "smoke", "--root", root, "--dry-run"),
        ("sweep", "fig3", "--scale", "smoke", "--root", root, "--explain", "3"),
        ("results", "SELECT count(*) FROM results", "--root", root),
        ("report", "--scale", "smoke", "--root", root, "--out", str(tmp_path / "report.html")),
        ("analysis", "fig3", "--scale", "smoke", "--root", root),
        ("export", step, "--root", root, "--out", str(tmp_path / "net")),
        ("sweep", "--help"),
    ]
    for call in calls:
        shown = Terminal("-m", "raysslprune", *call)
        assert shown.finish() == 0, shown.text
        clean(shown.text)
    for call, code in [(("sweep", "fig99"), 2), (("results", "SELECT nothing", "--root", root), 2), (("nothing",), 2)]:
        shown = Terminal("-m", "raysslprune", *call)
        assert shown.finish() == code, shown.text
        clean(shown.text)
        assert sentences(shown.text)


@pytest.mark.slow
def test_closed_streams(tmp_path: Path) -> None:
    """All of them together; test_process has each alone."""
    command = f"{sys.executable} -m raysslprune.sweep fig6 --scale smoke --root {tmp_path / 'runs'} >&- 2>&- <&-"
    assert os.waitstatus_to_exitcode(os.system(command)) == 0
    assert (tmp_path / "runs" / "results" / "smoke" / "fig6.pdf").exists()
