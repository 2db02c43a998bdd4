"""The command line: what a person gets to read, whatever was wrong. Nothing is trained here."""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raysslprune import loader, names, plan, progress, results, sweep
from raysslprune.recipes import NETS
from raysslprune.spec import Final, Mask, Step, Train
from raysslprune.store import MASK, WEIGHTS, Store, snapshot_name
from raysslprune.sweepfile import Point

USAGE, FAILED, STOPPED = 2, 1, 130

GOOD = """
from raysslprune.scales import SETTINGS
from raysslprune.spec import Init, Prune, Train
from raysslprune.sweepfile import Claim, Curve, Figure, Point

CURVE = Curve(task="labels", init="winning ticket")
FIGURE = Figure(title="Mine", inits=("winning ticket",), references=(CURVE,))


def step(seed):
    s = SETTINGS["smoke"]
    recipe = s.recipes["labels"]
    return Train(task="labels", data=s.data, arch=s.arch, recipe=recipe, seed=seed, start=Init(seed=seed))


def points(scale, seed):
    yield Point(step=step(seed), task="labels", init="winning ticket", level=0, seed=seed)
"""


NAMED = """
from raysslprune.lottery import imp, random_prune, random_reinit
from raysslprune.scales import SETTINGS
from raysslprune.sweepfile import Curve, Figure, Point

FIGURE = Figure(title="t", inits=("a",), references=(Curve(task="b", init="a"),))


def points(scale, seed):
    s = SETTINGS[scale]
    recipe = s.recipes["labels"]
    for number, (task, data, arch) in enumerate({}):
        chain = imp(task=task, data=data, arch=arch, recipe=recipe, seed=seed, levels=1, keep=0.5, rewind=1200)
        step = random_reinit(chain.masks[1], like=chain.dense, task="labels", recipe=recipe)
        yield Point(step=step, task="b", init="a", level=number, seed=seed, metric="density")
"""
"""A sweep with chains on other (task, data, architecture), whose masks are then trained on labels."""


@dataclass(frozen=True, kw_only=True)
class Called:
    """What a call of the command gave."""

    code: int
    out: str
    err: str


class Cli:
    """Calls the command in this process, in a folder of its own in which all that it writes is seen."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self.capsys = folder, capsys

    def __call__(self, *arguments: str) -> Called:
        self.capsys.readouterr()
        try:
            code: object = sweep.main(arguments)
        except SystemExit as end:  # as the interpreter takes it
            code = end.code
            if code is None or not isinstance(code, int):
                print(code if code is not None else "", end="", file=sys.stderr)
                code = 0 if code is None else 1
        out, err = self.capsys.readouterr()
        assert isinstance(code, int)
        return Called(code=code, out=out, err=err)

    def files(self) -> dict[str, bytes]:
        """All files and folders around, as they are now."""
        paths = [path for path in self.folder.rglob("*") if not path.is_symlink()]
        return {str(path): path.read_bytes() if path.is_file() else b"" for path in paths}

    def refused(self, *arguments: str, code: int = USAGE) -> str:
        """The one sentence with which a call is refused, before anything is written."""
        before = self.files()
        called = self(*arguments)
        check_refused(called, code)
        assert self.files() == before, "something was written"
        return called.err


def check_refused(called: Called, code: int) -> None:
    assert called.code == code, called
    assert called.out == ""
    assert "Traceback" not in called.err
    assert called.err.startswith("raysslprune: ")
    assert called.err.endswith("\n")
    assert len(called.err.splitlines()) == 1, called.err
    assert "fault in raysslprune" not in called.err, called.err


@pytest.fixture
def cli(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Cli:
    def no_training(run: sweep._Run, *_: object) -> int:
        assert run.schedule.finished, "this call came as far as training"
        return 0

    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(sweep._Run, "train", no_training)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.chdir(tmp_path)
    return Cli(tmp_path, capsys)


def command(*arguments: str, cwd: Path) -> Called:
    """``python -m raysslprune.sweep`` as a user calls it."""
    run = subprocess.run(
        [sys.executable, "-m", "raysslprune.sweep", *arguments], cwd=cwd, capture_output=True, text=True, timeout=60
    )
    return Called(code=run.returncode, out=run.stdout, err=run.stderr)


# ------------------------------------------------------------------ a wrong call


@pytest.mark.parametrize("name", ["fig3x", "Fig3", "fgi3"])
def test_an_unknown_sweep_is_told_the_nearest_and_all(name: str, cli: Cli) -> None:
    sentence = cli.refused(name)
    assert repr(name) in sentence
    assert "did you mean fig3?" in sentence
    assert all(known in sentence for known in sweep.known())


@pytest.mark.parametrize("name", ["", "zzzzzzzz", "../..", "fig3/", "nowhere.py", "a\nb", "a\nb.py", "raysslprune"])
def test_a_sweep_far_from_all_is_refused(name: str, cli: Cli) -> None:
    assert "did you mean" not in cli.refused(name)


def test_a_file_of_ones_own_is_offered_where_its_ending_was_forgotten(cli: Cli) -> None:
    (cli.folder / "bites.py").write_text(GOOD)
    assert "there is no sweep 'bites'; did you mean bites.py?" in cli.refused("bites")


@pytest.mark.parametrize("name", ["fig7.py", "./fig7.py", "table1.py"])
def test_a_file_of_ones_own_does_not_replace_the_results_of_the_packages_sweeps(name: str, cli: Cli) -> None:
    (cli.folder / name).write_text(GOOD)
    stem = Path(name).stem
    assert f"{name} would replace the results of the package's own {stem}; rename the file" in cli.refused(name)


def test_a_file_of_ones_own_is_not_called_all(cli: Cli) -> None:
    (cli.folder / "all.py").write_text(GOOD)
    assert "all.py has the name by which a command knows all sweeps of the package; rename" in cli.refused("all.py")


@pytest.mark.parametrize("name", ["mine-runs.py", "fig3-layers.py"])
def test_a_file_of_ones_own_does_not_replace_what_stands_beside_results(name: str, cli: Cli) -> None:
    (cli.folder / name).write_text(GOOD)
    assert f"{name} ends as tables do that stand beside other results; rename the file" in cli.refused(name)


def test_the_packages_sweeps_may_be_given_by_their_path(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Path(loader.__file__).parents[1] / "sweeps"
    by_path = cli(str(folder / "fig3.py"), "--dry-run")
    assert (by_path.code, by_path.out) == (0, cli("fig3", "--dry-run").out)
    monkeypatch.chdir(folder)
    assert cli("fig3.py", "--dry-run").code == 0


def test_one_unknown_sweep_among_known_ones_is_refused(cli: Cli) -> None:
    assert "'nope'" in cli.refused("fig3", "nope", "--dry-run")


BAD_COUNTS = ["0", "-1", "1.5", "x", "1000000000", "²", "٣", "", " 1", "1 ", "1e3", "0x2", "1001", "+1", "9" * 5000]


@pytest.mark.parametrize("option", ["--seeds", "--workers-per-step"])
@pytest.mark.parametrize("count", BAD_COUNTS, ids=[ascii(text[:12]) for text in BAD_COUNTS])
def test_a_bad_count_is_refused(count: str, option: str, cli: Cli) -> None:
    sentence = cli.refused("fig3", option, count, "--dry-run")
    assert option in sentence
    assert "whole number from 1 to 1000" in sentence


@pytest.mark.parametrize("part", ["2", "1.01", "-0.5", "1/4", "", "nan", "inf", "1e-1", "0x1", "٠", ".", "0.5.5"])
def test_a_bad_part_of_a_gpu_is_refused(part: str, cli: Cli) -> None:
    assert "a number from 0 to 1" in cli.refused("fig3", f"--gpus-per-worker={part}", "--dry-run")


@pytest.mark.parametrize(
    ("arguments", "manner"),
    [
        ([], sweep.Manner()),
        (["--workers-per-step", "4"], sweep.Manner(workers_per_step=4)),
        (["--gpus-per-worker", ".25", "--dashboard"], sweep.Manner(gpus_per_worker=0.25, dashboard=True)),
        (["--scale", "cifar10"], sweep.Manner(gpus_per_worker=1)),
        (["--scale", "paper", "--gpus-per-worker", "0"], sweep.Manner()),
        (["--json-lines", "--curves"], sweep.Manner(json_lines=True, curves=True)),
    ],
)
def test_what_a_training_is_given(
    arguments: list[str], manner: sweep.Manner, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[Any] = []
    monkeypatch.setattr(sweep, "make", lambda *what: given.append(what[-1]) or 0)
    cli("fig3", *arguments)
    assert given == [manner]


def test_curves_want_a_folder(cli: Cli) -> None:
    assert "--curves wants a root that is a folder" in cli.refused("fig3", "--curves", "--root", "mock:///a/b")


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
        for word in ("--scale", "--seeds", "--root", "--dry-run", *sweep.known()):
            assert word in called.out


# ------------------------------------------------------------------ a wrong root


def test_a_root_that_is_a_file_is_refused(cli: Cli) -> None:
    (cli.folder / "file").write_text("mine")
    for more in ([], ["--dry-run"]):
        assert "file is a file" in cli.refused("fig3", "--root", str(cli.folder / "file"), *more, code=FAILED)
    assert "file/below" in cli.refused("fig3", "--root", "file/below", code=FAILED)


def test_a_root_with_another_projects_files_is_refused(cli: Cli) -> None:
    (cli.folder / "thesis").mkdir()
    (cli.folder / "thesis" / "main.tex").write_text("mine")
    for more in ([], ["--dry-run"]):
        assert "holds other files" in cli.refused("fig3", "--root", "thesis", *more, code=FAILED)


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs /proc, where not even root can make a folder")
def test_a_root_that_cannot_be_made_is_refused(cli: Cli) -> None:
    assert "/proc/raysslprune" in cli.refused("fig3", "--root", "/proc/raysslprune", code=FAILED)


@pytest.mark.parametrize("root", ["foo://bucket/runs", "http://example.org/runs", "s3:///x"])
def test_a_root_at_an_unknown_address_is_refused(root: str, cli: Cli) -> None:
    assert root in cli.refused("fig3", "--root", root, "--dry-run", code=FAILED)


def test_a_root_of_another_version_is_refused(cli: Cli) -> None:
    (cli.folder / "runs").mkdir()
    (cli.folder / "runs" / "raysslprune.json").write_text('{"raysslprune": 99}')
    assert "another version" in cli.refused("fig3", code=FAILED)


# ------------------------------------------------------------------ a wrong sweep file

FIGURE = GOOD.partition("def points")[0]
LISTING = """
from raysslprune.sweepfile import Listing

