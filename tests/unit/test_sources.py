"""Digests of the user's own source files in SUCCESS, and finished steps that other versions of these made."""

from __future__ import annotations

import hashlib
import importlib
import json
import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import raysslprune
from raysslprune import sources
from raysslprune.experiment import Experiment
from raysslprune.lottery import imp, linear, random_reinit
from raysslprune.paper.scales import SETTINGS
from raysslprune.plan.graph import Job
from raysslprune.spec import Final, Imported, Init, Prune, RandomPrune, Recipe, Train
from raysslprune.store.record import Record
from raysslprune.store.steps import Store
from raysslprune.sweepfile import Figure, Point
from raysslprune.training import loop, runner
from raysslprune.training.make_masks import NoExchange
from raysslprune.training.runner import Runner
from tests.helpers.chains import execute

CODE = """
from dataclasses import dataclass

from raysslprune.models.conv4 import Conv4
from raysslprune.tasks.rotnet import RotNet


@dataclass(kw_only=True)
class Turns(RotNet):
    pass


def net(channels):
    return Conv4(channels)
"""
OTHER = CODE + "\n# changed\n"
RECIPE = Recipe(samples=640, batch=64, lr=0.05)


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    write(CODE)
    yield
    forget()
    torch.set_num_threads(threads)


def write(code: str) -> None:
    Path("own_code.py").write_text(code)


def forget() -> None:
    """Be as a new process, which has neither imported the module nor seen its file."""
    sys.modules.pop("own_code", None)
    sources._at_import.cache_clear()
    importlib.invalidate_caches()


def sha256(code: str) -> str:
    return hashlib.sha256(code.encode()).hexdigest()


def train(task: str = "own_code:Turns", arch: str = "conv4", seed: int = 0) -> Train:
    return Train(task=task, data="digits", arch=arch, recipe=RECIPE, seed=seed, start=Init(seed=seed))


def record(store: Store, step_id: str) -> Record:
    found = store.record(step_id)
    assert found is not None
    return found


def test_the_modules_that_a_step_names() -> None:
    assert sources.modules_of(train()) == {"own_code"}
    assert sources.modules_of(train("rotnet", "a.b:net")) == {"a.b"}
    assert sources.modules_of(train("rotnet")) == set()
    for data, module in (("x:Set", "x"), ("x:Set/argument:10%-of-images", "x"), ("parquet/cifar:fine_label", None)):
        mask = RandomPrune(arch="conv4", data=data, keep=0.5, level=1, seed=0)
        assert sources.modules_of(mask) == {module} - {None}
    assert sources.modules_of(Prune(of=train("rotnet"), keep=0.5, criterion="a.b:score")) == {"a.b"}
    assert sources.modules_of(Imported(arch="own_code:net", channels=1, digest="0" * 64)) == set()


def test_files_are_found_without_an_import(tmp_path: Path) -> None:
    (tmp_path / "broken_code.py").write_text("1 / 0")
    assert sources.file_of("broken_code") == tmp_path / "broken_code.py"
    assert sources.digest("broken_code") == sha256("1 / 0")
    assert "broken_code" not in sys.modules
    for absent in ("no_such_module", "broken_code.part", "sys", "", "a..b"):
        assert sources.digest(absent) is None


def chain() -> dict[str, Train]:
    """A chain on a task of one's own, and a linear classifier, which names no code of one's own."""
    rounds = imp(
        task="own_code:Turns", data="digits", arch="conv4", recipe=RECIPE, seed=0, levels=2, keep=0.5, rewind=0
    )
    probe = linear(rounds.rounds[1], data="digits", recipe=RECIPE)
    other = random_reinit(rounds.masks[1], like=rounds.dense, task="labels", recipe=RECIPE)
    return {"dense": rounds.dense, "pruned": rounds.rounds[1], "probe": probe, "other": other}


