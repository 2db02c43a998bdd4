"""Durations, sizes, and titles of trainings in words."""

from __future__ import annotations

import re
import shlex
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raysslprune import words
from raysslprune.lottery import finetune, linear, random_prune, shuffled, untrained, winning_ticket
from raysslprune.plan.graph import make_plan
from raysslprune.spec import Init, Prune, Recipe, Train
from tests.helpers.points import LONG, MACHINES, RECIPE, chain, drawn, points


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-5, "0 s"),
        (0, "0 s"),
        (0.4, "0 s"),
        (41.6, "42 s"),
        (59.4, "59 s"),
        (59.6, "1:00 min"),
        (187, "3:07 min"),
        (3599.4, "59:59 min"),
        (3599.6, "1:00 h"),
        (8100, "2:15 h"),
        (47 * 3600 + 59 * 60, "47:59 h"),
        (48 * 3600, "2.0 days"),
        (4.2 * 86400, "4.2 days"),
        (400 * 86400, "400.0 days"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert words.duration(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1, "1 B"),
        (999, "999 B"),
        (1000, "1 kB"),
        (340_000, "340 kB"),
        (2_900_000, "2.9 MB"),
        (999_600, "1 MB"),
        (999_999_999, "1 GB"),
        (11_719_372, "11.7 MB"),
        (1.2e12, "1.2 TB"),
    ],
)
def test_sizes(count: float, text: str) -> None:
    assert words.size(count) == text


@given(st.integers(0, 9 * 10**14))
def test_sizes_are_plain_numbers_near_the_truth(count: int) -> None:
    number, unit = words.size(count).split()
    assert re.fullmatch(r"\d+(\.\d+)?", number)
    shown = float(number) * {"B": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12}[unit]
    assert abs(shown - count) <= 0.006 * count
    assert float(number) < 1000


def test_titles_are_for_people() -> None:
    labels = chain()
    titles = {
        "labels seed 0, dense, drawn": labels.dense,
        "labels seed 0, labels mask 2, rewound": labels.rounds[2],
        "labels seed 0, rotnet mask 3, rewound": winning_ticket(chain("rotnet"), 3, task="labels", recipe=RECIPE),
        "labels seed 0, random mask 2, drawn": drawn(random_prune(like=labels.dense, keep=0.5, level=2), labels.dense),
        "labels seed 0, random ERK mask 2, drawn": drawn(
            random_prune(like=labels.dense, keep=0.5, level=2, allocation="erk"), labels.dense
        ),
        "labels seed 0, shuffled labels mask 2, drawn": drawn(shuffled(labels, 2), labels.dense),
        "linear seed 0, rotnet mask 2, from rotnet": linear(chain("rotnet").rounds[2], data="digits", recipe=LONG),
        "linear SVMs seed 0, dense, from npid": linear(chain("npid").dense, data="digits", recipe=MACHINES),
        "linear seed 4, labels mask 1, drawn": untrained(chain(seed=4).rounds[1], data="digits", recipe=LONG),
        "labels seed 0, rotnet mask 1, from rotnet": finetune(chain("rotnet").rounds[1], data="a", recipe=LONG),
        "labels seed 0, random mask 3, drawn": drawn(
            random_prune(like=labels.dense, keep=0.5, level=3, nonzero=labels.dense), labels.dense
        ),
    }
    for title, step in titles.items():
        assert make_plan(points([step])).jobs[step.id].title == title


@pytest.mark.parametrize(
    ("data", "arch", "expected"),
    [
        ("digits", "conv4", "digits, four convolutions"),
        ("digits:10%-of-images", "conv4", "digits, 10% of the images, four convolutions"),
        (
            "cifar10:20%-of-classes:25%-held-out",
            "resnet18-cifar",
            "CIFAR-10, 20% of the classes, 25% held out, ResNet-18",
        ),
        ("parquet/photos32", "mobile:Mobile", "photos32, Mobile"),
        ("parquet/cifar100:fine_label:10%-of-images", "vgg19", "CIFAR-100, 10% of the images, VGG-19"),
        ("folder/pets", "alexnet-bn", "pets, AlexNet"),
        ("folder/pets:64px:10%-of-images", "conv4", "pets, 64 pixels, 10% of the images, four convolutions"),
        ("voc07/whole", "resnet50", "VOC07, ResNet-50"),
        ("mine:Stripes", "my.nets:wide_net", "Stripes, wide_net"),
    ],
)
def test_settings_are_named_in_plain_words(data: str, arch: str, expected: str) -> None:
    assert words.setting(replace(chain().dense, data=data, arch=arch)) == expected


