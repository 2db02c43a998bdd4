"""The training loop on a GPU, where there is one, and in bfloat16: beside the same on the CPU in float32."""

from __future__ import annotations

import dataclasses
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file

from raysslprune import data, masks, models
from raysslprune.spec import SVM, Final, Init, Prune, Recipe, Train
from raysslprune.store.record import MASK
from raysslprune.store.steps import Store
from raysslprune.training import loop as training
from raysslprune.training.loop import Checkpoint, Hooks, Loop, Outcome
from raysslprune.training.make_masks import NoExchange
from raysslprune.training.runner import Runner, name_of
from tests.helpers.processes import on_ranks

CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
COMPILER = pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile needs a C++ compiler")
DEVICES = ["cpu", pytest.param("cuda", marks=CUDA)]
TASKS = {
    "labels": (),
    "rotnet": (),
    "exemplar": (("dimension", 16),),
    "npid": (("dimension", 16), ("negatives", 20), ("temperature", 0.5)),
    "s4l": (),
    "simclr": (("dimension", 16), ("hidden", 32)),
    "moco": (("dimension", 16), ("hidden", 32), ("queue", 100), ("ema", 0.9)),
    "byol": (("dimension", 16), ("hidden", 32), ("ema", 0.9)),
    "vicreg": (("dimension", 16), ("hidden", 32)),
}


def some_digits() -> data.Dataset:
    digits = data.load("digits")
    return dataclasses.replace(
        digits, train=digits.train.some(torch.arange(192)), test=digits.test.some(torch.arange(99))
    )


def step(task: str, **recipe: Any) -> Train:
    made: dict[str, Any] = {"samples": 320, "batch": 32, "bn_batch": 16, "lr": 0.01, "momentum": 0.9, "pad": 1}
    made |= {"options": TASKS[task], **recipe}
    return Train(task=task, data="digits", arch="conv4", recipe=Recipe(**made), seed=0, start=Init(seed=0))


def mask() -> masks.Mask:
    shapes = {name: weight.shape for name, weight in models.prunable(models.trunk("conv4", 1)).items()}
    return masks.random(shapes, 9_000, torch.Generator().manual_seed(1), shapes)


def run(made: Train, device: str, **more: Any) -> Outcome:
    return Loop(step=made, data=some_digits(), mask=mask(), device=torch.device(device), **more).run()


def assert_pruned(outcome: Outcome) -> None:
    for name, keep in mask().items():
        weight = outcome.weights[f"trunk.{name}"]
        assert weight.dtype == torch.float32
        assert not weight[~keep].any()
        assert weight[keep].all()


@pytest.mark.parametrize("device", [pytest.param("cuda", marks=CUDA)])
@pytest.mark.parametrize("task", TASKS)
def test_a_gpu_gives_what_the_cpu_gives_but_for_rounding(task: str, device: str) -> None:
    """But for NPID's negatives, which are drawn where the memory is."""
    here, there = run(step(task), "cpu"), run(step(task), device)
    assert_pruned(there)
    if task != "npid":
        for name, tensor in here.weights.items():
            torch.testing.assert_close(there.weights[name], tensor, rtol=5e-2, atol=5e-3, msg=name)
    assert there.metrics.keys() == here.metrics.keys()
    assert all(tensor.device.type == "cpu" for tensor in there.weights.values())


@CUDA
@pytest.mark.parametrize("task", TASKS)
def test_an_update_waits_for_no_gpu(task: str) -> None:
    """As tests/unit/training/test_device.py has it without one; NPID's first update asks once."""
    loop = Loop(step=step(task), data=some_digits(), mask=mask(), device=torch.device("cuda"))
    loop.trained.train()
    for mode in ("default", "default", "error"):
        torch.cuda.set_sync_debug_mode(mode)
        try:
            loop.set_learning_rate()
            loop.next_update()
        finally:
            torch.cuda.set_sync_debug_mode("default")
        loop.seen += loop.recipe.batch


@pytest.mark.parametrize(
    ("device", "compiled"),
    [("cpu", False), pytest.param("cuda", False, marks=CUDA), pytest.param("cuda", True, marks=[CUDA, COMPILER])],
)
def test_captured_updates_are_the_same_but_for_rounding(device: str, compiled: bool) -> None:
    """On the CPU there is nothing to capture; on a GPU the first updates are not."""
    made = step("labels", schedule="cosine")
    eager = run(made, device)
    loop = Loop(
        step=made, data=some_digits(), mask=mask(), device=torch.device(device), compiled=compiled, graphed=True
    )
    captured = loop.run()
    assert (loop.graph is not None) == (device == "cuda")
    assert_pruned(captured)
    for name, tensor in eager.weights.items():
        torch.testing.assert_close(captured.weights[name], tensor, rtol=1e-2, atol=1e-3, msg=name)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("precision", ["float32", "bf16"])
