"""Costs of sweeps: seconds, GPU-hours and disk, computed by hand."""

from __future__ import annotations

import sys
from dataclasses import replace

import pytest
import torch
from torch import nn

from raysslprune import catalogue, data, masks, models
from raysslprune.lottery import finetune, linear
from raysslprune.paper.recipes import NETS, TRANSFER, VIEWS, Net, appendix_d
from raysslprune.paper.scales import SETTINGS
from raysslprune.plan import cost as cost_module
from raysslprune.plan.graph import make_plan
from raysslprune.spec import Init, RandomPrune, Rewind, Shuffle, Train
from raysslprune.sweepfile import Point
from raysslprune.training.loop import Loop
from tests.helpers.points import (
    FIG3,
    LONG,
    MACHINES,
    RECIPE,
    SWEEPS,
    WEIGHTS,
    chain,
    judged,
    made_up,
    points,
    record,
)


@pytest.mark.parametrize(
    ("archs", "data", "share"),
    [
        (["conv4", "alexnet8"], "cifar10", 0.25),  # 16 times 0.3 and 1.2 million
        (["conv4", "resnet18-cifar"], "cifar10", 1.0),
        (["resnet18-cifar"], "digits", 0.25),  # 556 million over 16
        (["conv4"], "imagenet", 1.0),  # 239 million
        (["unknown"], "digits", 1.0),
    ],
)
def test_small_networks_share_a_gpu(archs: list[str], data: str, share: float) -> None:
    trains = [Train(task="labels", data=data, arch=arch, recipe=RECIPE, seed=0, start=Init(seed=0)) for arch in archs]
    assert cost_module.gpu_share(make_plan(points(trains)).jobs.values(), NETS) == share


@pytest.fixture(params=SWEEPS)
def asked(request: pytest.FixtureRequest) -> list[Point]:
    return SWEEPS[request.param]


# ------------------------------------------------------------------------------------- cost


def test_cost_before_anything_was_measured() -> None:
    graph = make_plan(made_up())
    nets = {"conv4": Net(parameters=1000, prunable=800, images_per_second=500, pixels=8)}
    cost = cost_module.cost_of(graph.jobs.values(), {}, nets)
    for job in graph.jobs.values():
        start = job.train.start  # the ticket of another task has the whole schedule
        samples = job.train.recipe.samples - (
            1200 if isinstance(start, Rewind) and start.of.task == job.train.task else 0
        )
        assert cost.seconds[job.id] == pytest.approx(cost_module.OVERHEAD + samples / 500)
    # 32-bit weights of each training and two snapshots; a bit for each prunable weight of each mask
    assert cost.disk == 4 * 1000 * (len(graph.jobs) + 2) + 100 * (len(graph.ids) - len(graph.jobs))


def test_cost_by_the_median_of_the_measured_speeds() -> None:
    graph = make_plan(made_up())
    some = [job.id for job in graph.jobs.values() if not job.snapshots and job.train.task == "labels"][:3]
    records = {i: record(i, speed=speed) for i, speed in zip(some, (90.0, 4000.0, 100.0), strict=True)}
    cost = cost_module.cost_of(graph.jobs.values(), records, NETS)
    for job in graph.jobs.values():
        left = 0 if job.id in some else job.samples
        speed = 100 if job.train.task == "labels" else NETS["conv4"].images_per_second  # other tasks are not as fast
        assert cost.seconds[job.id] == pytest.approx(cost_module.OVERHEAD + left / speed)


def test_cost_of_each_task_and_of_a_frozen_trunk_by_its_own_speed() -> None:
    rotnet, other = chain("rotnet"), chain("rotnet", seed=1)
    steps = {
        "rotnet": rotnet.dense,
        "frozen": linear(rotnet.dense, data="digits", recipe=LONG),
        "machines": linear(rotnet.dense, data="digits", recipe=MACHINES),
        "labels": finetune(rotnet.dense, data="digits", recipe=RECIPE),
    }
    twins = {
        "rotnet": other.dense,
        "frozen": linear(other.dense, data="digits", recipe=LONG),
        "machines": linear(other.dense, data="digits", recipe=MACHINES),
        "labels": finetune(other.dense, data="digits", recipe=RECIPE),
    }
    graph = make_plan(points([*steps.values(), *twins.values()]))
    nets = {"conv4": Net(parameters=10, prunable=8, images_per_second=10, pixels=8)}
    speeds = {"rotnet": 24.0, "frozen": 4800.0, "machines": 1e9, "labels": 48.0}
    records = {steps[name].id: record(steps[name].id, speed=speed) for name, speed in speeds.items()}
    cost = cost_module.cost_of(graph.jobs.values(), records, nets)
    seconds = {"rotnet": 2400 / 24, "frozen": 4800 / 4800, "machines": cost_module.SVMS, "labels": 2400 / 48}
    for name, twin in twins.items():
        assert cost.seconds[twin.id] == pytest.approx(cost_module.OVERHEAD + seconds[name]), name
        assert cost.seconds[steps[name].id] == pytest.approx(cost_module.OVERHEAD)
    del records[steps["frozen"].id]
    unmeasured = cost_module.cost_of(graph.jobs.values(), records, nets)
    # by what is stated of the net, of which a frozen trunk takes a third; not by the speed of a trunk that is trained
    assert unmeasured.seconds[twins["frozen"].id] == pytest.approx(cost_module.OVERHEAD + 4800 / 30)


