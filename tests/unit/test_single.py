"""One training by a call or the command: its recipe, its identity, where it starts, and what the command prints."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch

import raysslprune
from raysslprune import __main__ as command
from raysslprune import single, sweep_loader
from raysslprune.commands.train import setting
from raysslprune.experiment import Failed
from raysslprune.messages import UserError
from raysslprune.paper.scales import SETTINGS
from raysslprune.results import sql
from raysslprune.spec import Final, ImportedWeights, Init, Prune, RandomPrune, Recipe, Rewind, Shuffle, Train, closure
from raysslprune.store.record import WEIGHTS
from raysslprune.store.steps import Store
from raysslprune.sweep_loader import SweepError
from tests.helpers import CHECKOUT
from tests.helpers.chains import execute
from tests.helpers.images import picture, save

QUICK: dict[str, Any] = {"samples": 640, "batch": 64}
LABELS = ("labels", "digits", "conv4")


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield
    assert torch.get_num_threads() == 1
    torch.set_num_threads(threads)


def call(*arguments: str) -> int:
    """The command in this process; gives its exit code."""
    try:
        return command.main(["train", *arguments])
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1


# ------------------------------------------------------------------------------------- a step like any


def test_a_training_is_that_of_a_sweep_with_the_same_bits_and_is_made_once(tmp_path: Path) -> None:
    points = sweep_loader.load("fig3", "smoke", 1).points
    steps = closure(point.step for point in points)
    (dense,) = (s for s in steps if isinstance(s, Train) and s.task == "rotnet" and isinstance(s.start, Init))
    torch.set_num_threads(2)
    done = raysslprune.train("rotnet", "digits", "conv4", recipe=SETTINGS["smoke"].recipes["rotnet"])
    assert torch.get_num_threads() == 2
    torch.set_num_threads(1)
    assert (done.step, done.trained) == (dense, True)
    record, expected = Store("runs").record(dense.id), execute([dense], tmp_path / "by a worker").record(dense.id)
    assert record is not None
    assert expected is not None
    assert record.files == expected.files
    assert record.metrics == expected.metrics == done.metrics
    assert "sources" not in record.facts
    again = raysslprune.train("rotnet", "digits", "conv4", recipe=SETTINGS["smoke"].recipes["rotnet"])
    assert (again.step, again.metrics, again.trained) == (dense, done.metrics, False)
    assert f"(step {dense.id}): rotation_top1 " in repr(done)


def test_it_starts_where_it_is_told_to() -> None:
    first = raysslprune.train("rotnet", "digits", "conv4", **QUICK)
    mask = RandomPrune(arch="conv4", data="digits", keep=0.2, level=1, seed=0)
    starts = {
        "its id": raysslprune.train(*LABELS, start=first.step.id[:6], mask=mask, **QUICK),
        "the step": raysslprune.train(*LABELS, start=first.step, mask=mask, **QUICK),
        "a start": raysslprune.train(*LABELS, start=Final(of=first.step), mask=mask.id, **QUICK),
    }
    assert [done.trained for done in starts.values()] == [True, False, False]
    for done in starts.values():
        assert done.step.start == Final(of=first.step)
        assert done.step.mask == mask
        assert done.metrics["density"] == 6480 / 32400
    drawn = raysslprune.train(*LABELS, seed=3, **QUICK)
    assert (drawn.step.seed, drawn.step.start) == (3, Init(seed=3))
    assert first.step.start == Init(seed=0)


def test_what_it_needs_and_lacks_is_made_too() -> None:
    """A state to rewind to that was not kept, and a mask."""
    first = raysslprune.train(*LABELS, **QUICK)
    done = raysslprune.train(*LABELS, start=Rewind(of=first.step, samples=128), **QUICK)
    assert done.trained
    assert Store("runs").has(f"steps/{first.step.id}/snapshot-128.safetensors")
    record = Store("runs").record(first.step.id)
    assert record is not None
    assert record.metrics == first.metrics


def test_a_killed_training_resumes_from_its_checkpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    from raysslprune.training import loop, runner

    whole = raysslprune.train(*LABELS, root="whole", **QUICK)
    monkeypatch.setattr(runner, "CHECKPOINT_EVERY", 0.0)
    monkeypatch.setattr(loop, "LOOK_EVERY", 0.0)
    updates = iter(range(4))
    update = loop.Loop.next_update

    def stops(self: loop.Loop) -> None:
        if next(updates, None) is None:
            raise KeyboardInterrupt
        update(self)

    monkeypatch.setattr(loop.Loop, "next_update", stops)
    with pytest.raises(KeyboardInterrupt):
        raysslprune.train(*LABELS, **QUICK)
    monkeypatch.setattr(loop.Loop, "next_update", update)
    done = raysslprune.train(*LABELS, **QUICK)
    record = Store("runs").record(done.step.id)
    assert record is not None
    assert record.facts["resumed_at"] > 0
    assert done.metrics == whole.metrics


def test_a_training_that_fails_is_one_sentence() -> None:
    with pytest.raises(
        Failed, match=r"^labels seed 0, dense, drawn failed: FloatingPointError: .* after .*; details in"
    ):
        raysslprune.train(*LABELS, **QUICK, lr=1e30)


def test_a_start_or_a_mask_for_other_channels_is_refused_before_training(capsys: pytest.CaptureFixture[str]) -> None:
    """conv4's first layer has 3 x 3 x 3 weights in each filter for RGB images, 1 x 3 x 3 for digits."""
    save_pets(Path("data"))
    rgb = RandomPrune(arch="conv4", data="folder/pets:16px", keep=0.2, level=1, seed=0)
    why = f"the mask, step {rgb.id}, is for images with 3 channels, and digits has 1"
    store = Store("runs")
    store.create()
    store.commit(rgb, {}, {}, {})
    arguments = [f"{name}={value}" for name, value in GIVEN.items()]
    assert call(*arguments, f"--mask={rgb.id}") == 2
    assert capsys.readouterr().err == f"raysslprune: {why}\n"
    for mask in (rgb, Shuffle(of=rgb, seed=0)):
        with pytest.raises(SweepError, match=f"the mask, step {mask.id}, is for images with 3 channels, and digits"):
            raysslprune.train(*LABELS, mask=mask, **QUICK)
    grey = raysslprune.train(*LABELS, **QUICK).step
    pruned = Prune(of=grey, keep=0.5)
    for name, wrong in {"start": {"start": grey}, "mask": {"mask": pruned}}.items():
        of = grey if name == "start" else pruned
        why = f"^the {name}, step {of.id}, is for images with 1 channel, and folder/pets:16px has 3$"
        with pytest.raises(SweepError, match=why):
            raysslprune.train("labels", "folder/pets:16px", "conv4", **wrong, **QUICK)
    raysslprune.train("labels", "digits:20%-of-images", "conv4", start=grey, mask=pruned, **QUICK)


