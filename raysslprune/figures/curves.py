"""Accuracy against remaining weights, in the paper's manner: any of colour, marker and line style tells a curve."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping
from typing import Any

import matplotlib as mpl
import pyarrow as pa
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.path import Path
from matplotlib.transforms import Bbox

from raysslprune import results as tables
from raysslprune.figures.ink import (
    Cell,
    Line,
    grid,
    legend,
    legend_handles,
    legible,
    or_nan,
    paint,
    remaining_axis,
    wrapped,
)
from raysslprune.figures.style import (
    LINES,
    METRICS,
    PRINT,
    SMALL,
    Look,
    Place,
    Rows,
    curve_name,
    curve_styles,
    look_of,
    own_style,
    panel_title,
    reference_name,
    several_inits,
)
from raysslprune.sweepfile import Curve, Figure


@own_style()
def draw(figure: Figure, results: pa.Table, *, subtitle: str = "") -> Canvas:
    """The figure of ``results.tables.table``'s rows. Bands: standard errors; small dots: single seeds.

    No point is made up: a curve breaks where it has no result at a density at which another of its axes has one.
    """
    cells = _cells(figure, tables.summary(results).to_pylist(), results.to_pylist())
    curves = [line for cell in cells.values() for line in cell.lines]
    columns = 1 + max(column for _, column in cells)
    with mpl.rc_context(PRINT if columns <= 2 else SMALL):
        label = "Remaining weights (%)" if figure.x == "remaining" else "Pruned weights (%)"
        shares = {place: (cell.metric, cell.title, cell.y_label) for place, cell in cells.items()}
        canvas, axes = grid(figure.title, subtitle, shares, label)
        for place, cell in cells.items():
            paint(axes[place], cell)
        shared = next(iter(axes.values()))
        if figure.x == "remaining":
            remaining_axis(shared, [x for line in curves for x in line.x], columns)
        else:
            shared.set(xlim=(-2, 102), xticks=range(0, 101, 20 if columns <= 2 else 25))
        if columns <= 2:
            for place, cell in cells.items():
                _magnify(axes[place], cell, log=figure.x == "remaining")
        note = "One seed."
        if any(line.seeds for line in curves):
            note = "Bands: ± one standard error; dots: single seeds."
        if any(math.isnan(y) for line in curves for y in line.y):
            note += " Lines break where a result is missing."
        for curve in figure.everywhere:
            if any(line.name == curve_name(curve.task) for line in curves):
                note += f" {curve_name(curve.task)}: {panel_title(curve.init).lower()} in all panels."
        references = [line for cell in cells.values() for line in cell.references]
        legend(canvas, legend_handles([*curves, *references]), note)
    return legible(canvas)


# ------------------------------------------------------------------------------------- what stands where


def _cells(figure: Figure, rows: Rows, seeds: Rows) -> dict[Place, Cell]:
    shown = [row for row in rows if _is_in_a_curve(figure, row, rows)]
    panels = [*dict.fromkeys(row["panel"] for row in shown or rows)] or [""]
    parts = [(panel, init) for init in figure.inits or (None,) for panel in panels]
    full = [part for part in parts if any(_is_of(row, *part) for row in shown)] or parts
    inits = [*dict.fromkeys(init for _, init in full)]
    by_rows = bool(figure.inits) and len(panels) > 1
    places = [(inits.index(init), panels.index(panel)) for panel, init in full] if by_rows else wrapped(len(full))
    styles = curve_styles(dict.fromkeys(row["task"] for row in shown))
    cells: dict[Place, Cell] = {}
    for (row, column), (panel, init) in zip(places, full, strict=True):
        metric = next((r["metric"] for r in shown or rows if r["panel"] == panel), "")
        y_label = METRICS.get(metric, metric)
        title = panel_title(init if init and not by_rows else panel)
        if by_rows:
            y_label = f"{textwrap.fill(panel_title(init or ''), 30)}\n{y_label}"
            title = "" if any((above, column) in cells for above in range(row)) else title
        cells[row, column] = Cell(
            title=title,
            metric=metric,
            y_label=y_label,
            lines=_lines(figure, panel, init, shown, seeds, styles),
            references=_references(figure, panel, metric, rows),
        )
    return cells


def _is_in_a_curve(figure: Figure, row: dict[str, Any], rows: Rows) -> bool:
    """Level 0 is in a curve where x has room for it, but not if it is all there is of a reference."""
    curve = _curve(row)
    if figure.inits and row["init"] not in figure.inits and not any(some.covers(curve) for some in figure.everywhere):
        return False
    if row["level"] > 0 or figure.x == "remaining":
        return row["level"] > 0
    is_reference = any(some.covers(curve) for some in figure.references)
    return not is_reference or any(_curve(other) == curve and other["level"] > 0 for other in rows)


def _lines(
    figure: Figure, panel: str, init: str | None, shown: Rows, seeds: Rows, styles: Mapping[str, Look]
) -> list[Line]:
    def is_here(row: dict[str, Any]) -> bool:
        return _is_of(row, panel, init) or (
            row["panel"] == panel and any(some.covers(_curve(row)) for some in figure.everywhere)
        )

    def x(row: dict[str, Any]) -> float:
        return 100 * row["density"] if figure.x == "remaining" else 100 - 100 * row["density"]

    here = sorted((row for row in shown if is_here(row)), key=lambda row: init not in (None, row["init"]))
    curves = [*dict.fromkeys(_curve(row) for row in here)]
    told = several_inits(figure, curves if figure.inits else [_curve(row) for row in shown])
    lines = []
    for curve in curves:
        points = [row for row in here if _curve(row) == curve]
        has = [row["density"] for row in points]
        lacks = {row["density"] for row in here if min(has) < row["density"] < max(has)}
        lacks -= {density for density in lacks if any(math.isclose(density, own, rel_tol=0.05) for own in has)}
        points += [{"density": density, "mean": math.nan, "stderr": None, "n": 0} for density in lacks]
        points.sort(key=lambda row: -row["density"])
        name, look = look_of(figure, curve, init, told, styles)
        n = {row["n"] for row in points} - {0}
        of = [row for row in seeds if _curve(row) == curve and (row["level"] > 0 or figure.x == "pruned")]
        lines.append(
            Line(
                name=name,
                look=look,
                n=n,
                x=[x(row) for row in points],
                y=[row["mean"] for row in points],
                error=[or_nan(row["stderr"]) for row in points],
                seeds=[(x(row), row["value"]) for row in of] if max(n) > 1 else [],
            )
        )
    return lines


def _references(figure: Figure, panel: str, metric: str, rows: Rows) -> list[Line]:
    lines = []
    for number, curve in enumerate(figure.references):
        at = Curve(task=curve.task, init=curve.init, panel=panel if curve.panel is None else curve.panel)
        look = {"color": "black", "linewidth": 0.7, "linestyle": LINES[number % len(LINES)], "zorder": 1}
        lines += [
            Line(name=reference_name(curve, figure.references), look=look, n={row["n"]}, y=[row["mean"]])
            for row in rows
            if _curve(row) == at and row["level"] == 0 and row["metric"] == metric
        ]
    return lines


def _curve(row: Mapping[str, Any]) -> Curve:
    return Curve(task=row["task"], init=row["init"], panel=row["panel"])


def _is_of(row: Mapping[str, Any], panel: str, init: str | None) -> bool:
    return row["panel"] == panel and init in (None, row["init"])


def _magnify(ax: Axes, cell: Cell, *, log: bool) -> None:
    """The top once more, larger, where curves of networks that are not very sparse crowd; if a corner has room for it.

    log: whether the axis is of the remaining weights; else of the pruned ones.
    """
    (low, high), sparsest = ax.get_ylim(), 4.0 if log else 96.0
    points = [point for line in cell.lines for point in [*zip(line.x, line.y, strict=True), *line.seeds]]
    crowd = [y for x, y in points if (x >= sparsest if log else x <= sparsest) and not math.isnan(y)]
    left, right = 0.12 if log else 0.15, (ax.transScale + ax.transLimits).transform((sparsest, high))[0] - 0.02
    if len(set(crowd)) < 2 or min(crowd) < low + 0.6 * (high - low) or right - left < 0.25:
        return
    at = _free_corner(ax, cell, left, right - left, 0.4)
    if at is None:
        return
    top, bottom = max(crowd), max(min(crowd), max(crowd) - 0.15 * (high - low))
    with mpl.rc_context({"lines.linewidth": 1.0, "lines.markersize": 3.0, "font.size": 6}):
        inset = ax.inset_axes((*at, right - left, 0.4))
        paint(inset, cell)
    if log:
        remaining_axis(inset, [], 4)
    inset.set(xlim=(ax.get_xlim()[0], sparsest), ylim=(bottom - 0.05 * (top - bottom), top + 0.1 * (top - bottom)))
    inset.tick_params(labelsize=6)
    inset.set_title("Enlarged", fontsize=6, pad=2)
    (x0, x1), (y0, y1) = inset.get_xlim(), inset.get_ylim()
    ax.indicate_inset((x0, y0, x1 - x0, y1 - y0), edgecolor="0.5", linewidth=0.6)


def _free_corner(ax: Axes, cell: Cell, left: float, width: float, height: float) -> tuple[float, float] | None:
    """Where axes of that size, with their numbers and title, cover nothing, in fractions of ``ax``; else None.

    left: what the numbers on their axis of y need.
    """
    drawn: list[list[tuple[float, float]]] = [[(x, line.y[0]) for x in ax.get_xlim()] for line in cell.references]
    for line in cell.lines:
        for sign in (-1, 0, 1):  # a band is as wide as its errors; where there are none, as its line
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