@pytest.mark.parametrize("task", TASKS)
def test_interrupted_is_uninterrupted(task: str, precision: str, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bit for bit on the CPU; on a GPU, whose sums have no fixed order, nearly."""
    monkeypatch.setattr(training, "LOOK_EVERY", 0.0)
    made, saved = step(task, precision=precision), list[Checkpoint]()
    whole = run(made, device, hooks=Hooks(save=saved.append, save_every=0.0))
    again = Loop(step=made, data=some_digits(), mask=mask(), device=torch.device(device))
    again.restore(saved[4])
    resumed = again.run()
    assert_pruned(whole)
    tolerance = 0.0 if device == "cpu" else 1e-2
    for name, tensor in whole.weights.items():
        torch.testing.assert_close(resumed.weights[name], tensor, rtol=tolerance, atol=tolerance, msg=name)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("task", TASKS)
def test_in_bfloat16_weights_and_loss_stay_float32(task: str, device: str) -> None:
    made = step(task, precision="bf16", samples=32)
    loop = Loop(step=made, data=some_digits(), mask=mask(), device=torch.device(device))
    inside: list[torch.dtype] = []
    loop.net.trunk.register_forward_hook(lambda _module, _inputs, output: inside.append(output.dtype))
    outside: list[torch.dtype] = []
    loss = loop.task.loss
    loop.task.loss = lambda net, *parts: loss(lambda images: seen(net(images), outside), *parts)
    outcome = loop.run()
    assert inside[0] == torch.bfloat16
    assert set(outside) == {torch.float32}
    assert {tensor.dtype for name, tensor in outcome.weights.items() if "num_batches" not in name} == {torch.float32}
    exact = run(step(task, samples=32), device)
    moved = [outcome.weights[name] - tensor for name, tensor in exact.weights.items() if name.endswith("weight")]
    assert 0 < max(float(difference.abs().max()) for difference in moved) < 0.05


def seen(output: torch.Tensor, dtypes: list[torch.dtype]) -> torch.Tensor:
    dtypes.append(output.dtype)
    return output


@pytest.mark.parametrize("device", DEVICES)
def test_a_runner_trains_prunes_and_judges_there(device: str, tmp_path: Path) -> None:
    """Weights, masks with an exact count, and SVMs on features from that device."""
    store = Store(str(tmp_path / "runs"))
    store.create()
    runner = Runner(store=store, exchange=NoExchange(), device=torch.device(device))
    dense = step("labels")
    runner.make(dense, set(), [Prune(of=dense, keep=0.5)], stays=True)
    packed = load_file(tmp_path / f"runs/steps/{Prune(of=dense, keep=0.5).id}" / MASK)
    assert sum(popcount(bits) for bits in packed.values()) == 16_200
    judged = Train(
        task="labels", data="digits", arch="conv4", recipe=SVM(costs=(1.0,)), seed=0, start=Final(of=dense),
        trunk_frozen=True,
    )  # fmt: skip
    facts = runner.make(judged, set(), [], stays=True).facts
    assert facts["device"].startswith(device)
    assert facts["device"] == name_of(torch.device(device))
    assert facts["workers"] == 1


def popcount(bits: torch.Tensor) -> int:
    return sum(int((bits >> place & 1).sum()) for place in range(8))


def on_a_rank(rank: int, folder: Path) -> None:
    """Run in a process of its own: both on the one GPU, which NCCL would refuse."""
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    for task in TASKS:
        save_file(run(step(task), "cuda").weights, folder / f"{task}-{rank}.safetensors")
    dist.destroy_process_group()


@CUDA
def test_two_workers_on_one_gpu(tmp_path: Path) -> None:
    on_ranks(__name__, 2, tmp_path)
    for task in TASKS:
        first, second = (load_file(tmp_path / f"{task}-{rank}.safetensors") for rank in range(2))
        alone = run(step(task), "cuda").weights
        for name, tensor in alone.items():
            assert torch.equal(first[name], second[name])
            torch.testing.assert_close(first[name], tensor, rtol=5e-2, atol=5e-3, msg=f"{task} {name}")


if __name__ == "__main__":
    on_a_rank(int(sys.argv[1]), Path(sys.argv[2]))
