"""Jobs of every kind, executed without Ray at scale smoke, against networks written out in plain torch and numpy."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from threading import Event

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save as to_safetensors
from sklearn.svm import LinearSVC
from torch import Tensor, nn

from raysslprune import catalogue, data
from raysslprune.lottery import finetune
from raysslprune.spec import Init, Rewind, Train, dump
from raysslprune.store.record import WEIGHTS, Damaged, snapshots_in
from raysslprune.store.steps import Store
from raysslprune.training import loop as training
from raysslprune.training import runner as runner_module
from raysslprune.training.loop import Checkpoint
from raysslprune.training.make_masks import NoExchange
from raysslprune.training.runner import Runner, in_background
from tests.helpers.chains import execute
from tests.helpers.runner import (
    CONVOLUTIONS,
    DURING,
    OF,
    ROTNET,
    SHORT,
    STEPS,
    chain,
    drawn,
    job_of,
    left,
    made,
    mask_in,
    masked,
    record,
    same,
    weights,
)


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """All of these, made once. Don't write to it."""
    return execute([*STEPS.values(), *DURING.rounds], tmp_path_factory.mktemp("run") / "runs", snapshots=[0])


def features(state: Mapping[str, Tensor], images: Tensor) -> Tensor:
    """The trunk in evaluation mode, in float64."""
    digits = data.load("digits")
    w = {name: t.double() for name, t in state.items()}
    x = (images.double() - digits.mean.double()) / digits.std.double()
    for number in (1, 2, 3, 4):
        norm = f"trunk.layers.bn{number}"
        x = F.conv2d(x, w[f"trunk.layers.conv{number}.weight"], padding=1)
        statistics = w[f"{norm}.running_mean"], w[f"{norm}.running_var"]
        x = F.relu(F.batch_norm(x, *statistics, w[f"{norm}.weight"], w[f"{norm}.bias"]))
        if number in (1, 3):
            x = F.max_pool2d(x, 2)
    return x.mean(dim=(2, 3))


def calibrated(state: Mapping[str, Tensor], name: str = "digits") -> dict[str, Tensor]:
    """With statistics of the training images, in batches of 1,024 and 176: means over images, in float64."""
    digits = data.load(name)
    w = {name: t.double() for name, t in state.items()}
    found = {name: torch.zeros_like(t) for name, t in w.items() if "running" in name}
    for images, _ in digits.train.batches(1_024):
        x = (images.double() - digits.mean.double()) / digits.std.double()
        for number in (1, 2, 3, 4):
            x = F.conv2d(x, w[f"trunk.layers.conv{number}.weight"], padding=1)
            var, mean = torch.var_mean(x, dim=(0, 2, 3))
            found[f"trunk.layers.bn{number}.running_mean"] += len(images) / len(digits.train) * mean
            found[f"trunk.layers.bn{number}.running_var"] += len(images) / len(digits.train) * var
            x = F.relu(F.batch_norm(x, None, None, training=True))
            x = F.max_pool2d(x, 2) if number in (1, 3) else x
    return {**state, **{name: t.float() for name, t in found.items()}}


@cache
def split(name: str) -> tuple[Tensor, np.ndarray]:
    part = getattr(data.load("digits"), name)
    return part.images, part.labels.numpy()


def trunk_of(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: t for name, t in state.items() if name.startswith("trunk.")}


# ------------------------------------------------------------------------------------- what a mask leaves

PIXELS = {"layers.conv1.weight": 8 * 8, "layers.conv2.weight": 4 * 4, "layers.conv3.weight": 4 * 4,
          "layers.conv4.weight": 2 * 2}  # fmt: skip
"""Positions at which each convolution of conv4 is computed: digits have 8 x 8 pixels, and two layers halve them."""


@pytest.mark.parametrize(("name", "outputs"), [("fine-tuned", 10), ("SVMs", 10), ("linear on three classes", 3)])
def test_multiply_adds_and_densities_of_what_is_left(store: Store, name: str, outputs: int) -> None:
    """Each weight that stays is used once at each position; the head is 64 features for each output."""
    mask = mask_in(store, STEPS[name].mask)
    facts = record(store, STEPS[name]).facts
    kept = {layer: int(np.count_nonzero(stays.numpy())) for layer, stays in mask.items()}
    assert facts["multiply_adds"] == sum(PIXELS[layer] * kept[layer] for layer in PIXELS) + 64 * outputs
    densities = {layer: kept[layer] / mask[layer].numel() for layer in mask}
    assert facts["layers"] == densities
    assert STEPS[name].mask is not None
    assert record(store, STEPS[name].mask).facts["layers"] == densities  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(("name", "classes"), [("fine-tuned", range(10)), ("SVMs", range(10))])
