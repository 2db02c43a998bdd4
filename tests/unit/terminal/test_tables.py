"""Tables for a person at a terminal."""

from __future__ import annotations

import io
import math
import re
import statistics
from dataclasses import replace

import pyarrow as pa
import pytest
from rich.console import Console

from raysslprune import results
from raysslprune.lottery import linear
from raysslprune.paper.recipes import GPU, TRANSFER, appendix_d
from raysslprune.plan.graph import make_plan
from raysslprune.results.claims import Verdict
from raysslprune.results.inference import weigh
from raysslprune.spec import Init, Train
from raysslprune.store.steps import Store
from raysslprune.sweepfile import Claim, Curve, Point
from raysslprune.terminal import tables
from tests.helpers.points import (
    SWEEPS,
    made_up,
    points,
)
from tests.helpers.tables import LEVELS, TICKET, bimodal, density, rows, table


@pytest.fixture(params=SWEEPS)
def asked(request: pytest.FixtureRequest) -> list[Point]:
    return SWEEPS[request.param]


def pretext(task: str, seed: int = 0) -> Train:
    recipe = appendix_d(task, "imagenet", "resnet50")
    return Train(task=task, data="imagenet", arch="resnet50", recipe=recipe, seed=seed, start=Init(seed=seed))


def test_what_a_search_chose_is_shown_by_its_value_on_test_images() -> None:
    """Not the best on test images: that would be a choice by them."""
    values = {0: (90.0, 92.0), 300: (95.0, 97.0), 600: (91.0, 92.0), 1200: (99.0, 99.0)}
    rows = [
        dict.fromkeys(results.SCHEMA.names, "") | {"task": "labels", "level": 3, "rewind": rewind, "seed": seed}
        | {"value": value, "density": 0.5, "density_of_all": 0.5, "collapsed_layers": 0}
        | {"label_samples": 0, "design": 2}
        for rewind, seeds in values.items() for seed, value in enumerate(seeds)
    ]  # fmt: skip
    tried = {("labels", 3, 0): 80.0, ("labels", 3, 300): 81.0, ("labels", 3, 600): 83.0, ("rotnet", 3, 0): 99.0}
    (row,) = tables.search_table(pa.Table.from_pylist(rows, schema=results.SCHEMA), tried).texts()[1:]
    assert row == ["labels", "50.0", "3", "91.5 ± 0.5", "600", "4", "99.0 ± 0.0", "1,200"]
    (row,) = tables.search_table(pa.Table.from_pylist(rows, schema=results.SCHEMA), {}).texts()[1:]
    assert row == ["labels", "50.0", "0", "", "", "4", "99.0 ± 0.0", "1,200"]


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


def test_the_numbers_of_a_claim_are_a_line_for_each_of_their_parts() -> None:
    one, other = (Curve(task=task, init="winning ticket") for task in ("labels", "rotnet"))
    of = Claim(says="so", source="there", higher=one, lower=other, relation="equal", margin=2.0)
    verdict = Verdict(
        claim=of,
        densities=tuple(0.8**level for level in range(1, 12)),
        seeds=3,
        effect=1.0,
        evidence=weigh([0.5, 1.0, 1.5], "equal", 2.0),
        holm=0.123,
        benjamini_hochberg=0.0123,
        labels="the sides saw 14,400 and 1,440 samples with labels",
    )
    for width in (140, 60):
        out = io.StringIO()
        tables.claims(Console(file=out, width=width), [verdict])
        _, _, says, *lines = out.getvalue().rstrip().splitlines()
        assert says == "undecided: so (there)"
        assert all(len(line) <= width and line.startswith("    ") for line in lines)
        begun = [line.split()[0] for line in lines if not line.startswith("     ")]
        assert begun == ["mean", "two", "the"]
        assert len(lines) == 3 or width == 60
        assert " ".join(line.strip() for line in lines) == verdict.numbers
    assert "at 11 densities from 20.0 to 91.4 % pruned, n = 3; two one-sided" in verdict.numbers


