"""Figures of masks: what is left of each layer, and how much masks overlap."""

from __future__ import annotations

import itertools
import math
import textwrap
from collections.abc import Hashable, Iterable, Sequence

import matplotlib as mpl
import pyarrow as pa
from matplotlib import colors
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from raysslprune.figures.ink import (
    Line,
    decade_ticks,
    grid,
    legend,
    legend_handles,
    legible,
    log_floor,
    or_nan,
    paint_log_axis,
    remaining_axis,
    wrapped,
)
from raysslprune.figures.style import (
    MARKERS,
    PRINT,
    SHADES,
    SMALL,
    TEXT_WIDTH,
    Look,
    Place,
    Rows,
    curve_name,
    curve_styles,
    own_style,
    panel_title,
)

MAX_LETTERS, MAX_MARKERS = 100, 16
"""Of layers' names in a row of axes, else layers are numbered; of layers whose points have markers."""

WIDE = 1.5
"""Of a single density's line: from so many times as much to such a part of it."""

MAX_PAIRS = 10
"""Pairs of tasks in one axes."""


@own_style()
def layer_densities(title: str, table: pa.Table, *, subtitle: str = "") -> Canvas:
    """What masks leave of each layer: axes for each task, in rows of their own for each panel; a line for each density.

    table: columns panel, task, layer (in network order), density, stderr, n, left (of all layers together, and of all
    masks that count as equally dense).
    """
    rows = table.to_pylist()
    cells: dict[tuple[str, str], Rows] = {}
    for row in rows:
        cells.setdefault((row["panel"], row["task"]), []).append(row)
    lefts = sorted({row["left"] for row in rows}, reverse=True)
    panels = [*dict.fromkeys(panel for panel, _ in cells)]
    places = _in_rows([sum(panel == of for of, _ in cells) for panel in panels])
    high, wide = (1 + max((place[side] for place in places), default=0) for side in (0, 1))
    sources = _sources(task for _, task in cells)
    lines: list[Line] = []
    numbered = False
    with mpl.rc_context(PRINT if wide <= 2 else SMALL):
        canvas = Canvas(figsize=(TEXT_WIDTH, high * 1.8 + 0.8), layout="constrained")
        canvas.suptitle(textwrap.fill(title + (f" ({subtitle})" if subtitle else ""), 100), fontsize=9)
        grid = canvas.add_gridspec(high, wide)
        floor, first = log_floor(100 * row["density"] for row in rows), None
        for (row, column), ((panel, task), some) in zip(places, cells.items(), strict=True):
            ax = canvas.add_subplot(grid[row, column], sharey=first)
            first = first or ax
            layers = [*dict.fromkeys(one["layer"] for one in some)]
            for rank, left in enumerate(lefts):
                here = sorted((one for one in some if one["left"] == left), key=lambda one: layers.index(one["layer"]))
                look = _shade(rank, len(lefts))
                line = Line(
                    name=f"{100 * left:.2g}% left",
                    look=look if len(layers) <= MAX_MARKERS else look | {"marker": ""},
                    n={one["n"] for one in here},
                    x=[layers.index(one["layer"]) + 1 for one in here],
                    y=[100 * one["density"] for one in here],
                    error=[100 * or_nan(one["stderr"]) for one in here],
                )
                lines.append(line)
                paint_log_axis(ax, line, floor)
            heading = textwrap.fill(panel_title(sources[task]), 90 // wide)
            ax.set(xlim=(0.7, len(layers) + 0.3), yscale="log", ylim=(floor, 130), title=heading)
            decade_ticks(ax)
            ax.tick_params(labelleft=column == 0)
            if column == 0:
                ax.set_ylabel(_beside(panel, panels, "Weights left (%)"))
            names = _short(layers)
            if len("".join(names)) <= MAX_LETTERS / wide:
                ax.set_xticks(range(1, len(names) + 1), names)
            else:
                numbered = True
                ax.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))
                ax.set_xlabel("Layer")
        note = "Bars: ± one standard error." if any(max(line.n, default=0) > 1 for line in lines) else "One seed."
        if any(not y for line in lines for y in line.y):
            note += " Circles on the axis: no weight is left."
        if numbered:
            note += " Layers are numbered in the network's order."
        legend(canvas, legend_handles(lines), note)
    return legible(canvas)