FIGURE = Listing(title="Mine", columns=('a', 'b'))
"""
ROWS = {
    "nothing": "None",
    "no row": "[]",
    "numbers": "[1, 2]",
    "text": "'ab'",
    "rows of text": "['ab', 'cd']",
    "rows in lists": "[['a', 1]]",
    "a row too short": "[('a', 1), ('a',)]",
    "a row too long": "[('a', 1), ('a', 1, 2)]",
    "a row of the rows": "(('a', 1), 2)",
    "a cell that is None": "[('a', None)]",
    "a cell that is a list": "[('a', [1])]",
    "a cell that is a truth": "[('a', True)]",
    "words and numbers": "[('a', 1), ('a', 'b')]",
}
"""What rows(scale) may give that is no table of two columns."""
CLAIM = "Claim(says='x', source='y', higher=CURVE, lower=CURVE, relation='above')"
RAISES = {
    "raises at import": "x = 1\nraise RuntimeError('the reason\\nin two lines')",
    "raises in points": f"{FIGURE}\ndef points(scale, seed):\n    raise RuntimeError('the reason')",
    "raises midway": GOOD + "    raise RuntimeError('the reason')",
    "raises in what it calls": FIGURE + "\ndef points(scale, seed):\n    return [step(seed).seed.nothing]",
    "does not know the scale": FIGURE + "\ndef points(scale, seed):\n    return {'cifar': []}[scale]",
    "imports what is missing": "import no_such_module_anywhere",
    "imports what is missing from here": "from raysslprune.spec import Nonsense",
    "makes a recipe that can't be": "from raysslprune.spec import Recipe\nRecipe(samples=0, batch=64, lr=0.1)",
    "asserts": "assert 1 == 2",
    "raises in claims": GOOD + "\ndef claims(scale):\n    raise RuntimeError('the reason')",
    "raises in claims midway": GOOD + f"\ndef claims(scale):\n    yield {CLAIM}\n    raise RuntimeError('the reason')",
    "has claims that do not know the scale": GOOD + "\ndef claims(scale):\n    return {'cifar': []}[scale]",
    "raises in rows": LISTING + "\ndef rows(scale):\n    raise RuntimeError('the reason')",
    "raises in rows midway": LISTING + "\ndef rows(scale):\n    yield 'a', 1\n    raise RuntimeError('the reason')",
    "has rows that do not know the scale": LISTING + "\ndef rows(scale):\n    return {'cifar': []}[scale]",
    "has a listing of nothing": LISTING.replace("('a', 'b')", "()"),
    "has a syntax error": "x = 1\ndef points(:\n    pass",
    "is indented badly": "x = 1\n  y = 2",
}
LACKS = {
    "is empty": "",
    "lacks points": FIGURE,
    "lacks FIGURE": GOOD.replace("FIGURE =", "DRAWING ="),
    "has a FIGURE of another type": GOOD + "\nFIGURE = {'title': 'x'}",
    "has points that is no function": GOOD + "\npoints = [1]",
    "has points of no argument": FIGURE + "\ndef points():\n    return []",
    "has CLAIMS in a list": GOOD + "\nCLAIMS = []",
    "has CLAIMS of another type": GOOD + "\nCLAIMS = ('so',)",
    "has claims of another type": GOOD + "\nclaims = ()",
    "has claims of no argument": GOOD + "\ndef claims():\n    return []",
    "has claims that give nothing": GOOD + "\ndef claims(scale):\n    pass",
    "has claims that give one": GOOD + f"\ndef claims(scale):\n    return {CLAIM}",
    "has claims that give text": GOOD + "\ndef claims(scale):\n    return 'so'",
    "has claims that give a claim and a number": GOOD + f"\ndef claims(scale):\n    return [{CLAIM}, 1]",
    "has claims on a curve of no points": GOOD
    + f"\ndef claims(scale):\n    yield {CLAIM.replace('lower=CURVE', 'lower=Curve(task=scale, init=scale)')}",
    "has claims twice": GOOD + "\nCLAIMS = ()\ndef claims(scale):\n    return []",
    "has a claim on no curve": GOOD + f"\ndef claims(scale):\n    yield {CLAIM.replace('lower=CURVE', 'lower=None')}",
    "has a reference that is no curve": GOOD.replace("references=(CURVE,)", "references=('labels',)"),
    "has a title that is no text": GOOD.replace('"Mine"', "None"),
    "lacks rows": LISTING,
    "has rows that is no function": LISTING + "\nrows = [('a', 1)]",
    "has rows of no argument": LISTING + "\ndef rows():\n    return [('a', 1)]",
    "has columns that are a number": LISTING.replace("('a', 'b')", "2"),
    "has no columns": LISTING.replace("('a', 'b')", "()") + "\ndef rows(scale):\n    return [()]",
    "gives no points": FIGURE + "\ndef points(scale, seed):\n    return []",
    "gives nothing": FIGURE + "\ndef points(scale, seed):\n    pass",
    "gives one point, not several": FIGURE + "\ndef points(scale, seed):\n    return next(good(scale, seed))",
    "gives numbers": FIGURE + "\ndef points(scale, seed):\n    return [1, 2]",
    "gives text": FIGURE + "\ndef points(scale, seed):\n    return 'points'",
    "gives steps": FIGURE + "\ndef points(scale, seed):\n    return [step(seed)]",
    "gives a point and a number": GOOD + "    yield 1",
}
POINT = FIGURE + "\ndef points(scale, seed):\n    yield Point(step={}, task='a', init='b', level={}, seed={})"
WRONG_POINTS = {
    "a point of no step": POINT.format("None", 0, 0),
    "a point of a mask": POINT.format("Prune(of=step(0), keep=0.5)", 0, 0),
    "a point at level one": POINT.format("step(0)", "'one'", 0),
    "a point of seed None": POINT.format("step(0)", 0, None),
}
ENDS = {
    "ends": "import sys\nsys.exit()",
    "ends well": "import sys\nsys.exit(0)",
    "ends with a word": "import sys\nsys.exit('bye')",
    "ends badly": "raise SystemExit(3)",
    "ends in points": f"{FIGURE}\ndef points(scale, seed):\n    raise SystemExit",
    "ends in claims": f"{GOOD}\ndef claims(scale):\n    raise SystemExit",
    "ends in rows": f"{LISTING}\ndef rows(scale):\n    raise SystemExit",
}


def refuse_file(cli: Cli, source: str) -> str:
    path = cli.folder / "mine.py"
    path.write_text(source)
    sentence = cli.refused(str(path), "--dry-run")
    assert str(path) in sentence
    assert cli.refused(str(path)) == sentence
    return sentence


def test_a_long_value_is_shortened_and_a_misspelt_recipe_is_named_with_the_known_ones(cli: Cli) -> None:
    chain = POINT.replace("step={}", "step=step(0)").format(0, 0).replace("step=step(0)", "step=[step(0)] * 9")
    assert len(refuse_file(cli, chain)) < 300
    sentence = refuse_file(cli, GOOD.replace('recipes["labels"]', 'recipes["label"]'))
    assert "there is no 'label' here, only labels, rotnet, " in sentence


@pytest.mark.parametrize("what", LACKS)
def test_a_sweep_file_that_lacks_something_is_refused(what: str, cli: Cli) -> None:
    refuse_file(cli, LACKS[what])


@pytest.mark.parametrize("what", ROWS)
def test_rows_that_are_no_table_are_refused(what: str, cli: Cli) -> None:
    sentence = refuse_file(cli, f"{LISTING}\ndef rows(scale):\n    return {ROWS[what]}")
    assert ("rows in " if what == "nothing" else "rows(scale) in ") in sentence


def test_claims_and_rows_that_are_missing_or_wrong_are_named(cli: Cli) -> None:
    for what, words in (
        ("lacks rows", "needs a function rows(scale) that gives tuples"),
        ("has rows that is no function", "needs a function rows(scale) that gives tuples"),
        ("has claims of another type", "needs a function claims(scale) that gives"),
        ("has claims that give text", "claims(scale) in "),
        ("has claims that give a claim and a number", "claims(scale) in "),
        ("has claims on a curve of no points", "names the curve 'laptop laptop', which none of its points is on"),
        ("has claims twice", "has both CLAIMS and claims(scale)"),
        ("has claims that give nothing", "mine.py gave nothing: does it yield, or return a list?"),
        ("gives nothing", "mine.py gave nothing: does it yield, or return a list?"),
        (
            "has columns that are a number",
            "columns of Listing is a tuple, each of printable text of at most 200 characters, not 2",
        ),
        ("has no columns", "a listing needs columns"),
    ):
        assert words in refuse_file(cli, LACKS[what])
    for what, words in (
        ("no row", "must give one tuple or more, each of 2"),
        ("rows of text", "must give one tuple or more, each of 2"),
        ("a row too short", "must give one tuple or more, each of 2"),
        ("words and numbers", "words alone or numbers alone in column 'b'"),
    ):
        assert words in refuse_file(cli, f"{LISTING}\ndef rows(scale):\n    return {ROWS[what]}")


def test_claims_may_depend_on_the_scale(cli: Cli) -> None:
    more = f"\ndef claims(scale):\n    return [{CLAIM}] if scale == 'smoke' else []\n"
    (cli.folder / "mine.py").write_text(GOOD + more)
    name = str(cli.folder / "mine.py")
    assert [len(sweep.load(name, scale, 1).claims) for scale in ("smoke", "laptop")] == [1, 0]
    (cli.folder / "mine.py").write_text(GOOD)
    assert sweep.load(name, "smoke", 1).claims == ()


@pytest.mark.parametrize("what", RAISES)
def test_a_sweep_file_that_raises_is_refused_with_its_line(what: str, cli: Cli) -> None:
    sentence = refuse_file(cli, RAISES[what])
    found = re.search(r"mine\.py, line (\d+): \w+Error\b", sentence)
    assert found, sentence
    lines = RAISES[what].splitlines()
    expected = next((n for n, line in enumerate(lines, 1) if "Error" in line or "nothing" in line), None)
    if expected:
        assert int(found.group(1)) == expected
    if "the reason" in RAISES[what]:
        assert "RuntimeError: the reason" in sentence


@pytest.mark.parametrize("what", WRONG_POINTS)
def test_a_sweep_file_with_a_wrong_point_is_refused(what: str, cli: Cli) -> None:
    """Before anything is trained, not when the table is made."""
    refuse_file(cli, WRONG_POINTS[what])


@pytest.mark.parametrize("what", ENDS)
def test_a_sweep_file_that_ends_the_process_is_refused(what: str, cli: Cli) -> None:
    refuse_file(cli, ENDS[what])


def test_a_sweep_file_given_relative_to_here_is_refused_with_its_line_too(cli: Cli) -> None:
    (cli.folder / "mine.py").write_text("x = 1\nraise RuntimeError('the reason')\n")
    for name in ("mine.py", "./mine.py"):
        assert re.search(r"mine\.py, line 2: RuntimeError: the reason", cli.refused(name))


@pytest.mark.parametrize("data", [b"\x00\x01\x02", bytes(range(256)), b"\xff\xfe\xfa", b"x = '\xe9'", b"\x7fELF"])
def test_binary_garbage_is_refused(data: bytes, cli: Cli) -> None:
    (cli.folder / "mine.py").write_bytes(data)
    assert "mine.py" in cli.refused("mine.py", "--dry-run")


def test_a_folder_is_no_sweep_file(cli: Cli) -> None:
    (cli.folder / "folder.py").mkdir()
    for name in ("folder.py", f"{cli.folder}", "./folder.py"):
        assert name in cli.refused(name, "--dry-run")


def test_a_sweep_file_of_another_name_is_taken_or_refused(cli: Cli) -> None:
    (cli.folder / "mine.txt").write_text(GOOD)
    called = cli("./mine.txt", "--dry-run")
    if called.code:
        check_refused(called, USAGE)


def test_ctrl_c_in_a_sweep_file(cli: Cli) -> None:
    (cli.folder / "mine.py").write_text("raise KeyboardInterrupt")
    assert "stopped" in cli.refused("mine.py", code=STOPPED)


DATACLASS = """
from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Grid:
    levels: int
