"""A search for the best rewind on a real Ray."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import fmean

import pytest

from tests.helpers.search import LEVELS, REWINDS, World, points, rewind_of


@pytest.mark.slow
def test_a_search_on_ray_trains_what_it_chose(tmp_path: Path) -> None:
    from raysslprune.cluster import nodes, shared, tune
    from raysslprune.terminal.progress import Progress, output_to

    grid = points(tasks=["labels"], seeds=2, rewinds=REWINDS[::2])
    world = World(tmp_path / "runs", grid)
    with output_to(str(tmp_path / "log")) as terminal, nodes.connected(cpus=2):
        from rich.console import Console

        world.studies.advance()
        board = shared.Exchange.start()
        shown = Progress(Console(file=terminal), world.schedule, dict.fromkeys(world.plan.jobs, 1.0))
        with shown.watching(board.training):
            tune.run(world.plan, world.schedule, world.store, "", shown, after_each=world.studies.advance)
    assert world.studies.ended
    tried = world.studies.tried
    assert len(tried) == 3 * len(LEVELS)  # of five candidates three have the second seed
    records, damaged = world.store.survey(world.plan.ids)
    assert damaged == []
    chosen = [p for p in grid if p.seed == 0 or (p.task, p.level, rewind_of(p)) in tried]
    needed = {job.id for job in world.plan.behind(chosen)}
    assert {job_id for job_id in world.plan.jobs if job_id in records} == needed < world.plan.jobs.keys()
    for place, mean in tried.items():
        steps = [p.step.id for p in grid if (p.task, p.level, rewind_of(p)) == place]
        assert mean == fmean(records[step].metrics["top1"] for step in steps)
    assert shown.total == shown.finished == len(needed)
    assert json.loads((tmp_path / "runs/studies/rewind-laptop.journal").read_text().splitlines()[0])["op_code"] == 0
