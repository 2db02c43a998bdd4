"""Figures of weight magnitudes and of the rewind study."""

from __future__ import annotations

import math
import statistics
import textwrap
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import matplotlib as mpl
import pyarrow as pa
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.lines import Line2D
from matplotlib.ticker import AutoMinorLocator

from raysslprune import results as tables
from raysslprune.figures import ink, style
from raysslprune.figures.ink import Line
from raysslprune.figures.style import LINES, PRECISION, PRINT, RING, SMALL, Look, Place, Rows, curve_name
from raysslprune.sweepfile import Magnitudes, Search


@style.own_style()
def magnitudes(drawing: Magnitudes, table: pa.Table, *, subtitle: str = "", narrow: bool = False) -> Canvas:
    """Draw sorted magnitudes: axes for each panel, a line for each init, task and seed.

    Each init's line is thinner than those below it, so that all are seen where they coincide. narrow: as for curves.
    table: columns panel, init, task, seed, rank (0 to 1, the smallest weight first), magnitude, sparsity (% of zeros).
    """
    panels = ink.grouped(table.to_pylist(), "panel")
    inits, tasks = ([*dict.fromkeys(table[name].to_pylist())] for name in ("init", "task"))
    colours = style.data_colours(inits)
    with mpl.rc_context(PRINT if len(panels) <= 2 else SMALL):
        shares = dict.fromkeys(ink.wrapped(max(1, len(panels)), narrow=narrow), ("magnitude", "", "Magnitude"))
        canvas, axes = ink.grid(drawing.title, subtitle, shares, "Weights, sorted (%)", narrow=narrow)
        for ax in axes.values():
            ax.set(xlim=(0, 100), yscale="log")
            ax.xaxis.set_minor_locator(AutoMinorLocator())
            ink.decade_ticks(ax, plain=False)
            ax.grid(axis="y", linewidth=0.3, alpha=0.6)
        for ((panel,), shown), ax in zip(panels.items(), axes.values(), strict=False):
            handles: dict[str, Line2D] = {}
            for (init, task), curve in ink.grouped(shown, "init", "task").items():
                seeds = ink.grouped(curve, "seed")
                width = 1.0 + 1.6 * (len(inits) - 1 - inits.index(init))
                line = LINES[tasks.index(task) % len(LINES)]
                look: Look = {"linewidth": width, "color": colours[init], "linestyle": line}
                zeros = statistics.fmean(rows[0]["sparsity"] for rows in seeds.values())
                name = init if len(tasks) == 1 else f"{init}, {curve_name(task)}"
                handles[textwrap.fill(f"{name}: {zeros:.1f}% zeros", 60)] = Line2D(
                    [], [], gid=ink.key_gid(name), **look
                )
                gid = Line(name=name, look=look, n=set(), y=[]).gid()
                for (seed,), rows in seeds.items():
                    rows.sort(key=lambda row: row["rank"])
                    x = [100 * row["rank"] for row in rows]
                    y = [max(row["magnitude"], PRECISION) for row in rows]
                    ax.plot(x, y, label=f"{name} {seed}", clip_on=False, zorder=3, gid=gid, **look)
            legend = ax.legend(
                handles.values(),
                handles.keys(),
                loc="lower center",
                bbox_to_anchor=(0.5, 1),
                ncols=3 if len(panels) == 1 and not narrow else 1,
                title=textwrap.fill(style.panel_title(panel), 40),
                handlelength=1.4,
            )
            ink.identify(legend, handles.values())
        next(iter(axes.values())).set_ylim(bottom=PRECISION)
        note = "Bottom: the machine precision of float32, 1.2·10⁻⁷. Smaller weights are drawn there and count as zeros."
        return ink.finish(canvas, {}, note)


