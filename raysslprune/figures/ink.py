"""Paint a grid of panels with lines, axes and a legend, and save it."""

from __future__ import annotations

import io
import itertools
import json
import math
import textwrap
import warnings
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.legend import Legend
from matplotlib.lines import Line2D
from matplotlib.mathtext import MathTextParser
from matplotlib.text import Text
from matplotlib.ticker import (
    AutoMinorLocator,
    FuncFormatter,
    LogFormatterMathtext,
    LogLocator,
    MaxNLocator,
    NullFormatter,
)

from raysslprune.figures.style import PHONE_WIDTH, TEXT_WIDTH, Look, Place, Rows, own_style


@dataclass(frozen=True)
class Line:
    """A curve. name, n: for the legend. y: NaN where there is no result. error: NaN where there is only one seed.

    seeds: (x, y) of single seeds. collapsed: those of them in which a layer is empty. A reference has one y and no x.
    tips: text that the report shows for each point; may be empty.
    """

    name: str
    look: Look
    n: set[int]
    y: list[float]
    x: list[float] = field(default_factory=list)
    error: list[float] = field(default_factory=list)
    seeds: list[tuple[float, float]] = field(default_factory=list)
    collapsed: list[tuple[float, float]] = field(default_factory=list)
    tips: list[str] = field(default_factory=list)

    @property
    def is_single(self) -> bool:
        """True if only one point of the curve has a result."""
        return sum(not math.isnan(y) for y in self.y) == 1

    def gid(self) -> str:
        """Identifier of the line in an SVG: JSON of its name and the tips of its points, for ``report.drawing``."""
        drawn = [tip for tip, y in zip(self.tips, self.y, strict=False) if not math.isnan(y)]
        return json.dumps(["curve", self.name, *drawn])

    @staticmethod
    def of(
        name: str,
        look: Look,
        rows: Rows,
        x: Sequence[float],
        y: str = "mean",
        scale: float = 1,
        tips: Sequence[str] = (),
    ) -> Line:
        """A curve through rows with the columns ``y``, stderr and n, the first two multiplied by ``scale``."""
        values, errors = (
            [math.nan if row[column] is None else scale * row[column] for row in rows] for column in (y, "stderr")
        )
        counts = {row["n"] for row in rows} - {0}
        return Line(name=name, look=look, n=counts, x=[*x], y=values, error=errors, tips=[*tips])


@dataclass(frozen=True)
class Cell:
    """The content of one axes."""

    title: str
    metric: str
    y_label: str
    lines: list[Line]
    references: list[Line]


