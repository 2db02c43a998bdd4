"""The command line of a sweep: options, roots, exit codes, and what is said. Nothing is trained here."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from raysslprune import execution, sweep_loader
from raysslprune.cluster.options import RunOptions
from raysslprune.experiment import Experiment
from raysslprune.plan.graph import Plan
from raysslprune.spec import Final
from raysslprune.store import lock, steps
from raysslprune.store.record import WEIGHTS
from raysslprune.store.steps import Store
from raysslprune.sweepfile import Point
from tests.helpers.cli import FAILED, GOOD, STOPPED, USAGE, Called, Cli, check_refused


def command(*arguments: str, cwd: Path) -> Called:
    """``python -m raysslprune.sweep`` as a user calls it."""
    run = subprocess.run(
        [sys.executable, "-m", "raysslprune.sweep", *arguments], cwd=cwd, capture_output=True, text=True, timeout=60
    )
    return Called(code=run.returncode, out=run.stdout, err=run.stderr)


BAD_COUNTS = ["0", "-1", "1.5", "x", "1000000000", "²", "٣", "", " 1", "1 ", "1e3", "0x2", "1001", "+1", "9" * 5000]


# ------------------------------------------------------------------------------------- a wrong call


@pytest.mark.parametrize("option", ["--seeds", "--workers-per-step", "--slots", "--curve-points"])
@pytest.mark.parametrize("count", BAD_COUNTS, ids=[ascii(text[:12]) for text in BAD_COUNTS])
def test_a_bad_count_is_refused(count: str, option: str, cli: Cli) -> None:
    sentence = cli.refused("fig3", option, count, "--dry-run")
    assert option in sentence
    assert "whole number from 1 to 1000" in sentence


@pytest.mark.parametrize("part", ["2", "1.01", "-0.5", "1/4", "", "nan", "inf", "1e-1", "0x1", "٠", ".", "0.5.5"])
def test_a_bad_part_of_a_gpu_is_refused(part: str, cli: Cli) -> None:
    assert "a number from 0 to 1" in cli.refused("fig3", f"--gpus-per-worker={part}", "--dry-run")


@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        ([], RunOptions()),
        (["--workers-per-step", "4"], RunOptions(workers_per_step=4)),
        (["--gpus-per-worker", ".25", "--dashboard"], RunOptions(gpus_per_worker=0.25, dashboard=True)),
        (["--scale", "cifar10"], RunOptions()),
        (["--scale", "paper", "--gpus-per-worker", "0"], RunOptions(gpus_per_worker=0)),
        (["--slots", "3", "--address", "auto", "--wait"], RunOptions(slots=3, address="auto", wait=True)),
        (["--curve-points", "5"], RunOptions(curve_points=5)),
        (["--json-lines", "--curves", "--compile"], RunOptions(json_lines=True, curves=True, compile=True)),
    ],
)
def test_what_a_training_is_given(
    arguments: list[str], options: RunOptions, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[Any] = []
    monkeypatch.setattr(execution.Execution, "train", lambda run, data, options, check: given.append(options) or 0)
    monkeypatch.setattr(Experiment, "_missing_data", lambda *_, **__: [])
    cli("fig3", *arguments)
    assert given == [options]


def test_curves_need_a_folder(cli: Cli) -> None:
    assert "--curves needs a root that is a folder" in cli.refused("fig3", "--curves", "--root", "mock:///a/b")


@pytest.mark.parametrize("scale", ["huge", "", "LAPTOP", "3"])
def test_a_bad_scale_is_told_the_good_ones(scale: str, cli: Cli) -> None:
    sentence = cli.refused("fig3", "--scale", scale, "--dry-run")
    assert "--scale" in sentence
    assert "laptop" in sentence
    assert "smoke" in sentence


@pytest.mark.parametrize(
    "arguments",
    [["--bogus"], ["-x"], ["--bogus=3"], ["--root"], ["--seeds"], ["--scale"], ["--dry-run=yes"], ["--a\nb"]],
    ids=ascii,
)
def test_a_bad_flag_is_refused(arguments: list[str], cli: Cli) -> None:
    assert arguments[0].partition("=")[0].split()[0] in cli.refused("fig3", *arguments)


def test_no_argument_is_refused(cli: Cli) -> None:
    assert "SWEEP" in cli.refused()
    assert "SWEEP" in cli.refused("--dry-run")


def test_help_shows_an_example(cli: Cli) -> None:
    for flag in ("--help", "-h"):
        called = cli(flag)
        assert (called.code, called.err) == (0, "")
        assert "example: python -m raysslprune.sweep fig3" in called.out
        for word in ("--scale", "--seeds", "--root", "--dry-run", *sweep_loader.known()):
            assert word in called.out


# ------------------------------------------------------------------------------------- a wrong root


def test_a_root_that_is_a_file_is_refused(cli: Cli) -> None:
    (cli.folder / "file").write_text("mine")
    for more in ([], ["--dry-run"]):
        assert "file is a file" in cli.refused("fig3", "--root", str(cli.folder / "file"), *more, code=FAILED)
    assert "file/below" in cli.refused("fig3", "--root", "file/below", code=FAILED)


def test_a_root_with_another_projects_files_is_refused(cli: Cli) -> None:
    (cli.folder / "thesis").mkdir()
    (cli.folder / "thesis" / "main.tex").write_text("mine")
    for more in ([], ["--dry-run"]):
        assert "contains other files but no raysslprune.json" in cli.refused(
            "fig3", "--root", "thesis", *more, code=FAILED
        )


def test_a_root_that_another_sweep_holds_is_waited_for_if_asked_to(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """Here a sweep on another machine, which was killed: it holds the root by its lease until that is stale."""
    trained: list[bool] = []
    monkeypatch.setattr(execution.Execution, "train", lambda *_: trained.append(lease.exists()) or 0)
    monkeypatch.setattr(steps, "RETRY_EVERY", 0.05)
    monkeypatch.setattr(lock, "STALE", 3.0)
    Store("runs").create()
    lease = cli.folder / "runs/lease"
    lease.write_text(json.dumps({"id": "dead", "host": "elsewhere", "process": 7, "machine": "another"}))
    (cli.folder / "mine.py").write_text(GOOD)
    refused = cli("mine.py", "--scale", "smoke")
    said = "another sweep (process 7 on elsewhere) is running on runs; wait for it, or use another --root; "
    assert (refused.code, refused.err.startswith(f"raysslprune: {said}")) == (FAILED, True)
    lease.touch()
    waited = cli("mine.py", "--scale", "smoke", "--wait")
    assert waited.err.count(f"raysslprune: waiting for runs: {said}") == 1
    assert trained == [True], "once, with a lease of its own"
    assert not lease.exists()


# ------------------------------------------------------------------------------------- as a process


def test_bad_calls_as_a_user_sees_them(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "mine.py").write_text("raise RuntimeError('the reason')")
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    for arguments, code, word in (
        (["fig33"], USAGE, "did you mean fig3?"),
        (["fig3", "--seeds", "²"], USAGE, "--seeds"),
        (["fig3", "--root", "file"], FAILED, "is a file"),
        (["mine.py"], USAGE, "the reason"),
    ):
        called = command(*arguments, cwd=tmp_path)
        check_refused(called, code)
        assert word in called.err
    after = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".pyc"}
    assert after == before


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_an_output_that_is_full_ends_with_a_sentence(tmp_path: Path) -> None:
    with open("/dev/full", "w") as figure_3:
        run = subprocess.run(
            [sys.executable, "-m", "raysslprune.sweep", "fig3", "--dry-run"],
            cwd=tmp_path, stdout=figure_3, stderr=subprocess.PIPE, text=True, timeout=60,
        )  # fmt: skip
    check_refused(Called(code=run.returncode, out="", err=run.stderr), FAILED)
    assert "No space left" in run.stderr


ROW_0 = "fig3, row 0: digits, four convolutions, labels, winning ticket, level 0, seed 0"


# ------------------------------------------------------------------------------------- around the training


def test_a_row_is_explained(figure_3: Store, cli: Cli) -> None:
    """The rows are those of the table, counted from 0; a step is found by its id, too."""
    cli("fig3", "--scale", "smoke")
    table = pq.read_table(cli.folder / "runs" / "results" / "smoke" / "fig3.parquet").to_pylist()
    assert len(table) == 21
    before = cli.files()
    for number in (0, 1, 20):
        row = table[number]
        called = cli("fig3", "--scale", "smoke", "--explain", f"{number}")
        assert (called.code, called.err) == (0, "")
        lines = called.out.splitlines()
        assert lines[0] == f"fig3, row {number}: {row['panel']}, {row['task']}, {row['init']}, " + (
            f"level {row['level']}, seed {row['seed']}"
        )
        assert lines[1].strip() == f"top1 {row['value']:.6g}"
        assert lines[2].startswith(f"step {row['step']}: ")
        assert str(cli.folder / "runs" / "steps" / row["step"] / WEIGHTS) in called.out
        by_id = cli("fig3", "--scale", "smoke", f"--explain={row['step']}")
        assert by_id.out == called.out
    assert cli("fig3", "--scale", "smoke", "--explain", "0").out.startswith(f"{ROW_0}\n")
    assert cli("fig3", "--scale", "smoke", "--explain", "0", "--dry-run").out.startswith(f"{ROW_0}\n")
    assert cli("fig3", "fig3", "--scale", "smoke", "--explain", "0").out.startswith(f"{ROW_0}\n")
    assert cli.files() == before, "it only reads"


@pytest.mark.parametrize("row", ["21", "-1", "", "xyz", "1.0", "0" * 16, "a\nb"], ids=ascii)
def test_a_row_that_is_not_there_is_refused(row: str, figure_3: Store, cli: Cli) -> None:
    sentence = cli.refused("fig3", "--scale", "smoke", f"--explain={row}")
    assert f"fig3 has no row and no step {row!r}; its rows are 0 to 20" in sentence


def test_what_can_not_be_explained_is_refused(cli: Cli) -> None:
    """Before there is anything; of several tables; of a table behind which is nothing."""
    assert "fig3 has no row and no step '0'; it has no rows yet" in cli.refused("fig3", "--explain", "0")
    for several in (("fig3", "fig8"), ("all",), ("table1", "fig3")):
        assert "--explain needs exactly one sweep" in cli.refused(*several, "--explain", "0", "--scale", "smoke")
    assert "the rows of table1 need no training" in cli.refused("table1", "--explain", "0")
    assert "--explain" in cli.refused("fig3", "--explain")


@pytest.mark.parametrize("keep", ["none", "", "ALL", "need", "1"])
def test_a_bad_choice_of_weights_to_keep_is_told_the_good_ones(keep: str, cli: Cli) -> None:
    sentence = cli.refused("fig3", f"--keep={keep}", "--dry-run")
    assert "--keep" in sentence
    assert "all" in sentence.partition("choose from")[2]
    assert "needed" in sentence.partition("choose from")[2]


def test_weights_that_nobody_starts_from_are_kept_unless_told_not_to(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """Figure 1 judges the ends of its pre-trainings; Figure 6 draws the weights themselves; nobody reads the others."""
    seen: list[Plan] = []
    monkeypatch.setattr(execution.Execution, "train", lambda run, *_: seen.append(run.graph) or 0)
    for more, keep in ([], True), (["--keep", "all"], True), (["--keep", "needed"], False):
        called = cli("fig1", "fig6", "--scale", "smoke", *more)
        assert (called.code, called.err) == (0, "")
        jobs = seen.pop().jobs.values()
        assert {job.keep for job in jobs} == {keep}
        read = {job.id for job in jobs if job.weights}
        judged = {job.train.start.of.id for job in jobs if isinstance(job.train.start, Final)}
        drawn = {point.step.id for point in sweep_loader.load("fig6", "smoke", 1).points}
        assert read == judged | drawn
        assert len(drawn) == 2
        assert len(judged) < len(jobs) / 2


def test_a_root_in_use_is_refused(figure_3: Store, cli: Cli) -> None:
    with figure_3.lock():
        called = cli("fig3", "--scale", "smoke")
        check_refused(called, FAILED)
        assert str(os.getpid()) in called.err
        assert cli("fig3", "--scale", "smoke", "--dry-run").code == 0, "one may look meanwhile"


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (KeyboardInterrupt(), STOPPED, "; finished steps are kept; "),
        (OSError(errno.ENOSPC, "No space left on device"), FAILED, "No space left on device"),
    ],
    ids=["Ctrl-C", "disk full"],
)
def test_what_ends_the_training_is_said(
    error: BaseException, code: int, words: str, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> int:
        raise error

    monkeypatch.setattr(execution.Execution, "train", fail)
    called = cli("fig3", "--scale", "smoke")
    check_refused(called, code)
    assert words in called.err
    assert "run the same command again to resume" in called.err


def test_our_own_fault_is_one_sentence_and_a_log(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> int:
        raise ZeroDivisionError("ours\nalone")

    monkeypatch.setattr(execution.Execution, "train", fail)
    called = cli("fig3", "--scale", "smoke")
    assert called.code == FAILED
    (line,) = called.err.splitlines()
    assert "internal error in raysslprune: ZeroDivisionError: ours alone" in line
    (log,) = (cli.folder / "tmp").iterdir()
    assert str(log) in line
    assert "Traceback" in log.read_text()


def test_seeds_are_0_to_n_minus_1() -> None:
    points: tuple[Point, ...] = sweep_loader.load("fig3", "smoke", 3).points
    assert {point.seed for point in points} == {0, 1, 2}
    assert {point.step.seed for point in points} == {0, 1, 2}
    assert {point.seed for point in sweep_loader.load("fig3", "smoke", 2).points} == {0, 1}


# ------------------------------------------------------------------------------------- progress


def test_a_root_whose_first_start_was_killed_is_still_ours(cli: Cli) -> None:
    root = cli.folder / "runs"
    root.mkdir()
    (root / "raysslprune.json.0a1b.part").write_text("")
    (root / "probe-0a1b").write_text("")
    assert cli("fig3", "--dry-run").code == 0
    (root / "thesis.tex").write_text("")
    assert "contains other files but no raysslprune.json" in cli.refused("fig3", "--dry-run", code=FAILED)


def test_an_empty_root_is_refused(cli: Cli) -> None:
    assert "--root needs the name of a folder" in cli.refused("fig3", "--dry-run", "--root", "", code=FAILED)


def test_options_can_not_be_abbreviated(cli: Cli) -> None:
    """--seed 3 would be taken for three seeds."""
    cli.refused("fig3", "--dry-run", "--seed", "3")
