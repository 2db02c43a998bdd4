"""The report of a root: what stands on the page, and the page itself in a real browser. Nothing is trained here."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import os
import re
import select
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import save as to_safetensors

from raysslprune import figures, plan, results, sweep
from raysslprune.loader import load
from raysslprune.report import __main__ as command
from raysslprune.report import contents
from raysslprune.spec import Prune, Train
from raysslprune.store import MASK, WEIGHTS, Damaged, Store, snapshot_name
from tests.helpers.processes import wait_until

USAGE, FAILED = 2, 1
VERSIONS = {"raysslprune": "0.1.0", "torch": "2.11.0", "numpy": "2.0.0", "python": "3.11.7"}
BEGUN = 1_763_800_000.0
DAY = "2025-11-22"
EVIL = "<script>alert('x')</script>"
QUOTES = '"><img src=x onerror=alert(1)> & </td></table>'

ODD = f"""
from raysslprune.scales import SETTINGS
from raysslprune.spec import Init, Train
from raysslprune.sweepfile import Claim, Curve, Figure, Point

EVIL, QUOTES = {EVIL!r}, {QUOTES!r}
ONE, TWO = (Curve(task=task, init=QUOTES) for task in (EVIL, "plain"))
FIGURE = Figure(title=EVIL, references=(ONE,))
CLAIMS = (Claim(says=EVIL, source=QUOTES, higher=ONE, lower=TWO, relation="above"),)


def points(scale, seed):
    s = SETTINGS[scale]
    for number, curve in enumerate((ONE, TWO)):
        start = Init(seed=seed, draw=number)
        step = Train(task="labels", data=s.data, arch=s.arch, recipe=s.recipes["labels"], seed=seed, start=start)
        yield Point(step=step, task=curve.task, init=curve.init, level=0, seed=seed, panel=QUOTES)
"""
"""A sweep whose every name is HTML. One of its curves is the dense networks of fig3."""


SPARSITIES = {point.metric for point in load("fig6", "smoke", 1).points}


def value(step: Train) -> float:
    """What a training is said to have reached."""
    return 50 + 49 * int(step.id[:8], 16) / 2**32


def finish(names: list[str], root: Path, seeds: int) -> None:
    """Put all steps of sweeps into a store, as if they had been trained, and their results files."""
    store = Store(str(root))
    store.create()
    graph = plan.make(point for name in names for point in load(name, "smoke", seeds).points)
    masks = [mask for job in graph.jobs.values() for mask in job.masks]
    left = {mask.id: plan.left(mask) for mask in masks}
    weights = to_safetensors({"trunk.weight": np.logspace(-9, 0, 100).reshape(10, 10)})
    for mask in masks:
        store.commit(mask, {MASK: b"mask"}, {"density_in_scope": left[mask.id]}, {"versions": VERSIONS})
    for number, job in enumerate(graph.jobs.values()):
        density = 1.0 if job.train.mask is None else left[job.train.mask.id]
        metrics = {"top1": value(job.train), "density": density, "collapsed_layers": 0.0, "train_loss": 0.25}
        metrics |= dict.fromkeys(SPARSITIES, 12.5)
        facts = {"seconds": 2.0 + number, "images_per_second": 1000.0, "begun": BEGUN + 60 * number}
        files = [WEIGHTS, *map(snapshot_name, job.snapshots)]
        where = {"host": "<b>box</b>", "device": "cpu", "versions": VERSIONS}
        store.commit(job.train, dict.fromkeys(files, weights), metrics, {**facts, **where})
    records, _ = store.survey(graph.ids)
    for name in names:
        one = load(name, "smoke", seeds)
        table = results.table(one.name, "smoke", one.points, records)
        store.write(f"results/smoke/{one.name}.parquet", results.to_parquet(table))


@dataclass(frozen=True, kw_only=True)
class Roots:
    """root: with fig3, table1 and a sweep of names that are HTML. printed: by the command of the former two."""

    root: Path
    odd: Path
    printed: str


@pytest.fixture(scope="module")
def roots(tmp_path_factory: pytest.TempPathFactory) -> Roots:
    folder = tmp_path_factory.mktemp("report")
    odd = folder / "odd & <odd>.py"
    odd.write_text(ODD)
    finish(["fig3", str(odd)], folder / "runs", seeds=3)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        for name in ("fig3", "table1"):
            arguments = [name, "--scale", "smoke", "--seeds", "3", "--root", str(folder / "runs")]
            assert sweep.main(arguments) == 0
    return Roots(root=folder / "runs", odd=odd, printed=printed.getvalue())


def report(root: Path, out: Path, *arguments: str) -> str:
    """The page that the command writes."""
    assert command.main([*arguments, "--root", str(root), "--out", str(out)]) == 0
    return out.read_text("utf-8")


@pytest.fixture(scope="module")
def page(roots: Roots, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of all sweeps in the root."""
    out = tmp_path_factory.mktemp("page") / "report.html"
    report(roots.root, out, "fig3", "table1", str(roots.odd))
    return out


