"""What each scale is made with, against the design, the paper's Table 1, and plain arithmetic."""

from __future__ import annotations

from dataclasses import fields
from decimal import ROUND_HALF_EVEN, Decimal
from fractions import Fraction
from typing import Any

import pytest

from raysslprune import catalogue, data, tasks
from raysslprune.models import convolutions, trunk
from raysslprune.paper.experiments import rewinds_with_few_labels
from raysslprune.paper.recipes import NETS
from raysslprune.paper.scales import LABELLED, SETTINGS, SIAMESE, images_of
from raysslprune.spec import SVM, Init, Recipe, survivors
from raysslprune.sweep_loader import known, load

LAPTOP = SETTINGS["laptop"]
LAYERS = {"conv1": 1 * 16 * 9, "conv2": 16 * 32 * 9, "conv3": 32 * 32 * 9, "conv4": 32 * 64 * 9}
PRUNABLE = 32_400


def exactly_left(level: int) -> int:
    """Weights after that many prunings to four fifths, each rounded to a whole number, in exact arithmetic."""
    left = PRUNABLE
    for _ in range(level):
        left = round(Fraction(left * 4, 5))
    return left


def test_laptop_is_the_designs_recipe() -> None:
    expected = {
        "samples": 12 * 1_200,
        "batch": 64,
        "lr": 0.05,
        "optimizer": "sgd",
        "momentum": 0.9,
        "nesterov": True,
        "weight_decay": 5e-4,
        "schedule": "cosine",
        "decay_at": (),
        "warmup": 0,
        "bn_batch": 0,
        "pad": 1,
        "flip": False,
        "crop": 0.0,
        "angle": 0.0,
        "jitter": (),
        "grayscale": 0.0,
        "precision": "float32",
        "options": (),
    }
    assert set(expected) == {field.name for field in fields(Recipe)}
    for task in ("labels", "rotnet"):
        recipe = LAPTOP.recipes[task]
        assert {name: getattr(recipe, name) for name in expected} == expected
        assert LAPTOP.rewind[task] == 1_200
    assert (LAPTOP.data, LAPTOP.arch, LAPTOP.keep) == ("digits", "conv4", 0.8)


def test_laptop_levels_give_the_percentages_of_the_design() -> None:
    """The design's table is headed 48.8, 79.0, 89.3, 95.6, 98.2, 99.1, 99.5 % pruned."""
    shown = []
    for level in LAPTOP.levels:
        pruned = 100 - Decimal(100 * exactly_left(level)) / PRUNABLE
        shown.append(str(pruned.quantize(Decimal("0.1"), ROUND_HALF_EVEN)))
    assert shown == ["48.8", "79.0", "89.3", "95.6", "98.2", "99.1", "99.5"]


def test_counts_in_floats_are_the_exact_ones() -> None:
    left = PRUNABLE
    for level in range(1, max(LAPTOP.levels) + 1):
        left = survivors(left, LAPTOP.keep)
        assert left == exactly_left(level)


def test_the_net_is_the_designs() -> None:
    assert NETS["conv4"].prunable == sum(LAYERS.values()) == PRUNABLE
    batch_norm = 2 * (16 + 32 + 32 + 64)
    head = 64 * 10 + 10
    assert NETS["conv4"].parameters == PRUNABLE + batch_norm + head


ALL_NETS = [(scale, role) for scale, setting in SETTINGS.items() for role in setting.nets]


@pytest.mark.parametrize("scale", SETTINGS)
def test_every_setting_can_be_run(scale: str) -> None:
    setting = SETTINGS[scale]
    assert list(setting.levels) == sorted(set(setting.levels))
    assert setting.levels[0] > 0
    assert 0 < setting.keep < 1
    assert setting.seeds >= 1
    assert len({net.title for net in setting.nets.values()}) == len(setting.nets)
    for probe in (*setting.linear, setting.finetune):
        catalogue.check("data set", catalogue.DATASETS, catalogue.data_parts(probe.data)[0])
        if isinstance(probe.recipe, Recipe):
            tasks.find("labels", probe.recipe.options)
        assert probe.metric in ("top1", "map")
        assert not isinstance(probe.recipe, SVM) or probe.metric == "map"


