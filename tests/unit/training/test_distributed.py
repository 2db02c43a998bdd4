"""One training by several processes, real ones by gloo, against the same by one."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import socket
import sys
from pathlib import Path
from typing import Any, cast

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file
from torch import Tensor

from raysslprune import data, masks, models, parallel
from raysslprune.data import Dataset
from raysslprune.data.batches import Feed
from raysslprune.evaluate import metrics as metrics_module
from raysslprune.parallel import Share
from raysslprune.spec import Init, Recipe, Rewind, Train
from raysslprune.training import loop as training
from raysslprune.training.loop import Checkpoint, Hooks, Loop, Outcome
from tests.helpers.processes import on_ranks

EPOCH, BATCH, PART = 192, 32, 8
WORLDS = (2, pytest.param(4, marks=pytest.mark.slow))
HALF = 3 * BATCH

OPTIONS: dict[str, tuple[tuple[str, Any], ...]] = {
    "labels": (),
    "rotnet": (),
    "exemplar": (("dimension", 16), ("negatives", "semi-hard")),
    "npid": (("dimension", 16), ("negatives", 20), ("temperature", 0.5)),
    "s4l": (("labelled", "10%-of-images"),),
    "simclr": (("dimension", 16), ("hidden", 32)),
    "moco": (("dimension", 16), ("hidden", 32), ("queue", 100), ("ema", 0.9)),
    "byol": (("dimension", 16), ("hidden", 32), ("ema", 0.9)),
    "vicreg": (("dimension", 16), ("hidden", 32)),
}


def some_digits() -> Dataset:
    """Test images that two and four processes can't share evenly."""
    digits = data.load("digits")
    return dataclasses.replace(
        digits, train=digits.train.some(torch.arange(EPOCH)), test=digits.test.some(torch.arange(99))
    )


def step(task: str, **changes: Any) -> Train:
    made: dict[str, Any] = {"samples": 8 * BATCH, "batch": BATCH, "bn_batch": PART, "lr": 0.02, "momentum": 0.9}
    made |= {"weight_decay": 1e-3, "pad": 1, "options": OPTIONS[task]}
    fields: dict[str, Any] = {"start": Init(seed=0), **changes}
    return Train(task=task, data="digits", arch="conv4", recipe=Recipe(**made), seed=0, **fields)


def mask() -> masks.Mask:
    net = models.trunk("conv4", 1)
    shapes = {name: weight.shape for name, weight in models.prunable(net).items()}
    return masks.random(shapes, 9_000, torch.Generator().manual_seed(1), shapes)


def loops() -> dict[str, Loop]:
    """One of each kind, for every process alike."""
    digits = some_digits()
    made = {task: Loop(step=step(task), data=digits, mask=mask(), snapshots_at={HALF}) for task in OPTIONS}
    frozen = step("labels", start=Rewind(of=step("rotnet"), samples=HALF), trunk_frozen=True)
    return made | {"frozen": Loop(step=frozen, data=digits, start=models_of_a_rotnet(), mask=mask())}


def models_of_a_rotnet() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(5)
    net = models.network("conv4", 1, lambda width: torch.nn.Linear(width, 4), generator, torch.device("cpu"))
    return {name: tensor.clone() for name, tensor in net.state_dict().items()}


def outcomes() -> dict[str, Outcome]:
    return {name: loop.run() for name, loop in loops().items()}


def flat(outcome: Outcome) -> dict[str, Tensor]:
    """Everything that is the training's result, as tensors."""
    found = {f"weights.{name}": tensor for name, tensor in outcome.weights.items()}
    for samples, snapshot in outcome.snapshots.items():
        found |= {f"snapshot.{samples}.{name}": tensor for name, tensor in snapshot.items()}
    return found