# ------------------------------------------------------------------ what stands on it


class Document(HTMLParser):
    """A page, read by Python's own parser."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.attributes: dict[str, list[str]] = {}
        """Name to values, of all tags."""
        self.tables: dict[tuple[str, str], list[list[str]]] = {}
        """(id of its section, caption) to the cells of each row, the headings first."""
        self.text = ""
        self._tags: list[str] = []
        self._section = ""
        self._rows: list[list[str]] = []
        self.feed(source)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._tags.append(tag)
        for name, given in attrs:
            self.attributes.setdefault(name, []).append(given or "")
        if tag in ("dt", "dd"):
            self.text += " "
        if tag == "section":
            self._section = dict(attrs)["id"] or ""
        if tag == "table":
            self._rows = []
        if tag == "tr":
            self._rows.append([])
        if tag in ("td", "th"):
            self._rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        while self._tags and self._tags.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if "caption" in self._tags:
            self.tables[self._section, data] = self._rows
        elif "td" in self._tags or "th" in self._tags:
            self._rows[-1][-1] += data
        if not {"style", "script"} & {*self._tags}:
            self.text += data

    def table(self, section: str, caption: str) -> list[dict[str, str]]:
        """The rows of the one table there whose caption ends so, by their headings."""
        (found,) = (rows for (of, name), rows in self.tables.items() if of == section and name.endswith(caption))
        return [dict(zip(found[0], row, strict=True)) for row in found[1:]]


MEANS = "standard error"


def rows_of(root: Path) -> list[dict[str, Any]]:
    """Of fig3's results file."""
    return pq.read_table(root / "results/smoke/fig3.parquet").to_pylist()


def test_means_are_those_of_the_values(roots: Roots, page: Path) -> None:
    values: dict[tuple[str, str, str], list[float]] = {}
    for row in rows_of(roots.root):
        pruned = f"{100 - 100 * row['density']:.1f}" if row["level"] else "dense"
        values.setdefault((row["task"], row["init"], pruned), []).append(row["value"])
    shown = {
        (row["task"], row["init"], row["% pruned"]): (row["mean ± s.e."], row["n"])
        for row in Document(page.read_text()).table("smoke-fig3", MEANS)
    }
    assert shown == {
        key: (f"{statistics.fmean(some):.1f} ± {statistics.stdev(some) / 3**0.5:.1f}", "3")
        for key, some in values.items()
    }


def test_each_point_leads_to_its_step(roots: Roots, page: Path) -> None:
    document = Document(page.read_text())
    points = document.table("smoke-fig3", "points")
    steps = {row["folder in the root"].split("/")[1]: row for row in document.table("steps", "steps")}
    wanted = rows_of(roots.root)
    assert len(points) == len(wanted)
    for number, (point, row) in enumerate(zip(points, wanted, strict=True)):
        facts = json.loads((roots.root / "steps" / row["step"] / "SUCCESS").read_text())["facts"]
        assert point == {
            "row": str(number),
            "task": row["task"],
            "init": row["init"],
            "% pruned": f"{100 - 100 * row['density']:.1f}" if row["level"] else "dense",
            "seed": str(row["seed"]),
            "value": f"{row['value']:.6g}",
            "seconds": f"{facts['seconds']:.3g}",
            "step": row["step"][:8],
        }
        assert f"top1 {row['value']:.4g}" in steps[row["step"]]["metrics"]
        assert steps[row["step"]]["seconds"] == point["seconds"]
        assert steps[row["step"]]["begun (UTC)"].startswith(DAY)
        assert steps[row["step"]]["for"] == "fig3" + (" odd & <odd>" if row["level"] == 0 else "")


def test_each_step_says_what_it_is_made_from(roots: Roots, page: Path) -> None:
    steps = {row["folder in the root"]: row for row in Document(page.read_text()).table("steps", "steps")}
    chain = [point.step for point in load("fig3", "smoke", 3).points if point.task == "rotnet"]
    ticket = next(step for step in chain if step.mask is not None and type(step.start).__name__ == "Rewind")
    assert isinstance(ticket.mask, Prune)
    what = steps[f"steps/{ticket.id}/"]["what it is"]
    dense = ticket.start.of  # pyright: ignore[reportAttributeAccessIssue]
    assert re.fullmatch(
        rf"train labels R\d+, seed 0, from {dense.id[:8]} at \d+, under mask {ticket.mask.id[:8]}", what
    )
    assert steps[f"steps/{ticket.mask.id}/"]["what it is"] == f"prune {ticket.mask.of.id[:8]}: 40% of all stay"