def test_what_guessing_gives_is_a_fact_of_a_training(store: Store, name: str, classes: range) -> None:
    labels = split("test")[1].tolist()
    most = max(labels.count(one) for one in classes)
    assert record(store, STEPS[name]).facts["chance"] == {
        "top1": pytest.approx(100 * most / len(labels)),
        "map": pytest.approx(100 / len(classes)),
    }


def test_a_dense_network_has_all_of_its_multiply_adds(store: Store) -> None:
    facts = record(store, ROTNET.dense).facts
    assert facts["multiply_adds"] == sum(PIXELS[layer] * math.prod(CONVOLUTIONS[layer]) for layer in PIXELS) + 64 * 4
    assert facts["layers"] == dict.fromkeys(PIXELS, 1.0)


class ByValue(nn.Module):
    """A network whose forward pass depends on a value, which a tensor on the meta device does not have."""

    width = 4

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, 4, 3)

    def forward(self, images: Tensor) -> Tensor:
        x = self.conv(images if float(images.sum()) else images + 1)
        return x.mean(dim=(2, 3))


def test_a_network_that_reads_values_is_trained_without_a_count(tmp_path: Path) -> None:
    recipe = replace(SHORT, samples=128)
    step = Train(task="labels", data="digits", arch=f"{__name__}:ByValue", recipe=recipe, seed=0, start=Init(seed=0))
    facts = made(tmp_path).run(job_of(step))
    assert facts["layers"] == {"conv.weight": 1.0}
    assert "multiply_adds" not in facts


# ------------------------------------------------------------------------------------- starts


def test_a_start_from_final_weights_brings_the_trunk_and_a_new_head(store: Store) -> None:
    """BatchNorm's statistics too; the head is the one that is drawn for the seed."""
    before = weights(store, DURING.dense, "snapshot-0.safetensors")
    pretext = weights(store, ROTNET.dense)
    assert same(trunk_of(before), trunk_of(pretext))
    assert int(pretext["trunk.layers.bn1.num_batches_tracked"]) == 20
    assert pretext["head.weight"].shape == (4, 64)
    fresh = drawn(10)
    assert torch.equal(before["head.weight"], fresh["head.weight"])
    assert torch.equal(before["head.bias"], fresh["head.bias"])
    assert not same(trunk_of(weights(store, DURING.dense)), trunk_of(pretext))


def test_a_masked_network_is_fine_tuned_from_its_masked_weights(store: Store) -> None:
    step = STEPS["fine-tuned"]
    before, after = weights(store, step, "snapshot-0.safetensors"), weights(store, step)
    mask = mask_in(store, ROTNET.masks[1])
    assert same(trunk_of(before), trunk_of(weights(store, OF)))
    for name, stays in mask.items():
        final = after[f"trunk.{name}"]
        assert not final[~stays].any()
        assert final[stays].all()
        assert not torch.equal(final, before[f"trunk.{name}"])
    assert not torch.equal(after["trunk.layers.bn4.running_mean"], before["trunk.layers.bn4.running_mean"])
    assert record(store, step).metrics["density"] == round(32_400 * 0.4) / 32_400
    outputs = features(after, split("test")[0]) @ after["head.weight"].double().T + after["head.bias"].double()
    hits = int((outputs.argmax(1).numpy() == split("test")[1]).sum())
    assert record(store, step).metrics["top1"] == pytest.approx(100 * hits / 597, abs=0.2)


def test_each_round_of_pruning_during_transfer_starts_where_the_first_fine_tuning_did(store: Store) -> None:
    dense, again = DURING.rounds
    assert again.start == Rewind(of=dense, samples=0)
    first, second = (weights(store, step, "snapshot-0.safetensors") for step in (dense, again))
    mask = mask_in(store, DURING.masks[1])
    assert same(second, masked(first, mask))
    assert left(mask) == round(32_400 * 0.4)
    final = weights(store, dense)
    threshold = min(final[f"trunk.{name}"][stays].abs().min() for name, stays in mask.items())
    assert all((final[f"trunk.{name}"][~stays].abs() <= threshold).all() for name, stays in mask.items())


# ------------------------------------------------------------------------------------- frozen trunks