def on_a_rank(rank: int, world: int, folder: Path) -> None:
    """Run in a process of its own."""
    torch.set_num_threads(1)
    training.LOOK_EVERY = 0.0
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=world)
    results = outcomes()
    tensors = {f"{name}/{key}": t for name, outcome in results.items() for key, t in flat(outcome).items()}
    metrics: dict[str, Any] = {name: outcome.metrics for name, outcome in results.items()}

    saved: list[Checkpoint] = []
    seen: list[int] = []
    hooks = Hooks(save=saved.append, save_every=0.0, progress=lambda at, _end: seen.append(at))
    Loop(step=step("npid"), data=some_digits(), mask=mask(), snapshots_at={HALF}, hooks=hooks).run()
    metrics["looks of this rank"] = [len(saved), seen]
    kept = saved[4] if saved else None
    shared = [kept]
    dist.broadcast_object_list(shared, src=0)
    again = Loop(step=step("npid"), data=some_digits(), mask=mask(), snapshots_at={HALF})
    assert shared[0] is not None
    again.restore(shared[0])
    tensors |= {f"resumed npid/{key}": t for key, t in flat(again.run()).items()}
    for task in ("moco", "byol", "vicreg"):
        tensors |= {f"resumed {task}/{key}": t for key, t in flat(resumed(task)).items()}

    curved = Loop(step=step("labels"), data=some_digits(), mask=mask(), snapshots_at={HALF}, curve_points=4).run()
    tensors |= {f"curved/{key}": t for key, t in flat(curved).items()}
    metrics["curve"] = {str(samples): values for samples, values in sorted(curved.curve.items())}

    metrics["apart"] = []
    for changed in ("mask", "weights", "place"):
        loop = Loop(step=step("labels"), data=some_digits(), mask=mask())
        if rank == world - 1 and changed == "mask":
            loop.keeps[0].flatten()[loop.keeps[0].flatten().argmax()] = 0
            loop.apply_mask()
        if rank == world - 1 and changed == "weights":
            with torch.no_grad():
                next(iter(loop.net.head.parameters())).mul_(1 + 1e-6)
        if rank == world - 1 and changed == "place":
            loop.seen += BATCH
        metrics["apart"].append(complaint_of(loop))
    bad = Loop(step=step("labels"), data=some_digits(), mask=mask())
    loss = bad.task.loss
    if rank == world - 1:
        bad.task.loss = lambda net, *parts: math.nan * loss(net, *parts)
    metrics["nan"] = complaint_of(bad)
    try:
        Loop(step=Train(**{**vars_of(step("labels")), "recipe": Recipe(samples=64, batch=24, bn_batch=8, lr=0.1)}),
             data=some_digits())  # fmt: skip
        metrics["uneven"] = ""
    except ValueError as error:
        metrics["uneven"] = str(error)
    metrics["spans"] = [[parallel.span(count).start, parallel.span(count).stop] for count in (1, 5, 8, 99)]
    rows = {count: torch.arange(2 * count).view(count, 2) for count in (1, 5, 8)}
    metrics["joined"] = [parallel.joined(r[parallel.span(count)], count).tolist() for count, r in rows.items()]
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / f"{rank}.safetensors")
    (folder / f"{rank}.json").write_text(json.dumps(metrics))
    dist.destroy_process_group()


def resumed(task: str) -> Outcome:
    """A training that this process and the others resume in the middle."""
    saved: list[Checkpoint | None] = []
    hooks = Hooks(save=saved.append, save_every=0.0)
    Loop(step=step(task), data=some_digits(), mask=mask(), snapshots_at={HALF}, hooks=hooks).run()
    shared = [saved[4] if saved else None]
    dist.broadcast_object_list(shared, src=0)
    again = Loop(step=step(task), data=some_digits(), mask=mask(), snapshots_at={HALF})
    assert shared[0] is not None
    again.restore(shared[0])
    return again.run()


def vars_of(made: Train) -> dict[str, Any]:
    return {field.name: getattr(made, field.name) for field in dataclasses.fields(made)}


def complaint_of(loop: Loop) -> str:
    try:
        loop.run()
    except (RuntimeError, FloatingPointError) as error:
        return f"{type(error).__name__}: {error}"
    return ""


Ranks = list[tuple[dict[str, Tensor], dict[str, Any]]]


