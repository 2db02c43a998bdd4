"""Whether Optuna finds the best rewind of a full grid."""

from __future__ import annotations

import argparse
import contextlib
import sys
from dataclasses import replace
from typing import Any

from raysslprune.command import positive


def run(options: argparse.Namespace) -> dict[str, Any]:
    """How well Optuna finds the best rewind: the study's full grid is trained, then searched again and again."""
    from raysslprune import plan, results, search
    from raysslprune import sweep as command
    from raysslprune.loader import load
    from raysslprune.store import Store
    from raysslprune.sweepfile import Search

    study = load("rewind", "laptop", options.repeats)
    assert isinstance(study.drawing, Search)
    grid = replace(study.drawing, title="All rewinds", trials=len(study.points))
    everything = replace(study, name="rewind-grid", drawing=grid)  # a journal and a table of its own
    store = Store(options.root)
    with contextlib.redirect_stdout(sys.stderr):
        if command.make([everything], "laptop", store, ""):
            raise SystemExit(1)
    records, _ = store.survey(plan.make(study.points).ids)
    rows = results.summary(results.table("rewind", "laptop", study.points, records)).to_pylist()
    values: dict[tuple[str, int], dict[int, float]] = {}
    errors: dict[tuple[str, int], float] = {}
    for row in sorted(rows, key=lambda row: row["mean"]):
        key = (row["task"], row["level"])
        values.setdefault(key, {})[row["rewind"]] = row["mean"]
        errors[key] = row["stderr"] or 0.0  # of the best, which comes last
    return {
        f"{found.task}, level {found.level}": {
            "candidates": found.candidates,
            "tried": found.trials,
            "grid's best": max(values[found.task, found.level].values()),
            "found it": found.equal,
            "within one standard error": found.within,
            "chance finds it": found.random_equal,
            "chance within": found.random_within,
        }
        for found in search.replay(values, study.drawing.trials, range(100), errors)
    }


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--repeats", type=positive, default=3, help="how often (default: %(default)s)")
    parser.add_argument("--root", default="runs", help="where the grid's results live (default: ./runs)")