@style.own_style()
def search(
    drawing: Search,
    table: pa.Table,
    tried: Mapping[tuple[str, int, int], float],
    importance: Mapping[str, float] | None = None,
    *,
    subtitle: str = "",
    narrow: bool = False,
) -> Canvas:
    """Draw results over rewinds: axes for each level, a curve for each task. Rewinds are at equal distances.

    A curve breaks where results are missing. tried: the finalists' means, by (task, level, rewind).
    importance: the share of the variance that each of task, level and rewind explains. narrow: as for curves.
    """
    rows = [row for row in tables.summary(table).to_pylist() if row["rewind"] is not None]
    levels = sorted({row["level"] for row in rows}) or [0]
    rewinds, seeds = sorted({row["rewind"] for row in rows}), table.to_pylist()
    styles = style.curve_styles(dict.fromkeys(row["task"] for row in rows))
    lines: list[Line] = []
    with mpl.rc_context(PRINT if len(levels) <= 2 else SMALL):
        shares: dict[Place, tuple[Hashable, str, str]] = {}
        for level, place in zip(levels, ink.wrapped(len(levels), narrow=narrow), strict=True):
            left, metric = next(((r["density"], r["metric"]) for r in rows if r["level"] == level), (1.0, ""))
            shares[place] = (metric, f"{100 * left:.2g}% of the weights left", style.METRICS.get(metric, metric))
        canvas, axes = ink.grid(drawing.title, subtitle, shares, "Rewound to (samples seen)", narrow=narrow)
        for level, ax in zip(levels, axes.values(), strict=True):
            for task, look in styles.items():
                known = {row["rewind"]: row for row in rows if (row["task"], row["level"]) == (task, level)}
                missing = {"mean": None, "stderr": None, "n": 0}
                points = [known.get(rewind, missing) for rewind in rewinds]
                tips = [_tip(curve_name(task), row, seeds) for row in points]
                lines.append(Line.of(curve_name(task), look, points, range(len(rewinds)), tips=tips))
                _paint_search(ax, lines[-1], [tried.get((task, level, rewind)) for rewind in rewinds])
            slant = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"} if len(levels) > 1 else {}
            ax.set_xticks(range(len(rewinds)), [style.samples_in_words(rewind) for rewind in rewinds], **slant)
            ink.even_ticks(ax)
        mark: Look = {"color": "0.4", "marker": "o", "linestyle": "none"}
        marks = {
            "Finalist": Line2D([], [], **mark),
            "Fell behind": Line2D([], [], **mark, markerfacecolor="white"),
            "Chosen": Line2D([], [], **RING),
        }
        note = "Bars: ± one standard error." if any(row["n"] > 1 for row in rows) else "One seed."
        note += " Lines break where nothing is known."
        if importance:
            shares_of = ", ".join(f"{name} {100 * share:.0f}%" for name, share in importance.items())
            note += f" Importance over all means (fANOVA): {shares_of}."
        return ink.finish(canvas, ink.legend_handles(lines) | marks, note)


def _tip(name: str, row: Mapping[str, Any], seeds: Rows) -> str:
    """Return the report's text for a point. row: its mean; has no rewind if the point is missing."""
    if "rewind" not in row:
        return ""
    mine = [seed for seed in seeds if all(seed[key] == row[key] for key in ("task", "level", "rewind"))]
    return ink.tip(f"{name}, rewound to {row['rewind']:,}", row, mine)


def _paint_search(ax: Axes, line: Line, tried: Sequence[float | None]) -> None:
    """Paint a curve: markers of rewinds that fell behind are hollow, and a ring marks the one chosen."""
    hollow = {"markerfacecolor": "white", "linestyle": "none", "zorder": 3}
    parts = replace(line, tips=[]).gid()
    ax.errorbar(line.x, line.y, line.error, fmt="none", ecolor=line.look["color"], gid=parts)
    ax.plot(line.x, line.y, label=line.name, gid=line.gid(), **line.look)
    others = [(x, y) for x, y, trial in zip(line.x, line.y, tried, strict=True) if trial is None]
    if others:
        ax.plot(*zip(*others, strict=True), gid=parts, **line.look | hollow)
    known = [(trial, x, y) for x, y, trial in zip(line.x, line.y, tried, strict=True) if trial is not None]
    if known and not math.isnan((best := max(known, key=lambda one: one[0]))[2]):
        ax.plot(*best[1:], gid=parts, **RING)