@pytest.mark.parametrize("name", ["linear", "linear with views", "linear on three classes"])
def test_a_frozen_trunk_is_bit_for_bit_what_it_was(name: str, store: Store) -> None:
    """Its BatchNorm statistics and their count of batches, too, and its pruned weights."""
    step = STEPS[name]
    before, after = weights(store, step, "snapshot-0.safetensors"), weights(store, step)
    assert same(trunk_of(after), trunk_of(weights(store, OF)))
    assert same(trunk_of(before), trunk_of(after))
    for part, stays in mask_in(store, ROTNET.masks[1]).items():
        assert not after[f"trunk.{part}"][~stays].any()
    assert not torch.equal(before["head.1.weight"], after["head.1.weight"])
    assert int(after["head.0.num_batches_tracked"]) == math.ceil(step.recipe.samples / 64)


def test_a_frozen_trunk_of_drawn_weights_is_masked(store: Store) -> None:
    after = trunk_of(weights(store, STEPS["untrained"]))
    expected = calibrated(masked(trunk_of(drawn(10)), mask_in(store, ROTNET.masks[1])))
    for name, tensor in after.items():
        if "running" in name:
            torch.testing.assert_close(tensor, expected[name], rtol=1e-4, atol=1e-4)
        elif "batches" not in name:
            assert torch.equal(tensor, expected[name]), name
    assert same(after, trunk_of(weights(store, STEPS["untrained"], "snapshot-0.safetensors")))


@pytest.mark.parametrize("name", ["linear", "linear with views", "untrained"])
def test_a_linear_classifiers_accuracy_is_that_of_its_stored_weights(name: str, store: Store) -> None:
    w, (images, labels) = weights(store, STEPS[name]), split("test")
    x = features(w, images)
    x = (x - w["head.0.running_mean"].double()) / (w["head.0.running_var"].double() + 1e-5).sqrt()
    outputs = x @ w["head.1.weight"].double().T + w["head.1.bias"].double()
    hits = int((outputs.argmax(1).numpy() == labels).sum())
    assert record(store, STEPS[name]).metrics["top1"] == pytest.approx(100 * hits / 597, abs=0.2)  # one image, no more


def test_features_that_were_trained_are_better_than_chance_on_three_classes(store: Store) -> None:
    step = STEPS["linear on three classes"]
    part, top1 = data.load("digits:30%-of-classes"), record(store, step).metrics["top1"]
    assert weights(store, step)["head.1.weight"].shape == (3, 64)
    assert part.classes == 3
    assert 100 < len(part.test) < 250
    assert top1 * len(part.test) / 100 == pytest.approx(round(top1 * len(part.test) / 100))
    assert top1 > 60


def test_a_tenth_of_the_labels_is_trained_on_and_all_of_the_test_set_judges(store: Store) -> None:
    step = STEPS["fine-tuned on a tenth"]
    found = record(store, step)
    assert found.metrics["top1"] * 597 / 100 == pytest.approx(round(found.metrics["top1"] * 597 / 100))
    assert weights(store, step)["head.weight"].shape == (10, 64)
    updates = int(weights(store, OF)["trunk.layers.bn1.num_batches_tracked"])
    after = int(weights(store, step)["trunk.layers.bn1.num_batches_tracked"])
    assert after - updates == 480 // 48


def network_for_svms(name: str, store: Store) -> dict[str, Tensor]:
    mask = mask_in(store, ROTNET.masks[1])
    return masked(weights(store, OF), mask) if name == "SVMs" else calibrated(masked(drawn(10), mask))


# ------------------------------------------------------------------------------------- SVMs


@pytest.mark.parametrize("name", ["SVMs", "SVMs, untrained"])
def test_svms_are_those_of_scikit_learn_on_the_masked_trunks_features(name: str, store: Store) -> None:
    state, stored = network_for_svms(name, store), weights(store, STEPS[name])
    assert stored.keys() == {"head.weight", "head.bias", "costs"}
    assert stored["costs"].tolist() == [1.0] * 10

    def normalised(which: str) -> np.ndarray:
        x = features(state, split(which)[0])
        return (x / (x.norm(dim=1, keepdim=True) + 1e-5)).numpy()

    known, asked, labels = normalised("train"), normalised("test"), split("train")[1]
    for c in range(10):
        svm = LinearSVC(C=1.0, class_weight={1: 2, -1: 1}, max_iter=2000, tol=1e-4, random_state=0)
        svm.fit(known, np.where(labels == c, 1, -1))
        expected = svm.decision_function(asked)
        scores = asked @ stored["head.weight"][c].numpy() + stored["head.bias"][c].item()
        assert np.abs(scores - expected).max() < 2e-3 * np.abs(expected).max()
    outputs = asked @ stored["head.weight"].numpy().T + stored["head.bias"].numpy()
    hits = int((outputs.argmax(1) == split("test")[1]).sum())
    metrics = record(store, STEPS[name]).metrics
    assert metrics["top1"] == pytest.approx(100 * hits / 597, abs=0.2)
    assert metrics["density"] == 12_960 / 32_400
    assert metrics["collapsed_layers"] == 0
    assert 0 < metrics["map"] <= 100
    assert "train_loss" not in metrics
    assert set(metrics) == set(catalogue.metrics(STEPS[name]))
    assert set(metrics) - {"top1"} == set(catalogue.metrics(replace(STEPS[name], data="voc07")))


