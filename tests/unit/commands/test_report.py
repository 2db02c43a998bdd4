"""``raysslprune report``: which sweeps, and what is refused."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from raysslprune.commands import report as command
from tests.helpers.reports import FAILED, USAGE, Document, Roots, report


def test_without_names_it_is_all_sweeps_of_the_package_that_have_results(
    reported: Roots, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    document = Document(report(reported.root, tmp_path / "report.html"))
    assert [row["figure"] for row in document.table("", "on this page")] == ["fig3", "table1"]
    assert capsys.readouterr().err == (
        "raysslprune: not included: odd & <odd>.py; to include it: "
        f"raysslprune report fig3 table1 'odd & <odd>.py' --root {reported.root}\n"
    )
    document = Document(report(reported.root, tmp_path / "report.html", "fig3", "--scale", "smoke"))
    assert [row["figure"] for row in document.table("", "on this page")] == ["fig3"]
    assert capsys.readouterr().err == ""


def test_a_root_with_sweeps_of_ones_own_alone_says_how_to_name_them(
    damaged_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And what stands beside a sweep's results is no sweep."""
    folder = damaged_root / "results/smoke"
    for name in ("fig3", "fig3-runs", "table1"):
        (folder / f"{name}.parquet").unlink()
    for name in ("fig3-layers", "mine", "mine-overlap", "mine-2"):
        shutil.copy(folder / "odd & <odd>.parquet", folder / f"{name}.parquet")
    (folder / "odd & <odd>.parquet").unlink()
    assert command.main(["--root", str(damaged_root), "--out", str(tmp_path / "report.html")]) == FAILED
    assert capsys.readouterr().err == (
        f"raysslprune: {damaged_root} has no results of the package's sweeps; "
        "to report on your own sweeps: "
        f"raysslprune report mine.py mine-2.py --root {damaged_root}\n"
    )


def test_parts_of_a_sweep_without_results_are_named(
    damaged_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = damaged_root / "results/smoke"
    for end in ("", "-runs"):
        (folder / f"fig3{end}.parquet").rename(folder / f"fig3-only-level-eq-1{end}.parquet")
    assert command.main(["fig3", "--root", str(damaged_root), "--out", str(tmp_path / "report.html")]) == FAILED
    assert capsys.readouterr().err == (
        f"raysslprune: {damaged_root} has no results of fig3, only of parts, which reports don't have: "
        "fig3-only-level-eq-1 (smoke); to make them, run: python -m raysslprune.sweep fig3 --root "
        f"{damaged_root}\n"
    )


def test_the_whole_path_of_the_page_is_printed(
    reported: Roots, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert command.main(["table1", "--root", str(reported.root)]) == 0
    assert capsys.readouterr().out == f"{tmp_path}/report.html\n"


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["fig33"], USAGE, "there is no sweep 'fig33'; did you mean fig3? Known: criteria, fig1"),
        (
            ["fig5"],
            FAILED,
            "{root} has no results of fig5; to make them, run: python -m raysslprune.sweep fig5 --root {root}",
        ),
        (
            ["fig5", "--scale", "paper"],
            FAILED,
            "{root} has no results of fig5 at scale paper; to make them, run: python -m raysslprune.sweep fig5 "
            "--scale p",
        ),
        (
            ["--scale", "laptop"],
            FAILED,
            "{root} has no results at scale laptop; this makes some: python -m raysslprune.sweep fig3 --root {root}",
        ),
        (["fig3", "--scale", "tiny"], USAGE, "argument --scale: there is no scale 'tiny'"),
        (["fig3", "elsewhere/fig3.py"], USAGE, "two sweeps have the same name: fig3, elsewhere/fig3.py"),
        (["--root", "{folder}/nowhere"], FAILED, "{folder}/nowhere has no results; this makes some: python -m "),
        (["--root", "{folder}"], FAILED, "{folder} contains other files but no raysslprune.json"),
        (["--root", "s3://AKIA:very/secret@bucket"], FAILED, "--root must not contain credentials"),
        (["fig3", "--out", "{folder}"], USAGE, "--out must be the name of a file, and '{folder}' is none"),
        (["fig3", "--out", "{folder}/file/report.html"], FAILED, "can't write {folder}/file/report.html: "),
        (["--out", "{folder}/no/r.html"], FAILED, "can't write {folder}/no/r.html: there is no folder {folder}/no"),
    ],
)
def test_what_is_wrong_is_one_sentence(
    arguments: list[str],
    code: int,
    sentence: str,
    reported: Roots,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """And what was there before stays."""
    out, places = tmp_path / "report.html", {"root": reported.root, "folder": tmp_path}
    out.write_text("before")
    (tmp_path / "file").write_text("")
    filled = [argument.format(**places) for argument in arguments]
    with contextlib.suppress(SystemExit):
        found = command.main(["--root", str(reported.root), "--out", str(out), *filled])
        assert found == code
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith(f"raysslprune: {sentence.format(**places)}")
    assert said.err.count("\n") == 1
    assert "secret" not in said.err
    assert out.read_text() == "before"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "report.html"]


def test_a_results_file_that_cannot_be_read(damaged_root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = damaged_root / "results/smoke/fig3.parquet"
    path.write_bytes(b"PAR1")
    assert command.main(["fig3", "--root", str(damaged_root), "--out", str(damaged_root / "report.html")]) == FAILED
    assert capsys.readouterr().err == (f"raysslprune: {path} can't be read; run its sweep again to rebuild it\n")


ALONE = """
import sys
from raysslprune.commands.report import main
assert main(sys.argv[1:]) == 0
assert not {"ray", "torch", "optuna"} & sys.modules.keys()
"""


def test_it_starts_neither_ray_nor_torch(reported: Roots, tmp_path: Path) -> None:
    out = tmp_path / "report.html"
    call = [sys.executable, "-c", ALONE, "fig3", "--root", str(reported.root), "--out", str(out)]
    before = {path: path.stat().st_mtime_ns for path in reported.root.rglob("*")}
    done = subprocess.run(call, capture_output=True, text=True)
    assert (done.returncode, done.stderr, done.stdout) == (0, "", f"{out}\n")
    assert {path: path.stat().st_mtime_ns for path in reported.root.rglob("*")} == before