"""


@pytest.mark.parametrize("more", ["", DATACLASS], ids=["plain", "with a dataclass"])
def test_a_good_sweep_file_is_taken(more: str, cli: Cli) -> None:
    (cli.folder / "mine.py").write_text(more + GOOD)
    for name in ("mine.py", str(cli.folder / "mine.py")):
        called = cli(name, "--dry-run", "--seeds", "3")
        assert (called.code, called.err) == (0, "")
        assert rows(called)["points"] == "3"


# ------------------------------------------------------------------ a dry run


SEARCHES = ": all candidates are counted; Optuna trains "


def rows(called: Called) -> dict[str, str]:
    """What a dry run prints: a name and what is said of it, each line; without what it says of searches."""
    lines = [line.strip() for line in called.out.splitlines() if line.strip() and SEARCHES not in line]
    pairs = [re.split(r"\s{2,}", line, maxsplit=1) for line in lines]
    assert all(len(pair) == 2 for pair in pairs), called.out
    return dict(pairs)


def commit(store: Store, steps: Iterable[Step], graph: plan.Plan, speed: float = 1000.0) -> None:
    """Put made-up results of the steps into the store."""
    wanted = {job.id: job.snapshots for job in graph.jobs.values()}
    for number, step in enumerate(steps):
        facts: dict[str, Any] = {"seconds": 1.0, "images_per_second": speed, "begun": 1e9, "host": "h", "device": "cpu"}
        facts["versions"] = {"raysslprune": "0", "torch": "2", "numpy": "2", "python": "3"}
        metrics = {"top1": 90.0 + number / 7, "density": 0.5, "collapsed_layers": 0.0}
        if isinstance(step, Mask):
            metrics["density_in_scope"] = 0.5
        names = [WEIGHTS, *map(snapshot_name, wanted[step.id])] if isinstance(step, Train) else [MASK]
        store.commit(step, {name: step.id.encode() for name in names}, metrics, facts)


def smoke(seeds: int = 1) -> plan.Plan:
    return plan.make(sweep.load("fig3", "smoke", seeds).points)


def steps_of(graph: plan.Plan) -> list[Step]:
    return [step for job in graph.jobs.values() for step in (job.train, *job.masks)]


LEVELS = (3, 7, 10, 14, 18, 21, 24)
"""Of laptop."""


def figure_3_on_a_laptop() -> tuple[int, int, int, int]:
    """Points, trainings, masks, and trainings where nothing is shared, of one seed of Figure 3, from what it is.

    Chains on labels, RotNet and Exemplar; each mask that is drawn is trained on labels as a winning ticket and from
    new weights; random masks and shuffled label masks from new weights only. And the dense network.
    """
    levels, deepest = len(LEVELS), 24
    points = 1 + levels * (3 + 3 + 2)
    rounds = 3 * deepest  # a chain's mask of level 24 needs its dense round and the 23 after it
    tickets = 1 + 2 * levels  # of labels these are rounds, but for that of the deepest level
    reinit = 5 * levels
    masks = 3 * deepest + 2 * levels
    # Alone: the dense one; a random mask's training; all else at level l needs l rounds before it
    unshared = 1 + levels + (3 + 3 + 1) * (sum(LEVELS) + levels)
    return points, rounds + tickets + reinit, masks, unshared


def test_dry_run_of_figure_3_counts_what_one_counts_by_hand(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    net, before = NETS["conv4"], cli.files()
    points, trainings, masks, unshared = figure_3_on_a_laptop()
    assert (points, trainings, masks, unshared) == (57, 122, 86, 736)
    # 12 epochs of 1,200 images from new weights, 11 from the state after the first
    chain = 12 + 23 * 11
    on_labels = (12 + 24 * 11) + 2 * 7 * 11 + 5 * 7 * 12  # the chain with its last ticket, other tickets, re-inits
    # Exemplar looks at two views of each image
    speed = net.images_per_second
    seconds = trainings * plan.OVERHEAD + 1200 * (on_labels + chain + 2 * chain) / speed
    # The longest path: Exemplar's rounds, then its deepest mask from new weights
    longest = 25 * plan.OVERHEAD + 1200 * (2 * chain + 12) / speed
    # The weights of every training, the states of three dense ones to rewind to; a bit for each weight of a mask
    disk = {"all": 4 * net.parameters * (trainings + 3) + net.prunable // 8 * masks}
    # Nothing starts from the end of another training
    disk["needed"] = 4 * net.parameters * 3 + net.prunable // 8 * masks
    for cores, wall, keep in ((2, seconds / 2, None), (1000, longest, "all"), (2, seconds / 2, "needed")):
        monkeypatch.setattr(progress, "cores", lambda cores=cores: cores)
        called = cli("fig3", "--dry-run", *(["--keep", keep] if keep else []))
        assert (called.code, called.err) == (0, "")
        assert rows(called) == {
            "root": f"{cli.folder}/runs/",
            "points": f"{points}",
            "unique steps": f"{trainings + masks} ({trainings} trainings, {masks} masks)",
            "done": "0 trainings",
            "will run": f"{trainings} trainings, {masks} masks",
            "without sharing": f"{unshared} trainings",
            "time": f"about {progress.duration(wall + plan.START)} on {cores} cores "
            f"({progress.duration(seconds)} of training)",
            "disk": f"about {progress.size(disk[keep or 'all'])} when all is done",
        }
    assert cli.files() == before, "a dry run writes nothing"


def test_dry_run_says_what_it_guesses(cli: Cli) -> None:
    """A network of one's own has no known speed and no known size."""
    (cli.folder / "mine.py").write_text(
        "from raysslprune.scales import SETTINGS\nfrom raysslprune.spec import Init, Train\n"
        "from raysslprune.sweepfile import Figure, Point\nFIGURE = Figure(title='Mine')\n"
        "def points(scale, seed):\n    labels = SETTINGS[scale].recipes['labels']\n"
        "    for arch in ('conv4', 'own:Net'):\n"
        "        start = Init(seed=seed)\n"
        "        step = Train(task='labels', data='digits', arch=arch, recipe=labels, seed=seed, start=start)\n"
        "        yield Point(step=step, task=arch, init='', level=0, seed=seed)\n"
    )
    said = rows(cli("mine.py", "--dry-run", "--seeds", "1"))
    assert said["time"].endswith("of training); a guess, since own:Net never ran here")
    weights = progress.size(4 * NETS["conv4"].parameters)
    assert said["disk"] == f"about {weights} when all is done; weights of own:Net not counted: their size is not known"


