"""A whole chain, planned, run and stored, against iterative magnitude pruning written out in plain torch and numpy."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.numpy import load as from_safetensors
from torch import Tensor, nn

from raysslprune import data, models
from raysslprune.data.batches import Batch
from raysslprune.data.stream import Stream
from raysslprune.data.views import Views
from raysslprune.lottery import Chain, imp, random_prune, random_reinit, shuffled, untrained, winning_ticket
from raysslprune.spec import Recipe, Step, dump, seed_of
from raysslprune.store.steps import Store
from raysslprune.training import loop as training
from raysslprune.training import runner
from raysslprune.training.make_masks import NoExchange
from raysslprune.training.runner import Runner
from tests.helpers.chains import execute

LEVELS = 5
SAMPLES, BATCH, REWIND = 2_000, 64, 600
RECIPE = Recipe(
    samples=SAMPLES, batch=BATCH, lr=0.05, momentum=0.9, nesterov=True, weight_decay=5e-3, schedule="cosine", pad=1
)
CONVOLUTIONS = [f"layers.conv{number}.weight" for number in (1, 2, 3, 4)]
SHAPES = [(16, 1, 3, 3), (32, 16, 3, 3), (32, 32, 3, 3), (64, 32, 3, 3)]


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


# ------------------------------------------------------------------------------------- the project's chain


def chain(task: str, keep: float, scope: str = "all", seed: int = 0) -> Chain:
    return imp(
        task=task,
        data="digits",
        arch="conv4",
        recipe=RECIPE,
        seed=seed,
        levels=LEVELS,
        keep=keep,
        rewind=REWIND,
        scope=scope,
    )


def mask_in(store: Store, step: Step | None) -> dict[str, np.ndarray]:
    """As bool arrays, by numpy alone."""
    assert step is not None
    packed = from_safetensors(store.artefact(step.id, "mask.safetensors"))
    assert set(packed) == set(CONVOLUTIONS)
    return {
        name: np.unpackbits(packed[name], count=int(np.prod(shape))).astype(bool).reshape(shape)
        for name, shape in zip(CONVOLUTIONS, SHAPES, strict=True)
    }


def left(mask: dict[str, np.ndarray]) -> int:
    return sum(int(m.sum()) for m in mask.values())


# ------------------------------------------------------------------------------------- the same, written out


def features(w: dict[str, Tensor], images: Tensor, training: bool, momentum: float = 0.1) -> Tensor:
    x = images
    for number in (1, 2, 3, 4):
        norm = f"trunk.layers.bn{number}"
        statistics = w[f"{norm}.running_mean"], w[f"{norm}.running_var"]
        x = F.conv2d(x, w[f"trunk.layers.conv{number}.weight"], padding=1)
        x = F.relu(F.batch_norm(x, *statistics, w[f"{norm}.weight"], w[f"{norm}.bias"], training, momentum))
        if number in (1, 3):
            x = F.max_pool2d(x, 2)
    return x.mean(dim=(2, 3))


def channels_last(w: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: t.clone(memory_format=torch.channels_last if t.dim() == 4 else None) for name, t in w.items()}


def calibrated(w: dict[str, Tensor], mask: dict[str, np.ndarray]) -> dict[str, Tensor]:
    """Masked, with mean statistics over batches of 1,024 and 176 images, each image counting once."""
    digits, w = data.load("digits"), channels_last(w)
    for name, stays in mask.items():
        w[f"trunk.{name}"][torch.from_numpy(~stays)] = 0
    total = {name: torch.zeros_like(t, dtype=torch.float64) for name, t in w.items() if "running" in name}
    for images, _ in digits.train.batches(1_024):
        features(w, (images.float() - digits.mean) / digits.std, training=True, momentum=1.0)
        total = {name: t + len(images) * w[name].double() for name, t in total.items()}
    return {**w, **{name: (t / 1_200).float() for name, t in total.items()}}


def learn(
    task: str, seed: int, w: dict[str, Tensor], mask: dict[str, np.ndarray], first: int, *, frozen: bool = False
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Train from ``first`` to the end; gives the state at REWIND (or of the start) and the final one.

    frozen: train the head alone.

    torch.optim.SGD in its fused kernel and weights in channels-last order, as in the project: another kernel or
    order rounds differently in the last bit, 32 updates multiply that, and some close ranks change places.
    """
    w, within = channels_last(w), "head" if frozen else ""
    trained = [t.requires_grad_() for name, t in w.items() if name.endswith(("weight", "bias")) and within in name]
    optimizer = torch.optim.SGD(trained, lr=0.0, momentum=0.9, nesterov=True, weight_decay=5e-3, fused=True)
    digits = data.load("digits")
    stream, views, early = Stream(1_200, 3 if task == "labels" else 4, seed), Views(digits, digits.train, RECIPE), w
    for position in range(-(-first // BATCH) * BATCH, SAMPLES, BATCH):
        for name, stays in mask.items():
            w[f"trunk.{name}"].data[torch.from_numpy(~stays)] = 0
        if position == -(-REWIND // BATCH) * BATCH:
            early = {name: t.detach().clone() for name, t in w.items()}
        optimizer.param_groups[0]["lr"] = 0.05 * (1 + np.cos(np.pi * position / SAMPLES)) / 2
        samples = stream.take(position, BATCH)
        images = views(Batch(samples.index[:, None], samples.draws[:, None, :3], samples.draws[:, 3:]))
        targets = digits.train.labels[samples.index]
        if task == "rotnet":
            targets = torch.floor(samples.draws[:, 3] * 4).long()
            turned = [np.rot90(x[0], k) for x, k in zip(images.numpy(), targets.tolist(), strict=True)]
            images = torch.from_numpy(np.stack(turned)[:, None])
        optimizer.zero_grad()
        outputs = F.linear(features(w, images, training=not frozen), w["head.weight"], w["head.bias"])
        F.cross_entropy(outputs, targets).backward()
        optimizer.step()
    for name, stays in mask.items():
        w[f"trunk.{name}"].data[torch.from_numpy(~stays)] = 0
    return early, {name: t.detach() for name, t in w.items()}


def drawn_network(outputs: int, seed: int, draw: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed_of("init", seed, draw))
    net = models.network("conv4", 1, lambda width: nn.Linear(width, outputs), generator, torch.device("cpu"))
    return net.state_dict()


def naive_chain(
    task: str, keep: float, prunable: list[str], seed: int = 0
) -> tuple[list[dict[str, np.ndarray]], list[dict[str, Tensor]]]:
    """Masks of levels 1 to 5, and the final weights under each of levels 0 to 4. All digits, one loop."""
    drawn = drawn_network(10 if task == "labels" else 4, seed)
    mask = {name: np.ones(shape, dtype=bool) for name, shape in zip(CONVOLUTIONS, SHAPES, strict=True)}
    early, weights = learn(task, seed, drawn, mask, 0)
    masks, finals = [], [weights]
    while True:
        magnitude = np.concatenate([np.abs(weights[f"trunk.{name}"].numpy()).ravel() for name in prunable])
        flat = np.concatenate([mask[name].ravel() for name in prunable])
        ranked = np.argsort(magnitude, kind="stable")
        ranked = ranked[flat[ranked]]  # those left, the smallest first
        flat[ranked[: len(ranked) - round(len(ranked) * keep)]] = False
        parts = np.split(flat, np.cumsum([mask[name].size for name in prunable])[:-1])
        mask = {**mask, **{n: p.reshape(mask[n].shape) for n, p in zip(prunable, parts, strict=True)}}
        masks.append(mask)
        if len(masks) == LEVELS:
            return masks, finals
        _, weights = learn(task, seed, early, mask, REWIND)
        finals.append(weights)


# ------------------------------------------------------------------------------------- equal


@pytest.mark.parametrize(
    ("task", "keep", "scope", "prunable"),
    [
        ("labels", 0.8, "all", CONVOLUTIONS),
        ("labels", 0.36, "all", CONVOLUTIONS),
        ("rotnet", 0.64, "convs:2", CONVOLUTIONS[:2]),
    ],
)
def test_a_chain_is_imp_written_out(task: str, keep: float, scope: str, prunable: list[str], tmp_path: Path) -> None:
    """Masks at every level, and the weights they come from, bit for bit."""
    made = chain(task, keep, scope)
    last = winning_ticket(made, LEVELS, task=task, recipe=RECIPE)
    store = execute([last], tmp_path)
    masks, finals = naive_chain(task, keep, prunable)
    assert len(made.rounds) == len(finals) == LEVELS
    for step, weights in zip(made.rounds, finals, strict=True):
        stored = from_safetensors(store.artefact(step.id, "weights.safetensors"))
        for name, t in weights.items():
            if not name.endswith("batches_tracked"):
                assert np.array_equal(stored[name], t.numpy()), (step.mask, name)
    total, expected = sum(int(np.prod(s)) for n, s in zip(CONVOLUTIONS, SHAPES, strict=True) if n in prunable), []
    rest = 32_400 - total
    for level, naive in enumerate(masks, start=1):
        stored = mask_in(store, made.masks[level])
        for name in CONVOLUTIONS:
            assert np.array_equal(stored[name], naive[name]), (level, name)
        total = round(total * keep)
        expected.append(total + rest)
    assert [left(m) for m in masks] == expected
    final = from_safetensors(store.artefact(last.id, "weights.safetensors"))
    for name, stays in masks[-1].items():
        assert not final[f"trunk.{name}"][~stays].any()
        assert final[f"trunk.{name}"][stays].all()


def test_leaves_are_trainings_written_out(tmp_path: Path) -> None:
    """Weights and BatchNorm statistics, bit for bit: a ticket found without labels, a re-init, an untrained probe."""
    made = chain("rotnet", 0.36)
    ticket = winning_ticket(made, 2, task="labels", recipe=RECIPE)
    reinit = random_reinit(made.masks[2], like=made.dense, task="labels", recipe=RECIPE)
    probe = untrained(ticket, data="digits", recipe=RECIPE)
    store = execute([ticket, reinit, probe], tmp_path)

    mask = mask_in(store, made.masks[2])
    whole = {name: np.ones(shape, dtype=bool) for name, shape in zip(CONVOLUTIONS, SHAPES, strict=True)}
    early, _ = learn("rotnet", 0, drawn_network(4, 0), whole, 0)
    drawn = drawn_network(10, 0)
    kept = {name: t for name, t in early.items() if name.startswith("trunk.")}
    naive = {
        ticket: learn("labels", 0, {**drawn, **kept}, mask, 0),  # the whole schedule, since labels are another task
        reinit: learn("labels", 0, drawn_network(10, 0, draw=1), mask, 0),
        probe: learn("labels", 0, calibrated(drawn, mask), mask, 0, frozen=True),
    }
    for step, (_, weights) in naive.items():
        stored = from_safetensors(store.artefact(step.id, "weights.safetensors"))
        for name, t in weights.items():
            if not name.endswith("batches_tracked"):
                assert np.array_equal(stored[name], t.numpy()), (step.start, name)


def test_a_late_rewind_takes_no_labels_from_a_ticket_of_another_task(tmp_path: Path) -> None:
    """Going on at sample 4,000 of 4,800 would leave it 800 samples of labels, and a re-init all 4,800."""
    recipe = replace(RECIPE, samples=4_800)
    made = imp(
        task="rotnet", data="digits", arch="conv4", recipe=recipe, seed=0, levels=1, keep=0.1, rewind=4_000
    )  # fmt: skip
    ticket = winning_ticket(made, 1, task="labels", recipe=recipe)
    going_on = replace(ticket, first_sample=None)
    reinit = random_reinit(made.masks[1], like=made.dense, task="labels", recipe=recipe)
    store = execute([ticket, going_on, reinit], tmp_path)
    top1 = {step: record.metrics["top1"] for step in (ticket, going_on, reinit) if (record := store.record(step.id))}
    assert top1[reinit] - top1[going_on] > 50
    assert abs(top1[reinit] - top1[ticket]) < 10


def test_the_comparison_can_fail() -> None:
    """Another seed's chain has other masks: equality above is no accident of the shapes."""
    mask = {name: np.ones(shape, dtype=bool) for name, shape in zip(CONVOLUTIONS, SHAPES, strict=True)}
    drawn = drawn_network(10, 0)
    a, b = (learn("labels", seed, drawn, mask, 1_500)[1] for seed in (0, 1))
    assert not torch.equal(a["trunk.layers.conv1.weight"], b["trunk.layers.conv1.weight"])


def test_leaves_of_a_chain(tmp_path: Path) -> None:
    """Random masks are as sparse as the chain's, shuffled ones in every layer, and a re-init is trained under both."""
    made = chain("labels", 0.36)
    random = random_prune(like=made.dense, keep=0.36, level=2)
    permuted = shuffled(made, 2)
    leaves = [random_reinit(m, like=made.dense, task="labels", recipe=RECIPE) for m in (random, permuted)]
    store = execute(leaves, tmp_path)
    chained = mask_in(store, made.masks[2])
    assert left(mask_in(store, random)) == left(chained) == round(round(32_400 * 0.36) * 0.36)
    by_layer = {name: int(m.sum()) for name, m in mask_in(store, permuted).items()}
    assert by_layer == {name: int(m.sum()) for name, m in chained.items()}
    assert {name: int(m.sum()) for name, m in mask_in(store, random).items()} != by_layer
    for leaf in leaves:
        weights = from_safetensors(store.artefact(leaf.id, "weights.safetensors"))
        for name, stays in mask_in(store, leaf.mask).items():
            assert np.array_equal(weights[f"trunk.{name}"] != 0, stays)


def test_the_same_steps_give_the_same_bytes(tmp_path: Path) -> None:
    """In another store, and whatever else is planned beside them."""
    made = chain("rotnet", 0.36)
    first = execute([made.rounds[2]], tmp_path / "a")
    ticket = winning_ticket(made, 1, task="labels", recipe=RECIPE)
    second = execute([ticket, made.rounds[2]], tmp_path / "b")
    for step in (*made.rounds[:3], *made.masks[1:3]):
        assert step is not None
        a, b = first.record(step.id), second.record(step.id)
        assert a is not None
        assert b is not None
        assert (a.files, a.metrics) == (b.files, b.metrics)


def test_a_snapshot_asked_for_after_an_interruption_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sweep is killed, and the next one also wants an earlier state of the same training."""

    class Killed(Exception):
        pass

    def kill(_job: str, seen: int, _end: int) -> None:
        if seen >= 1_280:
            raise Killed

    monkeypatch.setattr(training, "LOOK_EVERY", 0.0)
    monkeypatch.setattr(runner, "CHECKPOINT_EVERY", 0.0)
    dense = chain("labels", 0.36).dense
    store = Store(str(tmp_path / "killed"))
    store.create()
    job = {
        "graph": dump([dense]),
        "train": dense.id,
        "before": [],
        "after": [],
        "snapshots": [1_500],
        "weights": False,
        "keep": True,
    }
    with pytest.raises(Killed):
        Runner(store=store, exchange=NoExchange(), progress=kill).run(job)
    assert store.load_checkpoint(dense.id) is not None
    wanted = {**job, "snapshots": [REWIND, 1_500]}
    Runner(store=store, exchange=NoExchange()).run(wanted)
    whole = Store(str(tmp_path / "whole"))
    whole.create()
    Runner(store=whole, exchange=NoExchange()).run(wanted)
    a, b = store.record(dense.id), whole.record(dense.id)
    assert a is not None
    assert b is not None
    assert a.files == b.files
