"""From a table to a figure in the paper's manner. Colours, markers and line styles tell a curve by any one of them."""

from __future__ import annotations

import io
from collections.abc import Iterable
from typing import Any

import matplotlib as mpl
import pyarrow as pa
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from raysslprune import results as tables
from raysslprune.spec import Curve, Figure

# A colour, marker and line for each task in all figures. The colours are after Okabe and Ito, whom colour-blind
# readers can follow, with their lightness spread so that they differ in grey print too.
STYLE: dict[str, dict[str, Any]] = {
    "labels": {"color": "#003f7d", "marker": "o", "linestyle": "-"},
    "exemplar": {"color": "#00694d", "marker": "^", "linestyle": "-"},
    "rotnet": {"color": "#d55e00", "marker": "s", "linestyle": "-"},
    "npid": {"color": "#cc79a7", "marker": "D", "linestyle": "-"},
    "random": {"color": "#a6a6a6", "marker": "X", "linestyle": "--"},
    "s4l": {"color": "#66bdf0", "marker": "v", "linestyle": "-"},
}
SPARE = [
    {"color": "#9467bd", "marker": "P", "linestyle": "-"},
    {"color": "#000000", "marker": "*", "linestyle": "-"},
    {"color": "#b89b00", "marker": "h", "linestyle": "-"},
    {"color": "#8c2d04", "marker": "p", "linestyle": "-"},
]
"""For tasks of a sweep of one's own, in the order in which they first appear."""

CONTROL = {"linewidth": 0.9, "markersize": 3.5, "linestyle": ":"}
NAMES = {
    "labels": "Labels",
    "rotnet": "RotNet",
    "exemplar": "Exemplar",
    "npid": "NPID",
    "s4l": "S4L",
    "random": "Random",
}
PANELS = {"winning ticket": "Winning tickets", "random re-init": "Random re-init"}

TEXT_WIDTH = 6.9
"""Inches: a page's text width. A figure is drawn for it, so its letters have a paper's size."""


def draw(figure: Figure, results: pa.Table, *, subtitle: str = "") -> Canvas:
    """The figure of ``results.table``'s rows. Bands: standard errors; small dots: single seeds. No point is made up."""
    rows = tables.summary(results).to_pylist()
    seeds = results.to_pylist()
    styles = _styles(dict.fromkeys(row["task"] for row in rows), figure.controls)
    with mpl.rc_context({"font.size": 8, "axes.spines.top": False, "axes.spines.right": False, "pdf.fonttype": 42}):
        canvas = Canvas(figsize=(TEXT_WIDTH, 3.1), layout="constrained")
        axes = canvas.subplots(1, len(figure.panels), sharey=True, squeeze=False)[0]
        for panel, ax in zip(figure.panels, axes, strict=True):
            _panel(ax, figure, panel, styles, rows, seeds)
        axes[0].set_ylabel(figure.y_label)
        note = "Bands: ± one standard error; dots: single seeds." if any(r["n"] > 1 for r in rows) else "One seed."
        for curve in figure.everywhere:
            note += f" {_name(curve.task)}: {PANELS.get(curve.init, curve.init).lower()} in all panels."
        _legend(canvas, axes, note)
        canvas.suptitle(figure.title + (f" ({subtitle})" if subtitle else ""), fontsize=9)
    return canvas


def save(canvas: Canvas, kind: str) -> bytes:
    """As ``png`` (300 dots an inch) or ``pdf`` (letters as letters, no date, so the same table gives the same file)."""
    buffer = io.BytesIO()
    with mpl.rc_context({"pdf.fonttype": 42}):
        canvas.savefig(buffer, format=kind, dpi=300, metadata={"CreationDate": None} if kind == "pdf" else None)
    return buffer.getvalue()


Rows = list[dict[str, Any]]
Styles = dict[str, dict[str, Any]]


def _panel(ax: Axes, figure: Figure, panel: str, styles: Styles, rows: Rows, seeds: Rows) -> None:
    curves = [Curve(task=task, init=panel) for task in dict.fromkeys(r["task"] for r in rows if r["init"] == panel)]
    curves += [curve for curve in figure.everywhere if curve.init != panel]
    for curve in curves:
        _curve(ax, curve, styles, rows, seeds)
    reference = [r for r in rows if _is(r, figure.reference) and r["level"] == 0]
    if reference:
        ax.axhline(reference[0]["mean"], color="black", linewidth=0.7, zorder=1, label=f"Dense (n={reference[0]['n']})")
    ax.set_title(PANELS.get(panel, panel), fontsize=8.5)
    ax.set_xscale("log")
    ax.invert_xaxis()
    ax.set_xlabel("Remaining weights (%)")
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda density, _: f"{100 * density:g}"))
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.grid(axis="y", linewidth=0.3, alpha=0.6)


def _curve(ax: Axes, curve: Curve, styles: Styles, rows: Rows, seeds: Rows) -> None:
    mine = sorted((r for r in rows if _is(r, curve) and r["level"] > 0), key=lambda r: r["level"])
    if not mine:
        return
    style = styles[curve.task]
    x, y = [r["density"] for r in mine], [r["mean"] for r in mine]
    counts = sorted({r["n"] for r in mine})
    n = f"n={counts[0]}" if len(counts) == 1 else f"n={counts[0]} to {counts[-1]}"
    ax.plot(x, y, label=f"{_name(curve.task)} ({n})", **style)
    if counts[-1] > 1:
        band = [r["stderr"] or 0.0 for r in mine]
        low, high = zip(*((m - e, m + e) for m, e in zip(y, band, strict=True)), strict=True)
        ax.fill_between(x, low, high, color=style["color"], alpha=0.18, linewidth=0)
        dots = [(r["density"], r["value"]) for r in seeds if _is(r, curve) and r["level"] > 0]
        ax.plot(*zip(*dots, strict=True), ".", color=style["color"], markersize=2, alpha=0.55)


def _legend(canvas: Canvas, axes: Any, note: str) -> None:
    entries: dict[str, Any] = {}
    for ax in axes:
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
            entries.setdefault(label, handle)
    canvas.legend(
        entries.values(),
        entries.keys(),
        loc="outside lower center",
        ncols=min(5, len(entries)),
        frameon=False,
        title=note,
        title_fontsize=6.5,
    )


def _styles(tasks: Iterable[str], controls: tuple[str, ...]) -> Styles:
    """Task to how its curves look. A shuffled task looks like its own, as a control."""
    tasks = list(tasks)
    unknown = [task for task in dict.fromkeys(_base(task) for task in tasks) if task not in STYLE]
    known = STYLE | {task: SPARE[number % len(SPARE)] for number, task in enumerate(unknown)}
    control = {**CONTROL, "markerfacecolor": "white"}
    return {
        task: {"linewidth": 1.5, "markersize": 4.5, **known[_base(task)], **(control if task in controls else {})}
        for task in tasks
    }


def _base(task: str) -> str:
    return task.removeprefix("shuffled ")


def _name(task: str) -> str:
    name = NAMES.get(_base(task), _base(task))
    return f"{name}, shuffled" if _base(task) != task else name


def _is(row: dict[str, Any], curve: Curve) -> bool:
    return (row["task"], row["init"]) == (curve.task, curve.init)
