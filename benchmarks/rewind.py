"""Whether Optuna finds the best rewind of a full grid."""

from __future__ import annotations

import argparse
import contextlib
import math
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

from raysslprune.commands.common import positive
from raysslprune.plan.search import Key, Study


def run(options: argparse.Namespace) -> dict[str, Any]:
    """How well Optuna finds the best rewind: the study's full grid is trained, then searched again and again."""
    from raysslprune import experiment, results
    from raysslprune.plan.graph import make_plan
    from raysslprune.store.steps import Store
    from raysslprune.sweep_loader import load
    from raysslprune.sweepfile import Search

    study = load("rewind", "laptop", options.repeats)
    assert isinstance(study.drawing, Search)
    grid = replace(study.drawing, title="All rewinds", trials=len(study.points))
    everything = replace(study, name="rewind-grid", drawing=grid)  # a journal and a table of its own
    store = Store(options.root)
    with contextlib.redirect_stdout(sys.stderr):
        if experiment.make([everything], "laptop", store, ""):
            raise SystemExit(1)
    records, _ = store.survey(make_plan(study.points).ids)
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
        for found in replay(values, study.drawing.trials, range(100), errors)
    }


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--repeats", type=positive, default=3, help="how often (default: %(default)s)")
    parser.add_argument("--root", default="runs", help="where the grid's results live (default: ./runs)")


@dataclass(frozen=True, kw_only=True)
class Replay:
    """How well the search does in one study whose values are all known; shares are of the samplers' seeds.

    trials: the mean number of the candidates that it tried. equal: how often the best of them is the best of all.
    within: how often it is less than the tolerance below. random_*: the same for as many drawn without replacement.
    """

    task: str
    level: int
    candidates: int
    trials: float
    equal: float
    within: float
    random_equal: float
    random_within: float


def replay(
    values: Mapping[Key, Mapping[int, float]],
    trials: int,
    sampler_seeds: Iterable[int] = range(100),
    tolerance: Mapping[Key, float] | None = None,
) -> list[Replay]:
    """Run the search again and again on a full grid's values, once with each seed; nothing is trained.

    values: of each study, rewind to value. tolerance: of each study, as one standard error of its best.
    """
    found: list[Replay] = []
    seeds = list(sampler_seeds)
    for key, known in values.items():
        enough = (max(known.values()), max(known.values()) - (tolerance or {}).get(key, 0.0))
        best, counts = [], []
        for seed in seeds:
            study = Study(f"{key[0]}, level {key[1]}, sampler {seed}", list(known), trials)
            study.advance(known.__getitem__)
            best.append(max(study.values.values()))
            counts.append(len(study.values))
        hits = [fmean(value >= least for value in best) for least in enough]
        chance = [
            fmean(_chance(len(known), sum(v >= least for v in known.values()), count) for count in counts)
            for least in enough
        ]
        found.append(
            Replay(
                task=key[0],
                level=key[1],
                candidates=len(known),
                trials=fmean(counts),
                equal=hits[0],
                within=hits[1],
                random_equal=chance[0],
                random_within=chance[1],
            )
        )
    return found


def _chance(count: int, good: int, drawn: int) -> float:
    """That a good one is among those drawn without replacement."""
    return 1 - math.comb(count - good, drawn) / math.comb(count, drawn)