def test_dry_run_of_figure_3_of_the_paper_in_gpu_hours(cli: Cli) -> None:
    """By hand: three seeds, fourteen levels up to 30; ResNet-50 on ImageNet, and ResNet-18 on CIFAR-10.

    On CIFAR-10 there is one more random mask at each level, among the weights that do not vanish of themselves.
    """
    sum_of_levels = 1 + 2 + 3 + 4 + 6 + 8 + 10 + 12 + 15 + 18 + 21 + 24 + 27 + 30
    points = 3 * ((1 + 14 * 8) + (1 + 14 * 9))
    on_labels = 31 + 2 * 14 + 5 * 14, 31 + 2 * 14 + 6 * 14  # the chain with its last ticket, tickets, re-inits
    trainings = 3 * sum(on_labels) + 3 * 4 * 30
    masks = 3 * (3 * 30 + 2 * 14 + 3 * 30 + 3 * 14)
    unshared = 1 + 14 + 7 * (sum_of_levels + 14)
    unshared = 3 * (2 * unshared + 14 * 2)  # a mask without natural zeros needs the dense network
    # Epochs: a chain, and labels; from the dense run's state after three epochs, after one on CIFAR-10
    samples = {
        "labels on imagenet, resnet50": (3 * 129, 1_280_000 * 3 * (90 * 71 + 87 * 58)),
        "rotnet on imagenet, resnet50": (90, 1_280_000 * 3 * (90 + 29 * 87)),
        "exemplar on imagenet, resnet50": (90, 1_280_000 * 3 * (40 + 29 * 37)),
        "labels on cifar10, resnet18-cifar": (3 * 143, 50_000 * 3 * (160 * 85 + 159 * 58)),
        "exemplar on cifar10, resnet18-cifar": (90, 50_000 * 3 * (180 + 29 * 179)),
        "rotnet on cifar10, resnet18-cifar": (90, 50_000 * 3 * (160 + 29 * 159)),
    }
    assert (points, trainings, masks, unshared) == (720, 1_176, 750, 8_364)
    assert sum(trained for trained, _ in samples.values()) == trainings

    called = cli("fig3", "--scale", "paper", "--dry-run")
    assert (called.code, called.err) == (0, "")
    assert [path.name for path in cli.folder.iterdir()] == ["tmp"], "a dry run writes nothing"
    assert "cores" not in called.out
    head, takes, what_for, disk = re.split(r"what it takes|what for|what stays on disk", called.out)
    said = rows(Called(code=0, out=re.sub(r"(?m)^(data| ) .*\n", "", head), err=""))
    assert said == {
        "root": f"{cli.folder}/runs/",
        "points": "720",
        "unique steps": "1,926 (1,176 trainings, 750 masks)",
        "done": "0 trainings",
        "will run": "1,176 trainings, 750 masks",
        "without sharing": "8,364 trainings",
    }
    total, lines = 0.0, re.findall(r"(?m)^(\w+ on .*?)  +([\d,]+) +([\d,.]+) +([\d,]+) +(\w+) +(\S+) +(\S+)", what_for)
    assert {what for what, *_ in lines} == samples.keys()
    for what, trained, millions, speed, source, hours, left in lines:
        of_resnet50 = 4_089_184_256 / 555_422_720 if "cifar" in what else 1
        expected = 938 * of_resnet50 / (2 if what.startswith("exemplar") else 1)
        spent = samples[what][1] / expected / 3600
        total += spent
        assert (trained, source) == (f"{samples[what][0]}", "stated")
        assert (millions, speed) == (f"{samples[what][1] / 1e6:,.1f}", f"{expected:,.0f}")
        assert hours == left == (f"{spent:,.1f}" if spent < 100 else f"{spent:,.0f}")
    assert ["fig3", "720", "1,926", "1,176", "8,364", f"{total:,.0f}", f"{total:,.0f}"] in [
        *map(str.split, takes.splitlines())
    ]
    large, small = 4 * 25_557_032, 4 * 11_173_962
    sizes = (
        3 * (118 * 23_454_912 + 132 * 11_159_232) / 8,
        3 * 3 * (large + small),
        3 * small,  # whose natural zeros others avoid
        3 * ((129 + 60) * large + (143 + 60) * small),
    )
    assert re.search(r"(?m)^fig3 +" + " +".join(map(progress.size, sizes)) + " *$", disk)
    assert "GPU-hours of one A100" in called.out


def test_dry_run_counts_seeds_and_sweeps(cli: Cli) -> None:
    one = rows(cli("fig3", "--dry-run", "--scale", "smoke"))
    three = rows(cli("fig3", "--dry-run", "--scale", "smoke", "--seeds", "3"))
    assert [int(r["points"]) for r in (one, three)] == [17, 51]  # 1 + 2 levels * 8
    assert int(three["will run"].split()[0]) == 3 * int(one["will run"].split()[0])
    assert rows(cli("fig3", "--dry-run", "--scale", "smoke", "--seeds", "100"))["points"] == "1,700"
    assert cli("fig3", "fig3", "--dry-run", "--scale", "smoke").out == cli("fig3", "--dry-run", "--scale", "smoke").out
    (cli.folder / "mine.py").write_text(GOOD)
    both = rows(cli("fig3", "mine.py", "--dry-run", "--scale", "smoke"))
    assert both["points"] == "18"
    assert both["will run"] == one["will run"], "its one training is figure 3's dense one"


ALL = ["fig1", "fig2", "fig3", "fig4", "fig5", "fig6", "fig7", "fig8", "fig9", "fig10", "rewind", "table1"]
"""Every figure and table of the paper, and the rewind study."""


def test_all_are_the_sweeps_of_the_package(cli: Cli) -> None:
    assert sweep.known() == ALL
    called = cli("all", "--dry-run", "--scale", "smoke")
    assert (called.code, called.err) == (0, "")
    for others in (ALL, ["all", "fig3"], ["fig3", "all"], ["all", "all"]):
        assert cli(*others, "--dry-run", "--scale", "smoke").out == called.out
    assert called.out.splitlines()[-1] == f"rewind{SEARCHES}7 in each study"
    assert called.out.count(SEARCHES) == 1
    assert SEARCHES not in cli(*(name for name in ALL if name != "rewind"), "--dry-run", "--scale", "smoke").out
    alone = [int(rows(cli(name, "--dry-run", "--scale", "smoke"))["points"].replace(",", "")) for name in ALL]
    assert int(rows(called)["points"].replace(",", "")) == sum(alone)
    assert all(points > 0 for points in alone[:-1])
    assert alone[-1] == 0, "Table 1 needs no training"


def test_all_at_the_papers_scale_costs_less_together_than_alone(cli: Cli) -> None:
    """A line for each that trains."""
    called = cli("all", "--dry-run", "--scale", "paper", "--seeds", "1")
    assert (called.code, called.err) == (0, "")
    takes = called.out.partition("what it takes")[2].partition("what for")[0]
    lines = {
        line.split()[0]: line.split()[1:] for line in takes.splitlines() if line.count("  ") > 4 and line[0] != " "
    }
    assert list(lines) == [*ALL[:-1], "together"]
    numbers = {name: [float(cell.replace(",", "")) for cell in cells] for name, cells in lines.items()}
    together = numbers.pop("together")
    assert together[0] == sum(points for points, *_ in numbers.values())
    apart = [sum(column) for column in zip(*numbers.values(), strict=True)]
    assert together[3] == apart[3], "without sharing"
    assert all(t < a for t, a in zip(together[1:3] + together[4:], apart[1:3] + apart[4:], strict=True))


def test_dry_run_says_what_is_done_and_what_is_damaged_and_touches_neither(cli: Cli) -> None:
    graph, store = smoke(), Store(str(cli.folder / "runs"))
    store.create()
    jobs = list(graph.jobs.values())
    trained = [jobs[0].train, *jobs[0].masks, jobs[-1].train, *jobs[-1].masks]
    commit(store, trained, graph)
    before = cli.files()
    called = cli("fig3", "--scale", "smoke", "--dry-run")
    assert called.code == 0
    assert rows(called)["done"] == "2 trainings"
    assert rows(called)["will run"].startswith(f"{len(jobs) - 2} trainings, ")
    assert "damaged" not in rows(called)
    others = [job for job in jobs if job not in (jobs[0], jobs[-1])]
    assert {job.train.task for job in (jobs[0], jobs[-1])} == {"labels"}  # measured at 1,000 images/s
    stated = NETS["conv4"].images_per_second
    speeds = {"labels": 1000, "rotnet": stated, "exemplar": stated / 2}
    left = sum(plan.OVERHEAD + job.samples / speeds[job.train.task] for job in others)
    assert f"({progress.duration(left)} of training)" in rows(called)["time"]
    assert cli.files() == before

    (cli.folder / "runs" / "steps" / jobs[0].id / WEIGHTS).write_bytes(b"broken")
    before = cli.files()
    called = cli("fig3", "--scale", "smoke", "--dry-run")
    assert called.code == 0
    assert rows(called)["done"] == "1 training"
    assert rows(called)["damaged"].startswith("1 of the steps")
    assert cli.files() == before