def test_svms_are_measured_on_held_out_images_too(tmp_path: Path) -> None:
    name = "digits:25%-held-out"
    runner, step = made(tmp_path), replace(STEPS["SVMs, untrained"], mask=None, data=name)
    runner.run(job_of(step))
    metrics, stored = record(runner.store, step).metrics, weights(runner.store, step)
    assert set(metrics) == set(catalogue.metrics(step))
    held = data.load(name)
    for metric, part, count in (("top1", held.test, 597), ("top1_validation", held.validation, 299)):
        assert isinstance(part, data.Resident)
        x = features(calibrated(drawn(10), name), part.images)
        outputs = x / (x.norm(dim=1, keepdim=True) + 1e-5) @ stored["head.weight"].T + stored["head.bias"]
        hits = int((outputs.argmax(1) == part.labels).sum())
        assert metrics[metric] == pytest.approx(100 * hits / count, abs=0.5), metric


def test_an_untrained_trunk_is_another_one_without_its_mask(store: Store) -> None:
    """So the comparison above would see a mask that is not applied."""
    images = split("test")[0]
    state = drawn(10)
    apart = features(state, images) - features(masked(state, mask_in(store, ROTNET.masks[1])), images)
    assert apart.abs().max() > 0.1


def test_progress_of_svms_is_in_fits(tmp_path: Path) -> None:
    step = replace(STEPS["SVMs, untrained"], mask=None)
    told: list[tuple[str, int, int]] = []
    runner = made(tmp_path, progress=lambda *what: told.append(what))
    runner.run(job_of(step))
    assert told == [(step.id, done, 40) for done in range(1, 41)]  # ten classes: three folds and the final fit


def commit(store: Store, step: Train, state: Mapping[str, Tensor]) -> None:
    """Made-up weights, as if they had been trained."""
    store.commit(step, {WEIGHTS: to_safetensors(dict(state))}, {"density": 1.0}, {"images_per_second": 1.0})


# ------------------------------------------------------------------------------------- again