@pytest.fixture(scope="module", params=WORLDS)
def ranks(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Ranks:
    """What each of so many processes has at the end: tensors, and metrics."""
    folder, world = tmp_path_factory.mktemp("ranks"), request.param
    on_ranks(__name__, world, world, folder)
    return [
        (load_file(folder / f"{r}.safetensors"), json.loads((folder / f"{r}.json").read_text())) for r in range(world)
    ]


@pytest.fixture(scope="module")
def alone() -> dict[str, Outcome]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    made = outcomes()
    torch.set_num_threads(threads)
    return made


@pytest.mark.parametrize("name", [*OPTIONS, "frozen"])
def test_the_same_as_by_one_process_but_for_rounding(name: str, ranks: Ranks, alone: dict[str, Outcome]) -> None:
    """Weights, BatchNorm statistics, snapshots, the task's memory, metrics; on each rank."""
    rounds = ("train_loss", "feature_std", "feature_rank", "embedding_std", "embedding_rank")
    for tensors, metrics in ranks:
        for key, tensor in flat(alone[name]).items():
            torch.testing.assert_close(tensors[f"{name}/{key}"], tensor, rtol=2e-4, atol=2e-5, msg=f"{name} {key}")
        assert metrics[name].keys() == alone[name].metrics.keys()
        for key, value in alone[name].metrics.items():
            one_image = 100 / 99 + 1e-9
            assert metrics[name][key] == pytest.approx(value, abs=1e-3 if key in rounds else one_image), key
        assert metrics[name]["density"] == alone[name].metrics["density"]


@pytest.mark.parametrize("name", OPTIONS)
def test_the_training_moved_so_the_test_above_can_fail(name: str, alone: dict[str, Outcome]) -> None:
    begun = loops()[name].net.state_dict()["trunk.layers.conv3.weight"]
    moved = (alone[name].weights["trunk.layers.conv3.weight"] - begun).abs().max()
    assert moved > 2e-3


@pytest.mark.parametrize("name", OPTIONS)
def test_all_ranks_have_the_same_bits(name: str, ranks: Ranks) -> None:
    first = ranks[0][0]
    for tensors, metrics in ranks[1:]:
        for key, tensor in tensors.items():
            if key.startswith(f"{name}/"):
                assert torch.equal(tensor, first[key]), key
        assert metrics[name] == ranks[0][1][name]


@pytest.mark.parametrize("name", OPTIONS)
def test_the_next_mask_is_that_of_one_process(name: str, ranks: Ranks, alone: dict[str, Outcome]) -> None:
    """Exactly as many weights; which ones, but for near ties."""

    def pruned(weights: dict[str, Tensor], prefix: str) -> masks.Mask:
        trunk = {n: weights[f"{prefix}trunk.{n}"] for n in mask()}
        return masks.prune(trunk, mask(), 0.8, torch.Generator()).mask

    one = pruned(alone[name].weights, "")
    many = pruned(ranks[0][0], f"{name}/weights.")
    assert sum(int(m.sum()) for m in one.values()) == sum(int(m.sum()) for m in many.values()) == 7_200
    assert sum(int((one[n] ^ many[n]).sum()) for n in one) <= 8


def test_interrupted_is_uninterrupted_bit_for_bit(ranks: Ranks) -> None:
    """By two processes. With more, DDP adds up the first update's gradients in another order than later ones'."""
    rtol, atol = (0.0, 0.0) if len(ranks) == 2 else (1e-4, 1e-5)
    for tensors, _ in ranks:
        for key in [key for key in tensors if key.startswith("resumed ")]:
            whole = tensors[key.removeprefix("resumed ")]
            torch.testing.assert_close(tensors[key], whole, rtol=rtol, atol=atol, msg=key)


def test_all_ranks_measure_the_points_of_a_curve_and_stay_the_same(ranks: Ranks) -> None:
    alone = Loop(step=step("labels"), data=some_digits(), mask=mask(), curve_points=4).run().curve
    for tensors, metrics in ranks:
        for key in [key for key in tensors if key.startswith("labels/")]:
            assert torch.equal(tensors[key.replace("labels/", "curved/")], tensors[key]), key
        assert metrics["curve"] == ranks[0][1]["curve"]
        assert metrics["curve"].keys() == {str(samples) for samples in alone}
        for samples, values in alone.items():
            assert metrics["curve"][str(samples)]["top1"] == pytest.approx(values["top1"], abs=100 / 99 + 1e-9)


def test_only_rank_0_saves_and_reports(ranks: Ranks) -> None:
    looks = [metrics["looks of this rank"] for _, metrics in ranks]
    assert looks[0] == [8, [BATCH * update for update in range(1, 9)]]
    assert all(look == [0, []] for look in looks[1:])


def test_ranks_that_come_apart_are_caught_on_all_of_them(ranks: Ranks) -> None:
    for rank, (_, metrics) in enumerate(ranks):
        seen = [0, 0, BATCH if rank == len(ranks) - 1 else 0]
        assert metrics["apart"] == [
            f"RuntimeError: the workers no longer have the same network after {at} samples" for at in seen
        ]


def test_a_loss_that_is_no_number_on_one_rank_ends_all(ranks: Ranks) -> None:
    for _, metrics in ranks:
        said = f"the loss is nan after {BATCH} of {8 * BATCH} samples; there is no checkpoint"
        assert metrics["nan"] == f"FloatingPointError: {said}"


def test_parts_that_cant_be_shared_evenly_are_refused(ranks: Ranks) -> None:
    for _, metrics in ranks:
        assert metrics["uneven"] == f"{len(ranks)} workers can't share a batch of 3 parts evenly"


def test_things_are_shared_out_and_joined_again(ranks: Ranks) -> None:
    for which, count in enumerate((1, 5, 8, 99)):
        spans = [metrics["spans"][which] for _, metrics in ranks]
        if count < len(ranks):
            assert spans == [[0, count]] * len(ranks)
            continue
        assert [span[0] for span in spans] == [0, *(span[1] for span in spans[:-1])]
        assert spans[-1][1] == count
        assert max(b - a for a, b in spans) - min(b - a for a, b in spans) <= 1
    for _, metrics in ranks:
        assert metrics["joined"] == [torch.arange(2 * count).view(count, 2).tolist() for count in (1, 5, 8)]


# ------------------------------------------------------------------------------------- without processes


@pytest.mark.parametrize("world", [1, 2, 4])
@pytest.mark.parametrize("part", [4, 8])
def test_the_shares_of_all_ranks_are_each_batch_in_order(
    world: int, part: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[list[int]] = []
    for rank in range(world):
        monkeypatch.setattr(parallel, "ranks", lambda: world)
        monkeypatch.setattr(parallel, "rank", lambda rank=rank: rank)
        share = Share.of_this_process(BATCH, part)
        position, mine = share.begin(2 * BATCH), []
        for _ in range(3 * share.count // part):
            mine += range(position, position + part)
            position = share.after(position + part)
        taken.append(mine)
    in_order = [taken[r][b * BATCH // world : (b + 1) * BATCH // world] for b in range(3) for r in range(world)]
    assert [position for part in in_order for position in part] == list(range(2 * BATCH, 5 * BATCH))


def test_a_feed_decodes_ahead_what_its_own_share_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else every batch of several processes would be decoded twice, or too late."""
    from PIL import Image

    for name in "ab":
        for index in range(6):
            path = tmp_path / "x/train" / name / f"{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (9, 9), (index * 20, 0, 0)).save(path)
    (tmp_path / "x/val").symlink_to(tmp_path / "x/train")
    files = data.load("folder/x", str(tmp_path)).train
    recipe = Recipe(samples=48, batch=8, bn_batch=2, lr=0.1)
    share = Share(8, 4, 4)
    feed = Feed(files, recipe, 0, views=1, draws=3, own=0, share=share)
    position = share.begin(0)
    for _ in range(6):
        batch = feed.take(position, 2)
        plain = Feed(files, recipe, 0, views=1, draws=3, own=0).take(position, 2)
        assert torch.equal(batch.index, plain.index)
        assert batch.pixels is not None
        assert plain.pixels is not None
        assert torch.equal(batch.pixels, plain.pixels)
        position = share.after(position + 2)
        assert feed.ahead[0][0] == position, "what is decoded ahead is what comes next"
    for _, _, decoding in feed.ahead:  # nothing goes on after the test
        assert all(len(future.result()) for future in decoding)


def test_features_and_accuracy_count_every_sample_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The parts that ranks evaluate are the whole split, each image once."""
    digits = some_digits()
    found: list[Tensor] = []
    for rank in range(4):
        monkeypatch.setattr(parallel, "ranks", lambda: 4)
        monkeypatch.setattr(parallel, "rank", lambda rank=rank: rank)
        found += [images for images, _ in metrics_module.part(digits.test).batches(10)]
    assert torch.equal(torch.cat(found), torch.cat([images for images, _ in digits.test.batches(1000)]))


if __name__ == "__main__":
    on_a_rank(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))


LEFT_OVER = {
    "RANK": "0",
    "WORLD_SIZE": "1",
    "LOCAL_RANK": "0",
    "LOCAL_WORLD_SIZE": "1",
    "MASTER_ADDR": "127.0.0.1",
    "TORCHELASTIC_USE_AGENT_STORE": "False",
}
"""By torchrun, Slurm or Kubeflow."""


def test_who_trains_alone_meets_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Though what launched the program left its variables, and another process has that port."""
    from raysslprune.cluster.train import in_this_process

    class Alone:
        def trained(self, *_: object) -> tuple[bool, set[str]]:
            return dist.is_initialized(), os.environ.keys() & {*LEFT_OVER, "MASTER_PORT"}

    for name, value in LEFT_OVER.items():
        monkeypatch.setenv(name, value)
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("MASTER_PORT", str(server.getsockname()[1]))
        before = dict(os.environ)
        in_a_team, left = cast(Any, in_this_process(cast(Any, Alone()), step("labels"), set(), True))
    assert not in_a_team
    assert left == {"TORCHELASTIC_USE_AGENT_STORE"}
    assert dict(os.environ) == before