def save_pets(root: Path) -> None:
    for split, name in product(("train", "val"), ("cat", "dog")):
        (root / "pets" / split / name).mkdir(parents=True)
        for number in range(2):
            save(picture(20, 20, seed=number), root / "pets" / split / name / f"{number}.png")


def test_weights_for_other_channels_stop_a_sweep_before_training(capsys: pytest.CaptureFixture[str]) -> None:
    weights = ImportedWeights(arch="conv4", channels=3, digest="0" * 64)
    store = Store("runs")
    store.create()
    store.commit(weights, {}, {}, {})
    recipe = Recipe(samples=640, batch=64, lr=0.1)
    step = Train(task="labels", data="digits", arch="conv4", recipe=recipe, seed=0, start=Final(of=weights))
    made = raysslprune.Experiment.of(
        lambda scale, seed: [raysslprune.Point(step=step, task="t", init="i", level=0, seed=seed)],
        raysslprune.Figure(title="t"),
        name="theirs",
        seeds=1,
    )
    why = f"the start, step {weights.id}, is for images with 3 channels, and digits has 1"
    made.plan()
    assert why in " ".join(capsys.readouterr().out.split())
    with pytest.raises(SweepError, match=why):
        made.run()


# ------------------------------------------------------------------------------------- the recipe