def test_claims_are_those_that_the_sweep_printed(roots: Roots, page: Path) -> None:
    text = " ".join(Document(page.read_text()).text.split())
    printed = re.split(r"^(?=holds: |does not hold: |too few seeds: )", roots.printed, flags=re.MULTILINE)[1:]
    assert len(printed) > 10
    for claim in printed:
        verdict, _, says = " ".join(claim.partition("verdicts need")[0].partition("\n\n")[0].split()).partition(": ")
        assert f"{verdict} {says}" in text


def test_provenance_and_cost(roots: Roots, page: Path) -> None:
    facts = [json.loads(path.read_text())["facts"] for path in (roots.root / "steps").glob("*/SUCCESS")]
    trainings = [one for one in facts if "seconds" in one]
    (row,) = (row for row in Document(page.read_text()).table("", "on this page") if row["figure"] == "fig3")
    of_odd_alone = 3
    assert (row["seeds"], row["points"]) == ("3", str(len(rows_of(roots.root))))
    assert row["trainings"] == str(len(trainings) - of_odd_alone)
    text = " ".join(Document(page.read_text()).text.split())
    seconds = sum(one["seconds"] for one in trainings)
    assert f"Trainings {len(trainings)} Training time {seconds // 60:.0f}:{seconds % 60:02.0f} min" in text
    assert "Where <b>box</b> (cpu) Versions raysslprune 0.1.0, torch 2.11.0, numpy 2.0.0, python 3.11.7" in text
    assert f"Trained {DAY} 08:26 to" in text
    assert "Speed 1,000 images/s a training" in text
    assert f"Trainings {len(trainings) - of_odd_alone}, 3 of them for other figures, too" in text
    assert "Trainings 6, 3 of them for other figures, too" in text


def test_links_lead_somewhere_and_nothing_is_loaded(page: Path) -> None:
    attributes = Document(page.read_text()).attributes
    ids = attributes["id"]
    assert len(set(ids)) == len(ids)
    links = [link for link in attributes["href"] if link != "data:,"]
    assert len(links) > 100
    assert {link.removeprefix("#") for link in links} <= {*ids}
    assert all(link.startswith("#") for link in links)
    assert all(source.startswith("data:image/svg+xml;base64,") for source in attributes["src"])
    assert not re.search(r"url\(|@import|style=", re.sub(r"base64,\S+", "", page.read_text()))


def test_a_name_that_is_html_is_shown_as_it_is(roots: Roots, page: Path) -> None:
    source = page.read_text()
    assert source.count("<script") == source.count("</script") == 1
    assert "<img src=x" not in source
    document = Document(source)
    section = "smoke-odd%20%26%20%3Codd%3E"
    rows = document.table(section, MEANS)
    assert [(row["task"]) for row in rows] == [EVIL, "plain"]
    assert f"{EVIL} ({QUOTES})" in document.text  # the claim, and its source
    assert {row["for"] for row in document.table("steps", "steps")} == {"fig3", "odd & <odd>", "fig3 odd & <odd>"}
    assert f"{EVIL}: Top-1 accuracy (%) over remaining weights" in "\n".join(document.attributes["alt"])


def test_a_figure_is_in_the_page_as_svg(page: Path) -> None:
    found = re.findall(r'src="data:image/svg\+xml;base64,([^"]+)" alt="([^"]+)"', page.read_text())
    assert len(found) == 2
    picture, alt = found[0]
    assert base64.b64decode(picture).startswith(b"<?xml")
    assert alt.startswith(
        "Re-training pruned masks on labels: Top-1 accuracy (%) over remaining weights. Curves: labels"
    )


def test_a_figure_of_very_many_points_is_of_pixels(
    roots: Roots, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contents, "VECTORS", len(rows_of(roots.root)) - 1)
    (source,) = Document(report(roots.root, tmp_path / "report.html", "fig3")).attributes["src"]
    kind, _, picture = source.partition(",")
    assert kind == "data:image/png;base64"
    assert base64.b64decode(picture).startswith(b"\x89PNG")


def test_a_table_that_needs_no_training(page: Path) -> None:
    rows = Document(page.read_text()).table("smoke-table1", "Rewind")
    assert [*rows[0]] == ["network", "task", "epochs", "samples", "updates", "% of training"]
    assert rows[0]["task"] == "labels"


def test_the_same_root_gives_the_same_page(roots: Roots, page: Path, tmp_path: Path) -> None:
    again = report(roots.root, tmp_path / "again.html", "fig3", "table1", str(roots.odd))
    assert again == page.read_text()


