"""Figures of masks: densities of layers, and overlaps of masks."""

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

from raysslprune.figures import ink, style
from raysslprune.figures.ink import Line
from raysslprune.figures.style import MARKERS, PRINT, SHADES, SMALL, Look, Place, panel_title

MAX_LETTERS, MAX_UPRIGHT, MAX_LENGTH, MAX_MARKERS = 100, 52, 24, 16
"""Maximum letters of layers' names in a row of axes, beyond which the names stand upright; maximum layers of such a
row, and letters of a name, beyond which layers are numbered; maximum layers with markers."""

WIDE = 1.5
"""Ratio by which the line of a single density extends to either side."""

MAX_PAIRS = 10
"""Maximum pairs of tasks in one axes."""


@style.own_style()
def layer_densities(title: str, table: pa.Table, *, subtitle: str = "") -> Canvas:
    """Draw the density of each layer: axes for each task, in separate rows for each panel; a line for each density.

    table: columns panel, task, layer (in network order), density, stderr, n, left (density of all layers together, the
    same for all masks that count as equally dense).
    """
    rows = table.to_pylist()
    cells = ink.grouped(rows, "panel", "task")
    lefts = sorted({row["left"] for row in rows}, reverse=True)
    panels = [*dict.fromkeys(panel for panel, _ in cells)]
    places = _in_rows([sum(panel == of for of, _ in cells) for panel in panels])
    high, wide = (1 + max((place[side] for place in places), default=0) for side in (0, 1))
    sources = _sources(task for _, task in cells)
    layers = [[*dict.fromkeys(one["layer"] for one in shown)] for shown in cells.values()]
    upright = [max(map(len, names)) for names in map(_short, layers) if _slant(names, wide) == 90]
    lines: list[Line] = []
    numbered = False
    with mpl.rc_context(PRINT if wide <= 2 else SMALL):
        canvas = ink.titled(title, subtitle, high * (1.8 + 0.06 * max(upright, default=0)))
        grid = canvas.add_gridspec(high, wide)
        floor, first = ink.log_floor(100 * row["density"] for row in rows), None
        for (row, column), ((panel, task), shown), own in zip(places, cells.items(), layers, strict=True):
            ax = canvas.add_subplot(grid[row, column], sharey=first)
            first = first or ax
            ranks = {layer: rank for rank, layer in enumerate(own, 1)}
            for rank, left in enumerate(lefts):
                here = sorted((one for one in shown if one["left"] == left), key=lambda one: ranks[one["layer"]])
                look = _shade(rank, len(lefts)) | ({} if len(ranks) <= MAX_MARKERS else {"marker": ""})
                x = [ranks[one["layer"]] for one in here]
                line = Line.of(f"{100 * left:.2g}% left", look, here, x, y="density", scale=100)
                lines.append(line)
                ink.paint_log_axis(ax, line, floor)
            heading = textwrap.fill(panel_title(sources[task]), 90 // wide)
            ax.set(xlim=(0.7, len(ranks) + 0.3), yscale="log", ylim=(floor, 130), title=heading)
            ink.decade_ticks(ax)
            ax.tick_params(labelleft=column == 0)
            if column == 0:
                ax.set_ylabel(_beside(panel, panels, "Weights left (%)"))
            names = _short(own)
            if (slant := _slant(names, wide)) is not None:
                ax.set_xticks(range(1, len(names) + 1), names, rotation=slant)
            else:
                numbered = True
                ax.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))
                ax.set_xlabel("Layer")
        note = "Bars: ± one standard error." if any(max(line.n, default=0) > 1 for line in lines) else "One seed."
        if any(not y for line in lines for y in line.y):
            note += " Circles on the axis: no weight is left."
        if numbered:
            note += " Layers are numbered in the network's order."
        return ink.finish(canvas, ink.legend_handles(lines), note)