@own_style()
def save(canvas: Canvas, kind: str, *, dpi: int = 300) -> bytes:
    """Save as ``png``, ``pdf`` (text as text) or ``svg``; the same table gives the same file. dpi: dots per inch."""
    buffer = io.BytesIO()
    dates: dict[str, dict[str, Any]] = {"pdf": {"CreationDate": None}, "svg": {"Date": None}}
    with mpl.rc_context({"pdf.fonttype": 42, "svg.hashsalt": "raysslprune"}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Glyph \d+ .* missing from font")  # drawn as a visible box
        canvas.savefig(buffer, format=kind, dpi=dpi, metadata=dates.get(kind))
    return buffer.getvalue()


def grouped(rows: Rows, *columns: str) -> dict[tuple[Any, ...], Rows]:
    """Group rows by their values in some columns, in order of first appearance."""
    groups: dict[tuple[Any, ...], Rows] = {}
    for row in rows:
        groups.setdefault(tuple(row[column] for column in columns), []).append(row)
    return groups


def wrapped(count: int, *, narrow: bool = False) -> list[Place]:
    """Places in rows of at most four, or of one if ``narrow``, and of nearly the same length."""
    columns = math.ceil(count / math.ceil(count / (1 if narrow else 4)))
    return [divmod(number, columns) for number in range(count)]


def letters(count: int, width: float) -> int:
    """Scale a number of letters that fit into the width of a page's text to a width in inches."""
    return round(count * width / TEXT_WIDTH)


def titled(title: str, subtitle: str, height: float, *, narrow: bool = False) -> Canvas:
    """A canvas as wide as a page's text, or a phone, with a title. height: height of its rows, in inches."""
    width = PHONE_WIDTH if narrow else TEXT_WIDTH
    lines = textwrap.wrap(title + (f" ({subtitle})" if subtitle else ""), letters(100, width))
    canvas = Canvas(figsize=(width, height + 0.66 + 0.14 * max(1, len(lines))), layout="constrained")
    canvas.suptitle("\n".join(lines), fontsize=9)
    return canvas


def grid(
    title: str,
    subtitle: str,
    shares: Mapping[Place, tuple[Hashable, str, str]],
    x_label: str,
    *,
    narrow: bool = False,
) -> tuple[Canvas, dict[Place, Axes]]:
    """Make axes that share x. shares: for each place, a key, equal where y is shared, the title, and the label of y."""
    rows, columns = (1 + max(place[side] for place in shares) for side in (0, 1))
    width = letters(90, PHONE_WIDTH) if narrow else 90 // columns
    titles = {place: textwrap.wrap(name, width) for place, (_, name, _) in shares.items()}
    height = (2.1 if columns <= 2 else 1.6) + 0.13 * (max(1, *map(len, titles.values())) - 1)
    canvas = titled(title, subtitle, rows * height, narrow=narrow)
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


CROSS: Look = {"markersize": 3.5, "markeredgewidth": 0.8, "zorder": 3}


def paint(ax: Axes, cell: Cell) -> None:
    """Paint curves with bands of standard errors and dots of single seeds, and references as horizontal lines.

    Seeds in which a layer is empty are crosses.
    """
    for line in cell.lines:
        color, faint = line.look["color"], {"color": line.look["color"], "alpha": 0.18, "linewidth": 0}
        gid, parts = line.gid(), replace(line, tips=[]).gid()
        ax.plot(line.x, line.y, label=line.name, gid=gid, **line.look | _on_top(line, cell.lines))
        if line.seeds:
            low, high = zip(*((y - e, y + e) for y, e in zip(line.y, line.error, strict=True)), strict=True)
            ax.fill_between(line.x, low, high, gid=parts, **faint)
            lone = [i for i, e in enumerate(line.error) if not math.isnan(e) and _is_lone(line.error, i)]
            at, ends = [line.x[i] for i in lone], [(low[i], high[i]) for i in lone]
            ax.vlines(at, [end[0] for end in ends], [end[1] for end in ends], color=color, linewidth=0.7, gid=parts)
            if whole := [seed for seed in line.seeds if seed not in line.collapsed]:
                ax.plot(*zip(*whole, strict=True), ".", color=color, markersize=2, alpha=0.55, gid=parts)
            if line.collapsed:
                ax.plot(*zip(*line.collapsed, strict=True), "x", color=color, gid=parts, **CROSS)
    for line in cell.references:
        ax.axhline(line.y[0], label=line.name, gid=line.gid(), **line.look)
    even_ticks(ax)


def _on_top(line: Line, lines: Sequence[Line]) -> Look:
    """Return the look that keeps a curve of a single point visible: above all other curves, with a white edge.

    Of several single points at one density, each is smaller than those below it.
    """
    if not line.is_single:
        return {}
    later = lines[lines.index(line) + 1 :]
    above = sum(other.is_single and other.x == line.x for other in later)
    size = line.look.get("markersize", mpl.rcParams["lines.markersize"]) + 3 * above
    edge = {} if "markerfacecolor" in line.look else {"markeredgecolor": "white", "markeredgewidth": 0.5}
    return {"markersize": size, "zorder": 3 - 0.01 * above} | edge


def even_ticks(ax: Axes) -> None:
    """Give a linear y axis about five ticks, minor ticks between them, and a grid."""
    ax.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
    ax.yaxis.set_minor_locator(AutoMinorLocator())
    ax.grid(axis="y", linewidth=0.3, alpha=0.6)


def _is_lone(values: Sequence[float], at: int) -> bool:
    """Return whether both neighbours of a value are NaN or absent, so that no line or band can show it."""
    return all(math.isnan(value) for value in [*values[max(0, at - 1) : at], *values[at + 1 : at + 2]])


def remaining_axis(ax: Axes, values: Collection[float], columns: int, *, pruned: bool = False) -> None:
    """Make x a logarithmic axis of remaining weights, from dense to sparse. columns: number of axes side by side.

    pruned: True to label its ticks with the pruned percentage. The scale stays that of what remains, so that sparse
    networks do not crowd at one end.
    """
    ax.set_xscale("log")
    if values:
        spread = max(values) / min(values)
        pad = max(1.1, spread**0.05) if spread > 1.1 else 3.0  # a single value has ticks at its sides
        ax.set_xlim(max(values) * pad if max(values) >= 100 else min(99.0, max(values) * pad), min(values) / pad)
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if columns <= 2 else (1, 3), numticks=99))
    ax.xaxis.set_minor_locator(LogLocator(subs=range(2, 10), numticks=99))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda percent, _: f"{100 - percent if pruned else percent:g}"))
    ax.xaxis.set_minor_formatter(NullFormatter())


def legend_handles(lines: Iterable[Line]) -> dict[str, Line2D]:
    """Handles of a legend, labelled by name and by n over all axes."""
    named: dict[str, tuple[Look, set[int]]] = {}
    for line in lines:
        named.setdefault(line.name, (line.look, set()))[1].update(line.n)
    return {
        f"{name} (n={min(n)}{f' to {max(n)}' if len(n) > 1 else ''})": Line2D([], [], gid=key_gid(name), **look)
        for name, (look, n) in named.items()
        if n
    }