def test_dry_run_when_all_is_done(cli: Cli) -> None:
    graph, store = smoke(), Store(str(cli.folder / "runs"))
    store.create()
    commit(store, steps_of(graph), graph)
    said = rows(cli("fig3", "--scale", "smoke", "--dry-run"))
    assert said["done"] == f"{len(graph.jobs)} trainings"
    assert said["will run"] == "0 trainings, 0 masks"
    assert said["time"].startswith("about 0 s ")


def test_dry_run_is_quick_and_imports_neither_ray_nor_torch(tmp_path: Path) -> None:
    code = """
import sys
from raysslprune import sweep
code = sweep.main(["fig3", "--dry-run"])
print(*sorted({"ray", "torch", "matplotlib", "sklearn", "pyarrow"} & set(sys.modules)), file=sys.stderr)
sys.exit(code)
"""
    run = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert run.returncode == 0
    assert run.stderr == "pyarrow\n"
    assert "without sharing" in run.stdout
    assert list(tmp_path.iterdir()) == []


# ------------------------------------------------------------------ as a process


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
    with open("/dev/full", "w") as full:
        run = subprocess.run(
            [sys.executable, "-m", "raysslprune.sweep", "fig3", "--dry-run"],
            cwd=tmp_path, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60,
        )  # fmt: skip
    check_refused(Called(code=run.returncode, out="", err=run.stderr), FAILED)
    assert "No space left" in run.stderr


# ------------------------------------------------------------------ around the training


@pytest.fixture
def full(cli: Cli) -> Store:
    """A root in which all of figure 3 at scale smoke is done."""
    graph, store = smoke(), Store(str(cli.folder / "runs"))
    store.create()
    commit(store, steps_of(graph), graph)
    return store


def test_views_are_made_again_from_the_store_alone(full: Store, cli: Cli) -> None:
    folder = cli.folder / "runs" / "results" / "smoke"
    names = {"fig3.parquet", "fig3-runs.parquet", "fig3.png", "fig3.pdf"}
    seen = []
    for _ in range(2):
        called = cli("fig3", "--scale", "smoke")
        assert (called.code, called.err) == (0, "")
        assert {path.name for path in folder.iterdir()} == names
        assert all(str(folder / name) in called.out for name in names)
        assert "Claims of the paper" in called.out
        assert "too few seeds" in called.out
        seen.append({path.name: path.read_bytes() for path in folder.iterdir()})
        for path in folder.iterdir():
            path.unlink()
    assert seen[0] == seen[1]


def test_results_of_more_seeds_are_not_replaced_without_a_word(cli: Cli) -> None:
    graph, store = smoke(3), Store(str(cli.folder / "runs"))
    store.create()
    commit(store, steps_of(graph), graph)
    assert cli("fig3", "--scale", "smoke", "--seeds", "3").err == ""
    sentence = "raysslprune: fig3: the results in runs are of 3 seeds, and this is of 1; for all of them: "
    for more in (["--dry-run"], ["--explain", "0"], [], ["--seeds=2"]):
        expected = "" if more == ["--seeds=2"] else f"{sentence}--seeds 3\n"
        assert cli("fig3", "--scale", "smoke", *more).err == expected, more
    assert pq.read_table(cli.folder / "runs/results/smoke/fig3.parquet")["seed"].unique().to_pylist() == [0, 1]


def test_two_files_of_one_name_do_not_replace_each_others_results_without_a_word(cli: Cli) -> None:
    """But a file may be changed, and a point of both is no other's."""
    (cli.folder / "other").mkdir()
    (cli.folder / "other" / "mine.py").write_text(GOOD.replace("seed=seed, start", "seed=seed + 7, start"))
    store = Store(str(cli.folder / "runs"))
    store.create()
    for name in (own := "mine.py", other := "other/mine.py"):
        (cli.folder / own).write_text(GOOD)
        graph = plan.make(sweep.load(str(cli.folder / name), "smoke", 1).points)
        commit(store, steps_of(graph), graph)
    assert [cli(own, "--scale", "smoke").err for _ in range(2)] == ["", ""]
    for more in (["--dry-run"], []):
        called = cli(other, "--scale", "smoke", *more)
        assert called.code == 0
        assert "1 of 1 rows of" in called.err
        assert "results/smoke/mine.parquet are of points that this mine does not have; if another file" in called.err
    assert cli(other, "--scale", "smoke").err == ""


def test_results_that_can_not_be_read_are_made_again(full: Store, cli: Cli) -> None:
    path = cli.folder / "runs/results/smoke/fig3.parquet"
    path.parent.mkdir(parents=True)
    for data in (b"", b"PAR1 and nothing else PAR1", b"x" * 999):
        path.write_bytes(data)
        called = cli("fig3", "--scale", "smoke")
        assert (called.code, called.err) == (0, "")
        assert len(pq.read_table(path)) == 17


ROW_0 = "fig3, row 0: digits, four convolutions, labels, winning ticket, level 0, seed 0"


def test_a_row_is_explained(full: Store, cli: Cli) -> None:
    """The rows are those of the table, counted from 0; a step is found by its id, too."""
    cli("fig3", "--scale", "smoke")
    table = pq.read_table(cli.folder / "runs" / "results" / "smoke" / "fig3.parquet").to_pylist()
    assert len(table) == 17
    before = cli.files()
    for number in (0, 1, 16):
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


@pytest.mark.parametrize("row", ["17", "-1", "", "xyz", "1.0", "0" * 16, "a\nb"], ids=ascii)
def test_a_row_that_is_not_there_is_refused(row: str, full: Store, cli: Cli) -> None:
    sentence = cli.refused("fig3", "--scale", "smoke", f"--explain={row}")
    assert f"fig3 has no row and no step {row!r}; its rows are 0 to 16" in sentence


def test_what_can_not_be_explained_is_refused(cli: Cli) -> None:
    """Before there is anything; of several tables; of a table behind which is nothing."""
    assert "fig3 has no row and no step '0'; it has no rows yet" in cli.refused("fig3", "--explain", "0")
    for several in (("fig3", "fig8"), ("all",), ("table1", "fig3")):
        assert "--explain wants one sweep" in cli.refused(*several, "--explain", "0", "--scale", "smoke")
    assert "nothing behind the rows of table1" in cli.refused("table1", "--explain", "0")
    assert "--explain" in cli.refused("fig3", "--explain")


@pytest.mark.parametrize("keep", ["none", "", "ALL", "need", "1"])
def test_a_bad_choice_of_weights_to_keep_is_told_the_good_ones(keep: str, cli: Cli) -> None:
    sentence = cli.refused("fig3", f"--keep={keep}", "--dry-run")
    assert "--keep" in sentence
    assert "all" in sentence.partition("choose from")[2]
    assert "needed" in sentence.partition("choose from")[2]


def test_weights_that_nobody_starts_from_are_kept_unless_told_not_to(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """Figure 1 judges the ends of its pre-trainings; Figure 6 draws the weights themselves; nobody reads the others."""
    seen: list[plan.Plan] = []
    monkeypatch.setattr(sweep._Run, "train", lambda run, *_: seen.append(run.graph) or 0)
    for more, keep in ([], True), (["--keep", "all"], True), (["--keep", "needed"], False):
        called = cli("fig1", "fig6", "--scale", "smoke", *more)
        assert (called.code, called.err) == (0, "")
        jobs = seen.pop().jobs.values()
        assert {job.keep for job in jobs} == {keep}
        read = {job.id for job in jobs if job.weights}
        judged = {job.train.start.of.id for job in jobs if isinstance(job.train.start, Final)}
        drawn = {point.step.id for point in sweep.load("fig6", "smoke", 1).points}
        assert read == judged | drawn
        assert len(drawn) == 2
        assert len(judged) < len(jobs) / 2


def test_table_1_needs_no_training_and_no_ray(tmp_path: Path) -> None:
    """3 epochs are 3 x 1,280,000 images, 2,500 updates of 1,536, and 3.3% of 90 epochs."""
    code = """
import sys
from raysslprune import sweep
code = sweep.main(["table1", "--scale", "paper"])
print(*sorted({"ray", "torch", "matplotlib", "sklearn", "optuna"} & set(sys.modules)), file=sys.stderr, end="")
sys.exit(code)
"""
    path = tmp_path / "runs" / "results" / "paper" / "table1.parquet"
    seen = []
    for _ in range(2):
        run = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60)
        assert (run.returncode, run.stderr) == (0, "")
        lines = [re.split(r"\s{2,}", line.strip()) for line in run.stdout.splitlines()]
        assert ["network", "task", "epochs", "samples", "updates", "% of training"] in lines
        assert ["ImageNet, ResNet-50", "labels", "3", "3,840,000", "2,500", "3.33"] in lines
        assert ["ImageNet, ResNet-50", "labels:10%-of-images", "30", "3,840,000", "5,000", "15"] in lines
        assert run.stdout.splitlines()[-1] == str(path)
        assert [file.name for file in path.parent.iterdir()] == ["table1.parquet"]
        assert not (tmp_path / "runs" / "logs").exists()
        assert not any((tmp_path / "runs").glob("steps/*"))
        seen.append(path.read_bytes())
    assert seen[0] == seen[1]
    (row,) = [
        row
        for row in pq.read_table(path).to_pylist()
        if (row["network"], row["task"]) == ("ImageNet, ResNet-50", "labels")
    ]
    assert list(row) == ["network", "task", "epochs", "samples", "updates", "% of training"]
    assert (row["epochs"], row["samples"], row["updates"]) == (3, 3_840_000, 2_500)
    assert row["% of training"] == pytest.approx(100 * 3 / 90)


