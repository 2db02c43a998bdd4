"""Roots with made-up results, and reports of them."""

from __future__ import annotations

import contextlib
import io
import shutil
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import save as to_safetensors

from raysslprune import results, sweep
from raysslprune.commands import report as command
from raysslprune.plan.graph import make_plan
from raysslprune.spec import Train
from raysslprune.store.record import MASK, WEIGHTS, snapshot_name
from raysslprune.store.steps import Store
from raysslprune.sweep_loader import load

USAGE, FAILED = 2, 1
VERSIONS = {"raysslprune": "0.1.0", "torch": "2.11.0", "numpy": "2.0.0", "python": "3.11.7"}
BEGUN = 1_763_800_000.0
DAY = "2025-11-22"
EVIL = "<script>alert('x')</script>"
QUOTES = '"><img src=x onerror=alert(1)> & </td></table>'
ODD = f"""
from raysslprune.paper.scales import SETTINGS
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
    graph = make_plan(point for name in names for point in load(name, "smoke", seeds).points)
    masks = [mask for job in graph.jobs.values() for mask in job.masks]
    left = {mask.id: mask.target_density for mask in masks}
    weights = to_safetensors({"trunk.weight": np.logspace(-9, 0, 100).reshape(10, 10)})
    for mask in masks:
        store.commit(mask, {MASK: b"mask"}, {"density_in_scope": left[mask.id]}, {"versions": VERSIONS})
    for number, job in enumerate(graph.jobs.values()):
        density = 1.0 if job.train.mask is None else left[job.train.mask.id]
        metrics = {"top1": value(job.train), "density": density, "collapsed_layers": 0.0, "train_loss": 0.25}
        metrics |= dict.fromkeys(SPARSITIES, 12.5)
        if "held-out" in job.train.data:
            metrics["top1_validation"] = metrics["top1"] - 1
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
def reported(tmp_path_factory: pytest.TempPathFactory) -> Roots:
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
def report_page(reported: Roots, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of all sweeps in the root."""
    out = tmp_path_factory.mktemp("page") / "report.html"
    report(reported.root, out, "fig3", "table1", str(reported.odd))
    return out


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


@pytest.fixture
def damaged_root(reported: Roots, tmp_path: Path) -> Path:
    """A copy of the root, to be spoilt."""
    return shutil.copytree(reported.root, tmp_path / "runs")