def test_steps_and_what_descends_from_them_have_the_digest(tmp_path: Path) -> None:
    steps = chain()
    alone = train("rotnet")
    store = execute([*steps.values(), alone], tmp_path / "runs")
    mask = steps["pruned"].mask
    assert isinstance(mask, Prune)
    for step in (*steps.values(), mask):
        assert record(store, step.id).facts["sources"] == {"own_code": [sha256(CODE)]}
    assert "sources" not in record(store, alone.id).facts


def test_what_two_versions_made_has_both_digests(tmp_path: Path) -> None:
    dense = train()
    execute([dense], tmp_path / "runs")
    write(OTHER)
    forget()
    probe = linear(dense, data="digits", recipe=RECIPE)
    further = replace(dense, start=Final(of=dense))
    store = execute([probe, further], tmp_path / "runs")
    for step in (dense, probe):
        assert record(store, step.id).facts["sources"] == {"own_code": [sha256(CODE)]}
    assert record(store, further.id).facts["sources"] == {"own_code": sorted([sha256(CODE), sha256(OTHER)])}


def test_the_digest_is_of_the_code_that_was_imported(tmp_path: Path) -> None:
    """The file is edited while the training runs."""
    run = loop.Loop.run

    def edits(self: loop.Loop) -> Any:
        write(OTHER)
        return run(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop.Loop, "run", edits)
        store = execute([train()], tmp_path / "runs")
    assert record(store, train().id).facts["sources"] == {"own_code": [sha256(CODE)]}


def test_a_resumed_training_has_the_digests_of_both_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "CHECKPOINT_EVERY", 0.0)
    monkeypatch.setattr(loop, "LOOK_EVERY", 0.0)
    updates, update = iter(range(4)), loop.Loop.next_update

    def stops(self: loop.Loop) -> None:
        if next(updates, None) is None:
            raise KeyboardInterrupt
        update(self)

    monkeypatch.setattr(loop.Loop, "next_update", stops)
    with pytest.raises(KeyboardInterrupt):
        execute([train()], tmp_path / "runs")
    monkeypatch.setattr(loop.Loop, "next_update", update)
    write(OTHER)
    forget()
    store = execute([train()], tmp_path / "runs")
    assert record(store, train().id).facts["resumed_at"] > 0
    assert record(store, train().id).facts["sources"] == {"own_code": sorted([sha256(CODE), sha256(OTHER)])}


# ------------------------------------------------------------------------------------- another version


def experiment(*steps: Train) -> Experiment:
    def points(scale: str, seed: int) -> Iterator[Point]:
        for level, step in enumerate(steps):
            metric = "top1" if step.task == "labels" else "rotation_top1"
            yield Point(step=step, task=step.task, init="", level=level, seed=0, metric=metric)

    return Experiment.of(points, Figure(title="t"), name="t")


def here(job: Job) -> None:
    Runner(store=Store("runs"), exchange=NoExchange()).run(json.loads(json.dumps(job.to_plain())))


def bytes_of(root: str) -> dict[str, bytes]:
    folder = Path(root)
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_one_line_warns_and_the_steps_stay_done(capsys: pytest.CaptureFixture[str]) -> None:
    steps = chain()
    tried = experiment(*steps.values(), train("rotnet"))
    records = tried.train_here(here)
    assert capsys.readouterr().err == ""
    tried.train_here(here)
    assert capsys.readouterr().err == ""
    write(OTHER)
    before = bytes_of("runs/steps")
    assert tried.train_here(here) == records
    told = f"raysslprune: {Path('own_code.py').absolute()} has changed since it made 5 finished steps; "
    told += "these stay done; --remake (remake=True in Python) makes these, and all that descends from them, again\n"
    assert capsys.readouterr().err == told
    assert bytes_of("runs/steps") == before
    tried.plan()
    said = capsys.readouterr()
    assert said.err.count("has changed since it made 5 finished steps;") == 1
    assert done_in(said.out) == "5 trainings"
    Path("own_code.py").unlink()  # nothing is known about what is not there
    importlib.invalidate_caches()
    tried.train_here(here)
    assert "changed" not in capsys.readouterr().err


