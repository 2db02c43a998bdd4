"""Paint a grid of panels with lines, axes and a legend, and save it."""

from __future__ import annotations

import io
import math
import textwrap
import warnings
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.lines import Line2D
from matplotlib.mathtext import MathTextParser
from matplotlib.text import Text
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from raysslprune.figures.style import TEXT_WIDTH, Look, Place, own_style


@dataclass(frozen=True)
class Line:
    """name, n: what the legend says. y and error may be NaN: no result; one seed. A reference has one y and no x."""

    name: str
    look: Look
    n: set[int]
    y: list[float]
    x: list[float] = field(default_factory=list)
    error: list[float] = field(default_factory=list)
    seeds: list[tuple[float, float]] = field(default_factory=list)


@dataclass(frozen=True)
class Cell:
    """What stands in one axes."""

    title: str
    metric: str
    y_label: str
    lines: list[Line]
    references: list[Line]


@own_style()
def save(canvas: Canvas, kind: str, *, dpi: int = 300) -> bytes:
    """As ``png``, ``pdf`` (letters as letters) or ``svg``; the same table gives the same file. dpi: dots an inch."""
    buffer = io.BytesIO()
    dates: dict[str, dict[str, Any]] = {"pdf": {"CreationDate": None}, "svg": {"Date": None}}
    with mpl.rc_context({"pdf.fonttype": 42, "svg.hashsalt": "raysslprune"}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Glyph \d+ .* missing from font")  # it is a box, which everybody sees
        canvas.savefig(buffer, format=kind, dpi=dpi, metadata=dates.get(kind))
    return buffer.getvalue()


def legible(canvas: Canvas) -> Canvas:
    """Formulas that are none as they are written: else nothing at all could be drawn."""
    parser = MathTextParser("path")
    for text in canvas.findobj(lambda artist: isinstance(artist, Text) and "$" in artist.get_text()):
        assert isinstance(text, Text)
        try:
            parser.parse(text.get_text())
        except ValueError:
            text.set_parse_math(False)
    return canvas


def or_nan(value: float | None) -> float:
    return math.nan if value is None else value


def wrapped(count: int) -> list[Place]:
    """Places in rows of at most four, as even as can be."""
    columns = math.ceil(count / math.ceil(count / 4))
    return [divmod(number, columns) for number in range(count)]


def grid(
    title: str, subtitle: str, shares: Mapping[Place, tuple[Hashable, str, str]], x_label: str
) -> tuple[Canvas, dict[Place, Axes]]:
    """Axes that share x. shares: to what shares a y axis, the title, and the label of y."""
    rows, columns = (1 + max(place[side] for place in shares) for side in (0, 1))
    titles = {place: textwrap.wrap(name, 90 // columns) for place, (_, name, _) in shares.items()}
    height = (2.1 if columns <= 2 else 1.6) + 0.13 * (max(1, *map(len, titles.values())) - 1)
    canvas = Canvas(figsize=(TEXT_WIDTH, rows * height + 0.8), layout="constrained")
    canvas.suptitle(textwrap.fill(title + (f" ({subtitle})" if subtitle else ""), 100), fontsize=9)
    grid = canvas.add_gridspec(rows, columns)
    axes: dict[Place, Axes] = {}
    first: dict[Hashable, Axes] = {}
    for (row, column), (share, _, y_label) in shares.items():
        ax = canvas.add_subplot(grid[row, column], sharex=next(iter(axes.values()), None), sharey=first.get(share))
        axes[row, column] = first[share] = ax
        ax.set_title("\n".join(titles[row, column]))
        is_left = (row, column - 1) not in shares or shares[row, column - 1][0] != share
        is_low = (row + 1, column) not in shares
        ax.tick_params(labelleft=is_left, labelbottom=is_low)
        if is_low:
            ax.set_xlabel(x_label)
        if (row, column - 1) not in shares or shares[row, column - 1][2] != y_label:
            ax.set_ylabel(y_label)
    return canvas, axes


def paint(ax: Axes, cell: Cell) -> None:
    for line in cell.lines:
        color, faint = line.look["color"], {"color": line.look["color"], "alpha": 0.18, "linewidth": 0}
        ax.plot(line.x, line.y, label=line.name, **line.look)
        if line.seeds:
            low, high = zip(*((y - e, y + e) for y, e in zip(line.y, line.error, strict=True)), strict=True)
            ax.fill_between(line.x, low, high, **faint)
            lone = [i for i, e in enumerate(line.error) if not math.isnan(e) and _is_lone(line.error, i)]
            at, ends = [line.x[i] for i in lone], [(low[i], high[i]) for i in lone]
            ax.vlines(at, [end[0] for end in ends], [end[1] for end in ends], color=color, linewidth=0.7)
            ax.plot(*zip(*line.seeds, strict=True), ".", color=color, markersize=2, alpha=0.55)
    for line in cell.references:
        ax.axhline(line.y[0], label=line.name, **line.look)
    ax.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
    ax.grid(axis="y", linewidth=0.3, alpha=0.6)


def _is_lone(values: Sequence[float], at: int) -> bool:
    """Whether both its neighbours are NaN or absent, so that no line or band can show it."""
    return all(math.isnan(value) for value in [*values[max(0, at - 1) : at], *values[at + 1 : at + 2]])


def remaining_axis(ax: Axes, values: Collection[float], columns: int) -> None:
    ax.set_xscale("log")
    if values:
        spread = max(values) / min(values)
        pad = max(1.1, spread**0.05) if spread > 1.1 else 3.0  # a single one has ticks at its sides
        ax.set_xlim(min(99.0, max(values) * pad), min(values) / pad)
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if columns <= 2 else (1, 3), numticks=99))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda percent, _: f"{percent:g}"))
    ax.xaxis.set_minor_formatter(NullFormatter())