def test_a_training_without_its_snapshot_costs_as_if_it_were_not_there() -> None:
    graph = make_plan(made_up())
    dense = next(job for job in graph.jobs.values() if job.snapshots)
    speed = NETS["conv4"].images_per_second
    for files, left in (([WEIGHTS], 2400), ([WEIGHTS, "snapshot-1200.safetensors"], 0)):
        records = {dense.id: record(dense.id, files, speed=speed)}
        cost = cost_module.cost_of(graph.jobs.values(), records, NETS)
        assert cost.seconds[dense.id] == pytest.approx(cost_module.OVERHEAD + left / speed)
        assert graph.trainings_left(records) == len(graph.jobs) - (not left)


def test_cost_of_each_network_by_its_own_speed() -> None:
    dense = chain().dense
    other, wide, unknown = replace(dense, seed=1), replace(dense, arch="wide"), replace(dense, arch="unknown")
    graph = make_plan(points([dense, other, wide, unknown]))
    nets = {
        "conv4": Net(parameters=10, prunable=8, images_per_second=240, pixels=8),
        "wide": Net(parameters=20, prunable=8, images_per_second=24, pixels=8),
        "other": Net(parameters=9, prunable=8, images_per_second=60, pixels=8),
    }
    cost = cost_module.cost_of(graph.jobs.values(), {dense.id: record(dense.id, speed=48)}, nets)
    assert cost.seconds[dense.id] == pytest.approx(cost_module.OVERHEAD)
    assert cost.seconds[other.id] == pytest.approx(cost_module.OVERHEAD + 50)
    assert cost.seconds[wide.id] == pytest.approx(cost_module.OVERHEAD + 100)
    assert cost.seconds[unknown.id] == pytest.approx(cost_module.OVERHEAD + 40)  # as the known nets in the middle
    assert cost.disk == 4 * (10 + 10 + 20)
    assert cost.guessed == {unknown.id}
    assert cost.unsized == ("unknown",)
    measured = {unknown.id: record(unknown.id, speed=48)}
    again = cost_module.cost_of(make_plan(points([unknown, replace(unknown, seed=1)])).jobs.values(), measured, nets)
    assert not again.guessed, "one like it has run here"


def test_cost_of_nothing() -> None:
    cost = cost_module.cost_of([], {}, {})
    assert (cost.seconds, cost.disk, cost.guessed, cost.unsized) == ({}, 0, frozenset(), ())


MILLION = 1e6


def pretext(task: str, seed: int = 0) -> Train:
    recipe = appendix_d(task, "imagenet", "resnet50")
    return Train(task=task, data="imagenet", arch="resnet50", recipe=recipe, seed=seed, start=Init(seed=seed))


LINEAR, SVMS = (TRANSFER[kind].recipe for kind in ("linear", "svm"))


# ------------------------------------------------------------------------------------- what figures cost


def test_gpu_hours_by_hand() -> None:
    """RotNet, 90 epochs, and a linear classifier, 140,000 updates of 256, on an A100 at 938 images/s."""
    rotnet = pretext("rotnet")
    graph = make_plan(points([linear(rotnet, data="imagenet", recipe=LINEAR)]))
    cost = cost_module.estimate(graph, {}, NETS, "cuda")
    assert (cost.points, cost.steps, cost.trainings, cost.masks) == (1, 2, 2, 0)
    assert (cost.left, cost.without_sharing) == (2, 2)
    pretrained, judged = cost.work
    assert (pretrained.what, judged.what) == ("rotnet on imagenet, resnet50", "linear on imagenet, resnet50")
    assert (pretrained.trainings, pretrained.samples) == (1, 115_200_000)
    assert judged.samples == 35_840_000
    assert pretrained.images_per_second == 938
    assert judged.images_per_second == pytest.approx(3 * 938)
    assert pretrained.hours == pretrained.left == pytest.approx(115.2 * MILLION / 938 / 3600)
    assert judged.hours == pytest.approx(35.84 * MILLION / 2814 / 3600)
    assert cost.hours == cost.hours_left == pytest.approx(34.115 + 3.538, abs=0.001)
    assert {work.source for work in cost.work} == {"stated"}
    size = 4 * 25_557_032
    assert cost.disk == cost_module.Disk(weights=2 * size, needed=size, snapshots=0, masks=0, kept=2 * size)