def test_a_listing_of_ones_own_is_printed_as_it_is(cli: Cli) -> None:
    text = "\ndef rows(scale):\n    yield '[bold] ' + scale, 1234.4\n    yield '[/x]', 7\n"
    (cli.folder / "mine.py").write_text(LISTING.replace("'b'", "'[red] b'") + text)
    called = cli("mine.py", "--scale", "smoke")
    assert (called.code, called.err) == (0, "")
    lines = [re.split(r"\s{2,}", line.strip()) for line in called.out.splitlines()]
    assert ["a", "[red] b"] in lines
    assert ["[bold] smoke", "1,234"] in lines
    assert ["[/x]", "7"] in lines


def test_a_root_in_use_is_refused(full: Store, cli: Cli) -> None:
    with full.lock():
        called = cli("fig3", "--scale", "smoke")
        check_refused(called, FAILED)
        assert str(os.getpid()) in called.err
        assert cli("fig3", "--scale", "smoke", "--dry-run").code == 0, "one may look meanwhile"


def test_words_in_brackets_are_printed_as_they_are(cli: Cli) -> None:
    """Rich would take them for markup."""
    claim = "Claim(says='Masks [bold] and [/x] match [1]', source='[a]', higher=CURVE, lower=CURVE, relation='above')"
    text = GOOD.replace("Mine", "Accuracy [top-1] [/]").replace("winning ticket", "ticket [/] [1]")
    text = text.replace('task="labels", init', 'task="[l]abels [/x]", init').replace(
        "level=0,", 'level=0, panel="[red] [/]",'
    )
    (cli.folder / "mine.py").write_text(f"{text}\nCLAIMS = ({claim},)\n")
    loaded = sweep.load(str(cli.folder / "mine.py"), "smoke", 1)
    store, graph = Store(str(cli.folder / "runs")), plan.make(loaded.points)
    store.create()
    commit(store, steps_of(graph), graph)
    called = cli("mine.py", "--scale", "smoke")
    assert (called.code, called.err) == (0, "")
    assert "Claims of the paper" not in called.out, "they are one's own"
    assert "[l]abels [/x]" in called.out.partition("\nClaims\n")[0]
    for words in (
        "Accuracy [top-1] [/]",
        "[red] [/], ticket [/] [1], n = 1",
        "Masks [bold] and [/x] match [1]",
        "([a])",
    ):
        assert words in called.out


