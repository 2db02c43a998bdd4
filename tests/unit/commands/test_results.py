"""``raysslprune results``: exit codes, pipes, full disks, interruptions."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from raysslprune.commands.results import main
from raysslprune.results.sql import contents
from tests.helpers.processes import wait_until
from tests.helpers.results import command

MAKES = "this makes some: python -m raysslprune.sweep fig3 --root"
NOTHING = f"there are no results in nowhere, which does not exist; {MAKES} nowhere"
ENDINGS = "argument --export: the file name must end in .csv, .txt, .json, .parquet, .arrow, not"


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["SELECT 1", "--root", "nowhere"], 1, NOTHING),
        (["--root", "nowhere"], 1, NOTHING),
        (["--root", "folder.csv"], 1, f"there are no results in folder.csv; {MAKES} folder.csv"),
        (["SELECT 1", "--root", "nope://a"], 1, "can't use nope://a as the root: .*"),
        (
            ["SELECT 1", "--root", "a\udcff"],
            1,
            "can't use a\N{REPLACEMENT CHARACTER} as the root: its name is not UTF-8",
        ),
        (["SELECT 1", "--root", "s3:/key:secret@bucket/a"], 1, "--root needs two slashes in an address, as .*"),
        (["SELECT 1", "--root", "s3://key:secret@bucket/a"], 1, "--root must not contain credentials.*"),
        (["SELECT 1", "--export", "nowhere/a.csv"], 1, "can't write nowhere/a.csv: No such file or directory"),
        (["SELECT 1", "--export", "folder.csv"], 1, "can't write folder.csv: Is a directory"),
        (["SELECT 1", "--export", "a.xls"], 2, f"{ENDINGS} 'a.xls'; see --help"),
        (["SELECT 1", "--export", "csv"], 2, f"{ENDINGS} 'csv'; see --help"),
        (["SELECT 1", "--export", "a.csv", "--format", "csv"], 2, "argument --format: not allowed with .*"),
        (["SELECT 1", "--format", "xml"], 2, "argument --format: invalid choice: 'xml'.*"),
        (["--export", "a.csv"], 2, "--format and --export need a query; see --help"),
        (["--format", "csv"], 2, "--format and --export need a query; see --help"),
        (["SELECT", "1", "FROM", "results"], 2, "a query is one argument: put it into double quotes; see --help"),
        (["SELECT 1", "--roo", "runs"], 2, r"unrecognized arguments: --roo runs; did you mean --root\?; see --help"),
    ],
)
def test_what_is_wrong_is_said_in_a_sentence(
    arguments: list[str],
    code: int,
    says: str,
    small_root: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("folder.csv").mkdir()
    if code == 2:  # found by the parser, which exits
        with pytest.raises(SystemExit) as stopped:
            main(arguments)
        assert stopped.value.code == code
    else:
        assert main(arguments) == code
    shown = capfd.readouterr()
    assert re.fullmatch(f"raysslprune: {says}\n", shown.err), shown.err
    assert shown.out == "", "no schema where there is nothing to ask"
    assert sorted(os.listdir()) == ["folder.csv", "runs"]
    assert "secret" not in shown.err


def test_without_a_query_it_shows_what_is_there(
    small_root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Figures first, other tables after them, and a query that works here."""
    (root := tmp_path / "my runs").symlink_to(small_root, target_is_directory=True)
    monkeypatch.chdir(tmp_path)
    assert main(["--root", "my runs"]) == 0
    figures, *others, words = capsys.readouterr().out.strip().split("\n\n")
    head, *rows = (line.split() for line in figures.splitlines())
    assert head == ["figure", "scale", "seeds", "rows"]
    stored = {path: pq.read_table(path) for path in sorted(root.glob("results/*/*.parquet"))}
    tables = {(path.stem, path.parent.name): table for path, table in stored.items() if "value" in table.column_names}
    seeds = {key: len(set(table["seed"].to_pylist())) for key, table in tables.items()}
    assert {(row[0], row[1]): (int(row[2]), int(row[3])) for row in rows} == {
        key: (seeds[key], len(table)) for key, table in tables.items()
    }
    beside = ("-runs", "-steps", "-claims", "-magnitudes")
    rest = {p.stem for p in stored if not p.stem.endswith(beside) and (p.stem, p.parent.name) not in tables}
    assert set(re.findall(r"[\w-]+(?=,| \()", "".join(others).partition(": ")[2])) == rest
    example = shlex.split(words.partition("example: ")[2])
    assert example[:2] == ["raysslprune", "results"]
    assert main(example[2:]) == 0
    assert "rows" not in capsys.readouterr().err