def test_random_masks_say_how_they_are_allocated() -> None:
    for allocation, name in (("global", "random mask"), ("erk", "random ERK mask")):
        mask = random_prune(like=chain().dense, keep=0.5, level=3, allocation=allocation)
        assert words.describe(mask) == f"{name} 3"
        assert words.how_made(mask, {}, "") == f"{name}: 50% of all stay, 3 times, seed 0"


def test_titles_that_several_have_say_what_tells_them_apart() -> None:
    half, quarter = ([one.rounds[1], one.rounds[2]] for one in (chain(keep=0.5), chain(keep=0.25)))
    other = chain(keep=0.25, arch="conv5").rounds[1]
    named = words.titles(job.train for job in make_plan(points([*half, *quarter])).jobs.values())
    assert [named[step.id] for step in (*half, *quarter)] == [
        "labels seed 0, labels mask 1, rewound, 50% left",
        "labels seed 0, labels mask 2, rewound, 25% left",
        "labels seed 0, labels mask 1, rewound, 25% left",
        "labels seed 0, labels mask 2, rewound, 6.25% left",
    ]
    named = words.titles(job.train for job in make_plan(points([quarter[0], other])).jobs.values())
    assert [named[step.id].rpartition(", ")[2] for step in (quarter[0], other)] == [quarter[0].arch, "conv5"]
    alone = make_plan(points([quarter[1]])).jobs
    assert words.titles(job.train for job in alone.values()) == {i: job.title for i, job in alone.items()}


@pytest.mark.parametrize(
    ("fields", "brief", "made"),
    [
        ({}, "rotnet mask 1", "prune #1: 40% of all stay"),
        (
            {"criterion": "snip", "at": 0, "samples": 1_000},
            "rotnet snip mask 1",
            "prune #1: 40% of all stay, by snip on 1,000 samples at 0",
        ),
        (
            {"criterion": "synflow", "at": 100, "passes": 7, "allocation": "uniform"},
            "rotnet synflow uniform mask 1",
            "prune #1: 40% of all stay, by synflow at 100 passes 7, allocation uniform",
        ),
        (
            {"criterion": "movement", "since": 64},
            "rotnet movement mask 1",
            "prune #1: 40% of all stay, by movement since 64",
        ),
        ({"allocation": "lamp"}, "rotnet LAMP mask 1", "prune #1: 40% of all stay, allocation lamp"),
        (
            {"criterion": "batchnorm", "unit": "filter"},
            "rotnet batchnorm filter mask 1",
            "prune #1: 40% of all stay, by batchnorm, whole filters",
        ),
    ],
)
def test_prunings_in_words(fields: dict[str, Any], brief: str, made: str) -> None:
    recipe = Recipe(samples=256, batch=64, lr=0.1)
    dense = Train(task="rotnet", data="digits", arch="conv4", recipe=recipe, seed=0, start=Init(seed=0))
    mask = Prune(of=dense, keep=0.4, **fields)
    assert words.describe(mask) == brief
    assert words.how_made(mask, {dense: "#1"}, "") == made


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("fig3: rotnet seed 0, mask 3, 0.5 left (1a2b)", "fig3-rotnet-seed-0-mask-3-0.5-left-1a2b"),
        ("mine:Smooth on folder/pets:64px [x] \u00e9 100%", "mine-Smooth-on-folder-pets-64px-x-100"),
    ],
)
def test_names_of_folders_need_no_quotes(text: str, name: str) -> None:
    assert words.file_name(text) == name
    assert shlex.quote(name) == name
