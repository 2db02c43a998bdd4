"""The sweep command in this process, with training left out; and sweep files for it."""

from __future__ import annotations

import re
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from raysslprune import execution, sweep, sweep_loader
from raysslprune.plan.graph import Plan, make_plan
from raysslprune.spec import Mask, Step, Train
from raysslprune.store.record import MASK, WEIGHTS, snapshot_name
from raysslprune.store.steps import Store

USAGE, FAILED, STOPPED = 2, 1, 130
GOOD = """
from raysslprune.paper.scales import SETTINGS
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
from raysslprune.paper.scales import SETTINGS
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
    def no_training(run: execution.Execution, *_: object) -> int:
        assert run.schedule.finished, "this call came as far as training"
        return 0

    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(execution.Execution, "train", no_training)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.chdir(tmp_path)
    return Cli(tmp_path, capsys)


LISTING = """
from raysslprune.sweepfile import Listing

FIGURE = Listing(title="Mine", columns=('a', 'b'))
"""


def refuse_file(cli: Cli, source: str) -> str:
    path = cli.folder / "mine.py"
    path.write_text(source)
    sentence = cli.refused(str(path), "--dry-run")
    assert str(path) in sentence
    assert cli.refused(str(path)) == sentence
    return sentence


SEARCHES = ": the table counts all seeds of all candidates; "


def rows(called: Called) -> dict[str, str]:
    """What a dry run prints: a name and what is said of it, each line; without what it says of searches."""
    lines = [line.strip() for line in called.out.splitlines() if line.strip() and SEARCHES not in line]
    pairs = [re.split(r"\s{2,}", line, maxsplit=1) for line in lines]
    assert all(len(pair) == 2 for pair in pairs), called.out
    return dict(pairs)


def commit(store: Store, steps: Iterable[Step], graph: Plan, speed: float = 1000.0) -> None:
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


def smoke(seeds: int = 1) -> Plan:
    return make_plan(sweep_loader.load("fig3", "smoke", seeds).points)


def steps_of(graph: Plan) -> list[Step]:
    return [step for job in graph.jobs.values() for step in (job.train, *job.masks)]


@pytest.fixture
def figure_3(cli: Cli) -> Store:
    """A root in which all of figure 3 at scale smoke is done."""
    graph, store = smoke(), Store(str(cli.folder / "runs"))
    store.create()
    commit(store, steps_of(graph), graph)
    return store


ONE_SEED = """
from raysslprune.paper.scales import SETTINGS
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