def test_remake_makes_them_and_all_that_descends_from_them_again(capsys: pytest.CaptureFixture[str]) -> None:
    steps, alone = chain(), train("rotnet")
    tried = experiment(*steps.values(), alone)
    records = tried.train_here(here)
    kept = bytes_of(f"runs/steps/{alone.id}")
    old = bytes_of("runs/steps")
    write(CODE.replace("    pass", "    all_turns: bool = True"))  # other views, so other weights
    forget()
    tried.plan(remake=True)
    assert done_in(capsys.readouterr().out) == "1 training"
    again = tried.train_here(here, remake=True)
    assert "these, and all that descends from them, are made again" in capsys.readouterr().err
    assert again.keys() == records.keys()
    for step in steps.values():
        assert again[step.id].metrics != records[step.id].metrics
        assert again[step.id].facts["sources"] == {"own_code": [sha256(Path("own_code.py").read_text())]}
    assert bytes_of(f"runs/steps/{alone.id}") == kept
    aside = {path.name.partition("-")[0]: bytes_of(str(path)) for path in Path("runs/replaced").iterdir()}
    assert aside.keys() == records.keys() - {alone.id}
    assert all(old[f"{step}/{name}"] == content for step, files in aside.items() for name, content in files.items())
    tried.train_here(here)
    assert capsys.readouterr().err == ""


def done_in(out: str) -> str:
    """What a dry run says of finished trainings."""
    (found,) = re.findall(r"^done\s+(\d+ trainings?)", out, re.M)
    return found


def test_steps_without_a_digest_stay_and_are_made_again_as_descendants(capsys: pytest.CaptureFixture[str]) -> None:
    """As an older version of the package left them."""
    steps = chain()
    tried = experiment(*steps.values())
    records = tried.train_here(here)
    store = Store("runs")
    for step_id in records.keys() - {steps["dense"].id}:
        strip(store, step_id)
    write(OTHER)
    forget()
    assert len(tried.train_here(here)) == len(records)
    assert "has changed since it made 1 finished step;" in capsys.readouterr().err
    again = tried.train_here(here, remake=True)
    assert all(found.facts["sources"] == {"own_code": [sha256(OTHER)]} for found in again.values())
    assert {path.name.partition("-")[0] for path in Path("runs/replaced").iterdir()} == records.keys()


def strip(store: Store, step_id: str) -> None:
    old = record(store, step_id)
    facts = {name: value for name, value in old.facts.items() if name != "sources"}
    store.write(f"steps/{step_id}/SUCCESS", replace(old, facts=facts).to_bytes())


def test_a_kill_between_the_steps_that_are_set_aside_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = chain()
    tried = experiment(*steps.values())
    records = tried.train_here(here)
    write(OTHER)
    forget()
    aside, count = Store.set_aside, iter(range(3))

    def dies(self: Store, step_id: str, folder: str = "damaged") -> str:
        if next(count, None) is None:
            raise KeyboardInterrupt
        return aside(self, step_id, folder)

    monkeypatch.setattr(Store, "set_aside", dies)
    with pytest.raises(KeyboardInterrupt):
        tried.train_here(here, remake=True)
    monkeypatch.setattr(Store, "set_aside", aside)
    left = {path.name for path in Path("runs/steps").iterdir()}
    assert steps["dense"].id in left, "parents go last"
    again = tried.train_here(here, remake=True)
    assert again.keys() == records.keys()
    assert all(found.facts["sources"] == {"own_code": [sha256(OTHER)]} for found in again.values())


def test_one_training_warns_too(capsys: pytest.CaptureFixture[str]) -> None:
    given: dict[str, Any] = {"recipe": SETTINGS["smoke"].recipes["rotnet"]}
    first = raysslprune.train("own_code:Turns", "digits", "conv4", **given)
    write(OTHER)
    forget()
    assert not raysslprune.train("own_code:Turns", "digits", "conv4", **given).trained
    assert "these stay done; --remake" in capsys.readouterr().err
    again = raysslprune.train("own_code:Turns", "digits", "conv4", remake=True, **given)
    assert again.trained
    assert again.metrics == first.metrics