@own_style()
def overlaps(title: str, table: pa.Table, *, subtitle: str = "") -> Canvas:
    """How much masks share: a row of axes for each panel, a column for each relation, a line for each pair of tasks.

    table: columns panel, relation, task_a, task_b, density, jaccard, stderr, n, chance (expected of random masks that
    are as dense in each layer) and chance_overall (as dense in all).
    """
    rows = table.to_pylist()
    panels, relations = ([*dict.fromkeys(row[name] for row in rows)] for name in ("panel", "relation"))
    tasks = [*dict.fromkeys(row[side] for row in rows for side in ("task_a", "task_b"))]
    styles, sources = curve_styles(tasks), _sources(tasks)
    cells: dict[Place, dict[tuple[str, str], Rows]] = {}
    for row in rows:
        place = (panels.index(row["panel"]), relations.index(row["relation"]))
        cells.setdefault(place, {}).setdefault((row["task_a"], row["task_b"]), []).append(row)
    shares: dict[Place, tuple[Hashable, str, str]] = {}
    for row, column in sorted(cells):
        heading = panel_title(relations[column]) if (row - 1, column) not in cells else ""
        shares[row, column] = ("jaccard", heading, _beside(panels[row], panels, "Jaccard index"))
    lines: list[Line] = []
    black: Look = {"color": "black", "linewidth": 0.8}
    by_layer: Look = black | {"linestyle": "--"}
    overall: Look = black | {"linestyle": ":"}
    with mpl.rc_context(PRINT):
        canvas, axes = grid(title, subtitle, shares or {(0, 0): ("", "", "")}, "Remaining weights (%)")
        floor = log_floor(row[name] for row in rows for name in ("jaccard", "chance_overall"))
        for place, pairs in cells.items():
            for pair, some in [*pairs.items()][:MAX_PAIRS]:
                some.sort(key=lambda row: -row["density"])
                line = Line(
                    name=panel_title(" and ".join(sources[task] for task in dict.fromkeys(pair))),
                    look=_pair(styles[pair[0]], styles[pair[1]]),
                    n={row["n"] for row in some},
                    x=[100 * row["density"] for row in some],
                    y=[row["jaccard"] for row in some],
                    error=[or_nan(row["stderr"]) for row in some],
                )
                lines.append(line)
                paint_log_axis(axes[place], line, floor)
                chance: Look = by_layer | {"color": line.look["color"], "zorder": 1}
                _paint_chance(axes[place], line.x, [row["chance"] for row in some], chance)
            densest = max(pairs.values(), key=lambda some: len(some))
            x, y = [100 * row["density"] for row in densest], [row["chance_overall"] for row in densest]
            _paint_chance(axes[place], x, y, overall | {"zorder": 1})
        for ax in axes.values():
            ax.set(yscale="log", ylim=(floor, 1))
            decade_ticks(ax)
        remaining_axis(next(iter(axes.values())), [x for line in lines for x in line.x], len(relations))
        chances = {"Chance, given each layer's density": by_layer, "Chance, given the density": overall}
        handles = legend_handles(lines) | {name: Line2D([], [], **look) for name, look in chances.items() if lines}
        note = "n: seeds."
        if any(not math.isnan(e) for line in lines for e in line.error):
            note += " Bars: ± one standard error, by a jackknife over seeds."
        if any(not y for line in lines for y in line.y):
            note += " Circles on the axis: nothing is shared."
        hidden = max((len(pairs) for pairs in cells.values()), default=0) - MAX_PAIRS
        if hidden > 0:
            note += f" {hidden} more pairs are in the table only."
        legend(canvas, handles, note)
    return legible(canvas)


def _paint_chance(ax: Axes, x: Sequence[float], y: Sequence[float], look: Look) -> None:
    """A line without markers; of a single point a short one to its left and right."""
    ax.plot([x[0] * WIDE, x[0] / WIDE] if len(x) == 1 else x, [*y, *y] if len(y) == 1 else y, **look)


def _short(layers: Sequence[str]) -> list[str]:
    """Names of weights as those of their layers, without what all begin with."""
    parts = [layer.removesuffix(".weight").split(".") for layer in layers]
    common = sum(len(set(some)) == 1 for some in itertools.zip_longest(*parts)) if len(parts) > 1 else 0
    return [".".join(some[common:]) for some in parts]


def _in_rows(counts: Iterable[int]) -> list[Place]:
    """Places for groups of so many axes, each of which begins a row."""
    places: list[Place] = []
    for count in counts:
        top = 1 + max((row for row, _ in places), default=-1)
        places += [(top + row, column) for row, column in wrapped(count)]
    return places


def _beside(panel: str, panels: Sequence[str], label: str) -> str:
    """A label of y that says which panel it is, where there are several."""
    return f"{textwrap.fill(panel, 30)}\n{label}" if len(panels) > 1 else label


def _sources(tasks: Iterable[str]) -> dict[str, str]:
    """Tasks of masks for people, without what all have in common where something else tells them apart."""
    parts = {task: task.partition(", ") for task in tasks}
    if len(parts) > 1 and len({name for name, _, _ in parts.values()}) == 1:
        return {task: rest for task, (_, _, rest) in parts.items()}
    return {task: curve_name(name) + comma + rest for task, (name, comma, rest) in parts.items()}


def _shade(rank: int, count: int) -> Look:
    """Of a density, from the densest (0) to the sparsest."""
    shade = mpl.colormaps[SHADES](0.9 * rank / max(1, count - 1))
    return {"color": colors.to_hex(shade), "marker": MARKERS[rank % len(MARKERS)], "linestyle": "-"}


def _pair(first: Look, second: Look) -> Look:
    """The line of one and the markers of the other."""
    return first | {
        "marker": second["marker"],
        "markerfacecolor": second.get("markerfacecolor", second["color"]),
        "markeredgecolor": second["color"],
    }