def test_a_setting_has_what_its_main_network_has() -> None:
    setting = SETTINGS["cifar10"]
    for field in fields(setting.net):
        assert getattr(setting, field.name) is getattr(setting.net, field.name), field.name
    how: dict[str, Any] = {"seed": 2, "levels": 3, "keep": 0.5, "scope": "convs", "rewind": 64, "start": Init(seed=7)}
    chain = setting.imp("rotnet", **how)
    assert chain == setting.net.imp("rotnet", **how)
    assert chain != setting.net.imp("rotnet", **{**how, "rewind": 128})
    assert setting.ticket(chain, 2) == setting.net.ticket(chain, 2)
    assert setting.nets["main"] is setting.net


@pytest.mark.parametrize(("scale", "role"), ALL_NETS)
def test_every_net_can_be_trained(scale: str, role: str) -> None:
    net = SETTINGS[scale].nets[role]
    assert net.arch in NETS
    few = [f"{task}:{part}" for part in LABELLED[net.data.partition(":")[0]] for task in ("labels", "s4l")]
    assert set(net.recipes) == set(net.rewind) == {"labels", "rotnet", "exemplar", "npid", *SIAMESE, *few}
    for name, recipe in net.recipes.items():
        task, _, part = name.partition(":")
        tasks.find(task, recipe.options)
        if task == "s4l":
            assert dict(recipe.options).get("labelled", "10%-of-images") == part
        assert 0 < net.rewind[name] < recipe.samples
        assert len(set(net.rewind.values())) == 1, "the paper fixes the number of samples"


@pytest.mark.parametrize("scale", ["laptop", "smoke", "cifar10-small", "cifar10-fast", "cifar10"])
def test_few_labels_as_long_alone_as_with_s4l(scale: str) -> None:
    """As in the paper: as many epochs of the labelled images, in batches three times as large."""
    recipes = SETTINGS[scale].recipes
    for part in LABELLED[SETTINGS[scale].data.partition(":")[0]]:
        s4l, alone = recipes[f"s4l:{part}"], recipes[f"labels:{part}"]
        assert s4l.samples == alone.samples
        assert 3 * s4l.batch == alone.batch


def test_smoke_takes_a_fraction_of_laptop() -> None:
    smoke = SETTINGS["smoke"]
    assert 5 * smoke.recipes["labels"].samples < LAPTOP.recipes["labels"].samples
    assert 5 * max(smoke.levels) < max(LAPTOP.levels)


@pytest.mark.parametrize("name", ["digits", "digits:10%-of-images", "digits:20%-of-classes"])
def test_images_are_counted_as_they_are(name: str) -> None:
    assert abs(len(data.load(name).train) - images_of(name)) <= 3


def test_images_of_nested_subsets() -> None:
    assert images_of("imagenet:10%-of-classes") == 128_000
    assert images_of("cifar10:10%-of-images:20%-of-classes") == 1_000
    assert images_of("digits:25%-held-out") == 900
    assert images_of("digits:25%-held-out:10%-of-images") == 90


@pytest.mark.parametrize("scale", SETTINGS)
def test_what_is_held_out_is_enough_to_choose_by_and_is_not_trained_on(scale: str) -> None:
    net = SETTINGS[scale].net
    held = images_of(net.data) - images_of(net.held_out.data)
    assert 300 <= held <= images_of(net.data) // 4
    assert net.held_out.data.startswith(f"{net.data}:")
    chain = net.held_out.imp("rotnet", seed=0, levels=2, keep=0.5)
    assert {one.data for one in (*chain.rounds, net.held_out.ticket(chain, 1))} == {net.held_out.data}
    assert net.held_out.imp("labels:10%-of-images", seed=0, levels=1, keep=0.5).dense.data.endswith(
        "%-held-out:10%-of-images"
    )


# ------------------------------------------------------------------------------------- Table 1 and Figure 7


def table1(scale: str) -> dict[tuple[str, str], tuple[float, int, int, float]]:
    return {(net, task): tuple(rest) for net, task, *rest in load("table1", scale, 1).rows}  # pyright: ignore


