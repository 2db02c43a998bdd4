"""Replays of searches for the best rewind on a grid whose values are all known: which way of choosing is best?

A grid has, for each study and candidate, values of some seeds on held-out images and on test images. A search sees the
held-out values of half of the seeds. Its regret is measured on test images with the other seeds: by how much its choice
is worse than the best candidate there.

The unit of cost is an *evaluation*: a candidate with a seed. In one study all evaluations cost about the same, as many
trainings as its level has rounds (for RotNet one more, the ticket). Chains that two studies share are not counted as
shared: that is the same for all searches.
"""

from __future__ import annotations

import argparse
import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pyarrow as pa
from optuna.exceptions import ExperimentalWarning
from optuna.pruners import BasePruner, NopPruner, WilcoxonPruner
from optuna.samplers import TPESampler

from benchmarks.statistics import over_seeds
from raysslprune.commands.common import count, positive
from raysslprune.messages import UserError
from raysslprune.plan.search import Key, halving, rungs

GRID = Path(__file__).parents[1] / "docs" / "data" / "rewind-grid.parquet"

Values = np.ndarray
"""Values on held-out images, float64 (candidates, seeds)."""

Search = Callable[[Values, int, np.random.Generator], tuple[int, int]]
"""A search: from values, a number of evaluations and random numbers to the choice and the evaluations used."""


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Values of one study, by candidate in the order of rewinds and by seed: on held-out and on test images."""

    held_out: Values
    test: Values


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Replay searches on a grid, or on made-up ones. Returns regrets in points, and evaluations used."""
    if options.made_up:
        draws = [made_up(np.random.default_rng(number), options.seeds) for number in range(options.repeats)]
        return compared({key: [grids[key] for grids in draws] for key in draws[0]})
    path = Path(options.grid)
    record(path, options.seeds, options.root)
    return compared({key: [grid] * options.repeats for key, grid in read(path).items()})


def arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--grid", default=GRID, metavar="FILE", help="the grid's values; what it lacks is trained and added first")
    add("--made-up", action="store_true", help="use smooth curves and noise as in an earlier grid, and train nothing")
    add("--seeds", type=count, default=8, help="seeds of a grid that is trained or made up (default: %(default)s)")
    add("--root", default="runs", help="where a seed's trainings are kept (default: ./runs)")
    add("--repeats", type=positive, default=100, help="splits of the seeds, or made-up grids (default: %(default)s)")


# ------------------------------------------------------------------ grids


def record(path: Path, seeds: int, root: str) -> None:
    """Train all candidates of the rewind study, and add their results to a file seed by seed, with those it lacks."""
    from benchmarks.trained import trained
    from raysslprune import results
    from raysslprune.messages import SCALE
    from raysslprune.sweep_loader import load

    study = load("rewind", SCALE, seeds)
    points = [replace(point, panel=f"{point.metric}, rewound to {point.step.rewind:,}") for point in study.points]
    table = results.from_parquet(path.read_bytes()) if path.exists() else results.SCHEMA.empty_table()
    for seed in sorted({point.seed for point in points} - {*table["seed"].to_pylist()}):
        new = trained("rewind-grid", SCALE, [point for point in points if point.seed == seed], root)
        table = pa.concat_tables([table, new])
        path.write_bytes(results.to_parquet(table))


def read(path: Path) -> dict[Key, Grid]:
    """Read a table of results of the rewind study. Raises UserError unless it has all seeds of all candidates."""
    from raysslprune import results

    try:
        rows = results.from_parquet(path.read_bytes()).to_pylist()
    except OSError as error:
        raise UserError(f"{path} can't be read: {error}") from error
    found: dict[Key, dict[str, dict[tuple[int, int], float]]] = {}
    for row in rows:
        metrics = found.setdefault((row["task"], row["level"]), {})
        metrics.setdefault(row["metric"], {})[row["rewind"], row["seed"]] = row["value"]
    grids: dict[Key, Grid] = {}
    for key, metrics in found.items():
        places = [sorted({place[axis] for values in metrics.values() for place in values}) for axis in (0, 1)]
        arrays = [
            np.array(
                [[metrics.get(metric, {}).get((rewind, seed), math.nan) for seed in places[1]] for rewind in places[0]]
            )
            for metric in ("top1_validation", "top1")
        ]
        if np.isnan(arrays).any() or len(places[1]) < 2:
            raise UserError(
                f"{path} lacks values of {key[0]}, level {key[1]}: a grid has two seeds or more of all rewinds"
            )
        grids[key] = Grid(held_out=arrays[0], test=arrays[1])
    return grids