@pytest.mark.parametrize(
    ("task", "data", "scale", "name"),
    [
        ("rotnet", "digits", "laptop", "rotnet"),
        ("s4l", "digits", "laptop", "s4l:10%-of-images"),
        ("labels", "digits:10%-of-images", "laptop", "labels:10%-of-images"),
        ("npid", "cifar10:10%-of-images", "cifar10-small", "npid"),
        ("labels", "cifar10", "cifar10-fast", "labels"),
        ("exemplar", "imagenet", "paper", "exemplar"),
        ("mine:SimCLR", "digits", "laptop", "labels"),
    ],
)
def test_the_recipe_is_that_of_the_scale_with_the_data(task: str, data: str, scale: str, name: str) -> None:
    recipe, told = single.default_recipe(task, data, "none")
    assert recipe == SETTINGS[scale].recipes[name]
    assert told.startswith(f"that of scale {scale}")


def test_on_a_part_of_the_data_it_has_as_many_epochs() -> None:
    recipe, told = single.default_recipe("rotnet", "digits:20%-of-images", "none")
    whole = SETTINGS["laptop"].recipes["rotnet"]
    assert recipe == replace(whole, samples=12 * 239)  # a fifth of each class, rounded
    assert whole.samples == 12 * 1200
    assert told == "that of scale laptop, as many epochs"


def test_on_images_on_disk_crops_replace_shifts(tmp_path: Path) -> None:
    for split, count in (("train", 5), ("val", 2)):
        for name in ("cat", "dog"):
            (tmp_path / "pets" / split / name).mkdir(parents=True)
            for number in range(count):
                save(picture(40, 40, seed=number), tmp_path / "pets" / split / name / f"{number}.png")
    recipe, told = single.default_recipe("rotnet", "folder/pets", str(tmp_path))
    base = SETTINGS["cifar10-small"].recipes["rotnet"]
    assert recipe == replace(base, samples=10 * base.samples // 5000, pad=0, crop=0.08)
    assert base.pad == 2
    assert told == "that of scale cifar10-small, as many epochs, crops in place of shifts"


def test_changes_are_fields_of_the_recipe_or_options_of_the_task() -> None:
    recipe = SETTINGS["laptop"].recipes["exemplar"]
    changes = {"lr": 0.5, "margin": 0.1, "jitter": (0.1, 0.1, 0.0, 0.0)}
    changed = single.with_changes(recipe, "exemplar", changes, pytest.fail)
    options = {**dict(recipe.options), "margin": 0.1}
    assert changed == replace(recipe, lr=0.5, options=options, jitter=(0.1, 0.1, 0.0, 0.0))
    own = single.with_changes(recipe, "mine:X", {"anything": 3}, pytest.fail)
    assert own.options == (("anything", 3), *recipe.options)
    with pytest.raises(
        ValueError, match="'marginn' is neither a field of a recipe nor an option of task exemplar; did you "
    ):
        single.with_changes(recipe, "exemplar", {"marginn": 1.0}, pytest.fail)


def test_lengths_are_samples_or_text_as_in_a_scale_file() -> None:
    recipe = SETTINGS["laptop"].recipes["labels"]
    changes: dict[str, Any] = {"samples": "24 epochs", "warmup": "10 updates", "decay_at": ("12 epochs", 20_000)}
    changes |= {"batch": 32, "schedule": "steps"}
    changed = single.with_changes(recipe, "labels", changes, lambda: 1000)
    assert changed == replace(recipe, samples=24_000, warmup=320, decay_at=(12_000, 20_000), batch=32, schedule="steps")
    with pytest.raises(ValueError, match="batch of Recipe must be"):
        single.with_changes(recipe, "labels", {"samples": "10 updates", "batch": "big"}, pytest.fail)
    with pytest.raises(ValueError, match=r"^samples must be a number of samples, or text such as '24 epochs'"):
        single.with_changes(recipe, "labels", {"samples": "24 epocs"}, pytest.fail)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("lr=0.1", ("lr", 0.1)),
        ("batch=64", ("batch", 64)),
        ("schedule=cosine", ("schedule", "cosine")),
        ('schedule="cosine"', ("schedule", "cosine")),
        ("flip=true", ("flip", True)),
        ("jitter=[0.4, 0.4, 0, 0]", ("jitter", (0.4, 0.4, 0, 0))),
        ("labelled=10%-of-images", ("labelled", "10%-of-images")),
        ("x=a\nb=1", ("x", "a\nb=1")),
    ],
)
def test_values_are_written_as_in_toml(text: str, expected: tuple[str, object]) -> None:
    assert setting(text) == expected
    assert type(setting(text)[1]) is type(expected[1])


