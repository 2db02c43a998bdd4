"""Seconds to plan, schedule, survey and table a sweep of up to a hundred thousand points."""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from raysslprune.commands.common import positive

if TYPE_CHECKING:
    from raysslprune.plan.graph import Plan
    from raysslprune.store.record import Record
    from raysslprune.store.steps import Store

SWEEP = "fig3"
"""Sweep that is planned, at laptop scale, with as many seeds as the number of points needs."""


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--points", type=positive, nargs="+", default=[1_000, 10_000, 100_000], help="how many (default: %(default)s)"
    )


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Measure the seconds of each part, at each size."""
    sizes = sorted(options.points)
    measured = [_seconds(size) for size in sizes]
    names = [f"{size:,} points" for size in sizes]
    table: dict[str, Any] = {
        part: {name: column[part] for name, column in zip(names, measured, strict=True)} for part in measured[0]
    }
    return table


def _seconds(size: int) -> dict[str, float]:
    from raysslprune import results
    from raysslprune.paper.recipes import NETS
    from raysslprune.plan.cost import cost_of
    from raysslprune.plan.graph import make_plan
    from raysslprune.plan.schedule import Schedule
    from raysslprune.store.steps import Store
    from raysslprune.sweep_loader import load

    took: dict[str, float] = {}

    @contextmanager
    def timed(part: str) -> Iterator[None]:
        begun = time.perf_counter()
        yield
        took[part] = time.perf_counter() - begun

    each = len(load(SWEEP, "laptop", 1).points)
    with timed("points made and checked"):
        sweep = load(SWEEP, "laptop", max(1, round(size / each)))
    with timed("planned"):
        graph = make_plan(sweep.points)
    with timed("cost"):
        seconds = cost_of(graph.jobs.values(), {}, NETS).seconds
    with timed("handed out, all"):
        schedule = Schedule(graph.pending({}), seconds)
        while job := schedule.next():
            schedule.done(job.id)
    assert schedule.finished
    with tempfile.TemporaryDirectory() as folder:
        store = Store(folder)
        store.create()
        _finish(graph, store)
        with timed("asked for what is done, first"):
            records, _ = store.survey(graph.ids)
        with timed("written down"):
            store.remember()
        with timed("asked for what is done, again"):
            again, _ = Store(folder).survey(graph.ids)
    assert again == records
    with timed("table"):
        table = results.table(SWEEP, "laptop", sweep.points, records)
    with timed("mean over seeds"):
        results.summary(table)
    with timed("Parquet"):
        results.to_parquet(table)
    with timed("table of steps, as Parquet"):
        steps = results.to_parquet(results.steps(sweep.points, records))
    with tempfile.TemporaryDirectory() as folder:
        Store(folder).write(f"results/laptop/{SWEEP}-steps.parquet", steps)
        Store(folder).write(f"results/laptop/{SWEEP}.parquet", results.to_parquet(table))
        with timed("results joined with steps by SQL"):
            results.query("SELECT lr, avg(value) FROM results JOIN steps USING (step) GROUP BY lr", folder)
    with timed("drawn"):
        _draw(sweep, table)
    return {
        "points": len(sweep.points),
        "steps": len(graph.ids),
        **{f"seconds: {part}": taken for part, taken in took.items()},
        "GB of memory, at most": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6,
    }


def _finish(graph: Plan, store: Store) -> None:
    """Commit every step with made-up metrics and no artefacts but its spec."""
    facts = {"seconds": 1.0, "images_per_second": 1.0, "begun": 0.0, "host": "", "device": "", "versions": {}}
    metrics = {"top1": 50.0, "density": 0.5, "density_in_scope": 0.5, "collapsed_layers": 0.0}

    def commit(step: Any) -> Record:
        return store.commit(step, {}, metrics, facts)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(commit, (step for job in graph.jobs.values() for step in (job.train, *job.masks))))


def _draw(sweep: Any, table: Any) -> bytes:
    from raysslprune.figures import curves, ink

    return ink.save(curves.draw(sweep.drawing, table), "png")