def test_what_is_done_is_not_made_again_and_a_new_snapshot_joins_the_old(tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    runner, step = made(tmp_path, progress=lambda *what: told.append(what)), STEPS["SVMs, untrained"]
    step = replace(step, mask=None)
    facts = runner.run(job_of(step))
    del told[:]
    assert runner.run(job_of(step)) == facts
    assert told == []
    dense = chain("labels").dense
    first = runner.run(job_of(dense, (0,)))
    assert first["resumed_at"] is None
    assert first["device"] == "cpu"
    assert first["versions"].keys() == {"raysslprune", "torch", "numpy", "python"}
    assert runner.run(job_of(dense, (0,))) == first
    before = record(runner.store, dense).files
    runner.run(job_of(dense, (640,)))
    after = record(runner.store, dense).files
    assert snapshots_in(after) == {0, 640}
    assert {name: after[name] for name in before} == before
    begun = runner.run(job_of(dense, (640,)))["begun"]
    prune = chain("labels", levels=1).masks[1]
    assert prune is not None
    job = {**job_of(dense, (0,)), "graph": dump([dense, prune]), "after": [prune.id]}
    assert runner.run(job)["begun"] == begun, "only the mask was missing"
    assert left(mask_in(runner.store, prune)) == 12_960


def test_damaged_final_weights_are_named_as_those_of_the_step_that_they_are_of(store: Store, tmp_path: Path) -> None:
    runner = made(tmp_path)
    commit(runner.store, ROTNET.dense, weights(store, ROTNET.dense))
    path = Path(runner.store.path(f"steps/{ROTNET.dense.id}/{WEIGHTS}"))
    path.write_bytes(path.read_bytes()[:-1])
    step = finetune(ROTNET.dense, data="digits", recipe=SHORT)
    with pytest.raises(Damaged) as caught:
        runner.run(job_of(step))
    assert caught.value.step_id == ROTNET.dense.id


class Killed(Exception):
    pass


RESUMED = {
    "npid": chain("npid").dense,
    "npid, rewound under a mask": chain("npid").rounds[1],
    "s4l": chain("s4l").dense,
    "s4l, rewound under a mask": chain("s4l").rounds[1],
    "exemplar": chain("exemplar").dense,
    "linear": STEPS["linear"],
    "linear with views": STEPS["linear with views"],
}


@pytest.fixture(scope="module")
def parents(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """All that the trainings to be interrupted read from, and those trainings without an interruption."""
    return execute(RESUMED.values(), tmp_path_factory.mktemp("parents") / "runs")


@pytest.mark.parametrize("what", RESUMED)
def test_resumed_equals_uninterrupted(
    what: str, parents: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed after each third of what was left to do, at a checkpoint; bit for bit, the bank of NPID too."""
    step = RESUMED[what]
    whole, store = record(parents, step), Store(str(tmp_path / "runs"))
    shutil.copytree(parents.path(""), store.path(""))
    shutil.rmtree(store.path(f"steps/{step.id}"))
    monkeypatch.setattr(training, "LOOK_EVERY", 0.0)
    monkeypatch.setattr(runner_module, "CHECKPOINT_EVERY", 0.0)
    seen_at: list[int] = []

    def kill(_job: str, seen: int, end: int) -> None:
        first = seen_at[-1] if seen_at else step.begins_at
        if seen >= first + (end - first) // 3 and store.load_checkpoint(step.id) is not None:
            seen_at.append(seen)
            raise Killed

    job = job_of(step, tuple(snapshots_in(whole.files)))
    for _ in range(2):
        with pytest.raises(Killed):
            Runner(store=store, exchange=NoExchange(), progress=kill).run(job)
    told: list[int] = []
    runner = Runner(store=store, exchange=NoExchange(), progress=lambda _job, seen, _end: told.append(seen))
    resumed_at = runner.run(job)["resumed_at"]
    assert step.begins_at < seen_at[0] < resumed_at <= seen_at[1]
    assert told[0] > resumed_at, "it began anew"
    assert record(store, step).files == whole.files
    assert record(store, step).metrics == whole.metrics
    assert store.load_checkpoint(step.id) is None


def test_a_rewound_training_has_the_memory_of_that_moment(parents: Store) -> None:
    """NPID's bank goes into the snapshot, and not into the final weights."""
    made_chain = chain("npid")
    early = weights(parents, made_chain.dense, "snapshot-640.safetensors")
    assert early["task.bank"].shape == (1_200, 64)
    assert torch.allclose(early["task.bank"].norm(dim=1), torch.ones(1_200))
    assert early["task.log_z"].isfinite()
    assert not [name for name in weights(parents, made_chain.dense) if name.startswith("task.")]


@pytest.mark.parametrize("task", ["npid", "s4l", "exemplar"])
def test_every_task_has_a_chain(task: str, parents: Store) -> None:
    metric, chance = {"npid": ("knn_top1", 10), "s4l": ("top1", 10), "exemplar": ("triplet_accuracy", 50)}[task]
    metrics = record(parents, chain(task).dense).metrics
    assert all(math.isfinite(value) for value in metrics.values())
    assert metrics[metric] > 2 * chance if chance == 10 else metrics[metric] > 60


def after(seen: int) -> Checkpoint:
    return Checkpoint(seen=seen, tensors={})


def test_a_checkpoint_is_written_while_the_training_goes_on() -> None:
    """One at a time, and all of them before the end."""
    went_on, done = Event(), list[int]()

    def write(checkpoint: Checkpoint) -> None:
        assert went_on.wait(60)
        done.append(checkpoint.seen)

    with in_background(write) as save:
        save(after(1))
        assert done == []
        went_on.set()
        save(after(2))
        assert done[:1] == [1]
    assert done == [1, 2]


@pytest.mark.parametrize(
    ("saves", "fails", "said"),
    [((1, 2), False, "no room at 1"), ((3,), False, "no room at 3"), ((4,), True, "a weight is not finite")],
    ids=["at the next", "at the end", "the training's own first"],
)
def test_what_a_write_raises_is_raised_in_the_training(saves: tuple[int, ...], fails: bool, said: str) -> None:
    def write(checkpoint: Checkpoint) -> None:
        raise OSError(f"no room at {checkpoint.seen}")

    def train() -> None:
        with in_background(write) as save:
            for seen in saves:
                save(after(seen))
            if fails:
                raise FloatingPointError("a weight is not finite")

    with pytest.raises((OSError, FloatingPointError), match=said):
        train()