def test_gpu_hours_by_task_and_network() -> None:
    """Exemplar sees two images a sample, S4L eight; VGG-19 has five times ResNet-50's multiply-adds at 224 pixels."""
    dense = {task: pretext(task) for task in ("labels", "rotnet", "npid", "exemplar", "s4l")}
    wide = replace(dense["labels"], arch="vgg19")
    strange = replace(dense["labels"], arch="mine:net")
    graph = make_plan(points([*dense.values(), wide, strange, linear(dense["npid"], data="voc07", recipe=SVMS)]))
    work = {work.what: work for work in cost_module.estimate(graph, {}, NETS, "cuda").work}
    speeds = {name: work[f"{name} on imagenet, resnet50"].images_per_second for name in dense}
    assert speeds == {"labels": 938, "rotnet": 938, "npid": 938, "exemplar": 469, "s4l": 938 / 8}
    assert work["labels on imagenet, vgg19"].images_per_second == pytest.approx(
        938 * 4_089_184_256 / (398_136_320 * 7 * 7)  # counted at 32 pixels, a seventh of 224
    )
    assert work["labels on imagenet, mine:net"].source == "guessed"
    fitted = work["linear SVMs on voc07, resnet50"]
    assert (fitted.trainings, fitted.hours, fitted.source) == (1, 0, "on the CPU")


def test_gpu_hours_by_what_a_gpu_measured() -> None:
    """A speed measured on a CPU does not count; a finished training's twin has the same speed."""
    done, on_cpu, other = pretext("rotnet"), pretext("rotnet", 1), pretext("rotnet", 2)
    graph = make_plan(points([done, on_cpu, other]))
    records = {
        done.id: record(done.id, speed=500, device="cuda:0"),
        on_cpu.id: record(on_cpu.id, speed=5),
    }
    (work,) = cost_module.estimate(graph, records, NETS, "cuda").work
    assert (work.images_per_second, work.source, work.trainings) == (500, "measured", 3)
    assert work.hours == pytest.approx(3 * 115.2 * MILLION / 500 / 3600) == pytest.approx(192)
    assert work.left == pytest.approx(64)
    alone = cost_module.estimate(make_plan(points([other])), records, NETS, "cuda", graph.jobs.values())
    assert alone.hours == alone.hours_left == pytest.approx(64)
    (work,) = cost_module.estimate(graph, records, NETS, "cpu").work
    assert (work.images_per_second, work.source) == (5, "measured")


def test_speeds_by_the_size_of_the_images() -> None:
    """Multiply-adds grow with the pixels of the images; a measured speed applies to its data set only."""
    small = replace(pretext("labels"), arch="vgg19", data="cifar10")
    large, part = replace(small, data="imagenet"), replace(small, data="cifar10:10%-of-images")
    graph = make_plan(points([small, large, part]))
    nets = {"vgg19": Net(parameters=10, prunable=8, images_per_second=490, macs=1, pixels=32)}
    seconds = cost_module.cost_of(graph.jobs.values(), {}, nets).seconds
    samples = small.recipe.samples
    assert seconds[small.id] == seconds[part.id] == pytest.approx(cost_module.OVERHEAD + samples / 490)
    assert seconds[large.id] == pytest.approx(cost_module.OVERHEAD + samples / 10)
    seconds = cost_module.cost_of(graph.jobs.values(), {small.id: record(small.id, speed=70)}, nets).seconds
    assert seconds[part.id] == pytest.approx(cost_module.OVERHEAD + samples / 70)
    assert seconds[large.id] == pytest.approx(cost_module.OVERHEAD + samples / 10)


def test_speeds_by_the_size_in_a_folders_name() -> None:
    usual = replace(pretext("labels"), arch="vgg19", data="folder/pets")
    small, part = replace(usual, data="folder/pets:16px"), replace(usual, data="folder/pets:64px:10%-of-images")
    nets = {"vgg19": Net(parameters=10, prunable=8, images_per_second=490, macs=1, pixels=32)}
    seconds = cost_module.cost_of(make_plan(points([usual, small, part])).jobs.values(), {}, nets).seconds
    assert seconds[usual.id] == pytest.approx(cost_module.OVERHEAD + usual.recipe.samples / 490)
    assert seconds[small.id] == pytest.approx(cost_module.OVERHEAD + usual.recipe.samples / (4 * 490))
    assert seconds[part.id] == pytest.approx(cost_module.OVERHEAD + usual.recipe.samples / (490 / 4))