@pytest.mark.parametrize("where", [[], ["--format", "csv"], ["--export", "a.csv"]], ids=str)
def test_no_rows_are_said_to_be_none(
    where: list[str],
    small_root: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["SELECT mean FROM means WHERE figure = 'fig77'", "--root", small_root, *where]) == 0
    assert capfd.readouterr().err.splitlines()[-1] == f"raysslprune: no rows; figures here: {contents(small_root)}"
    assert main(["SELECT 1", "--root", small_root, *where]) == 0
    assert "no rows" not in capfd.readouterr().err


def test_binary_is_not_for_a_terminal(small_root: str) -> None:
    ours, theirs = os.openpty()
    with command("SELECT 1", "--root", small_root, "--format", "parquet", stdout=theirs) as process:
        assert process.stderr is not None
        said = process.stderr.read().decode()
    os.close(ours)
    os.close(theirs)
    assert process.returncode == 2
    assert said == "raysslprune: parquet is not for a terminal: name a file with --export; see --help\n"


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_a_closed_pipe_is_no_error(form: str, small_root: str) -> None:
    endless = "SELECT * FROM range(100_000_000_000) AS t(i)"
    with command(endless, "--root", small_root, "--format", form) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.read(4)
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 0


def test_a_full_disk_is_said(small_root: str) -> None:
    with open("/dev/full", "wb") as full, command("FROM results", "--root", small_root, stdout=full) as run:
        assert run.stderr is not None
        said = run.stderr.read().decode()
    assert run.returncode == 1
    assert said == "raysslprune: [Errno 28] No space left on device\n"


def test_an_interrupted_export_leaves_no_file(small_root: str, tmp_path: Path) -> None:
    path = tmp_path / "all.csv"
    path.write_text("before")
    with command(
        "SELECT 0 * i FROM range(100_000_000_000) AS t(i)", "--root", small_root, "--export", str(path)
    ) as process:
        wait_until(lambda: bool([*tmp_path.glob("all.csv.*.part")]) or process.poll() is not None)
        process.send_signal(signal.SIGINT)
        assert process.stderr is not None
        assert process.stderr.read().decode() == "raysslprune: stopped\n"
    assert process.returncode == 130
    assert path.read_text() == "before"
    assert sorted(os.listdir(tmp_path)) == ["all.csv", "runs"]


def test_a_query_that_computes_for_long_can_be_interrupted(small_root: str) -> None:
    query = "SELECT a.i FROM range(10_000_000) AS a(i), range(10_000_000) AS b(i) WHERE a.i + b.i < 0"
    with command(query, "--root", small_root) as process:

        def used() -> float:
            """Seconds of the processor; it starts in less than one."""
            times = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
            return (int(times[11]) + int(times[12])) / os.sysconf("SC_CLK_TCK")

        wait_until(lambda: used() > 2)
        process.send_signal(signal.SIGINT)
        assert process.stderr is not None
        assert process.stderr.read().decode() == "raysslprune: stopped\n"
    assert process.returncode == 130


def test_a_long_answer_needs_little_memory(small_root: str) -> None:
    """80 MB of CSV, and more of Arrow."""
    code = (
        "import resource, sys; from raysslprune.commands.results import main; code = main(sys.argv[1:]); "
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr); sys.exit(code)"
    )
    peak: list[int] = []
    for form, n in (("csv", 10), ("csv", 2_500_000), ("arrow", 2_500_000)):
        query = f"SELECT i, i * 0.1 AS x, 'abcdefgh' || i AS s FROM range({n}) AS t(i)"
        arguments = [sys.executable, "-c", code, query, "--root", small_root, "--format", form]
        ran = subprocess.run(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=True)
        peak.append(int(ran.stderr) // 1024)
    assert max(peak) - peak[0] < 60, peak


def test_what_is_heavy_is_imported_by_the_query() -> None:
    code = (
        "import sys, raysslprune.results, raysslprune.commands.results as m; m._parser().format_help(); "
        "print(*(sys.modules.keys() & {'duckdb', 'pandas', 'polars', 'torch', 'ray', 'matplotlib', 'rich'}))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "\n"
