"""Sweeps whose data are not there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from raysslprune import execution, sweep_loader
from raysslprune.plan.graph import make_plan
from raysslprune.store.steps import Store
from tests.helpers.cli import FAILED, NAMED, Cli, commit, own, steps_of


@pytest.fixture
def trained_with(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The data roots that the training was called with."""
    roots: list[str] = []

    def train(*arguments: Any) -> int:
        roots.append(arguments[1])
        return 0

    monkeypatch.setattr(execution.Execution, "train", train)
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
    "voc07/whole": "voc07",
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
    called = cli(needs(cli, "voc07", "voc07/whole"), "--dry-run")
    assert len(re.findall(r"^data ", called.out, flags=re.MULTILINE)) == 1


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ("folder", "folder"),
        ("folder/../up", "folder"),
        ("imagenet/small", "takes no argument; remove '/small'"),
        ("digits/small", "takes no argument; remove '/small'"),
        ("nowhere_at_all:Source", "No module named 'nowhere_at_all'; its module must be in the folder where the"),
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
    graph, store = make_plan(sweep_loader.load(name, "smoke", 1).points), Store(str(cli.folder / "runs"))
    store.create()
    commit(store, steps_of(graph), graph)
    called = cli(name, "--scale", "smoke")
    assert (called.code, called.err) == (0, "")
    assert (cli.folder / "runs" / "results" / "smoke" / "needs.png").is_file()
    assert not re.search(r"^data ", cli(name, "--scale", "smoke", "--dry-run").out, flags=re.MULTILINE)


@pytest.mark.parametrize("name", sweep_loader.known())
@pytest.mark.parametrize("scale", ["laptop", "smoke"])
def test_the_packages_own_sweeps_use_known_names(name: str, scale: str) -> None:
    """And options, which load checks."""
    sweep_loader.load(name, scale, 1)
