"""Accuracy against remaining weights, in the paper's style: colour, marker or line style alone identifies a curve."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import matplotlib as mpl
import pyarrow as pa
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.path import Path
from matplotlib.transforms import Bbox

from raysslprune import results as tables
from raysslprune.figures import ink, style
from raysslprune.figures.ink import Cell, Line
from raysslprune.figures.style import LINES, METRICS, PRINT, SMALL, Look, Place, Rows, curve_name, panel_title
from raysslprune.sweepfile import Curve, Figure


@style.own_style()
def draw(figure: Figure, results: pa.Table, *, subtitle: str = "", narrow: bool = False) -> Canvas:
    """Draw the figure from the rows of ``results.tables.table``. Bands: standard errors; small dots: single seeds.

    Crosses are seeds in which a layer is empty. Missing points stay missing: a curve breaks at a density where it has
    no result but another curve of its axes has. narrow: True for one column of axes, as wide as a phone.
    """
    cells = _cells(figure, tables.summary(results).to_pylist(), results.to_pylist(), narrow=narrow)
    curves = [line for cell in cells.values() for line in cell.lines]
    references = [line for cell in cells.values() for line in cell.references]
    columns = 1 + max(column for _, column in cells)
    with mpl.rc_context(PRINT if columns <= 2 else SMALL):
        label = "Remaining weights (%)" if figure.x == "remaining" else "Pruned weights (%)"
        shares = {place: (cell.metric, cell.title, cell.y_label) for place, cell in cells.items()}
        canvas, axes = ink.grid(figure.title, subtitle, shares, label, narrow=narrow)
        for place, cell in cells.items():
            ink.paint(axes[place], cell)
        shared, pruned = next(iter(axes.values())), figure.x == "pruned"
        ink.remaining_axis(shared, [x for line in curves for x in line.x], columns, pruned=pruned)
        if columns <= 2:
            for place, cell in cells.items():
                _magnify(axes[place], cell, pruned=pruned)
        return ink.finish(canvas, ink.legend_handles([*curves, *references]), _note(figure, curves))


def _note(figure: Figure, curves: Sequence[Line]) -> str:
    note = "Bands: ± one standard error; dots: single seeds." if any(line.seeds for line in curves) else "One seed."
    if any(line.collapsed for line in curves):
        note += " Crosses: seeds in which a layer has no weight left."
    if any(math.isnan(y) for line in curves for y in line.y):
        note += " Lines break where a result is missing."
    for curve in figure.everywhere:
        if any(line.name == curve_name(curve.task) for line in curves):
            note += f" {curve_name(curve.task)}: {panel_title(curve.init).lower()} in all panels."
    return note


# ------------------------------------------------------------------------------------- layout


def _cells(figure: Figure, rows: Rows, seeds: Rows, *, narrow: bool) -> dict[Place, Cell]:
    """Contents of the axes, by their places. rows: means over seeds. seeds: rows of single seeds."""
    shown = [row for row in rows if _is_in_a_curve(figure, row, rows)]
    panels = [*dict.fromkeys(row["panel"] for row in shown or rows)] or [""]
    parts = [(panel, init) for init in figure.inits or (None,) for panel in panels]
    full = [(p, i) for p, i in parts if any(row["panel"] == p and i in (None, row["init"]) for row in shown)] or parts
    inits = [*dict.fromkeys(init for _, init in full)]
    both = bool(figure.inits) and len(panels) > 1
    by_rows = both and not narrow
    places = [(inits.index(init), panels.index(panel)) for panel, init in full]
    places = places if by_rows else ink.wrapped(len(full), narrow=narrow)
    styles = style.curve_styles(dict.fromkeys(row["task"] for row in shown))
    cells: dict[Place, Cell] = {}
    for (row, column), (panel, init) in zip(places, full, strict=True):
        metric = next((r["metric"] for r in shown or rows if r["panel"] == panel), "")
        y_label = METRICS.get(metric, metric)
        title = panel_title(f"{panel}, {init}" if both and narrow else init if init and not by_rows else panel)
        if by_rows:
            y_label = f"{textwrap.fill(panel_title(init or ''), 30)}\n{y_label}"
            title = "" if any((above, column) in cells for above in range(row)) else title
        lines = _lines(figure, panel, init, shown, seeds, styles)
        references = _references(figure, panel, metric, rows, seeds)
        cells[row, column] = Cell(title=title, metric=metric, y_label=y_label, lines=lines, references=references)
    return cells


def _is_in_a_curve(figure: Figure, row: dict[str, Any], rows: Rows) -> bool:
    """Return whether a row is part of a curve. Level 0 is, if x shows pruned weights, unless it is only a reference."""
    if figure.inits and row["init"] not in figure.inits and not _is_among(figure.everywhere, row):
        return False
    if row["level"] > 0 or figure.x == "remaining":
        return row["level"] > 0
    is_pruned = any(_curve(other) == _curve(row) and other["level"] > 0 for other in rows)
    return is_pruned or not _is_among(figure.references, row)


def _lines(
    figure: Figure, panel: str, init: str | None, shown: Rows, seeds: Rows, styles: Mapping[str, Look]
) -> list[Line]:
    here = [row for row in shown if row["panel"] == panel]
    here = [row for row in here if init in (None, row["init"]) or _is_among(figure.everywhere, row)]
    here.sort(key=lambda row: init not in (None, row["init"]))  # the axes' own init first
    curves = [*dict.fromkeys(_curve(row) for row in here)]
    named = style.inits_to_name(figure, curves if figure.inits else [_curve(row) for row in shown])
    lines = []
    for curve in curves:
        points = [row for row in here if _curve(row) == curve]
        has = [row["density"] for row in points]
        lacks = {row["density"] for row in here if min(has) < row["density"] < max(has)}
        lacks -= {density for density in lacks if any(math.isclose(density, own, rel_tol=0.05) for own in has)}
        points += [{"density": density, "mean": None, "stderr": None, "n": 0} for density in lacks]
        points.sort(key=lambda row: -row["density"])
        single = [row for row in seeds if _curve(row) == curve and (row["level"] > 0 or figure.x == "pruned")]
        name, look = style.look_of(figure, curve, init, named, styles)
        tips = [_tip(name, row, single) for row in points]
        line = Line.of(name, look, points, [100 * row["density"] for row in points], tips=tips)
        if max(line.n) > 1:
            at = [(100 * row["density"], row["value"], row["collapsed_layers"]) for row in single]
            line.seeds.extend((x, y) for x, y, _ in at)
            line.collapsed.extend((x, y) for x, y, collapsed in at if collapsed)
        lines.append(line)
    return lines


def _tip(name: str, row: Mapping[str, Any], seeds: Rows) -> str:
    """Return the report's text for a point. row: its mean; has no level if the point is missing."""
    if "level" not in row:
        return ""
    left = f"{100 * row['density']:.3g}% of the weights left" if row["level"] else "dense"
    return ink.tip(f"{name}, {left}", row, [seed for seed in seeds if seed["level"] == row["level"]])