def legend_handles(lines: Iterable[Line]) -> dict[str, Line2D]:
    """By name and n, which is over all axes."""
    named: dict[str, tuple[Look, set[int]]] = {}
    for line in lines:
        named.setdefault(line.name, (line.look, set()))[1].update(line.n)
    return {
        f"{name} (n={min(n)}{f' to {max(n)}' if len(n) > 1 else ''})": Line2D([], [], **look)
        for name, (look, n) in named.items()
        if n
    }


def legend(canvas: Canvas, handles: Mapping[str, Line2D], note: str) -> None:
    """Below all axes, in as few rows as the width allows; the figure grows by them."""
    em = mpl.rcParams["font.size"] / 72
    names = [textwrap.wrap(name, 90) for name in handles]
    widths = [em * (5 + 0.5 * max(map(len, lines))) for lines in names]
    rows = next(
        rows
        for rows in range(1, len(widths) + 2)
        if sum(max(widths[at : at + rows]) for at in range(0, len(widths), rows)) < TEXT_WIDTH
    )
    canvas.set_figheight(canvas.get_figheight() + 1.6 * em * rows * max(map(len, names), default=1))
    canvas.legend(
        handles.values(),
        map("\n".join, names),
        loc="outside lower center",
        ncols=math.ceil(len(handles) / rows) or 1,
        title=textwrap.fill(note, 130),
        title_fontsize=6.5,
    )


EMPTY: Look = {"markersize": 4, "markerfacecolor": "white", "clip_on": False, "zorder": 3}


def paint_log_axis(ax: Axes, line: Line, floor: float) -> None:
    """With bars that end at ``floor``, on which zeros are drawn too, as circles."""
    ax.plot(line.x, [y or math.nan for y in line.y], label=line.name, **line.look)
    ends = [(max(floor, y - e), y + e) for y, e in zip(line.y, line.error, strict=True)]
    ax.vlines(line.x, *zip(*ends, strict=True), color=line.look["color"], linewidth=0.7) if ends else None
    zeros = [(x, floor) for x, y in zip(line.x, line.y, strict=True) if not y]
    if zeros:
        ax.plot(*zip(*zeros, strict=True), "o", color=line.look["color"], **EMPTY)
    ax.grid(axis="y", linewidth=0.3, alpha=0.6)


def decade_ticks(ax: Axes) -> None:
    """Each with its tick and its number on the axis of y."""
    ax.yaxis.set_major_locator(LogLocator(numticks=99))
    ax.yaxis.set_minor_locator(LogLocator(subs=range(2, 10), numticks=99))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.yaxis.set_minor_formatter(NullFormatter())


def log_floor(values: Iterable[float]) -> float:
    """The bottom of a logarithmic axis."""
    return min((value for value in values if value > 0), default=0.1) / 2
