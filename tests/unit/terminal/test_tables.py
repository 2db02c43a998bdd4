"""Tables for a person at a terminal."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from raysslprune.lottery import linear
from raysslprune.paper.recipes import GPU, TRANSFER, appendix_d
from raysslprune.plan.graph import make_plan
from raysslprune.spec import Init, Train
from raysslprune.store.steps import Store
from raysslprune.sweepfile import Point
from raysslprune.terminal import tables
from tests.helpers.points import (
    SWEEPS,
    made_up,
    points,
)


@pytest.fixture(params=SWEEPS)
def asked(request: pytest.FixtureRequest) -> list[Point]:
    return SWEEPS[request.param]


def pretext(task: str, seed: int = 0) -> Train:
    recipe = appendix_d(task, "imagenet", "resnet50")
    return Train(task=task, data="imagenet", arch="resnet50", recipe=recipe, seed=seed, start=Init(seed=seed))


LINEAR, SVMS = (TRANSFER[kind].recipe for kind in ("linear", "svm"))


def test_a_dry_run_at_the_papers_scale_says_what_each_figure_costs() -> None:
    rotnet, labels = pretext("rotnet"), pretext("labels")
    asked = {"one": points([rotnet, labels]), "two": points([rotnet, linear(rotnet, data="imagenet", recipe=LINEAR)])}
    figures = {name: make_plan(some) for name, some in asked.items()}
    graph, out = make_plan([point for some in asked.values() for point in some]), io.StringIO()
    tables.dry_run(Console(file=out, width=100), Store("/nowhere"), graph, {}, [], [], 2, gpu=True, figures=figures)
    rows = [line.split() for line in out.getvalue().splitlines()]
    hours = {"one": 68.2, "two": 37.7, "together": 71.8}
    for name, counts in {"one": [2, 2, 2, 2], "two": [2, 2, 2, 3], "together": [4, 3, 3, 5]}.items():
        assert [name, *map(str, counts), *[str(hours[name])] * 2] in rows
    assert ["rotnet", "on", "imagenet,", "resnet50", "1", "115.2", "938", "stated", "34.1", "34.1"] in rows
    assert ["linear", "on", "imagenet,", "resnet50", "1", "35.8", "2,814", "stated", "3.5", "3.5"] in rows
    assert ["together", "0", "B", "0", "B", "102", "MB", "307", "MB"] in rows  # one of three is read
    assert "each figure alone: 106 GPU-hours; together: 71.8" in out.getvalue()
    assert GPU in out.getvalue()
    assert "on 2 cores" not in out.getvalue()


def test_a_dry_run_of_one_figure_on_this_machine_is_short() -> None:
    out = io.StringIO()
    tables.dry_run(Console(file=out, width=100), Store("/nowhere"), make_plan(made_up()), {}, [], [], 2)
    lines = out.getvalue().splitlines()
    assert [line.split()[0] for line in lines] == [
        "root",
        "points",
        "unique",
        "done",
        "will",
        "without",
        "time",
        "disk",
    ]
