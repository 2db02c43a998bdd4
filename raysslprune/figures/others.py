"""Figures of weight magnitudes and of the rewind study."""

from __future__ import annotations

import math
import statistics
import textwrap
from collections.abc import Collection, Hashable, Mapping, Sequence

import matplotlib as mpl
import pyarrow as pa
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.lines import Line2D

from raysslprune import results as tables
from raysslprune.figures.ink import Line, grid, legend, legend_handles, legible, or_nan, wrapped
from raysslprune.figures.style import (
    LINES,
    METRICS,
    PRECISION,
    PRINT,
    RING,
    SMALL,
    Look,
    Place,
    Rows,
    curve_name,
    curve_styles,
    data_colours,
    own_style,
    panel_title,
    samples_in_words,
)
from raysslprune.sweepfile import Magnitudes, Search


@own_style()
def magnitudes(drawing: Magnitudes, table: pa.Table, *, subtitle: str = "") -> Canvas:
    """Sorted magnitudes: axes for each panel, a line for each init, task and seed.

    table: columns panel, init, task, seed, rank (0 to 1, the smallest weight first), magnitude, sparsity (% of zeros).
    """
    lines: dict[str, dict[tuple[str, str], dict[int, Rows]]] = {}
    for row in table.to_pylist():
        seeds = lines.setdefault(row["panel"], {}).setdefault((row["init"], row["task"]), {})
        seeds.setdefault(row["seed"], []).append(row)
    inits, tasks = ([*dict.fromkeys(table[name].to_pylist())] for name in ("init", "task"))
    colours = data_colours(inits)
    with mpl.rc_context(PRINT if len(lines) <= 2 else SMALL):
        places = wrapped(max(1, len(lines)))
        shares = dict.fromkeys(places, ("magnitude", "", "Magnitude"))
        canvas, axes = grid(drawing.title, subtitle, shares, "Weights, sorted (%)")
        for ax in axes.values():
            ax.set(xlim=(0, 100), yscale="log")
            ax.minorticks_off()
            ax.grid(axis="y", linewidth=0.3, alpha=0.6)
        for (panel, curves), ax in zip(lines.items(), axes.values(), strict=False):
            handles: dict[str, Line2D] = {}
            for (init, task), seeds in curves.items():
                look: Look = {
                    "linewidth": 1.1,
                    "color": colours[init],
                    "linestyle": LINES[(tasks.index(task) + inits.index(init)) % len(LINES)],
                }
                zeros = statistics.fmean(rows[0]["sparsity"] for rows in seeds.values())
                name = init if len(tasks) == 1 else f"{init}, {curve_name(task)}"
                handles[textwrap.fill(f"{name}: {zeros:.1f}% zeros", 60)] = Line2D([], [], **look)
                for rows in seeds.values():
                    rows.sort(key=lambda row: row["rank"])
                    x = [100 * row["rank"] for row in rows]
                    y = [max(row["magnitude"], PRECISION) for row in rows]
                    ax.plot(x, y, label=f"{name} {rows[0]['seed']}", clip_on=False, zorder=3, **look)
            ax.legend(
                handles.values(),
                handles.keys(),
                loc="lower center",
                bbox_to_anchor=(0.5, 1),
                ncols=3 if len(lines) == 1 else 1,
                title=textwrap.fill(panel_title(panel), 40),
                handlelength=1.4,
            )
        next(iter(axes.values())).set_ylim(bottom=PRECISION)
        note = "Bottom: the machine precision of float32, 1.2·10⁻⁷. Smaller weights are drawn there and count as zeros."
        legend(canvas, {}, note)
    return legible(canvas)


@own_style()
def search(
    drawing: Search,
    table: pa.Table,
    tried: Collection[tuple[str, int, int]],
    importance: Mapping[str, float] | None = None,
    *,
    subtitle: str = "",
) -> Canvas:
    """Over rewinds: axes for each level, a curve for each task. Rewinds stand at equal distances.

    A curve breaks where nothing is known. tried: (task, level, rewind) of what Optuna tried. importance: the share of
    the variance that each of task, level and rewind explains.
    """
    rows = [row for row in tables.summary(table).to_pylist() if row["rewind"] is not None]
    levels = sorted({row["level"] for row in rows}) or [0]
    rewinds = sorted({row["rewind"] for row in rows})
    styles = curve_styles(dict.fromkeys(row["task"] for row in rows))
    lines: list[Line] = []
    with mpl.rc_context(PRINT if len(levels) <= 2 else SMALL):
        shares: dict[Place, tuple[Hashable, str, str]] = {}
        for level, place in zip(levels, wrapped(len(levels)), strict=True):
            left, metric = next(((r["density"], r["metric"]) for r in rows if r["level"] == level), (1.0, ""))
            shares[place] = (level, f"{100 * left:.2g}% of the weights left", METRICS.get(metric, metric))
        canvas, axes = grid(drawing.title, subtitle, shares, "Rewound to (samples seen)")
        for level, ax in zip(levels, axes.values(), strict=True):
            for task, style in styles.items():
                known = {row["rewind"]: row for row in rows if (row["task"], row["level"]) == (task, level)}
                line = Line(
                    name=curve_name(task),
                    look=style,
                    n={row["n"] for row in known.values()},
                    x=[*range(len(rewinds))],
                    y=[or_nan(known.get(rewind, {}).get("mean")) for rewind in rewinds],
                    error=[or_nan(known.get(rewind, {}).get("stderr")) for rewind in rewinds],
                )
                lines.append(line)
                _paint_search(ax, line, [(task, level, rewind) in tried for rewind in rewinds])
            slant = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"} if len(levels) > 1 else {}
            ax.set_xticks(range(len(rewinds)), [samples_in_words(rewind) for rewind in rewinds], **slant)
            ax.grid(axis="y", linewidth=0.3, alpha=0.6)
        mark: Look = {"color": "0.4", "marker": "o", "linestyle": "none"}
        marks = {
            "Tried by Optuna": Line2D([], [], **mark),
            "Known, not tried": Line2D([], [], **mark, markerfacecolor="white"),
            "Best of those tried": Line2D([], [], **RING),
        }
        note = "Bars: ± one standard error." if any(row["n"] > 1 for row in rows) else "One seed."
        note += " Lines break where nothing is known."
        if importance:
            shares_of = ", ".join(f"{name} {100 * share:.0f}%" for name, share in importance.items())
            note += f" Importance over all that was tried (fANOVA): {shares_of}."
        legend(canvas, legend_handles(lines) | marks, note)
    return legible(canvas)


def _paint_search(ax: Axes, line: Line, tried: Sequence[bool]) -> None:
    hollow = {"markerfacecolor": "white", "linestyle": "none", "zorder": 3}
    ax.errorbar(line.x, line.y, line.error, label=line.name, **line.look)
    others = [(x, y) for x, y, was in zip(line.x, line.y, tried, strict=True) if not was]
    if others:
        ax.plot(*zip(*others, strict=True), **line.look | hollow)
    known = [(y, x) for x, y, was in zip(line.x, line.y, tried, strict=True) if was and not math.isnan(y)]
    if known:
        best, x = max(known)
        ax.plot(x, best, **RING)
