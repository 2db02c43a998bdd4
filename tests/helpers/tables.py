"""Made-up tables for figures, and what stands in a figure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow as pa
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.lines import Line2D

from raysslprune import results
from raysslprune.figures.curves import draw
from raysslprune.sweepfile import Curve, Figure

TICKET, REINIT = "winning ticket", "random re-init"
LEVELS = (3, 7, 10, 14)
DENSE = Curve(task="labels", init=TICKET)
FIGURE = Figure(
    title="Made up",
    inits=(REINIT, TICKET),
    references=(DENSE,),
    controls=("shuffled labels",),
    everywhere=(Curve(task="random", init=REINIT),),
)
PLAIN = Figure(title="Plain")
Row = dict[str, Any]


def density(level: int) -> float:
    return 0.8**level


def value(task: str, init: str, level: int, seed: int) -> float:
    """Some number that tells all of these apart."""
    return 95 + len(task) - len(init) / 3 - level**1.5 / 4 + seed * (1 + level / 10)


def rows(
    curves: Iterable[tuple[str, str]],
    levels: Sequence[int] = LEVELS,
    seeds: Sequence[int] = (0, 1, 2),
    panel: str = "",
    metric: str = "top1",
    rewind: int | None = None,
) -> list[Row]:
    return [
        {
            "figure": "f",
            "scale": "s",
            "panel": panel,
            "task": task,
            "init": init,
            "level": level,
            "density": density(level),
            "density_of_all": density(level),
            "rewind": rewind,
            "label_samples": None,
            "seed": seed,
            "metric": metric,
            "value": value(task, init, level, seed),
            "collapsed_layers": 0,
            "data": "d",
            "arch": "a",
            "step": "x",
            "design": 2,
        }
        for task, init in curves
        for level in levels
        for seed in seeds
    ]


def table(some: Iterable[Row]) -> pa.Table:
    return pa.Table.from_pylist(list(some), schema=results.SCHEMA)


def figure_3(panel: str = "") -> list[Row]:
    """As the sweep's table: a dense point, tickets and re-inits, and the two controls."""
    curves = [(task, init) for task in ("labels", "rotnet") for init in (TICKET, REINIT)]
    curves += [("random", REINIT), ("shuffled labels", REINIT)]
    return rows([("labels", TICKET)], levels=(0,), panel=panel) + rows(curves, panel=panel)


def bimodal() -> list[Row]:
    """Two curves of three seeds; a layer of ``random`` is empty in one seed at level 10, and in all at level 14."""
    some = rows([("labels", TICKET), ("random", REINIT)])
    for row in some:
        if row["task"] == "random" and (row["level"] == 14 or (row["level"], row["seed"]) == (10, 1)):
            row |= {"value": 10.0, "collapsed_layers": 2}
    return some


def without(some: Iterable[Row], task: str, init: str, level: int, seeds: Sequence[int] = (0, 1, 2)) -> list[Row]:
    gone = [(task, init, level, seed) for seed in seeds]
    return [row for row in some if (row["task"], row["init"], row["level"], row["seed"]) not in gone]


def plain(*tasks: str, levels: Sequence[int] = LEVELS, seeds: Sequence[int] = (0, 1, 2)) -> Axes:
    """The one axes of tickets of these tasks."""
    (ax,) = draw(PLAIN, table(rows([(task, TICKET) for task in tasks], levels, seeds))).axes
    return ax


def line(ax: Axes, name: str) -> Line2D:
    """The one curve of that name."""
    (found,) = (one for one in ax.lines if one.get_label() == name)
    return found


def names(ax: Axes) -> set[str]:
    return {str(one.get_label()) for one in ax.lines if not str(one.get_label()).startswith("_")}


def legend(canvas: Canvas) -> list[str]:
    (one,) = canvas.legends
    return [text.get_text() for text in one.get_texts()]


def note(canvas: Canvas) -> str:
    (one,) = canvas.legends
    return one.get_title().get_text().replace("\n", " ")


def every(curve: Line2D) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in curve.get_xydata()]  # type: ignore[union-attr]


def points(curve: Line2D) -> list[tuple[float, float]]:
    """Without gaps."""
    return [(x, y) for x, y in every(curve) if not math.isnan(y)]


def means(task: str, init: str, levels: Iterable[int] = LEVELS) -> list[tuple[float, float]]:
    return [(100 * density(n), statistics.fmean(value(task, init, n, s) for s in range(3))) for n in levels]


def shown_labels(ax: Axes) -> list[str]:
    return [text.get_text() for text in ax.get_xticklabels() if text.get_text()]


REWINDS = (0, 300, 1200, 3_840_000)


def searched() -> list[Row]:
    return [row for rewind in REWINDS for row in rows([("labels", TICKET)], levels=(10, 14), rewind=rewind)]