def tip(where: str, row: Mapping[str, Any], seeds: Rows) -> str:
    """Return the lines of text for a point: ``where``, its mean and n, and the value and step of each seed.

    row: the point's row of results.summary. seeds: its rows of the table of results.
    """
    error = "" if row["stderr"] is None else f" ± {row['stderr']:.1f}"
    each = [f"seed {seed['seed']}: {seed['value']:.2f}, step {seed['step']}" for seed in seeds]
    return "\n".join([where, f"{row['mean']:.1f}{error} (n={row['n']})", *each])


def key_gid(name: str) -> str:
    """Identifier of a curve's entry in a legend, in an SVG."""
    return json.dumps(["key", name])


def identify(legend: Legend, handles: Iterable[Line2D]) -> None:
    """Give the lines and words of a legend the identifiers of its handles."""
    for handle, line, words in zip(handles, legend.legend_handles, legend.get_texts(), strict=True):
        for part in (line, words):
            part.set_gid(handle.get_gid())  # pyright: ignore[reportOptionalMemberAccess]


def finish(canvas: Canvas, handles: Mapping[str, Line2D], note: str) -> Canvas:
    """Add a legend below all axes, in as few rows as the width allows; the figure grows by its height.

    Invalid formulas become plain text: otherwise the whole figure could not be drawn.
    """
    em, page = mpl.rcParams["font.size"] / 72, canvas.get_figwidth()
    names = [textwrap.wrap(name, letters(90, page) - 3) for name in handles]
    widths = [em * (5 + 0.56 * max(map(len, lines))) for lines in names]
    by_rows = [math.ceil(len(names) / rows) for rows in range(1, len(names) + 1)]
    columns = next((columns for columns in by_rows if columns == 1 or _fits(widths, columns, page)), 1)
    rows = math.ceil(len(names) / columns)
    heading = textwrap.wrap(note, letters(138, page))
    more = 1.6 * em * rows * max(map(len, names), default=1) + 0.12 * max(0, len(heading) - 1)
    canvas.set_figheight(canvas.get_figheight() + more)
    legend = canvas.legend(
        handles.values(),
        map("\n".join, names),
        loc="outside lower center",
        ncols=columns,
        title="\n".join(heading),
        title_fontsize=6.5,
    )
    legend.get_title().set_multialignment("center")
    identify(legend, handles.values())
    parser = MathTextParser("path")
    for text in canvas.findobj(lambda artist: isinstance(artist, Text) and "$" in artist.get_text()):
        assert isinstance(text, Text)
        try:
            parser.parse(text.get_text())
        except ValueError:
            text.set_parse_math(False)
    return canvas


def _fits(widths: Sequence[float], columns: int, page: float) -> bool:
    """Return whether a legend with entries of these widths in so many columns is not wider than the page."""
    full, rest = divmod(len(widths), columns)
    ends = itertools.accumulate(full + (column < rest) for column in range(columns))  # as Matplotlib fills them
    return sum(max(widths[start:end]) for start, end in itertools.pairwise([0, *ends])) < page


EMPTY: Look = {"markersize": 4, "markerfacecolor": "white", "clip_on": False, "zorder": 3}


def paint_log_axis(ax: Axes, line: Line, floor: float) -> None:
    """Paint a line on a logarithmic axis; error bars end at ``floor``, and zeros are circles there."""
    ax.plot(line.x, [y or math.nan for y in line.y], label=line.name, **line.look)
    ends = [(max(floor, y - e), y + e) for y, e in zip(line.y, line.error, strict=True)]
    if ends:
        ax.vlines(line.x, *zip(*ends, strict=True), color=line.look["color"], linewidth=0.7)
    zeros = [(x, floor) for x, y in zip(line.x, line.y, strict=True) if not y]
    if zeros:
        ax.plot(*zip(*zeros, strict=True), "o", color=line.look["color"], **EMPTY)
    ax.grid(axis="y", linewidth=0.3, alpha=0.6)


def decade_ticks(ax: Axes, *, plain: bool = True) -> None:
    """Give every decade of the y axis a tick and its number, in full or, if not ``plain``, as a power of ten."""
    ax.yaxis.set_major_locator(LogLocator(numticks=99))
    ax.yaxis.set_minor_locator(LogLocator(subs=range(2, 10), numticks=99))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}") if plain else LogFormatterMathtext())
    ax.yaxis.set_minor_formatter(NullFormatter())


def log_floor(values: Iterable[float]) -> float:
    """Bottom of a logarithmic axis that shows these values; zeros are drawn there."""
    return min((value for value in values if value > 0), default=0.1) / 2
