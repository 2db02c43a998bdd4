"""Sweep files: those of the package by their names, and of one's own by their paths; what is refused, and how."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from raysslprune import sweep_loader
from tests.helpers.cli import GOOD, LISTING, STOPPED, USAGE, Cli, check_refused, own, refuse_file, rows

# ------------------------------------------------------------------------------------- a wrong call


@pytest.mark.parametrize("name", ["fig3x", "Fig3", "fgi3"])
def test_an_unknown_sweep_is_told_the_nearest_and_all(name: str, cli: Cli) -> None:
    sentence = cli.refused(name)
    assert repr(name) in sentence
    assert "did you mean fig3?" in sentence
    assert all(known in sentence for known in sweep_loader.known())


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
    assert "all.py: 'all' is reserved for all sweeps of the package; rename" in cli.refused("all.py")


@pytest.mark.parametrize("name", ["mine-runs.py", "mine-steps.py", "mine-claims.py", "fig3-layers.py"])
def test_a_file_of_ones_own_does_not_replace_what_stands_beside_results(name: str, cli: Cli) -> None:
    (cli.folder / name).write_text(GOOD)
    assert (
        f"{name} ends in a reserved suffix (-runs, -steps, -claims, -magnitudes, -layers, -overlap); rename the file"
        in cli.refused(name)
    )


def test_the_packages_sweeps_may_be_given_by_their_path(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Path(sweep_loader.__file__).parents[1] / "sweeps"
    by_path = cli(str(folder / "fig3.py"), "--dry-run")
    assert (by_path.code, by_path.out) == (0, cli("fig3", "--dry-run").out)
    monkeypatch.chdir(folder)
    assert cli("fig3.py", "--dry-run").code == 0


def test_one_unknown_sweep_among_known_ones_is_refused(cli: Cli) -> None:
    assert "'nope'" in cli.refused("fig3", "nope", "--dry-run")


FIGURE = GOOD.partition("def points")[0]
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


# ------------------------------------------------------------------------------------- a wrong sweep file


def test_a_long_value_is_shortened_and_a_misspelt_recipe_is_named_with_the_known_ones(cli: Cli) -> None:
    chain = POINT.replace("step={}", "step=step(0)").format(0, 0).replace("step=step(0)", "step=[step(0)] * 9")
    assert len(refuse_file(cli, chain)) < 300
    sentence = refuse_file(cli, GOOD.replace('recipes["labels"]', 'recipes["label"]'))
    assert "unknown name 'label'; known: labels, rotnet, " in sentence


@pytest.mark.parametrize("what", LACKS)
def test_a_sweep_file_that_lacks_something_is_refused(what: str, cli: Cli) -> None:
    refuse_file(cli, LACKS[what])


@pytest.mark.parametrize("what", ROWS)
def test_rows_that_are_no_table_are_refused(what: str, cli: Cli) -> None:
    sentence = refuse_file(cli, f"{LISTING}\ndef rows(scale):\n    return {ROWS[what]}")
    assert "rows(scale) in " in sentence


def test_claims_and_rows_that_are_missing_or_wrong_are_named(cli: Cli) -> None:
    for what, words in (
        ("lacks rows", "needs a function rows(scale) that gives tuples"),
        ("has rows that is no function", "needs a function rows(scale) that gives tuples"),
        ("has claims of another type", "needs a function claims(scale) that gives"),
        ("has claims that give text", "claims(scale) in "),
        ("has claims that give a claim and a number", "claims(scale) in "),
        ("has claims on a curve of no points", "names the curve 'laptop laptop', which has no points"),
        ("has claims twice", "has both CLAIMS and claims(scale)"),
        ("has claims that give nothing", "mine.py returned None; it must yield values or return a list"),
        ("gives nothing", "mine.py returned None; it must yield values or return a list"),
        (
            "has columns that are a number",
            "columns of Listing must be a tuple, each of printable text of at most 200 characters, not 2",
        ),
        ("has no columns", "a listing needs columns"),
    ):
        assert words in refuse_file(cli, LACKS[what])
    for what, words in (
        ("no row", "must give one tuple or more, each with 2 values"),
        ("rows of text", "must give one tuple or more, each with 2 values"),
        ("a row too short", "must give one tuple or more, each with 2 values"),
        ("words and numbers", "only words or only numbers in column 'b'"),
    ):
        assert words in refuse_file(cli, f"{LISTING}\ndef rows(scale):\n    return {ROWS[what]}")


def test_claims_may_depend_on_the_scale(cli: Cli) -> None:
    more = f"\ndef claims(scale):\n    return [{CLAIM}] if scale == 'smoke' else []\n"
    (cli.folder / "mine.py").write_text(GOOD + more)
    name = str(cli.folder / "mine.py")
    assert [len(sweep_loader.load(name, scale, 1).claims) for scale in ("smoke", "laptop")] == [1, 0]
    (cli.folder / "mine.py").write_text(GOOD)
    assert sweep_loader.load(name, "smoke", 1).claims == ()


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


@pytest.mark.parametrize("metrics", [(), ("top1",), ("top1_validation",)])
def test_a_search_that_would_choose_on_what_it_shows_is_refused(metrics: tuple[str, ...], cli: Cli) -> None:
    text = (Path(sweep_loader.__file__).parent.parent / "sweeps/rewind.py").read_text()
    sentence = refuse_file(cli, text.replace('("top1", FIGURE.objective)', repr(metrics)))
    if metrics:
        assert "a search chooses by points with the metric top1_validation, as trainings have on a data set" in sentence


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


# ------------------------------------------------------------------------------------- progress


def test_a_sweep_that_ignores_its_seed_is_refused(cli: Cli) -> None:
    """Else the table would say ± 0.0, n = 3."""
    assert "gives two points for b a, level 0, seed 0" in cli.refused(own(cli, "0", "0"), "--seeds", "3")
    assert "the same training for every seed" in cli.refused(own(cli, "0", "seed"), "--seeds", "3")
    assert cli(own(cli), "--seeds", "3", "--dry-run").code == 0


def test_two_sweeps_of_one_name_are_refused(cli: Cli) -> None:
    (cli.folder / "other").mkdir()
    (cli.folder / "other" / "mine.py").write_text((cli.folder / own(cli)).read_text())
    said = cli.refused("mine.py", "other/mine.py", "--dry-run")
    assert "would overwrite each other's files: mine.py, other/mine.py" in said


def test_an_unknown_metric_is_named_with_the_known_ones(cli: Cli) -> None:
    sentence = cli.refused(own(cli, metric="top"), "--dry-run")
    assert "trainings on labels have no metric 'top' on digits; did you mean 'top1'? Known: top1, density" in sentence
    assert cli.refused("mine.py") == sentence


def test_names_that_no_point_has_are_refused_before_anything_trains(cli: Cli) -> None:
    name = own(cli)
    good = (cli.folder / name).read_text()
    (cli.folder / name).write_text(good.replace('init="a", level', 'init="aa", level'))
    assert "points with init 'aa', which is not among its figure's inits (a)" in cli.refused(name, "--dry-run")
    claim = 'from raysslprune.sweepfile import Claim\nA, X = Curve(task="b", init="a"), Curve(task="x", init="a")\n'
    claim += 'CLAIMS = (Claim(says="s", source="s", higher=A, lower=X, relation="above"),)\n'
    (cli.folder / name).write_text(good + claim)
    assert "names the curve 'x a', which has no points" in cli.refused(name, "--dry-run")
    first, second = 'Curve(task="x", init="a")', 'Curve(task="b", init="a")'
    for curves, refused in ((f"{first},", True), (f"{first}, {second}", False), (f"{second}, {first}", False)):
        given = good.replace('inits=("a",)', f'inits=("a",), everywhere=({curves})')
        assert given != good
        (cli.folder / name).write_text(given)
        if refused:
            assert "names the curve 'x a', which has no points" in cli.refused(name, "--dry-run")
        else:
            assert cli(name, "--dry-run").code == 0