def test_where_only_some_seeds_have_an_empty_layer_the_median_stands_beside_the_mean() -> None:
    some = bimodal()
    (caption, n, grid), *more = tables.mean_tables(table(some), tables.BY_PRUNING)
    assert (caption, n, more) == ("", "n = 3", [])
    cells = {row.cells[0].text: [cell.text for cell in row.cells[1:]] for row in grid.rows}
    for level in LEVELS:
        for at, task in enumerate(("labels", "random")):
            mine = [row["value"] for row in some if (row["task"], row["level"]) == (task, level)]
            shown = f"{statistics.fmean(mine):.1f} ± {statistics.stdev(mine) / math.sqrt(3):.1f}"
            shown += f" (median {statistics.median(mine):.1f})" * ((task, level) == ("random", 10))
            assert cells[results.pruned_percent(density(level))][at] == shown
    assert "(median 88.4)" in cells["89.3"][1]
    fewer = [row for row in some if row["task"] == "random" or row["seed"]]  # two seeds of labels
    (_, n, grid), *_ = tables.mean_tables(table(fewer), tables.BY_PRUNING)
    assert n == "n in brackets"
    assert any(row.cells[2].text.endswith(" (3, median 88.4)") for row in grid.rows)


@pytest.mark.parametrize(("curves", "width", "turned"), [(2, 70, False), (9, 70, True), (9, 200, False)])
def test_curves_that_are_too_many_for_the_width_are_rows(curves: int, width: int, turned: bool) -> None:
    tasks = [f"task {number}" for number in range(curves)]
    out = io.StringIO()
    made = table(rows([(task, TICKET) for task in tasks]))
    tables.table(Console(file=out, width=width), "Title", made, tables.BY_PRUNING)
    cells = [re.split(r"  +", line.strip()) for line in out.getvalue().split("n = 3\n")[1].splitlines()]
    pruned = [results.pruned_percent(density(level)) for level in LEVELS]
    assert cells[0] == ["% pruned", *(pruned if turned else tasks)]
    assert [row[0] for row in cells[1:]] == (tasks if turned else pruned)


def test_seeds_with_an_empty_layer_are_counted() -> None:
    some = bimodal()
    assert tables.empty_layers(table(some)) == "random at 89.3 % (1 of 3 seeds), random at 95.6 % (3 of 3 seeds)"
    panels = [row | {"panel": panel} for panel in ("one", "two") for row in some if panel == "one" or not row["seed"]]
    assert tables.empty_layers(table(panels)) == (
        "one: random at 89.3 % (1 of 3 seeds), random at 95.6 % (3 of 3 seeds); two: random at 95.6 % (1 of 1 seed)"
    )
    inits = [row | {"init": init} for init in ("one", "two") for row in some]
    assert tables.empty_layers(table(inits)) == tables.empty_layers(table(some)), "a seed counts once"
    assert tables.empty_layers(table(row for row in some if row["task"] == "labels")) == ""


def test_claims_that_can_not_be_told_for_the_same_reason_share_a_line() -> None:
    """A single one is told in full, as it is of most sweeps of one's own; and a warning is said once."""
    one, other = (Curve(task=task, init="winning ticket") for task in ("labels", "rotnet"))
    claims = [Claim(says=f"so {n}", source="there", higher=one, lower=other, relation="above") for n in range(4)]
    few = [Verdict(claim=claim, densities=(0.5,), seeds=1, effect=1.0) for claim in claims]
    near = "the dense network (labels winning ticket) is near chance: 12.0%, where guessing gives 10.0%"
    tested = replace(few[3], evidence=weigh([0.5, 1.0, 1.5], "above"), seeds=3, warning=near)

    def printed(*verdicts: Verdict) -> list[str]:
        out = io.StringIO()
        tables.claims(
            Console(file=out, width=60), verdicts, seeds_hint="python -m raysslprune.sweep 'my file.py' --seeds "
        )
        return out.getvalue().strip().splitlines()[1:]

    more = "to add seeds: python -m raysslprune.sweep 'my file.py' --seeds 3"
    assert printed(*few[:3]) == ["undecided: 3 claims (too few seeds: a verdict needs 3)", more]
    alone = printed(few[0])
    assert (alone[0], alone[-1]) == ("undecided: so 0 (there)", more)
    assert "    too few seeds: a verdict needs 3" in alone
    apart = [replace(verdict, effect=None, warning=near) for verdict in few[:2]]
    mixed = printed(tested, *apart)
    assert mixed[0] == "undecided: so 3 (there)"
    assert mixed[-2] == "undecided: 2 claims (the curves share no density with points for every seed)"
    assert mixed[-1] == f"careful: {near}; 3 verdicts on what is pruned from it mean little"