def test_a_training_that_was_resumed_at_its_very_end_measures_nothing() -> None:
    done, other = pretext("rotnet"), pretext("rotnet", 1)
    graph = make_plan(points([done, other]))
    records = {done.id: record(done.id, speed=0.0, device="cuda")}
    (work,) = cost_module.estimate(graph, records, NETS, "cuda").work
    assert work.source == "stated"
    assert cost_module.cost_of(graph.jobs.values(), records, NETS).seconds[other.id] > 0


def test_disk_by_retention() -> None:
    nets = {"conv4": Net(parameters=1000, prunable=800, images_per_second=500, pixels=8)}
    for keep_all in (True, False):
        graph = make_plan(judged(), keep_all=keep_all)
        disk = cost_module.estimate(graph, {}, nets, "cpu").disk
        assert disk.weights == 4000 * len(graph.jobs)
        assert disk.needed == 4000 * 3  # the three rounds, which all are judged
        assert disk.snapshots == 4000 * 2
        assert disk.masks == 100 * (len(graph.ids) - len(graph.jobs))
        weights = disk.weights if keep_all else disk.needed
        assert disk.kept == weights + disk.snapshots + disk.masks
        assert cost_module.cost_of(graph.jobs.values(), {}, nets).disk == disk.kept


def test_the_estimate_of_nothing() -> None:
    cost = cost_module.estimate(make_plan([]), {}, {}, "cuda")
    assert (cost.points, cost.steps, cost.hours, cost.work) == (0, 0, 0, ())


def test_a_hundred_thousand_points_are_planned_and_costed_in_linear_time() -> None:
    """Counted in function calls, not seconds: ten times the points take ten times the calls."""

    def calls(seeds: int) -> int:
        asked, count = [point for seed in range(seeds) for point in FIG3("smoke", seed)], 0

        def counter(_frame: object, event: str, _arg: object) -> None:
            nonlocal count
            count += event in ("call", "c_call")

        sys.setprofile(counter)
        try:
            cost_module.estimate(make_plan(asked), {}, NETS, "cuda")
        finally:
            sys.setprofile(None)
        return count

    assert calls(20) < 11 * calls(2)


@pytest.mark.parametrize("arch", NETS)
def test_multiply_adds_of_a_network(arch: str) -> None:
    if not NETS[arch].macs:
        pytest.skip("not counted")
    channels, size, classes = 3, 32, 10
    if arch in ("resnet18", "resnet34", "resnet50", "alexnet", "alexnet-bn"):
        size, classes = 224, 1000
    elif arch in ("conv4", "resnet8", "alexnet8"):
        channels, size = 1, 8
    assert NETS[arch].pixels == size
    with torch.device("meta"):
        trunk, image = models.trunk(arch, channels), torch.empty(1, channels, size, size)
    assert isinstance(trunk.width, int)
    total = trunk.width * classes

    def count(layer: nn.Module, _inputs: object, output: torch.Tensor) -> None:
        nonlocal total
        if isinstance(layer, nn.Conv2d):
            total += output[0].numel() * layer.weight[0].numel()
        elif isinstance(layer, nn.Linear):
            total += layer.weight.numel()

    for layer in trunk.modules():
        layer.register_forward_hook(count)
    trunk.eval()(image)
    assert NETS[arch].macs == total


@pytest.mark.parametrize("task", catalogue.TASKS)
def test_images_a_task_looks_at_for_each_sample(task: str) -> None:
    digits = data.load("digits")
    recipe = next(r for name, r in SETTINGS["smoke"].recipes.items() if name.startswith(task))
    recipe = replace(RECIPE, samples=64, options=recipe.options)
    step = Train(task=task, data="digits", arch="conv4", recipe=recipe, seed=0, start=Init(seed=0))
    loop = Loop(step=step, data=digits)
    seen = 0

    def count(_net: nn.Module, inputs: tuple[torch.Tensor, ...], _output: object) -> None:
        nonlocal seen
        seen += len(inputs[0]) if loop.net.training else 0

    loop.net.trunk.register_forward_hook(count)
    loop.run()
    assert seen == 64 * VIEWS.get(task, 1)


# ------------------------------------------------------------------------------------- what is left


def test_what_a_mask_leaves_is_its_density_but_for_rounding() -> None:
    chain = SETTINGS["laptop"].imp("labels", seed=0, levels=7, keep=0.8)
    assert chain.dense.target_density == 1
    for level, mask in enumerate(chain.masks[1:], 1):
        assert mask is not None
        assert mask.target_density == pytest.approx(0.8**level)
        assert Shuffle(of=mask, seed=3).target_density == pytest.approx(0.8**level)
    random = RandomPrune(arch="conv4", data="digits", keep=0.8, level=5, seed=0)
    assert random.target_density == pytest.approx(masks.left_after(32_400, 0.8, 5) / 32_400, rel=1e-3)
