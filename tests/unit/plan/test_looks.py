"""Seeds that are added until claims are decided: which points are trained at each look."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from raysslprune.plan.graph import make_plan
from raysslprune.plan.looks import Looks, looks
from raysslprune.plan.schedule import Schedule
from raysslprune.sweep_loader import Sweep, load
from raysslprune.sweepfile import Claim, Curve, Dense, Point

SWEEP = load("fig3", "smoke", 1, looks=(3, 6, 12))
Undecided = list[tuple[Claim, str]]


def points_of(sweep: Sweep, keep: Callable[[Point], bool]) -> set[str]:
    return {point.step.id for point in sweep.points if keep(point)}


def trained(answers: Sequence[Undecided], sweep: Sweep = SWEEP) -> list[set[str]]:
    """Run all looks on a schedule, and return the points' steps that each has added. answers: undecided claims."""
    plan = make_plan(sweep.points)
    schedule = Schedule([], dict.fromkeys(plan.jobs, 1.0))
    asked: list[Undecided] = []

    def undecided() -> Undecided:
        assert schedule.finished, "a look must wait for all of its trainings"
        asked.append(answers[len(asked)])
        return asked[-1]

    made = Looks(sweep.looks, sweep.points, plan, schedule, {}, undecided)
    made.advance()
    rounds: list[set[str]] = [set()]
    while (job := schedule.next()) is not None:
        if len(rounds) <= len(asked):
            rounds.append(set())
        rounds[len(asked)].add(job.id)
        schedule.done(job.id)
        made.advance()
    assert len(asked) == len(answers)
    shown = points_of(sweep, lambda _: True)
    return [{step for step in some if step in shown} for some in rounds]


def test_looks_double_and_end_at_the_maximum() -> None:
    assert looks() == (3, 6, 12, 24)
    assert looks(10) == (3, 6, 10)
    assert looks(3) == (3,)


def test_the_first_look_takes_all_points_and_the_next_only_those_of_undecided_claims() -> None:
    claim = next(c for c in SWEEP.claims if "Exemplar" in c.says and c.relation == "not worse")
    assert {curve.init for curve in claim.curves} == {"winning ticket", "random re-init"}
    first, second, *rest = trained([[(claim, "")], []])
    assert first == points_of(SWEEP, lambda p: p.seed < 3)
    low, high = claim.within
    assert second == points_of(
        SWEEP,
        lambda p: 3 <= p.seed < 6 and p.task == "exemplar" and low <= p.step.target_density <= high,
    )
    assert second
    assert rest == []


def test_nothing_is_added_if_all_is_decided() -> None:
    assert trained([[], []]) == [points_of(SWEEP, lambda p: p.seed < 3)]


def test_the_last_look_is_not_judged() -> None:
    """Nothing could be added after it."""
    claim = next(c for c in SWEEP.claims if "Exemplar" in c.says and c.relation == "not worse")
    rounds = trained([[(claim, "")], [(claim, "")]])
    assert [{p.seed for p in SWEEP.points if p.step.id in some} for some in rounds] == [
        {0, 1, 2},
        {3, 4, 5},
        set(range(6, 12)),
    ]


def test_a_claim_that_is_undecided_in_one_panel_gets_seeds_in_this_panel_only() -> None:
    sweep = load("fig8", "smoke", 1, looks=(3, 6))
    panels = dict.fromkeys(point.panel for point in sweep.points)
    claim = next(c for c in sweep.claims if all(curve.panel is None for curve in c.curves))
    rounds = trained([[(claim, next(iter(panels)))]], sweep)
    assert len(panels) > 1
    assert {p.panel for p in sweep.points if p.step.id in rounds[1]} == {next(iter(panels))}


@pytest.mark.parametrize("side", ["higher", "lower"])
def test_the_dense_network_of_a_claim_is_trained_too(side: str) -> None:
    curve = Curve(task="labels", init="winning ticket")
    other = "lower" if side == "higher" else "higher"
    sides = {side: Dense(curve=curve), other: curve}
    claim = Claim(says="so", source="there", relation="above", within=(0.0, 0.001), **sides)  # pyright: ignore
    rounds = trained([[(claim, "")]], replace(SWEEP, looks=(3, 12)))
    assert {(p.task, p.level) for p in SWEEP.points if p.step.id in rounds[1]} == {("labels", 0)}