def test_a_search_with_networks_beside_it_that_are_not_rewound(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (Path(sweep.__file__).parent.parent / "sweeps/rewind.py").read_text()
    mine = tmp_path / "mine.py"
    mine.write_text(
        f"{text}\n\n_rewound = points\n\n\ndef points(scale, seed):\n    yield from _rewound(scale, seed)\n"
        "    chain = SETTINGS[scale].imp('labels', seed=seed, levels=1, keep=0.5)\n"
        "    yield Point(step=chain.dense, task='labels', init='dense', level=0, seed=seed)\n"
    )
    finish([str(mine)], tmp_path / "runs", seeds=1)
    assert sweep.main([str(mine), "--scale", "smoke", "--seeds", "1", "--root", str(tmp_path / "runs")]) == 0
    shown, _, found = capsys.readouterr().out.partition("What Optuna found")
    assert re.search(r"^ +no +\d", shown, re.MULTILINE)
    assert re.search(r"^labels +\d", found, re.MULTILINE)
    assert not re.search(r"^labels +0\.0 ", found, re.MULTILINE)
    assert "mine" in report(tmp_path / "runs", tmp_path / "report.html", str(mine))


def test_magnitudes_and_a_search(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "runs"
    finish(["fig6", "rewind"], root, seeds=1)
    assert sweep.main(["rewind", "--scale", "smoke", "--seeds", "1", "--root", str(root)]) == 0
    found = capsys.readouterr().out.partition("What Optuna found")[2]
    document = Document(report(root, tmp_path / "report.html"))
    rows = document.table("smoke-rewind", MEANS)
    studies = {(row["task"], row["% pruned"]) for row in rows}
    assert len(studies) > 1
    for task, pruned in studies:
        tried = [row["Optuna"] for row in rows if (row["task"], row["% pruned"]) == (task, pruned)].count("tried")
        assert re.search(rf"^{task} +{pruned} +{tried} ", found, re.MULTILINE)
    assert {row["Optuna"] for row in rows} == {"tried", "not tried"}
    assert "are not in the root" not in document.text
    assert len(document.attributes["src"]) == 2
    assert {row["metric"] for row in document.table("smoke-fig6", MEANS)} == SPARSITIES
    assert "magnitudes over the rank of the weight" in document.attributes["alt"][0]
    damaged = load("fig6", "smoke", 1).points[0].step.id
    (root / "steps" / damaged / WEIGHTS).unlink()
    document = Document(report(root, tmp_path / "report.html"))
    assert f"step {damaged}: {WEIGHTS} is missing" in capsys.readouterr().err


@pytest.mark.parametrize("broken", ["draw", "save"])
def test_without_a_figure_the_page_has_all_else(
    broken: str,
    roots: Roots,
    page: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("no font")

    monkeypatch.setattr(figures, broken, fail)
    out = tmp_path / "report.html"
    assert command.main(["fig3", "table1", str(roots.odd), "--root", str(roots.root), "--out", str(out)]) == 1
    said = capsys.readouterr()
    assert said.out == f"{out}\n"
    assert [line.partition(": RuntimeError: no font; details in ")[0] for line in said.err.splitlines()] == [
        f"raysslprune: the figure of {name} could not be drawn, all else is there" for name in ("fig3", roots.odd.stem)
    ]
    without, whole = Document(out.read_text("utf-8")), Document(page.read_text("utf-8"))
    assert not without.attributes.get("src")
    assert without.text.count("The figure could not be drawn when this page was made.") == 2
    assert without.table("smoke-fig3", MEANS) == whole.table("smoke-fig3", MEANS)
    assert without.attributes["id"] == whole.attributes["id"]


def test_weights_that_are_damaged_meanwhile_cost_a_figure_of_magnitudes_and_nothing_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise Damaged("abc", "weights are gone")

    root, out = tmp_path / "runs", tmp_path / "report.html"
    finish(["fig6"], root, seeds=1)
    monkeypatch.setattr(results, "magnitudes", fail)
    assert command.main(["fig6", "--root", str(root), "--out", str(out)]) == 1
    sentence = "raysslprune: step abc: weights are gone; the sweep's own command makes it again\n"
    assert capsys.readouterr().err == sentence
    document = Document(out.read_text("utf-8"))
    assert {row["metric"] for row in document.table("smoke-fig6", MEANS)} == SPARSITIES
    assert "The figure could not be drawn" in document.text


# ------------------------------------------------------------------ what is not there


@pytest.fixture
def spoilt(roots: Roots, tmp_path: Path) -> Path:
    """A copy of the root, to be spoilt."""
    return shutil.copytree(roots.root, tmp_path / "runs")


def test_what_is_missing_is_said_and_not_made_up(spoilt: Path, tmp_path: Path) -> None:
    gone = [row for row in rows_of(spoilt) if row["task"] == "random"]
    for row in gone:
        shutil.rmtree(spoilt / "steps" / row["step"])
    document = Document(report(spoilt, tmp_path / "report.html", "fig3"))
    points = document.table("smoke-fig3", "points")
    assert len(points) == len(rows_of(spoilt)) - len(gone)
    assert "random" not in {row["task"] for row in points}
    assert f"{len(gone)} of its {len(rows_of(spoilt))} points are not in the root." in " ".join(document.text.split())
    (row,) = document.table("", "on this page")
    assert row["missing"] == str(len(gone))


def test_what_is_damaged_is_left_out(spoilt: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    step = next(row["step"] for row in rows_of(spoilt) if row["task"] == "random")
    (spoilt / "steps" / step / "SUCCESS").write_text("{}")
    document = Document(report(spoilt, tmp_path / "report.html", "fig3"))
    said = f"raysslprune: step {step}: its SUCCESS is not whole; left out, and the sweep's own command makes it again\n"
    assert capsys.readouterr().err == said
    assert step[:8] not in {row["step"] for row in document.table("smoke-fig3", "points")}


def test_an_empty_store_gives_no_table(spoilt: Path, tmp_path: Path) -> None:
    shutil.rmtree(spoilt / "steps")
    document = Document(report(spoilt, tmp_path / "report.html", "fig3"))
    assert [caption for _, caption in document.tables] == ["What is on this page"]
    assert "src" not in document.attributes


def test_a_long_table_is_cut_and_says_so(roots: Roots, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contents, "ROWS", 7)
    monkeypatch.setattr(contents, "STEPS", 5)
    document = Document(report(roots.root, tmp_path / "report.html", "fig3"))
    of = len(rows_of(roots.root))
    assert len(document.table("smoke-fig3", f"{of} points")) == 7
    assert len(document.table("smoke-fig3", MEANS)) == 7
    assert f"The first 7 of {of} rows of results/smoke/fig3.parquet." in document.text
    shown = {f"steps/{row['step']}/" for row in rows_of(roots.root)[:7]}
    assert {row["folder in the root"] for row in document.table("steps", "steps")} == shown
    links = {link.removeprefix("#") for link in document.attributes["href"] if link.startswith("#")}
    assert links <= {*document.attributes["id"]}


# ------------------------------------------------------------------ the command


def test_without_names_it_is_all_sweeps_of_the_package_that_have_results(
    roots: Roots, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    document = Document(report(roots.root, tmp_path / "report.html"))
    assert [row["figure"] for row in document.table("", "on this page")] == ["fig3", "table1"]
    assert capsys.readouterr().err == (
        "raysslprune: left out, as sweeps of your own are known by their files only: odd & <odd>.py; this has them "
        f"too: raysslprune report fig3 table1 'odd & <odd>.py' --root {roots.root}\n"
    )
    document = Document(report(roots.root, tmp_path / "report.html", "fig3", "--scale", "smoke"))
    assert [row["figure"] for row in document.table("", "on this page")] == ["fig3"]
    assert capsys.readouterr().err == ""


def test_a_root_with_sweeps_of_ones_own_alone_says_how_to_name_them(
    spoilt: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And what stands beside a sweep's results is no sweep."""
    folder = spoilt / "results/smoke"
    for name in ("fig3", "fig3-runs", "table1"):
        (folder / f"{name}.parquet").unlink()
    for name in ("fig3-layers", "mine", "mine-overlap", "mine-2"):
        shutil.copy(folder / "odd & <odd>.parquet", folder / f"{name}.parquet")
    (folder / "odd & <odd>.parquet").unlink()
    assert command.main(["--root", str(spoilt), "--out", str(tmp_path / "report.html")]) == FAILED
    assert capsys.readouterr().err == (
        f"raysslprune: {spoilt} has no results of the package's sweeps; those of your own are named by their files: "
        f"raysslprune report mine.py mine-2.py --root {spoilt}\n"
    )


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["fig33"], USAGE, "there is no sweep 'fig33'; did you mean fig3? Known: fig1"),
        (
            ["fig5"],
            FAILED,
            "{root} has no results of fig5; this makes them: python -m raysslprune.sweep fig5 --root {root}",
        ),
        (
            ["fig5", "--scale", "paper"],
            FAILED,
            "{root} has no results of fig5 at scale paper; this makes them: python -m raysslprune.sweep fig5 --scale p",
        ),
        (
            ["--scale", "laptop"],
            FAILED,
            "{root} has no results at scale laptop; this makes some: python -m raysslprune.sweep fig3 --root {root}",
        ),
        (["fig3", "--scale", "tiny"], USAGE, "argument --scale: invalid choice: 'tiny'"),
        (["fig3", "elsewhere/fig3.py"], USAGE, "two sweeps of one name have the same results: fig3, elsewhere/fig3.py"),
        (["--root", "{folder}/nowhere"], FAILED, "{folder}/nowhere has no results; this makes some: python -m "),
        (["--root", "{folder}"], FAILED, "{folder} holds other files and no raysslprune.json"),
        (["--root", "s3://AKIA:very/secret@bucket"], FAILED, "--root may not hold credentials"),
        (["fig3", "--out", "{folder}"], USAGE, "--out wants the name of a file, and '{folder}' is none"),
        (["fig3", "--out", "{folder}/file/report.html"], FAILED, "can't write {folder}/file/report.html: "),
        (["--out", "{folder}/no/r.html"], FAILED, "can't write {folder}/no/r.html: there is no folder {folder}/no"),
    ],
)
def test_what_is_wrong_is_one_sentence(
    arguments: list[str],
    code: int,
    sentence: str,
    roots: Roots,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """And what was there before stays."""
    out, places = tmp_path / "report.html", {"root": roots.root, "folder": tmp_path}
    out.write_text("before")
    (tmp_path / "file").write_text("")
    filled = [argument.format(**places) for argument in arguments]
    with contextlib.suppress(SystemExit):
        found = command.main(["--root", str(roots.root), "--out", str(out), *filled])
        assert found == code
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith(f"raysslprune: {sentence.format(**places)}")
    assert said.err.count("\n") == 1
    assert "secret" not in said.err
    assert out.read_text() == "before"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "report.html"]


def test_a_results_file_that_cannot_be_read(spoilt: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = spoilt / "results/smoke/fig3.parquet"
    path.write_bytes(b"PAR1")
    assert command.main(["fig3", "--root", str(spoilt), "--out", str(spoilt / "report.html")]) == FAILED
    assert capsys.readouterr().err == (f"raysslprune: {path} can't be read; the sweep's own command makes it again\n")


ALONE = """
import sys
from raysslprune.report.__main__ import main
assert main(sys.argv[1:]) == 0
assert not {"ray", "torch", "optuna"} & sys.modules.keys()
"""


def test_it_starts_neither_ray_nor_torch(roots: Roots, tmp_path: Path) -> None:
    out = tmp_path / "report.html"
    call = [sys.executable, "-c", ALONE, "fig3", "--root", str(roots.root), "--out", str(out)]
    before = {path: path.stat().st_mtime_ns for path in roots.root.rglob("*")}
    done = subprocess.run(call, capture_output=True, text=True)
    assert (done.returncode, done.stderr, done.stdout) == (0, "", f"{out}\n")
    assert {path: path.stat().st_mtime_ns for path in roots.root.rglob("*")} == before


# ------------------------------------------------------------------ in a browser

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
PHONE, DESK = (360, 740), (1280, 900)
in_chromium = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt-get install chromium")


class Browser:
    """A headless Chromium with one page, by its DevTools protocol over a pipe."""

    def __init__(self, profile: Path) -> None:
        commands, self._commands = os.pipe()
        self._answers, answers = os.pipe()
        assert CHROMIUM is not None
        program = [CHROMIUM, "--headless=new", "--no-sandbox", "--no-first-run", "--disable-gpu"]
        program += ["--remote-debugging-pipe", f"--user-data-dir={profile}"]
        # the protocol wants descriptors 3 and 4
        script = f'exec "$@" 3<&{commands} 4>&{answers} 2>/dev/null'
        self._process = subprocess.Popen(["bash", "-c", script, "bash", *program], pass_fds=(commands, answers))
        os.close(commands)
        os.close(answers)
        self._sent, self._unread, self._session = 0, b"", {}
        self.events: list[dict[str, Any]] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = {"sessionId": self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]}
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._commands)
        os.close(self._answers)

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command of the protocol."""
        self._sent += 1
        command = {"id": self._sent, "method": method, "params": parameters, **self._session}
        os.write(self._commands, json.dumps(command).encode() + b"\0")
        while (answer := self._next()).get("id") != self._sent:
            self.events.append(answer)
        assert "error" not in answer, answer
        return answer["result"]

    def open(self, url: str, screen: tuple[int, int] = DESK, scheme: str = "light", script: bool = True) -> None:
        """A page, in a window of this size, for somebody who likes it ``light`` or ``dark``."""
        width, height = screen
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=2, mobile=width < 600
        )
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self.call("Emulation.setScriptExecutionDisabled", value=not script)
        for address in ("about:blank", url):  # or one that differs in its anchor only would not be loaded
            self.events.clear()
            self.call("Page.navigate", url=address)
            while all(event.get("method") != "Page.loadEventFired" for event in self.events):
                self.events.append(self._next())

    def js(self, expression: str) -> Any:
        """What an expression gives, as JSON data."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def press(self, key: str, code: int, text: str = "") -> None:
        key_of = {"key": key, "code": key, "windowsVirtualKeyCode": code, "text": text}
        self.call("Input.dispatchKeyEvent", type="keyDown", **key_of)
        self.call("Input.dispatchKeyEvent", type="keyUp", **key_of)

    def click(self, element: str) -> None:
        """In the middle of what an expression gives."""
        middle = "{const r = e.getBoundingClientRect(); return [r.x + r.width / 2, r.y + r.height / 2]}"
        x, y = self.js(f"((e) => {{e.scrollIntoView({{block: 'center'}}); {middle} }})({element})")
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def complaints(self) -> list[dict[str, Any]]:
        """What stands in the console, and dialogs."""
        kinds = (
            "Runtime.consoleAPICalled",
            "Runtime.exceptionThrown",
            "Log.entryAdded",
            "Page.javascriptDialogOpening",
        )
        return [event for event in self.events if event.get("method") in kinds]

    def requests(self) -> list[str]:
        """The addresses that the page asked for."""
        sent = [event for event in self.events if event.get("method") == "Network.requestWillBeSent"]
        return [event["params"]["request"]["url"] for event in sent]

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._unread:
            assert select.select([self._answers], [], [], 120)[0], "Chromium does not answer"
            part = os.read(self._answers, 1 << 20)
            assert part, "Chromium is gone"
            self._unread += part
        answer, _, self._unread = self._unread.partition(b"\0")
        return json.loads(answer)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    started = Browser(tmp_path_factory.mktemp("chromium"))
    yield started
    started.close()


CONTRAST = """
(() => {
  const rgb = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const linear = (v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  const light = ([r, g, b]) => 0.2126 * linear(r / 255) + 0.7152 * linear(g / 255) + 0.0722 * linear(b / 255);
  const behind = (e) => {
    for (; e; e = e.parentElement) {
      const colour = rgb(getComputedStyle(e).backgroundColor);
      if (colour.length === 3 || colour[3] === 1) return colour;
    }
  };
  document.querySelectorAll("details").forEach((d) => (d.open = true));
  const found = {};
  for (const e of document.querySelectorAll("body *")) {
    if (![...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim()) || e.closest("script")) continue;
    const [a, b] = [light(rgb(getComputedStyle(e).color)), light(behind(e))].sort((x, y) => y - x);
    const kind = `${e.tagName} ${e.className}`;
    found[kind] = Math.min((a + 0.05) / (b + 0.05), found[kind] ?? 99);
  }
  return found;
})()
"""
"""By the definition of the Web Content Accessibility Guidelines: of each kind of element with text the least."""


@in_chromium
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("screen", [PHONE, DESK])
def test_it_opens_without_complaint_and_fits(
    screen: tuple[int, int], scheme: str, browser: Browser, page: Path
) -> None:
    browser.open(page.as_uri(), screen, scheme)
    assert browser.complaints() == []
    asked = browser.requests()
    assert asked[0] == page.as_uri()
    assert all(url.startswith("data:") for url in asked[1:])
    assert browser.js("[...document.images].map((i) => i.naturalWidth > 0)") == [True, True]
    for opened in ("false", "true"):
        browser.js(f"document.querySelectorAll('details').forEach((d) => d.open = {opened})")
        assert browser.js("document.scrollingElement.scrollWidth") <= browser.js("document.documentElement.clientWidth")
    contrast = browser.js(CONTRAST)
    assert len(contrast) > 15
    assert {kind: ratio for kind, ratio in contrast.items() if ratio < 4.5} == {}


@in_chromium
def test_dark_is_dark_and_light_is_light(browser: Browser, page: Path) -> None:
    seen = {}
    for scheme in ("light", "dark"):
        browser.open(page.as_uri(), scheme=scheme)
        seen[scheme] = browser.js("getComputedStyle(document.body).backgroundColor")
    assert seen == {"light": "rgb(250, 250, 248)", "dark": "rgb(20, 23, 26)"}


TABLE = "document.querySelector('#smoke-fig3 table')"
HEADING = f"{TABLE}.tHead.rows[0].cells[{{}}]"


def column(browser: Browser, number: int) -> list[str]:
    """What stands in a column of fig3's means, in the rows that are shown."""
    return browser.js(
        f"[...{TABLE}.tBodies[0].rows].filter((r) => !r.hidden).map((r) => r.cells[{number}].textContent)"
    )


def means(root: Path) -> list[tuple[str, str, float]]:
    """(task, pruned in percent, mean), in the order of the results."""
    values: dict[tuple[str, str, float], list[float]] = {}
    for row in rows_of(root):
        values.setdefault((row["task"], row["init"], 100 - 100 * row["density"]), []).append(row["value"])
    return [
        (task, f"{pruned:.1f}" if pruned else "dense", statistics.fmean(v)) for (task, _, pruned), v in values.items()
    ]


@in_chromium
def test_a_click_sorts_and_another_turns_it_round(browser: Browser, page: Path, roots: Roots) -> None:
    browser.open(page.as_uri())
    headings = browser.js(f"[...{TABLE}.tHead.rows[0].cells].map((c) => c.textContent)")
    at, task = headings.index("mean ± s.e."), headings.index("task")
    key: Callable[[tuple[str, str, float]], float] = lambda row: row[2]  # noqa: E731
    for reverse, word in ((False, "ascending"), (True, "descending"), (False, "ascending")):
        browser.click(f"{HEADING.format(at)}.firstChild")
        wanted = sorted(means(roots.root), key=key, reverse=reverse)
        assert [text.split(" ±")[0] for text in column(browser, at)] == [f"{mean:.1f}" for _, _, mean in wanted]
        assert column(browser, task) == [name for name, _, _ in wanted]
        assert browser.js(f"{HEADING.format(at)}.ariaSort") == word
    browser.click(f"{HEADING.format(task)}.firstChild")
    assert column(browser, task) == sorted(name for name, _, _ in wanted)
    assert browser.js(f"[...{TABLE}.tHead.rows[0].cells].filter((c) => c.ariaSort).length") == 1


@in_chromium
def test_numbers_are_sorted_as_numbers_by_the_keyboard(browser: Browser, page: Path, roots: Roots) -> None:
    browser.open(page.as_uri())
    points = "document.querySelectorAll('#smoke-fig3 table')[1]"
    browser.js("document.querySelector('#smoke-fig3 details').open = true")
    browser.js(f"{points}.tHead.rows[0].cells[0].firstChild.focus()")
    wanted = list(range(len(rows_of(roots.root))))
    for rows in (wanted, wanted[::-1]):
        browser.press("Enter", 13, "\r")
        assert browser.js(f"[...{points}.tBodies[0].rows].map((r) => Number(r.cells[0].textContent))") == rows
    assert browser.js("getComputedStyle(document.activeElement).outlineStyle") == "solid"  # it is seen where one is


@in_chromium
def test_words_filter(browser: Browser, page: Path, roots: Roots) -> None:
    browser.open(page.as_uri(), PHONE)
    browser.click("document.querySelector('#smoke-fig3 input')")
    browser.call("Input.insertText", text="TICKET rot")
    of = browser.js(f"{TABLE}.tBodies[0].rows.length")
    wanted = {(row["task"], row["init"], row["level"]) for row in rows_of(roots.root)}
    shown = [task for task, init, _ in wanted if "rot" in task and "ticket" in init]
    assert column(browser, 0) == shown
    assert 0 < len(shown) < of
    assert browser.js("document.querySelector('#smoke-fig3 output').textContent") == f"{len(shown)} of {of} rows"
    browser.js("document.querySelector('#smoke-fig3 input').value = ''")
    browser.press("Backspace", 8)
    browser.call("Input.insertText", text=" ")
    assert len(column(browser, 0)) == of


@in_chromium
def test_a_point_leads_to_its_step(browser: Browser, page: Path, roots: Roots) -> None:
    """Into a table that is folded, also where a filter hides the row."""
    browser.open(page.as_uri(), PHONE)
    step = rows_of(roots.root)[5]["step"]
    row = f"document.getElementById('{step}')"
    filtered = "((i) => {i.value = 'no such thing'; i.dispatchEvent(new Event('input'))})"
    browser.js(f"{filtered}(document.querySelector('#steps input'))")
    assert browser.js(f"{row}.hidden")
    browser.js("document.querySelector('#smoke-fig3 details').open = true")
    browser.click(f"document.querySelector('#smoke-fig3 a[href=\"#{step}\"]')")
    assert browser.js("location.hash") == f"#{step}"
    wait_until(lambda: browser.js(f"{row}.checkVisibility()"))  # hashchange comes a moment later
    assert browser.js(f"{row}.matches(':target')")
    top = browser.js(f"{row}.getBoundingClientRect().top")
    assert 0 <= top < PHONE[1]
    assert browser.js("document.scrollingElement.scrollWidth") == PHONE[0]


@in_chromium
def test_a_name_that_is_html_does_nothing(browser: Browser, page: Path) -> None:
    browser.open(f"{page.as_uri()}#smoke-odd%20%26%20%3Codd%3E")
    assert browser.complaints() == []
    assert browser.js("document.scripts.length") == 1
    heading = "document.getElementById(location.hash.slice(1)).querySelector('h2')"
    assert browser.js(f"{heading}.textContent") == EVIL
    assert 0 <= browser.js(f"{heading}.getBoundingClientRect().top") < DESK[1]


@in_chromium
def test_nothing_but_its_own_script_runs(browser: Browser, page: Path, tmp_path: Path) -> None:
    """Were a name not escaped somewhere, it would still do no harm."""
    broken = tmp_path / "broken.html"
    harm = "<script>document.title = 'harm'</script><img src=x onerror=\"document.title = 'harm'\">"
    broken.write_text(page.read_text().replace("<main", f"{harm}<main"))
    browser.open(broken.as_uri())
    assert len(browser.complaints()) >= 2
    assert browser.js("document.title").startswith("raysslprune report")


@in_chromium
def test_without_its_script_all_is_there(browser: Browser, page: Path, roots: Roots) -> None:
    browser.open(page.as_uri(), script=False)
    assert browser.js("document.querySelectorAll('button, input').length") == 0
    assert column(browser, 0) == [task for task, _, _ in means(roots.root)]
    points = "document.querySelectorAll('#smoke-fig3 table')[1].tBodies[0].rows.length"
    assert browser.js(points) == len(rows_of(roots.root))