def _references(figure: Figure, panel: str, metric: str, rows: Rows, single: Rows) -> list[Line]:
    lines = []
    for number, curve in enumerate(figure.references):
        at = Curve(task=curve.task, init=curve.init, panel=panel if curve.panel is None else curve.panel)
        look = {"color": "black", "linewidth": 0.7, "linestyle": LINES[number % len(LINES)], "zorder": 1}
        name = style.reference_name(curve, figure.references)
        seeds = [row for row in single if _curve(row) == at]
        lines += [
            Line(name=name, look=look, n={row["n"]}, y=[row["mean"]], tips=[_tip(name, row, seeds)])
            for row in rows
            if _curve(row) == at and row["level"] == 0 and row["metric"] == metric
        ]
    return lines


def _curve(row: Mapping[str, Any]) -> Curve:
    return Curve(task=row["task"], init=row["init"], panel=row["panel"])


def _is_among(curves: Iterable[Curve], row: Mapping[str, Any]) -> bool:
    return any(some.covers(_curve(row)) for some in curves)


# ------------------------------------------------------------------------------------- inset


def _magnify(ax: Axes, cell: Cell, *, pruned: bool) -> None:
    """Enlarge the top, where the curves of denser networks crowd, in an inset, if a corner has room for it.

    Lines lead from the part to the inset. pruned: True if x shows the pruned weights.
    """
    (low, high), sparsest = ax.get_ylim(), 4.0
    points = [point for line in cell.lines for point in [*zip(line.x, line.y, strict=True), *line.seeds]]
    crowd = [y for x, y in points if x >= sparsest and not math.isnan(y)]
    means = [[y for x, y in zip(line.x, line.y, strict=True) if x >= sparsest] for line in cell.lines]
    left, right = 0.12, (ax.transScale + ax.transLimits).transform((sparsest, high))[0] - 0.02
    if len(set(crowd)) < 2 or min(crowd) < low + 0.6 * (high - low) or right - left < 0.25:
        return
    if not _are_close(means, high - low):
        return
    at = _free_corner(ax, cell, left, right - left, 0.4)
    if at is None:
        return
    top, bottom = max(crowd), max(min(crowd), max(crowd) - 0.15 * (high - low))
    with mpl.rc_context({"lines.linewidth": 1.0, "lines.markersize": 3.0, "font.size": 6}):
        inset = ax.inset_axes((*at, right - left, 0.4))
        ink.paint(inset, replace(cell, lines=[replace(line, tips=[]) for line in cell.lines]))
    ink.remaining_axis(inset, [], 4, pruned=pruned)
    inset.set(xlim=(ax.get_xlim()[0], sparsest), ylim=(bottom - 0.05 * (top - bottom), top + 0.1 * (top - bottom)))
    inset.tick_params(labelsize=6)
    inset.set_title("Enlarged", fontsize=6, pad=2)
    (x0, x1), (y0, y1) = inset.get_xlim(), inset.get_ylim()
    ax.indicate_inset((x1, y0, x0 - x1, y1 - y0), inset, edgecolor="0.5", linewidth=0.6)