@pytest.mark.parametrize("broken", ["draw", "save"])
def test_a_figure_that_cannot_be_drawn_costs_nothing_else(
    broken: str, full: Store, cli: Cli, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever is raised. Table and claims are there before anything is drawn, so that not even a crash costs them."""
    from raysslprune import figures

    folder, before = cli.folder / "runs" / "results" / "smoke", list[str]()

    def fail(*_: Any, **__: Any) -> None:
        before.append(capsys.readouterr().out)
        assert {path.name for path in folder.iterdir()} == {"fig3.parquet", "fig3-runs.parquet"}
        raise RuntimeError("latex could not\nbe found")

    monkeypatch.setattr(figures, broken, fail)
    called = cli("fig3", "table1", "--scale", "smoke")
    assert called.code == FAILED
    (shown,) = before
    assert "Re-training pruned masks" in shown
    assert "Claims of the paper" in shown
    assert str(folder / "fig3.parquet") in called.out
    assert "fig3.png" not in called.out
    assert "table1.parquet" in called.out, "what comes after it is there, too"
    (line,) = called.err.splitlines()
    said = (
        "raysslprune: the figure of fig3 could not be drawn, all else is there: RuntimeError: latex could not be found"
    )
    assert line.startswith(f"{said}; details in ")
    log = Path(line.rpartition(" ")[2])
    assert "Traceback" in log.read_text()
    log.unlink()


def test_failed_steps_are_counted_and_the_rest_is_shown(full: Store, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    lost = list(smoke().jobs.values())[-1]
    (cli.folder / "runs" / "steps" / lost.id / WEIGHTS).write_bytes(b"broken")
    monkeypatch.setattr(sweep._Run, "train", lambda *_: 2)
    called = cli("fig3", "--scale", "smoke")
    assert called.code == FAILED
    first, second = called.err.splitlines()
    assert first.startswith(f"raysslprune: step {lost.id}: ")
    assert "set aside" in first
    assert second.startswith("raysslprune: steps that failed or were skipped: 2")
    assert (cli.folder / "runs" / "results" / "smoke" / "fig3.png").is_file()
    assert len(list((cli.folder / "runs" / "damaged").iterdir())) == 1


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (KeyboardInterrupt(), STOPPED, "every finished step is kept"),
        (OSError(errno.ENOSPC, "No space left on device"), FAILED, "No space left on device"),
    ],
    ids=["Ctrl-C", "disk full"],
)
def test_what_ends_the_training_is_said(
    error: BaseException, code: int, words: str, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> int:
        raise error

    monkeypatch.setattr(sweep._Run, "train", fail)
    called = cli("fig3", "--scale", "smoke")
    check_refused(called, code)
    assert words in called.err
    assert "the same command goes on" in called.err


def test_our_own_fault_is_one_sentence_and_a_log(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> int:
        raise ZeroDivisionError("ours\nalone")

    monkeypatch.setattr(sweep._Run, "train", fail)
    called = cli("fig3", "--scale", "smoke")
    assert called.code == FAILED
    (line,) = called.err.splitlines()
    assert "fault in raysslprune itself: ZeroDivisionError: ours alone" in line
    (log,) = (cli.folder / "tmp").iterdir()
    assert str(log) in line
    assert "Traceback" in log.read_text()


def test_seeds_are_0_to_n_minus_1() -> None:
    points: tuple[Point, ...] = sweep.load("fig3", "smoke", 3).points
    assert {point.seed for point in points} == {0, 1, 2}
    assert {point.step.seed for point in points} == {0, 1, 2}
    assert {point.seed for point in sweep.load("fig3", "smoke", 2).points} == {0, 1}


# ------------------------------------------------------------------ progress


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-5, "0 s"),
        (0, "0 s"),
        (0.4, "0 s"),
        (41.6, "42 s"),
        (59.4, "59 s"),
        (59.6, "1:00 min"),
        (187, "3:07 min"),
        (3599.4, "59:59 min"),
        (3599.6, "1:00 h"),
        (8100, "2:15 h"),
        (47 * 3600 + 59 * 60, "47:59 h"),
        (48 * 3600, "2.0 days"),
        (4.2 * 86400, "4.2 days"),
        (400 * 86400, "400.0 days"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert progress.duration(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1, "1 B"),
        (999, "999 B"),
        (1000, "1 kB"),
        (340_000, "340 kB"),
        (2_900_000, "2.9 MB"),
        (999_600, "1 MB"),
        (999_999_999, "1 GB"),
        (11_719_372, "11.7 MB"),
        (1.2e12, "1.2 TB"),
    ],
)
def test_sizes(count: float, text: str) -> None:
    assert progress.size(count) == text


@given(st.integers(0, 9 * 10**14))
def test_sizes_are_plain_numbers_near_the_truth(count: int) -> None:
    number, unit = progress.size(count).split()
    assert re.fullmatch(r"\d+(\.\d+)?", number)
    shown = float(number) * {"B": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12}[unit]
    assert abs(shown - count) <= 0.006 * count
    assert float(number) < 1000


def test_output_goes_to_the_log_and_comes_back(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "log"
    descriptors = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else 0
    for word in ("first", "second"):
        os.write(1, b"before\n")
        with progress.output_to(str(log)) as terminal:
            os.write(1, f"{word} to 1\n".encode())  # as a library in C prints
            os.write(2, f"{word} to 2\n".encode())
            subprocess.run(["sh", "-c", f"echo {word} of a child; echo {word} of a child >&2"], check=True)
            terminal.write("for the person\n")
            terminal.flush()
        os.write(1, b"after\n")
        os.write(2, b"after\n")
    out, err = capfd.readouterr()
    assert out == "before\nafter\n" * 2
    assert err == "for the person\nafter\n" * 2
    expected = [f"{w} {rest}" for w in ("first", "second") for rest in ("to 1", "to 2", "of a child", "of a child")]
    assert log.read_text().splitlines() == expected
    if descriptors:
        assert len(os.listdir("/proc/self/fd")) == descriptors


def test_output_comes_back_after_an_error_and_print_goes_along(tmp_path: Path) -> None:
    code = """
import sys
from raysslprune.progress import output_to
print("out before"); print("err before", file=sys.stderr)
try:
    with output_to(sys.argv[1]) as terminal:
        print("out within"); print("err within", file=sys.stderr)
        terminal.write("for the person\\n")
        raise RuntimeError
except RuntimeError:
    print("out after"); print("err after", file=sys.stderr)
"""
    run = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "log")], capture_output=True, text=True, check=True
    )
    assert run.stdout == "out before\nout after\n"
    assert run.stderr == "err before\nfor the person\nerr after\n"
    assert sorted((tmp_path / "log").read_text().splitlines()) == ["err within", "out within"]


ONE_SEED = """
from raysslprune.scales import SETTINGS
from raysslprune.spec import Init, Train
from raysslprune.sweepfile import Curve, Figure, Point

FIGURE = Figure(title="t", inits=("a",), references=(Curve(task="b", init="a"),))


def points(scale, seed):
    s = SETTINGS[scale]
    step = Train(task="labels", data=s.data, arch=s.arch, recipe=s.recipes["labels"], seed={step}, start=Init(seed=0))
    yield Point(step=step, task="b", init="a", level=0, seed={point}, metric="{metric}")
"""


def own(cli: Cli, step: str = "seed", point: str = "seed", metric: str = "top1") -> str:
    text = ONE_SEED.replace("{step}", step).replace("{point}", point).replace("{metric}", metric)
    (cli.folder / "mine.py").write_text(text)
    return "mine.py"


def test_a_sweep_that_ignores_its_seed_is_refused(cli: Cli) -> None:
    """Else the table would say ± 0.0, n = 3."""
    assert "gives two points for b a, level 0, seed 0" in cli.refused(own(cli, "0", "0"), "--seeds", "3")
    assert "the same training for every seed" in cli.refused(own(cli, "0", "seed"), "--seeds", "3")
    assert cli(own(cli), "--seeds", "3", "--dry-run").code == 0


def test_two_sweeps_of_one_name_are_refused(cli: Cli) -> None:
    (cli.folder / "other").mkdir()
    (cli.folder / "other" / "mine.py").write_text((cli.folder / own(cli)).read_text())
    assert "same files: mine.py, other/mine.py" in cli.refused("mine.py", "other/mine.py", "--dry-run")


def test_an_unknown_metric_is_named_with_the_known_ones(cli: Cli) -> None:
    sentence = cli.refused(own(cli, metric="top"), "--dry-run")
    assert "trainings on labels have no metric 'top' on digits; did you mean 'top1'? Known: top1, density" in sentence
    assert cli.refused("mine.py") == sentence


def test_a_metric_that_a_task_of_ones_own_does_not_have_costs_no_other_row(cli: Cli) -> None:
    text = (cli.folder / own(cli, metric="top5")).read_text().replace('task="labels"', 'task="theirs:Jigsaw"')
    more = text.splitlines()[-1].replace('"top5"', '"top1"').replace("level=0", "level=1")
    (cli.folder / "mine.py").write_text(f"{text}\n{more}\n")
    loaded = sweep.load(str(cli.folder / "mine.py"), "smoke", 1)
    store, graph = Store(str(cli.folder / "runs")), plan.make(loaded.points)
    store.create()
    commit(store, steps_of(graph), graph)
    called = cli("mine.py", "--scale", "smoke")
    assert called.code == FAILED
    assert "theirs:Jigsaw have no metric 'top5', only " in called.err
    assert "top1; the table is without them" in called.err
    assert [row["level"] for row in results.load("mine", str(cli.folder / "runs"), "smoke").to_pylist()] == [1]
    assert "level 1" in cli("mine.py", "--scale", "smoke", "--explain", "0").out, "rows are those of the table"


def test_a_root_whose_first_start_was_killed_is_still_ours(cli: Cli) -> None:
    root = cli.folder / "runs"
    root.mkdir()
    (root / "raysslprune.json.0a1b.part").write_text("")
    (root / "probe-0a1b").write_text("")
    assert cli("fig3", "--dry-run").code == 0
    (root / "thesis.tex").write_text("")
    assert "holds other files" in cli.refused("fig3", "--dry-run", code=FAILED)


def test_an_empty_root_is_refused(cli: Cli) -> None:
    assert "--root wants the name of a folder" in cli.refused("fig3", "--dry-run", "--root", "", code=FAILED)


def test_names_that_no_point_has_are_refused_before_anything_trains(cli: Cli) -> None:
    name = own(cli)
    good = (cli.folder / name).read_text()
    (cli.folder / name).write_text(good.replace('init="a", level', 'init="aa", level'))
    assert "points with init 'aa', which is none of its figure's inits (a)" in cli.refused(name, "--dry-run")
    claim = 'from raysslprune.sweepfile import Claim\nA, X = Curve(task="b", init="a"), Curve(task="x", init="a")\n'
    claim += 'CLAIMS = (Claim(says="s", source="s", higher=A, lower=X, relation="above"),)\n'
    (cli.folder / name).write_text(good + claim)
    assert "names the curve 'x a', which none of its points is on" in cli.refused(name, "--dry-run")


def test_options_can_not_be_abbreviated(cli: Cli) -> None:
    """--seed 3 would be taken for three seeds."""
    cli.refused("fig3", "--dry-run", "--seed", "3")


# ------------------------------------------------------------------ names


@pytest.mark.parametrize(
    ("kind", "table", "name", "near"),
    [
        ("task", names.TASKS, "rotnt", "rotnet"),
        ("task", names.TASKS, "Labels", "labels"),
        ("architecture", names.ARCHITECTURES, "resnet-50", "resnet50"),
        ("architecture", names.ARCHITECTURES, "vgg-19", "vgg19"),
        ("data set", names.DATASETS, "cifar", "cifar10"),
        ("data set", names.DATASETS, "ImageNet", "imagenet"),
        ("data set", names.DATASETS, "zzzzzz", None),
        ("task", names.TASKS, "", None),
        ("task", names.TASKS, "labels ", "labels"),
        ("task", names.TASKS, "a.module", None),
        ("task", names.TASKS, "a:b:c", None),
        ("task", names.TASKS, ":x", None),
        ("task", names.TASKS, "x:", None),
        ("task", names.TASKS, "../x:y", None),
    ],
)
def test_an_unknown_name_is_told_the_nearest_and_all(
    kind: str, table: dict[str, str], name: str, near: str | None
) -> None:
    with pytest.raises(ValueError, match=re.escape(f"{kind} {name!r} is not known; ")) as caught:
        names.check(kind, table, name)
    sentence = str(caught.value)
    assert ("did you mean" in sentence) == (near is not None)
    if near:
        assert f"did you mean {near!r}? " in sentence
    assert sentence.endswith(f"Known: {', '.join(table)}; or module:attribute")
    with pytest.raises(ValueError, match="is not known"):
        names.resolve(kind, table, name)


def test_known_names_and_those_of_a_users_modules_are_taken() -> None:
    for kind, table in (("task", names.TASKS), ("architecture", names.ARCHITECTURES), ("data set", names.DATASETS)):
        for name in (*table, "mine:Task", "a_package.module:Name", "b:_c"):
            names.check(kind, table, name)


def test_a_name_is_resolved_to_the_code_behind_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from raysslprune.data.digits import Digits
    from raysslprune.tasks.npid import NPID

    assert names.resolve("task", names.TASKS, "npid") is NPID
    assert names.resolve("data set", names.DATASETS, "digits") is Digits
    for table in (names.TASKS, names.DATASETS):
        for name in table:
            assert callable(names.resolve("name", table, name))
    (tmp_path / "a_users_own.py").write_text("class Mine: ...\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert names.resolve("task", names.TASKS, "a_users_own:Mine").__name__ == "Mine"
    for name, why in (("a_users_own:Yours", "no attribute 'Yours'"), ("nowhere_at_all:X", "No module named")):
        with pytest.raises(ValueError, match=f"task {name!r} can't be imported here: .*{why}"):
            names.resolve("task", names.TASKS, name)
    with pytest.raises(ModuleNotFoundError):  # our own: no user's mistake
        names.resolve("task", {"broken": "nowhere_at_all:X"}, "broken")


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("digits", ("digits", "", "")),
        ("imagenet:10%-of-images", ("imagenet", "", "10%-of-images")),
        ("imagenet:1%-of-classes", ("imagenet", "", "1%-of-classes")),
        ("folder/pets", ("folder", "pets", "")),
        ("folder/pets/small:99%-of-images", ("folder", "pets/small", "99%-of-images")),
        ("folder/odd:name", ("folder", "odd:name", "")),
        ("mine:Source", ("mine:Source", "", "")),
        ("a.mine:Source/x", ("a.mine:Source", "x", "")),
        ("mine:Source:10%-of-classes", ("mine:Source", "", "10%-of-classes")),
        ("mine:Source/x/y:10%-of-images", ("mine:Source", "x/y", "10%-of-images")),
        ("cifar10:10%-of-images:20%-of-classes", ("cifar10", "", "10%-of-images:20%-of-classes")),
    ],
)
def test_the_parts_of_a_data_sets_name(text: str, parts: tuple[str, str, str]) -> None:
    assert names.data_parts(text) == parts


@pytest.mark.parametrize(
    "subset", ["10%", "0%-of-images", "100%-of-images", "05%-of-images", "10%-of-pixels", "10%-of-images ", "1.5%-of-x"]
)
def test_a_subset_of_another_form_is_refused(subset: str) -> None:
    with pytest.raises(ValueError, match=re.escape(f"subset {subset!r} is not of the form '10%-of-images' or")):
        names.data_parts(f"imagenet:{subset}")


WRONG_NAMES = {
    "task": (("lables", "digits", "conv4"), "task 'lables' is not known; did you mean 'labels'?"),
    "architecture": (("labels", "digits", "conv-4"), "architecture 'conv-4' is not known; did you mean 'conv4'?"),
    "data set": (("labels", "digit", "conv4"), "data set 'digit' is not known; did you mean 'digits'?"),
    "data set with a part": (("labels", "folders/pets", "conv4"), "data set 'folders' is not known; did you mean"),
    "subset": (("labels", "digits:10%-of-pixels", "conv4"), "subset '10%-of-pixels' is not of the form"),
    "only behind a mask": (("rotnett", "digits", "conv4"), "task 'rotnett' is not known; did you mean 'rotnet'?"),
}


@pytest.mark.parametrize("what", WRONG_NAMES)
def test_a_sweep_file_with_a_wrong_name_is_refused(what: str, cli: Cli) -> None:
    wrong, sentence = WRONG_NAMES[what]
    assert sentence in refuse_file(cli, NAMED.replace("{}", f"[('labels', 'digits', 'conv4'), {wrong}]"))


WITH_OPTIONS = NAMED.replace(
    'recipe = s.recipes["labels"]', 'recipe = replace(s.recipes["labels"], options=OPTIONS)'
).replace("{}", "[('exemplar', 'digits', 'conv4')]")
WITH_OPTIONS = f"from dataclasses import replace\n{WITH_OPTIONS}"
WRONG_OPTIONS = {
    "(('margn', 0.5),)": "task exemplar has no option 'margn', only dimension, margin, negatives",
    "(('margin', '0.5'),)": "option margin of task exemplar is of type float, not '0.5'",
    "(('margin', -1.0),)": "Exemplar needs a dimension of at least 1 and a margin above 0",
}


@pytest.mark.parametrize("wrong", WRONG_OPTIONS)
def test_a_wrong_option_of_a_task_is_refused_before_anything_trains(wrong: str, cli: Cli) -> None:
    sentence = refuse_file(cli, WITH_OPTIONS.replace("OPTIONS", wrong))
    assert f"mine.py: {WRONG_OPTIONS[wrong]}" in sentence


def test_options_of_a_users_own_task_are_left_to_its_class(cli: Cli) -> None:
    text = WITH_OPTIONS.replace("OPTIONS", "(('depth', 3),)").replace("'exemplar'", "'theirs:Jigsaw'")
    (cli.folder / "mine.py").write_text(text.replace('task="labels"', 'task="theirs:Jigsaw"'))
    assert cli("mine.py", "--dry-run").code == 0


def test_wrong_names_are_found_without_torch(tmp_path: Path) -> None:
    code = """
import sys
from raysslprune import sweep
sweep._Run.train = None  # a wrong name that is taken must not start Ray
codes = [sweep.main([f"{name}.py", *more]) for name in sys.argv[1:] for more in ([], ["--dry-run"])]
print(codes, {"torch", "ray"} & set(sys.modules))
"""
    wrong = {NAMED.replace("{}", f"[{names}]"): sentence for names, sentence in WRONG_NAMES.values()}
    wrong |= {WITH_OPTIONS.replace("OPTIONS", given): sentence for given, sentence in WRONG_OPTIONS.items()}
    files = [f"wrong{number}" for number in range(len(wrong))]
    for file, text in zip(files, wrong, strict=True):
        (tmp_path / f"{file}.py").write_text(text)
    run = subprocess.run([sys.executable, "-c", code, *files], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert run.stdout == f"{[USAGE] * 2 * len(files)} set()\n", run.stderr
    lines = run.stderr.splitlines()
    assert len(lines) == 2 * len(files)
    for line, sentence in zip(lines[::2], wrong.values(), strict=True):
        assert line.startswith("raysslprune: ")
        assert sentence in line


# ------------------------------------------------------------------ data


@pytest.fixture
def trained_with(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The data roots that the training was called with."""
    roots: list[str] = []

    def train(*arguments: Any) -> int:
        roots.append(arguments[1])
        return 0

    monkeypatch.setattr(sweep._Run, "train", train)
    monkeypatch.delenv("RAYSSLPRUNE_DATA", raising=False)
    return roots


def test_data_lies_where_the_option_says_else_the_environment_else_here(
    trained_with: list[str], cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As an absolute path, since workers run in other folders."""
    name = own(cli)
    here = str(cli.folder)
    for env, arguments, root in (
        (None, [], f"{here}/data"),
        ("", [], f"{here}/data"),
        ("elsewhere", [], f"{here}/elsewhere"),
        ("/mnt/sets", [], "/mnt/sets"),
        ("/mnt/sets", ["--data", "mine"], f"{here}/mine"),
        (None, ["--data", "/srv/data/"], "/srv/data"),
    ):
        monkeypatch.delenv("RAYSSLPRUNE_DATA", raising=False)
        if env is not None:
            monkeypatch.setenv("RAYSSLPRUNE_DATA", env)
        called = cli(name, *arguments)
        assert (called.code, called.err) == (0, "")
        assert trained_with.pop() == root
    assert not (cli.folder / "data").exists()


def needs(cli: Cli, *data: str) -> str:
    cases = [("labels", name, "resnet50") for name in data]
    (cli.folder / "needs.py").write_text(NAMED.replace("{}", repr(cases)))
    return "needs.py"


ABSENT = {
    "imagenet": "imagenet/train",
    "imagenet:10%-of-images": "imagenet/train",
    "places205": "places205/train",
    "voc07": "voc07",
    "folder/pets": "pets/train",
    "folder/pets:20%-of-classes": "pets/train",
}


@pytest.mark.parametrize("data", ABSENT)
def test_a_sweep_without_its_data_is_refused_with_the_path(data: str, cli: Cli) -> None:
    """And a dry run, which one may want before the data is there, says so and goes on."""
    name, wanted = needs(cli, data), str(cli.folder / "sets" / ABSENT[data])
    sentence = cli.refused(name, "--data", "sets", code=FAILED)
    assert wanted in sentence
    before = cli.files()
    called = cli(name, "--data", "sets", "--dry-run")
    assert (called.code, called.err) == (0, "")
    printed = "".join(called.out.split())  # what is long is wrapped
    assert wanted in printed
    words = sentence.removeprefix("raysslprune: ").split()
    assert "".join(words[:3]) in printed
    assert all(word in printed for word in words if len(word) <= 80)
    assert "without sharing" in called.out
    assert cli.files() == before


def test_a_dry_run_names_each_missing_data_set_once(cli: Cli) -> None:
    name = needs(cli, "imagenet", "digits", "imagenet:10%-of-images", "folder/pets", "imagenet:10%-of-classes")
    called = cli(name, "--dry-run")
    assert called.code == 0
    assert len(re.findall(r"^data ", called.out, flags=re.MULTILINE)) == 2
    assert "imagenet/train" in cli.refused(name, code=FAILED)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ("folder", "folder"),
        ("folder/../up", "folder"),
        ("imagenet/small", "takes nothing after a slash, but was given 'small'"),
        ("digits/small", "takes nothing after a slash, but was given 'small'"),
        ("nowhere_at_all:Source", "No module named 'nowhere_at_all'; its module must lie in the folder in which the"),
    ],
)
def test_data_that_can_not_be_is_refused_before_anything_trains(data: str, words: str, cli: Cli) -> None:
    name = needs(cli, data)
    assert words in cli.refused(name, code=FAILED)
    assert cli(name, "--dry-run").code == 0


def test_only_what_is_to_run_downloads(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    from raysslprune.data import DataError
    from raysslprune.data.cifar import CIFAR10

    asked: list[tuple[Path, bool]] = []

    def locate(self: CIFAR10, root: Path, fetch: bool = False) -> None:
        asked.append((root, fetch))
        raise DataError("cifar10 is\nnot there")

    monkeypatch.setattr(CIFAR10, "locate", locate)
    name = needs(cli, "cifar10", "cifar10:10%-of-images")
    assert "cifar10 is not there" in cli.refused(name, "--data", "sets", code=FAILED)
    assert cli(name, "--data", "sets", "--dry-run").code == 0
    assert asked == [(cli.folder / "sets", True), (cli.folder / "sets", False)]


def test_data_that_is_there_is_trained_on(trained_with: list[str], cli: Cli) -> None:
    for split in ("train", "val"):
        for kind in ("cat", "dog"):
            (cli.folder / "data" / "pets" / split / kind).mkdir(parents=True)
            (cli.folder / "data" / "pets" / split / kind / "1.png").write_bytes(b"")
    called = cli(needs(cli, "folder/pets"))
    assert (called.code, called.err) == (0, "")
    assert trained_with == [str(cli.folder / "data")]


def test_what_is_finished_is_drawn_without_its_data(cli: Cli) -> None:
    name = needs(cli, "imagenet")
    assert re.search(r"^data ", cli(name, "--scale", "smoke", "--dry-run").out, flags=re.MULTILINE)
    graph, store = plan.make(sweep.load(name, "smoke", 1).points), Store(str(cli.folder / "runs"))
    store.create()
    commit(store, steps_of(graph), graph)
    called = cli(name, "--scale", "smoke")
    assert (called.code, called.err) == (0, "")
    assert (cli.folder / "runs" / "results" / "smoke" / "needs.png").is_file()
    assert not re.search(r"^data ", cli(name, "--scale", "smoke", "--dry-run").out, flags=re.MULTILINE)


@pytest.mark.parametrize("name", sweep.known())
@pytest.mark.parametrize("scale", ["laptop", "smoke"])
def test_the_packages_own_sweeps_use_known_names(name: str, scale: str) -> None:
    """And options, which load checks."""
    sweep.load(name, scale, 1)