@style.own_style()
def overlaps(title: str, table: pa.Table, *, subtitle: str = "") -> Canvas:
    """Draw overlaps of masks: a row of axes for each panel, a column for each relation, a line for each pair of tasks.

    table: columns panel, relation, task_a, task_b, density, jaccard, stderr, n, chance (expected for random masks of
    the same density in each layer) and chance_overall (of the same total density).
    """
    rows = table.to_pylist()
    panels, relations = ([*dict.fromkeys(row[name] for row in rows)] for name in ("panel", "relation"))
    tasks = [*dict.fromkeys(row[side] for row in rows for side in ("task_a", "task_b"))]
    styles, sources = style.curve_styles(tasks), _sources(tasks)
    cells = {
        (panels.index(panel), relations.index(relation)): ink.grouped(shown, "task_a", "task_b")
        for (panel, relation), shown in ink.grouped(rows, "panel", "relation").items()
    }
    shares: dict[Place, tuple[Hashable, str, str]] = {}
    for row, column in sorted(cells):
        heading = panel_title(relations[column]) if (row - 1, column) not in cells else ""
        shares[row, column] = ("jaccard", heading, _beside(panels[row], panels, "Jaccard index"))
    lines: list[Line] = []
    by_layer: Look = {"color": "black", "linewidth": 0.8, "linestyle": "--"}
    overall: Look = by_layer | {"linestyle": ":"}
    with mpl.rc_context(PRINT):
        canvas, axes = ink.grid(title, subtitle, shares or {(0, 0): ("", "", "")}, "Remaining weights (%)")
        floor = ink.log_floor(row[name] for row in rows for name in ("jaccard", "chance_overall"))
        for place, pairs in cells.items():
            for (one, other), shown in [*pairs.items()][:MAX_PAIRS]:
                shown.sort(key=lambda row: -row["density"])
                name = panel_title(" and ".join(sources[task] for task in dict.fromkeys((one, other))))
                x = [100 * row["density"] for row in shown]
                line = Line.of(name, _pair(styles[one], styles[other]), shown, x, y="jaccard")
                lines.append(line)
                ink.paint_log_axis(axes[place], line, floor)
                chance: Look = by_layer | {"color": line.look["color"]}
                _paint_chance(axes[place], x, [row["chance"] for row in shown], chance)
            densest = max(pairs.values(), key=len)
            x, y = [100 * row["density"] for row in densest], [row["chance_overall"] for row in densest]
            _paint_chance(axes[place], x, y, overall)
        for ax in axes.values():
            ax.set(yscale="log", ylim=(floor, 1))
            ink.decade_ticks(ax)
        ink.remaining_axis(next(iter(axes.values())), [x for line in lines for x in line.x], len(relations))
        chances = {"Chance, given each layer's density": by_layer, "Chance, given the density": overall}
        handles = ink.legend_handles(lines) | {name: Line2D([], [], **look) for name, look in chances.items() if lines}
        note = "n: seeds."
        if any(not math.isnan(e) for line in lines for e in line.error):
            note += " Bars: ± one standard error, by a jackknife over seeds."
        if any(not y for line in lines for y in line.y):
            note += " Circles on the axis: nothing is shared."
        hidden = max((len(pairs) for pairs in cells.values()), default=0) - MAX_PAIRS
        if hidden > 0:
            note += f" {hidden} more pairs are in the table only."
        return ink.finish(canvas, handles, note)


def _paint_chance(ax: Axes, x: Sequence[float], y: Sequence[float], look: Look) -> None:
    """Draw a line without markers; a single point becomes a short line."""
    ax.plot([x[0] * WIDE, x[0] / WIDE] if len(x) == 1 else x, [*y, *y] if len(y) == 1 else y, zorder=1, **look)


def _short(layers: Sequence[str]) -> list[str]:
    """Return the names of layers, given those of their weights, without the prefix that all share."""
    parts = [layer.removesuffix(".weight").split(".") for layer in layers]
    common = sum(len(set(some)) == 1 for some in itertools.zip_longest(*parts)) if len(parts) > 1 else 0
    return [".".join(some[common:]) for some in parts]


def _slant(names: Sequence[str], wide: int) -> int | None:
    """Return the angle at which names of layers fit below one of ``wide`` axes, in degrees; None if at none."""
    if len("".join(names)) <= MAX_LETTERS / wide:
        return 0
    return 90 if len(names) <= MAX_UPRIGHT / wide and max(map(len, names)) <= MAX_LENGTH else None


def _in_rows(counts: Iterable[int]) -> list[Place]:
    """Return places for groups of axes of these sizes; each group starts a new row."""
    places: list[Place] = []
    for count in counts:
        top = 1 + max((row for row, _ in places), default=-1)
        places += [(top + row, column) for row, column in ink.wrapped(count)]
    return places


def _beside(panel: str, panels: Sequence[str], label: str) -> str:
    """Return the label of a y axis, with the panel's name if there are several."""
    return f"{textwrap.fill(panel, 30)}\n{label}" if len(panels) > 1 else label


def _sources(tasks: Iterable[str]) -> dict[str, str]:
    """Return names for the tasks of masks, without the first part if all of several tasks share it."""
    parts = {task: task.partition(", ") for task in tasks}
    if len(parts) > 1 and len({name for name, _, _ in parts.values()}) == 1:
        return {task: rest for task, (_, _, rest) in parts.items()}
    return {task: style.curve_name(name) + comma + rest for task, (name, comma, rest) in parts.items()}


def _shade(rank: int, count: int) -> Look:
    """Return the look of a density, by its rank from the densest (0) to the sparsest."""
    shade = mpl.colormaps[SHADES](0.9 * rank / max(1, count - 1))
    return {"color": colors.to_hex(shade), "marker": MARKERS[rank % len(MARKERS)], "linestyle": "-"}


def _pair(first: Look, second: Look) -> Look:
    """Combine the line of the first look with the markers of the second."""
    return first | {
        "marker": second["marker"],
        "markerfacecolor": second.get("markerfacecolor", second["color"]),
        "markeredgecolor": second["color"],
    }
