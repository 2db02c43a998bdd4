"""A real sweep that adds seeds until its claims are decided."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from raysslprune.plan.graph import make_plan
from raysslprune.results.tables import looks_of
from raysslprune.sweep_loader import load
from tests.helpers.commands import done_steps, sweep


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_seeds_are_added_for_undecided_claims_only(tmp_path: Path) -> None:
    root = tmp_path / "runs"
    call = ("fig3", "--scale", "smoke", "--root", str(root))
    until = (*call, "--until-decided", "--max-seeds", "5")
    all_points = load("fig3", "smoke", 5).points

    planned = sweep(*until, "--dry-run")
    assert f"{len(make_plan(all_points).jobs)} trainings" in planned.out
    assert "fig3: the table counts 5 seeds of all points, the most that it can cost" in planned.out

    first = sweep(*until)
    assert first.code == 0
    table = pq.read_table(root / "results/smoke/fig3.parquet")
    assert looks_of(table) == (3, 5)
    rows = table.to_pylist()
    assert {row["step"] for row in rows if row["seed"] < 3} == {p.step.id for p in all_points if p.seed < 3}
    claims = pq.read_table(root / "results/smoke/fig3-claims.parquet").to_pylist()
    assert {claim["level"] for claim in claims} == {0.025}
    controls = {row["task"] for row in rows if row["seed"] >= 3}
    assert "random erk" not in controls, "no claim needs more seeds of it"
    took = f"this took {len(done_trainings(root)):,} trainings, where 5 seeds of all points take"
    assert took in " ".join(first.err.split())

    before = done_steps(root)
    again = sweep(*until)
    assert (again.code, done_steps(root)) == (0, before)
    assert again.out == first.out
    fewer = sweep(*call, "--seeds", "3", "--dry-run")
    assert "seeds that were added until claims were decided" in fewer.err
    assert "--until-decided --max-seeds 5" in fewer.err


def done_trainings(root: Path) -> list[str]:
    plan = make_plan(load("fig3", "smoke", 5).points)
    return [job for job in plan.jobs if job in done_steps(root)]