def test_table_1_of_the_paper() -> None:
    """3 epochs, 3 x 1,280,000 samples, 2,500 updates, 3.3%; and 30 epochs, as many samples, 5,000 updates, 15%."""
    rows = table1("paper")
    epochs, samples, updates, percent = rows["ImageNet, ResNet-50", "labels"]
    assert (epochs, samples, updates, round(percent, 1)) == (3, 3 * 1_280_000, 2_500, 3.3)
    epochs, samples, updates, percent = rows["ImageNet, ResNet-50", "labels:10%-of-images"]
    assert (epochs, samples, updates, percent) == (30, 3 * 1_280_000, 5_000, 15)


def test_rewinds_of_the_papers_other_settings() -> None:
    """Of the rest of Appendix D, by hand: updates, and per cent of the training."""
    rows = table1("paper")
    expected = {
        ("ImageNet, ResNet-50", "rotnet"): (2_500, 3.3),
        ("ImageNet, ResNet-50", "exemplar"): (2_500, 7.5),
        ("ImageNet, ResNet-50", "npid"): (3_750, 2.0),
        ("ImageNet, ResNet-50", "labels:10%-of-classes"): (5_000, 15.0),
        ("ImageNet, AlexNet", "labels"): (938, 3.3),
        ("ImageNet, AlexNet", "rotnet"): (469, 3.3),
        ("ImageNet, AlexNet", "exemplar"): (938, 10.0),
        ("CIFAR-10, ResNet-18", "labels"): (98, 0.6),
        ("CIFAR-10, VGG-19", "rotnet"): (98, 0.6),
    }
    assert {key: (rows[key][2], round(rows[key][3], 1)) for key in expected} == expected


def test_the_four_rewinds_of_figure_7() -> None:
    """3 epochs, 3.3%, 2,500 updates or 3.84 M samples of 200 epochs of 128,000 images in batches of 768."""
    paper = rewinds_with_few_labels(SETTINGS["paper"].net)
    assert {name: (samples / 128_000, samples / 768) for name, samples in paper.items()} == {
        "same number of epochs": (3, 500),
        "same part of the training": (pytest.approx(200 / 30), pytest.approx(1_111, abs=1)),
        "same number of updates": (15, 2_500),
        "same number of samples": (30, 5_000),
    }


@pytest.mark.parametrize("scale", SETTINGS)
def test_rewinds_of_figure_7_are_four(scale: str) -> None:
    net = SETTINGS[scale].net
    rewinds = rewinds_with_few_labels(net).values()
    assert len(set(rewinds)) == 4
    assert all(0 < samples < net.recipes["labels:10%-of-images"].samples for samples in rewinds)


# ------------------------------------------------------------------------------------- every sweep at every scale

DEEPEST = {"resnet50": [11, 24, 43, 53], "resnet18-cifar": [5, 10, 15, 20], "resnet18-cifar-half": [5, 10, 15, 20]}
"""Convolutions up to the end of each stage, the shortcuts' too: 1 + 10, 13, 19, 10 and 1 + 4, 5, 5, 5."""


@pytest.mark.parametrize("scale", SETTINGS)
@pytest.mark.parametrize("name", known())
def test_every_sweep_loads_at_every_scale(name: str, scale: str) -> None:
    sweep = load(name, scale, 2)
    assert sweep.points or sweep.rows
    assert {point.seed for point in sweep.points} in ({0, 1}, set())


@pytest.mark.parametrize("scale", SETTINGS)
def test_depths_are_in_the_networks(scale: str) -> None:
    for name in ("fig4", "fig9"):
        scopes: dict[str, None] = {}
        points = load(name, scale, 1).points
        for point in points:
            if point.step.mask is not None:
                scopes[getattr(point.step.mask, "scope", "all")] = None
        arch, source = points[0].step.arch, points[0].step.data
        layers = convolutions(trunk(arch, 1 if "digits" in source else 3))
        depths = [int(scope.partition(":")[2]) for scope in scopes if scope != "all"]
        assert "all" in scopes
        assert depths == sorted(set(depths))
        assert depths[-1] <= len(layers)
        if arch in DEEPEST:
            assert [*depths, len(layers)] == DEEPEST[arch]


def test_the_sweeps_are_those_of_the_paper_and_three_of_newer_tasks_and_other_criteria() -> None:
    papers = {*(f"fig{number}" for number in range(1, 11)), "rewind", "table1"}
    assert {*known()} == papers | {"fig1-today", "fig3-today", "criteria"}
