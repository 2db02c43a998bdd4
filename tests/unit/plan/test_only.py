"""A part of a sweep, against the same choice by Python's own comprehension over the points."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

import pytest

from raysslprune.plan.only import NoPoint, part
from raysslprune.sweep_loader import SweepError, load
from raysslprune.sweepfile import Dense, Figure, Point

FIG3 = load("fig3", "laptop", 2)
FIG1 = load("fig1", "laptop", 1)

CHOICES: dict[str, Callable[[Point], bool]] = {
    "task in ('labels', 'rotnet') and level >= 10": lambda p: p.task in ("labels", "rotnet") and p.level >= 10,
    "task not in ['labels'] or seed == 1": lambda p: p.task != "labels" or p.seed == 1,
    "not (level < 3 or init == 'winning ticket')": lambda p: not (p.level < 3 or p.init == "winning ticket"),
    "1 < level <= 10 and density > 0.3": lambda p: 1 < p.level <= 10 and 0.8**p.level > 0.3,
    "rewind >= 1200": lambda p: p.step.rewind is not None and p.step.rewind >= 1200,
    "rewind != 1200": lambda p: p.step.rewind != 1200,
    "level in {0, -1}": lambda p: p.level == 0,
    "arch == 'conv4' and data == 'digits' and metric == 'top1'": lambda p: True,
    "'labels' == task": lambda p: p.task == "labels",
    "seed != 0": lambda p: p.seed == 1,
}


@pytest.mark.parametrize("text", CHOICES)
def test_points_are_those_for_which_the_expression_is_true(text: str) -> None:
    found = part(FIG3, text)
    assert found.points == tuple(filter(CHOICES[text], FIG3.points))
    assert found.name.startswith("fig3-only-")
    assert re.fullmatch(r"[\w.-]+", found.name)
    assert FIG3.name == "fig3"
    counted = f"fig3: {len(found.points)} of {len(FIG3.points)} points, as {found.name}"
    assert found.part.partition(";")[0] == counted


def test_names_tell_expressions_apart_and_not_their_spelling() -> None:
    one, two = "(level == 0 or level == 3) and seed == 0", "level == 0 or (level == 3 and seed == 0)"
    names = {part(FIG3, text).name for text in (one, two, one.replace(" and", "   and"))}
    assert len(names) == 2
    assert part(FIG3, "task in ('labels', 'rotnet') and level >= 10").name.startswith(
        "fig3-only-task-in-labels-rotnet-and-level-ge-10-"
    )


def test_claims_without_points_are_left_out() -> None:
    """Of those of Figure 3, what compares masks of labels with others, by each curve of each claim that stays."""
    found = part(FIG3, "task in ('labels', 'random')")
    tasks = {claim: {curve.task for curve in claim.curves} for claim in FIG3.claims}
    assert found.claims == tuple(claim for claim in FIG3.claims if tasks[claim] <= {"labels", "random"})
    assert 0 < len(found.claims) < len(FIG3.claims)
    gone = len(FIG3.claims) - len(found.claims)
    assert found.part.endswith(f"; {gone} of {len(FIG3.claims)} claims lack points, and are left out")
    assert "claims" not in part(FIG3, "seed == 0").part


def test_claims_need_points_at_their_densities_and_dense_networks() -> None:
    low = [claim for claim in part(FIG3, "level == 24").claims if claim.within == (0.02, 0.6)]
    assert low == []  # 0.5% are left after 24 rounds
    dense = [claim for claim in FIG1.claims if isinstance(claim.lower, Dense)]
    assert dense
    assert not {*part(FIG1, "level > 0").claims} & {*dense}
    assert {*part(FIG1, "level >= 0").claims} == {*FIG1.claims}


def test_a_drawing_has_no_curves_without_points() -> None:
    found = part(FIG3, "init == 'random re-init' and level > 0").drawing
    assert isinstance(found, Figure)
    assert isinstance(FIG3.drawing, Figure)
    assert (found.inits, found.references) == (("random re-init",), ())
    assert found.everywhere == FIG3.drawing.everywhere[:1]  # digits have no natural zeros
    assert part(FIG3, "seed == 0").drawing == replace(FIG3.drawing, everywhere=FIG3.drawing.everywhere[:1])


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "--only '' is not an expression such as task in ('labels', 'rotnet') and level >= 10"),
        ("level ==", "--only 'level ==' is not an expression"),
        ("(" * 5000, "is not an expression"),
        ("level", "level is no condition; compare panel, task,"),
        ("level = 3", "is not an expression"),
        ("__import__('os').system('true')", "is no condition; compare"),
        ("open('x') == 1", "open('x') is neither a column nor a value"),
        ("task.upper() == 'A'", "task.upper() is neither a column nor a value"),
        ("level + 1 == 2", "level + 1 is neither a column nor a value"),
        ("level == True", "True is neither a column nor a value"),
        ("tsk == 'labels'", "there is no column tsk before training; known: panel, task,"),
        ("value > 50", "there is no column value before training"),
        ("task == 3", "task is text, and 3 is a number"),
        ("level in ('labels',)", "level is a number, and ('labels',) is text"),
        ("level in (1, 'labels')", "(1, 'labels') mixes text and numbers"),
        ("task in 'labels'", "'labels' must be several values in ()"),
        ("level == (1, 2)", "(1, 2) must be a single value"),
        ("(1, 2) == level", "(1, 2) must be on the right of in or not in"),
        ("level is 3", "values are compared by == != < <= > >= in, not in; not by is"),
    ],
)
def test_a_wrong_expression_is_one_sentence(text: str, sentence: str) -> None:
    with pytest.raises(SweepError) as raised:
        part(FIG3, text)
    assert sentence in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_sweep_without_such_points_says_what_it_has() -> None:
    with pytest.raises(NoPoint) as raised:
        part(FIG3, "level > 99 and task == 'rotnt'")
    assert str(raised.value) == (
        "fig3 has no point for which --only \"level > 99 and task == 'rotnt'\" is true; it has level: 0, 3, 7, 10, 14, "
        "18, 21, 24; task: exemplar, labels, random, random erk, rotnet, shuffled labels, shuffled rotnet"
    )
    with pytest.raises(NoPoint, match="table1 is a table without points, so --only can't choose among them"):
        part(load("table1", "laptop", 1), "level == 0")