# Means and standard deviations over three seeds at the rewinds of an earlier grid: 0, then octaves from 150 to 9,600
EARLIER: Mapping[Key, tuple[tuple[float, ...], float]] = {
    ("labels", 14): ((97.5, 98.1, 97.6, 97.6, 98.0, 97.4, 97.2, 94.3), 0.4),
    ("labels", 21): ((84.4, 78.1, 88.3, 81.5, 84.2, 86.2, 80.4, 29.9), 5.0),
    ("rotnet", 14): ((95.5, 93.0, 93.2, 93.6, 94.0, 90.5, 84.6, 45.3), 1.2),
    ("rotnet", 21): ((67.6, 66.4, 67.6, 62.9, 62.1, 52.1, 36.4, 16.1), 6.0),
}


def made_up(rng: np.random.Generator, seeds: int = 8) -> dict[Key, Grid]:
    """Draw a grid of sixteen candidates for each study: a smooth curve, and noise of seeds and of images.

    The curve is that of the earlier grid, smoothed over an octave, plus a smooth random one. A third of the variance
    between seeds is common to all candidates. Images are counted as on digits: 299 held out, 597 for testing.
    """
    old, new = np.array([-4.0, *range(-3, 4)]), np.array([-4.0, *np.arange(-7, 8) / 2])
    grids: dict[Key, Grid] = {}
    for key, (means, deviation) in EARLIER.items():
        kernel = np.exp(-((new[:, None] - new) ** 2))
        curve = np.interp(new, old, means)
        smooth = kernel @ curve / kernel.sum(1)
        smooth += deviation * (kernel @ rng.normal(size=16)) / np.sqrt((kernel**2).sum(1)) / 2
        noise = math.sqrt(1 / 3) * rng.normal(size=seeds) + math.sqrt(2 / 3) * rng.normal(size=(16, seeds))
        right = np.clip(smooth[:, None] + deviation * noise, 5, 99.9) / 100
        held_out, test = (100 * rng.binomial(images, right) / images for images in (299, 597))
        grids[key] = Grid(held_out=held_out, test=test)
    return grids


# ------------------------------------------------------------------ searches


def by_halving(values: Values, budget: int, rng: np.random.Generator) -> tuple[int, int]:
    """Successive halving over seeds, as in the live study."""
    trials = halving(range(len(values)), values.shape[1], lambda candidate, seed: float(values[candidate, seed]))
    counts = {candidate: len(trial.means) for candidate, trial in trials.items()}
    finalists = [candidate for candidate, number in counts.items() if number == values.shape[1]]
    return max(finalists, key=lambda candidate: trials[candidate].means[-1]), sum(counts.values())


def evaluations(candidates: int, seeds: int) -> int:
    """Number of evaluations that successive halving uses, if none fails."""
    total, before = 0, 0
    for number in rungs(seeds):
        total += candidates * (number - before)
        candidates, before = math.ceil(candidates / 2), number
    return total