# ------------------------------------------------------------------------------------- the command


def test_the_command_prints_the_metrics(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--task", "rotnet", "--data", "digits", "--arch", "conv4", "--set", "lr=0.1", "--set", "samples=640"]
    assert call(*arguments) == 0
    said = capsys.readouterr()
    few = "rotnet: 10 updates (640 samples, batches of 64)"
    short = f"raysslprune: {few}: too few to learn anything; set samples or batch\n"
    assert said.err == short
    expected = replace(SETTINGS["laptop"].recipes["rotnet"], lr=0.1, samples=640)
    step = Train(task="rotnet", data="digits", arch="conv4", recipe=expected, seed=0, start=Init(seed=0))
    record = Store("runs").record(step.id)
    assert record is not None
    first, second, third, head, metric, *_ = said.out.splitlines()
    assert first == f"# step {step.id}: rotnet seed 0, dense, drawn"
    assert second.startswith("# rotnet on digits, conv4: samples 640 (epochs: 0.5333), batch 64, lr 0.1, ")
    assert third == "# recipe: that of scale laptop, changed: lr, samples"
    assert head.split() == ["metric", "value"]
    assert metric.split() == ["rotation_top1", f"{record.metrics['rotation_top1']:.6g}"]
    assert call(*arguments) == 0
    again = capsys.readouterr()
    assert again.out == said.out
    assert again.err == f"{short}raysslprune: this training was finished before; nothing was trained\n"
    (row,) = sql.query("SELECT step, task, lr, rotation_top1 FROM steps", "runs").to_pylist()
    found = {"step": step.id, "task": "rotnet", "lr": 0.1, "rotation_top1": record.metrics["rotation_top1"]}
    assert row == found, "without any sweep"


GIVEN = {"--task": "labels", "--data": "digits", "--arch": "conv4"}


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"--task": "label"}, "task 'label' is not known; did you mean 'labels'?"),
        ({"--arch": "conv9"}, "architecture 'conv9' is not known"),
        ({"--data": "digitss"}, "data set 'digitss' is not known"),
        ({"--data": "digits:200%"}, "subset '200%' is not of the form"),
        ({"--set": "lr"}, "'lr' is not of the form NAME=VALUE, such as lr=0.1"),
        ({"--set": "lrr=1"}, "'lrr' is neither a field of a recipe nor an option of task labels; did you mean lr?"),
        ({"--set": "samples=2 hours"}, "samples must be a number of samples, or text such as '24 epochs'"),
        ({"--set": "lr=fast"}, "lr of Recipe must be a number, not 'fast'"),
        ({"--set": "batch=1"}, "a recipe needs batch > 1"),
        ({"--set": "standardise=3"}, "option standardise of task labels must be of type bool, not 3"),
        ({"--start": "5f3a"}, "there are no results in runs, so no step '5f3a' to use as the start"),
        ({"--seed": "-1"}, "'-1' is not a whole number from 0 to"),
        ({"--device": "tpu"}, "invalid choice: 'tpu'"),
    ],
    ids=str,
)
def test_a_wrong_call_is_one_sentence(changes: dict[str, str], why: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(*(f"{name}={value}" for name, value in {**GIVEN, **changes}.items())) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert why in line
    assert not Path("runs").exists()


def test_a_folder_is_no_data_set(capsys: pytest.CaptureFixture[str]) -> None:
    Path("data").mkdir()
    assert call(*(f"{name}={value}" for name, value in {**GIVEN, "--data": "data"}.items())) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("raysslprune: data set 'data' is not known; ")
    assert line.endswith("; the folder is --data-root (data_root in Python)")


def test_a_start_and_a_mask_that_do_not_fit_are_refused() -> None:
    first = raysslprune.train("rotnet", "digits", "conv4", **QUICK).step
    mask = RandomPrune(arch="conv4", data="digits", keep=0.2, level=1, seed=0)
    pruned = raysslprune.train(*LABELS, mask=mask, **QUICK).step
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"start": mask.id}, f"the start must be a training or imported weights, but step {mask.id} is a RandomPrune"),
        ({"mask": first.id}, f"the mask must be a mask, but step {first.id} is a Train"),
        ({"start": "zzzz"}, "there is no step 'zzzz' in runs"),
    ]
    for given, why in wrong:
        with pytest.raises(UserError, match=why):
            raysslprune.train(*LABELS, **given, **QUICK)
    other: list[tuple[dict[str, Any], str]] = [
        ({"start": pruned}, f"the start, step {pruned.id}, is of conv4, not of resnet8"),
        ({"mask": mask.id}, f"the mask, step {mask.id}, is of conv4, not of resnet8"),
    ]
    for given, why in other:
        with pytest.raises(UserError, match=why):
            raysslprune.train("labels", "digits", "resnet8", **given, **QUICK)
    Path("runs/steps", first.id, "SUCCESS").unlink()
    with pytest.raises(UserError, match=f"step {first.id} is not finished; run its sweep again to finish it"):
        raysslprune.train(*LABELS, start=first.id, **QUICK)


