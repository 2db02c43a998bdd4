"""Cores or GPUs for an own sweep, computed by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from raysslprune.paper.recipes import _RESNET50, NETS, Net
from raysslprune.plan import device
from raysslprune.plan.cost import OVERHEAD, SVMS
from raysslprune.plan.graph import make_plan
from raysslprune.spec import SVM, Final, Init, Recipe, Train
from tests.helpers.points import chain, points, record

RECIPE = Recipe(samples=64_000, batch=64, lr=0.05)
NET = {"conv4": Net(parameters=1000, prunable=800, images_per_second=100, macs=_RESNET50, pixels=8)}
"""A network that takes 640 s of a core, and 64,000 / 938 s of a GPU."""


def training(seed: int = 0, arch: str = "conv4") -> Train:
    return Train(task="labels", data="digits", arch=arch, recipe=RECIPE, seed=seed, start=Init(seed=seed))


def test_trainings_side_by_side() -> None:
    plan = make_plan(points([training(seed) for seed in range(8)]))
    found = device.times(plan, {}, NET, cores=4, gpus=2)
    assert found.on_cores == pytest.approx(8 / 4 * (640 + OVERHEAD))
    assert found.on_gpus == pytest.approx(8 / 2 * (64_000 / 938 + OVERHEAD))
    assert found.gpus_are_faster
    assert not device.times(plan, {}, NET, cores=16, gpus=1).gpus_are_faster


def test_a_chain_takes_its_time_on_any_number_of_cores() -> None:
    plan = make_plan(points(chain(levels=3).rounds))
    one, many = (device.times(plan, {}, NET, cores=cores, gpus=1) for cores in (1, 64))
    assert many.on_cores == pytest.approx(one.on_cores)
    assert many.on_cores > 1


def test_updates_of_a_small_network_take_a_gpu_as_long_as_their_launch() -> None:
    small = {"conv4": replace(NET["conv4"], macs=1000)}
    found = device.times(make_plan(points([training()])), {}, small, cores=1, gpus=1)
    assert found.on_gpus == pytest.approx(1000 * device.LAUNCH + OVERHEAD)


def test_measured_speeds_win() -> None:
    done, left = training(0), training(1)
    plan = make_plan(points([done, left]))
    measured = record(done.id, speed=128_000.0, device="cuda (NVIDIA A100)")
    found = device.times(plan, {done.id: measured}, NET, cores=1, gpus=1)
    assert found.on_gpus == pytest.approx(0.5 + OVERHEAD)
    assert found.on_cores == pytest.approx(640 + OVERHEAD)


def test_of_unknown_networks_nothing_is_said() -> None:
    found = device.times(make_plan(points([training(arch="mine:Net")])), {}, NET, cores=1, gpus=1000)
    assert found.guessed
    assert not found.gpus_are_faster


def test_svms_stay_on_cores_and_count_the_same() -> None:
    probe = Train(
        task="labels",
        data="digits",
        arch="conv4",
        recipe=SVM(costs=(1.0,)),
        seed=0,
        start=Final(of=training()),
        trunk_frozen=True,
    )
    plan, known = make_plan(points([probe])), {training().id: record(training().id)}
    found = device.times(plan, known, NET, cores=1, gpus=1)
    assert found.on_cores == found.on_gpus == pytest.approx(SVMS + OVERHEAD)
    assert not found.guessed


def test_nothing_left_takes_no_time() -> None:
    found = device.times(make_plan(points([training()])), {training().id: record(training().id)}, NET, cores=1, gpus=1)
    assert (found.on_cores, found.on_gpus, found.gpus_are_faster) == (0.0, 0.0, False)


def test_the_networks_of_the_laptop_stay_on_cores() -> None:
    """The README's figures are the same, byte for byte, on a machine with a GPU."""
    for arch in ("conv4", "resnet8", "alexnet8"):
        plan = make_plan(points([training(seed, arch) for seed in range(8)]))
        assert not device.times(plan, {}, NETS, cores=8, gpus=1).gpus_are_faster