def by_chance(values: Values, budget: int, rng: np.random.Generator) -> tuple[int, int]:
    """As many random candidates as have all seeds within the budget."""
    seeds = values.shape[1]
    chosen = rng.choice(len(values), min(len(values), budget // seeds), replace=False)
    return int(chosen[values[chosen].mean(1).argmax()]), len(chosen) * seeds


def all_candidates(values: Values, budget: int, rng: np.random.Generator) -> tuple[int, int]:
    """All candidates, with as many seeds as the budget has for each."""
    seeds = min(values.shape[1], budget // len(values))
    return int(values[:, :seeds].mean(1).argmax()), len(values) * seeds


def whole_grid(values: Values, budget: int, rng: np.random.Generator) -> tuple[int, int]:
    """All candidates with all seeds, whatever the budget."""
    return int(values.mean(1).argmax()), values.size


def by_tpe(values: Values, budget: int, rng: np.random.Generator) -> tuple[int, int]:
    """Optuna's TPE on means over all seeds."""
    return _asked(values, budget, rng, NopPruner())


def by_tpe_and_wilcoxon(values: Values, budget: int, rng: np.random.Generator) -> tuple[int, int]:
    """Optuna's TPE, seeds added one at a time, stopped by its WilcoxonPruner."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        return _asked(values, budget, rng, WilcoxonPruner(p_threshold=P_VALUE))


P_VALUE = 0.2
"""Below this WilcoxonPruner stops a trial: with its default of 0.1 that would take four seeds, with 0.2 three."""

STARTING, CHOICES, DRAWS = 0.5, 8, 30
"""TPE's candidates that are spread evenly at the start, as a fraction of all; draws of which it takes the best, since
with its default of 24 it repeats itself; and draws in a row that repeat earlier trials before it ends."""


def _asked(values: Values, budget: int, rng: np.random.Generator, pruner: BasePruner) -> tuple[int, int]:
    """Ask TPE for one candidate after the other within the budget. Of those with all seeds the best is chosen."""
    candidates, seeds = values.shape
    sampler = TPESampler(n_startup_trials=1, n_ei_candidates=CHOICES, seed=int(rng.integers(2**31)))
    study = optuna.create_study(direction="maximize", sampler=sampler, pruner=pruner)
    first = min(round(STARTING * candidates), budget // seeds)
    for index in range(first):
        study.enqueue_trial({"rewind": (2 * index + 1) * candidates // (2 * first)})
    tried: dict[int, list[float]] = {}
    used = repeated = 0
    while budget - used >= seeds and len(tried) < candidates and repeated < DRAWS:
        trial = study.ask()
        candidate = trial.suggest_int("rewind", 0, candidates - 1)
        if candidate in tried:
            repeated += 1
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
            continue
        repeated, tried[candidate] = 0, []
        for seed, value in enumerate(values[candidate].tolist()):
            tried[candidate].append(value)
            trial.report(value, seed)
            if trial.should_prune():
                break
        used += len(tried[candidate])
        study.tell(trial, float(np.mean(tried[candidate])))
    complete = {candidate: np.mean(some) for candidate, some in tried.items() if len(some) == seeds}
    return max(complete, key=complete.__getitem__), used


SEARCHES: Mapping[str, Search] = {
    "random candidates, all seeds": by_chance,
    "all candidates, fewer seeds": all_candidates,
    "successive halving": by_halving,
    "TPE": by_tpe,
    "TPE and WilcoxonPruner": by_tpe_and_wilcoxon,
    "whole grid": whole_grid,
}
"""Searches by name. All but the last have as many evaluations as successive halving uses; the first is the baseline."""


# ------------------------------------------------------------------ replays


def compared(grids: Mapping[Key, list[Grid]]) -> dict[str, Any]:
    """Replay all searches on each grid, with a split of its seeds that is the same for all of them.

    Returns for each study and search the mean regret, its difference to the baseline's with a standard error (of paired
    differences; splits of one grid's seeds are not independent, so for one grid it is too small), and the evaluations.
    """
    baseline = next(iter(SEARCHES))
    found: dict[str, Any] = {}
    for key, some in grids.items():
        outcomes = {
            name: np.array([replay(one, search, n) for n, one in enumerate(some)]) for name, search in SEARCHES.items()
        }
        for name, outcome in outcomes.items():
            difference = over_seeds((outcome - outcomes[baseline])[:, 0].tolist())
            found[f"{key[0]}, level {key[1]}: {name}"] = {
                "regret": float(outcome[:, 0].mean()),
                "over random": difference["mean"],
                "standard error": difference["standard error"],
                "evaluations": float(outcome[:, 1].mean()),
            }
    return found


def replay(grid: Grid, search: Search, number: int) -> tuple[float, int]:
    """Search a grid with half of its seeds, drawn by ``number``. Returns the regret with the others and evaluations."""
    rng = np.random.default_rng(number)
    seeds = rng.permutation(grid.held_out.shape[1])
    seen, others = np.split(seeds, [len(seeds) // 2])
    values, truth = grid.held_out[:, seen], grid.test[:, others].mean(1)
    choice, used = search(values, evaluations(*values.shape), rng)
    return float(truth.max() - truth[choice]), used