def test_a_damaged_start_is_set_aside_and_said(capsys: pytest.CaptureFixture[str]) -> None:
    first = raysslprune.train("rotnet", "digits", "conv4", **QUICK).step
    weights = Path("runs/steps", first.id, WEIGHTS)
    raysslprune.train(*LABELS, start=first, **QUICK)  # so that the index knows the first as intact
    times = weights.stat()
    weights.write_bytes(weights.read_bytes()[:-4] + b"wron")
    os.utime(weights, ns=(times.st_atime_ns, times.st_mtime_ns))
    with pytest.raises(Failed, match=f"step {first.id}: {WEIGHTS} does not match its checksum; moved to .*damaged"):
        raysslprune.train(*LABELS, start=first, **QUICK, lr=0.01)
    assert raysslprune.train(*LABELS, start=first, **QUICK, lr=0.01).trained


def test_a_training_of_few_updates_is_said_to_learn_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    """As a sweep says it, with the names that this command takes; of 50 updates nothing is said."""
    where = ("--task", "labels", "--data", "digits:10%-of-images", "--arch", "conv4", "--set", "batch=16")
    for samples in (784, 785):
        assert call(*where, "--set", f"samples={samples}") == 0
        short = f"raysslprune: labels: 49 updates ({samples} samples, batches of 16): too few to learn anything"
        assert capsys.readouterr().err == (f"{short}; set samples or batch\n" if samples == 784 else "")


def test_a_recipe_of_ones_own() -> None:
    recipe = Recipe(samples=256, batch=64, lr=0.1)
    done = raysslprune.train(*LABELS, recipe=recipe, momentum=0.5)
    assert done.step.recipe == replace(recipe, momentum=0.5)
    assert done.recipe == "as given"


def test_the_docs_own_call(capsys: pytest.CaptureFixture[str]) -> None:
    text = (CHECKOUT / "docs/training.md").read_text()
    (code,) = re.findall(r"^```python train.py\n(.*?)^```$", text, re.M | re.S)
    exec(code, {})
    tuned, pruned, density = map(float, capsys.readouterr().out.split())
    assert tuned > 70
    assert pruned > 70
    assert density == 0.2