def _are_close(means: Sequence[Sequence[float]], height: float) -> bool:
    """Return whether curves crowd: their means are closer than a marker is high, in the top 15% of an axis.

    Curves that leave this part don't count. height: range of the y axis.
    """
    top = max((y for curve in means for y in curve), default=0.0)
    crowd = [curve for curve in means if curve and min(curve) >= top - 0.15 * height]
    spread = top - min((min(curve) for curve in crowd), default=top)
    return bool(crowd) and spread / max(1, len(crowd) - 1) < 0.033 * height


def _free_corner(ax: Axes, cell: Cell, left: float, width: float, height: float) -> tuple[float, float] | None:
    """Return the corner where an inset of this size, with its labels and title, covers nothing; None if there is none.

    Lengths are fractions of ``ax``. left: width of the labels on the inset's y axis.
    """
    drawn: list[list[tuple[float, float]]] = [[(x, line.y[0]) for x in ax.get_xlim()] for line in cell.references]
    for line in cell.lines:
        for sign in (-1, 0, 1):  # edges of the band; the line itself where there is no error
            ends = [y if math.isnan(e) else y + sign * e for y, e in zip(line.y, line.error, strict=True)]
            drawn.append([(x, y) for x, y in zip(line.x, ends, strict=True) if not math.isnan(y)])
        drawn += [[dot, dot] for dot in line.seeds]
    to_axes = ax.transScale + ax.transLimits
    paths = [Path(to_axes.transform(line)) for line in drawn if line]
    for x, y in ((left, 0.13), (0.98 - width, 0.45), (0.98 - width, 0.13)):
        taken = Bbox.from_extents(x - left + 0.01, y - 0.11, x + width + 0.02, y + height + 0.09)
        if not any(path.intersects_bbox(taken, filled=False) for path in paths):
            return x, y
    return None
