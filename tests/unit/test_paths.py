"""Paths as users give them: ``~`` that no shell has expanded, and pathlib.Path; and the integers of NumPy."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from raysslprune import __main__ as command
from raysslprune import results
from raysslprune.experiment import Experiment
from raysslprune.lottery import imp
from raysslprune.paper.scales import SETTINGS
from raysslprune.release import subnetwork
from raysslprune.results.sql import contents
from raysslprune.spec import Init, Train
from raysslprune.store.record import StoreError
from raysslprune.store.steps import Store
from raysslprune.sweepfile import Figure, Point

LISTING = """
from raysslprune.sweepfile import Listing

FIGURE = Listing(title="Numbers", columns=("word", "number"))


def rows(scale):
    return [("one", 1)]
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A home folder, with another as the current one, in which nothing may be written."""
    home, here = tmp_path / "home", tmp_path / "here"
    home.mkdir()
    here.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(here)
    yield home
    assert list(here.iterdir()) == []


def test_a_tilde_is_the_home_folder_in_every_command(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (home / "mine.py").write_text(LISTING)
    assert command.main(["sweep", "~/mine.py", "table1", "--root=~/x", "--data=~/data"]) == 0
    assert (home / "x/results/laptop/mine.parquet").is_file()
    assert str(home / "x/results/laptop/mine.parquet") in capsys.readouterr().out
    assert command.main(["results", "SELECT 1", "--root=~/x", "--export=~/one.csv"]) == 0
    assert (home / "one.csv").is_file()
    assert command.main(["report", "table1", "~/mine.py", "--root=~/x", "--out=~/page.html"]) == 0
    assert (home / "page.html").is_file()


def test_a_tilde_in_what_export_and_import_mask_are_given(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (home / "full").mkdir()
    (home / "full" / "file").touch()
    assert command.main(["export", "abcd", "--out=~/full"]) == 2
    assert f"{home}/full is not empty" in capsys.readouterr().err
    assert command.main(["import-mask", "~/none.pt", "--arch", "conv4", "--root=~/x"]) == 2
    assert f"there is no file {home}/none.pt" in capsys.readouterr().err


def test_a_users_home_that_is_not_there_makes_no_folder(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["sweep", "table1", "--root=~nobody-here/x"]) == 1
    assert "~nobody-here/x" in (err := capsys.readouterr().err)
    assert err.count("\n") == 1


@pytest.mark.parametrize("of", [str, Path, lambda path: os.fspath(path).replace(os.environ["HOME"], "~")])
def test_python_takes_paths(of: Any, home: Path) -> None:
    (home / "mine.py").write_text(LISTING)
    made = Experiment.load(of(home / "mine.py"), root=of(home / "x"), data=of(home / "data"))
    made.run()
    assert made.data == str(home / "data")
    assert results.load("mine", root=of(home / "x")).num_rows == 1
    assert results.query("SELECT 1 AS one", root=of(home / "x")).to_pydict() == {"one": [1]}
    assert contents(of(home / "x")) == "mine (laptop)"
    for read in (subnetwork.load_subnetwork, subnetwork.load_mask):
        with pytest.raises(ValueError, match=f"{home}/net is not an exported network or mask: there is no such folder"):
            read(of(home / "net"))
    shutil.rmtree(home / "x")


def test_what_is_no_path_is_said() -> None:
    for wrong in (3, b"runs", ["runs"]):
        with pytest.raises(StoreError, match="the root must be a folder"):
            Store(wrong)  # pyright: ignore[reportArgumentType]
    with pytest.raises(StoreError, match="needs two slashes"):
        Store(Path("s3://bucket/runs"))  # which is s3:/bucket/runs by now


def test_numpys_integers_are_whole_numbers() -> None:
    setting = SETTINGS["smoke"]
    seed, three = np.int64(1), np.int32(3)
    step = Train(
        task="labels", data="digits", arch="conv4", recipe=setting.recipes["labels"], seed=1, start=Init(seed=1)
    )
    same = replace(step, seed=seed, start=Init(seed=seed))  # pyright: ignore[reportArgumentType]
    assert (same, same.id) == (step, step.id)
    assert type(same.seed) is int
    point = Point(step=same, task="labels", init="", level=np.uint8(2), seed=seed)  # pyright: ignore[reportArgumentType]
    assert (type(point.level), type(point.seed)) == (int, int)
    how = {"task": "labels", "data": "digits", "arch": "conv4", "recipe": step.recipe, "keep": 0.5, "rewind": 0}
    chains = [imp(seed=s, levels=n, **how).masks for s, n in ((1, 3), (seed, three))]  # pyright: ignore
    assert chains[0] == chains[1]
    assert (
        Experiment.load("fig3", scale="smoke", seeds=three).sweep
        == Experiment.load("fig3", scale="smoke", seeds=3).sweep
    )
    made = Experiment.of(lambda _, seed: [replace(point, seed=seed, step=replace(step, seed=seed))], Figure(title="x"),
                         name="mine", scale="smoke", seeds=three)  # fmt: skip
    assert len(made.sweep.points) == 3


@pytest.mark.parametrize("wrong", [np.bool_(True), np.float64(1), 1.0, "1"])
def test_what_is_no_whole_number_is_refused(wrong: Any) -> None:
    with pytest.raises(ValueError, match=r"seed of Init must be .*, not"):
        Init(seed=wrong)
