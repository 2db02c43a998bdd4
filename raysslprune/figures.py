"""From tables to figures in the paper's manner. Colours, markers and line styles tell a curve by any one of them."""

from __future__ import annotations

import io
import itertools
import math
import re
import statistics
import textwrap
import warnings
from collections import Counter
from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from raysslprune import results as tables
from raysslprune.backend import any_backend
from raysslprune.sweepfile import Curve, Figure, Magnitudes, Search

with any_backend():
    import matplotlib as mpl
    from matplotlib import colors
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas
    from matplotlib.lines import Line2D
    from matplotlib.mathtext import MathTextParser
    from matplotlib.path import Path
    from matplotlib.text import Text
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter
    from matplotlib.transforms import Bbox

Look = dict[str, Any]
Rows = list[dict[str, Any]]
Place = tuple[int, int]  # row and column

# A colour, marker and line for each task in all figures. The colours are after Okabe and Ito, whom colour-blind
# readers can follow, with their lightness spread so that they differ in grey print too.
STYLE: dict[str, Look] = {
    "labels": {"color": "#003f7d", "marker": "o", "linestyle": "-"},
    "labels on classes": {"color": "#6f2f8f", "marker": ">", "linestyle": "-"},
    "exemplar": {"color": "#00694d", "marker": "^", "linestyle": "-"},
    "few labels": {"color": "#3a72b8", "marker": "<", "linestyle": "-"},
    "rotnet": {"color": "#d55e00", "marker": "s", "linestyle": "-"},
    "npid": {"color": "#cc79a7", "marker": "D", "linestyle": "-"},
    "random": {"color": "#a6a6a6", "marker": "X", "linestyle": "-"},
    "s4l": {"color": "#66bdf0", "marker": "v", "linestyle": "-"},
}
SPARE = [
    {"color": "#9467bd", "marker": "P", "linestyle": "-"},
    {"color": "#000000", "marker": "*", "linestyle": "-"},
    {"color": "#b89b00", "marker": "h", "linestyle": "-"},
    {"color": "#8c2d04", "marker": "p", "linestyle": "-"},
]
"""For tasks of a sweep of one's own, in the order in which they first appear."""

SHADES = "viridis"
"""Of inits: its order is seen by the colour-blind too, and in grey print."""

DATA = {"cifar": "#2ca02c", "imagenet": "#c0182b"}
"""Colours of lines whose init begins with this, as in the paper."""

OTHER_DATA = ("#0072b2", "#e69f00", "#9467bd", "#66bdf0")

LINES = ("-", "--", "-.", ":")
MARKERS = "osD^vP*X"
HOLLOW = {"linestyle": "--", "markerfacecolor": "white"}
CONTROL = {"linewidth": 0.8, "markersize": 2.8, "linestyle": ":", "markerfacecolor": "white"}
RING: Look = {"color": "black", "marker": "o", "linestyle": "none", "markerfacecolor": "none", "markersize": 9}
NAMES = {
    "labels": "Labels",
    "rotnet": "RotNet",
    "exemplar": "Exemplar",
    "npid": "NPID",
    "s4l": "S4L",
    "random": "Random",
    "random nonzero": "Random, non-zero weights",
    "few labels": "Few labels",
}
TITLES = {"winning ticket": "Winning tickets"}
METRICS = {
    "top1": "Top-1 accuracy (%)",
    "map": "Mean average precision (%)",
    "natural_sparsity": "Natural sparsity (%)",
}
UNTAUGHT = ("untrained", "from scratch")
"""Inits whose task does not matter."""

PRECISION = 2.0**-23
"""Of float32: the bottom of an axis of magnitudes, on which all that is smaller is drawn."""

TEXT_WIDTH = 6.9
"""Inches: a page's text width. A figure is drawn for it, so its letters have a paper's size."""

PRINT: dict[Any, Any] = {
    "font.size": 8,
    "axes.titlesize": 8.5,
    "lines.linewidth": 1.5,
    "lines.markersize": 4.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "pdf.fonttype": 42,
}
SMALL: dict[Any, Any] = PRINT | {"font.size": 7, "axes.titlesize": 7.5, "lines.linewidth": 1.1, "lines.markersize": 3.0}
"""For more than two columns of axes."""


@dataclass(frozen=True)
class _Line:
    """name, n: what the legend says. y and error may be NaN: no result; one seed. A reference has one y and no x."""

    name: str
    look: Look
    n: set[int]
    y: list[float]
    x: list[float] = field(default_factory=list)
    error: list[float] = field(default_factory=list)
    seeds: list[tuple[float, float]] = field(default_factory=list)


@dataclass(frozen=True)
class _Cell:
    """What stands in one axes."""

    title: str
    metric: str
    y_label: str
    lines: list[_Line]
    references: list[_Line]


@contextmanager
def _own_style() -> Iterator[None]:
    """Matplotlib's own defaults meanwhile: a figure looks the same whatever a matplotlibrc or a notebook has set."""
    with mpl.rc_context():
        mpl.rcdefaults()
        yield


@_own_style()
def draw(figure: Figure, results: pa.Table, *, subtitle: str = "") -> Canvas:
    """The figure of ``results.table``'s rows. Bands: standard errors; small dots: single seeds.

    No point is made up: a curve breaks where it has no result at a density at which another of its axes has one.
    """
    cells = _cells(figure, tables.summary(results).to_pylist(), results.to_pylist())
    curves = [line for cell in cells.values() for line in cell.lines]
    columns = 1 + max(column for _, column in cells)
    with mpl.rc_context(PRINT if columns <= 2 else SMALL):
        label = "Remaining weights (%)" if figure.x == "remaining" else "Pruned weights (%)"
        shares = {place: (cell.metric, cell.title, cell.y_label) for place, cell in cells.items()}
        canvas, axes = _grid(figure.title, subtitle, shares, label)
        for place, cell in cells.items():
            _paint(axes[place], cell)
        shared = next(iter(axes.values()))
        if figure.x == "remaining":
            _remaining_axis(shared, [x for line in curves for x in line.x], columns)
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
            if any(line.name == _name(curve.task) for line in curves):
                note += f" {_name(curve.task)}: {_title(curve.init).lower()} in all panels."
        references = [line for cell in cells.values() for line in cell.references]
        _legend(canvas, _handles([*curves, *references]), note)
    return _legible(canvas)


@_own_style()
def magnitudes(drawing: Magnitudes, table: pa.Table, *, subtitle: str = "") -> Canvas:
    """Sorted magnitudes: axes for each panel, a line for each init, task and seed.

    table: columns panel, init, task, seed, rank (0 to 1, the smallest weight first), magnitude, sparsity (% of zeros).
    """
    lines: dict[str, dict[tuple[str, str], dict[int, Rows]]] = {}
    for row in table.to_pylist():
        seeds = lines.setdefault(row["panel"], {}).setdefault((row["init"], row["task"]), {})
        seeds.setdefault(row["seed"], []).append(row)
    inits, tasks = ([*dict.fromkeys(table[name].to_pylist())] for name in ("init", "task"))
    colours = _data_colours(inits)
    with mpl.rc_context(PRINT if len(lines) <= 2 else SMALL):
        places = _wrapped(max(1, len(lines)))
        shares = dict.fromkeys(places, ("magnitude", "", "Magnitude"))
        canvas, axes = _grid(drawing.title, subtitle, shares, "Weights, sorted (%)")
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
                name = init if len(tasks) == 1 else f"{init}, {_name(task)}"
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
                title=textwrap.fill(_title(panel), 40),
                handlelength=1.4,
            )
        next(iter(axes.values())).set_ylim(bottom=PRECISION)
        note = "Bottom: the machine precision of float32, 1.2·10⁻⁷. Smaller weights are drawn there and count as zeros."
        _legend(canvas, {}, note)
    return _legible(canvas)


@_own_style()
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
    styles = _styles(dict.fromkeys(row["task"] for row in rows))
    lines: list[_Line] = []
    with mpl.rc_context(PRINT if len(levels) <= 2 else SMALL):
        shares: dict[Place, tuple[Hashable, str, str]] = {}
        for level, place in zip(levels, _wrapped(len(levels)), strict=True):
            left, metric = next(((r["density"], r["metric"]) for r in rows if r["level"] == level), (1.0, ""))
            shares[place] = (level, f"{100 * left:.2g}% of the weights left", METRICS.get(metric, metric))
        canvas, axes = _grid(drawing.title, subtitle, shares, "Rewound to (samples seen)")
        for level, ax in zip(levels, axes.values(), strict=True):
            for task, style in styles.items():
                known = {row["rewind"]: row for row in rows if (row["task"], row["level"]) == (task, level)}
                line = _Line(
                    name=_name(task),
                    look=style,
                    n={row["n"] for row in known.values()},
                    x=[*range(len(rewinds))],
                    y=[_or_nan(known.get(rewind, {}).get("mean")) for rewind in rewinds],
                    error=[_or_nan(known.get(rewind, {}).get("stderr")) for rewind in rewinds],
                )
                lines.append(line)
                _paint_search(ax, line, [(task, level, rewind) in tried for rewind in rewinds])
            slant = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"} if len(levels) > 1 else {}
            ax.set_xticks(range(len(rewinds)), [_samples(rewind) for rewind in rewinds], **slant)
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
        _legend(canvas, _handles(lines) | marks, note)
    return _legible(canvas)


@_own_style()
def save(canvas: Canvas, kind: str, *, dpi: int = 300) -> bytes:
    """As ``png``, ``pdf`` (letters as letters) or ``svg``; the same table gives the same file. dpi: dots an inch."""
    buffer = io.BytesIO()
    dates: dict[str, dict[str, Any]] = {"pdf": {"CreationDate": None}, "svg": {"Date": None}}
    with mpl.rc_context({"pdf.fonttype": 42, "svg.hashsalt": "raysslprune"}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Glyph \d+ .* missing from font")  # it is a box, which everybody sees
        canvas.savefig(buffer, format=kind, dpi=dpi, metadata=dates.get(kind))
    return buffer.getvalue()


def _legible(canvas: Canvas) -> Canvas:
    """Formulas that are none as they are written: else nothing at all could be drawn."""
    parser = MathTextParser("path")
    for text in canvas.findobj(lambda artist: isinstance(artist, Text) and "$" in artist.get_text()):
        assert isinstance(text, Text)
        try:
            parser.parse(text.get_text())
        except ValueError:
            text.set_parse_math(False)
    return canvas


# ------------------------------------------------------------------------------------- what stands where


def _cells(figure: Figure, rows: Rows, seeds: Rows) -> dict[Place, _Cell]:
    shown = [row for row in rows if _is_in_a_curve(figure, row, rows)]
    panels = [*dict.fromkeys(row["panel"] for row in shown or rows)] or [""]
    parts = [(panel, init) for init in figure.inits or (None,) for panel in panels]
    full = [part for part in parts if any(_is_of(row, *part) for row in shown)] or parts
    inits = [*dict.fromkeys(init for _, init in full)]
    by_rows = bool(figure.inits) and len(panels) > 1
    places = [(inits.index(init), panels.index(panel)) for panel, init in full] if by_rows else _wrapped(len(full))
    styles = _styles(dict.fromkeys(row["task"] for row in shown))
    cells: dict[Place, _Cell] = {}
    for (row, column), (panel, init) in zip(places, full, strict=True):
        metric = next((r["metric"] for r in shown or rows if r["panel"] == panel), "")
        y_label = METRICS.get(metric, metric)
        title = _title(init if init and not by_rows else panel)
        if by_rows:
            y_label = f"{textwrap.fill(_title(init or ''), 30)}\n{y_label}"
            title = "" if any((above, column) in cells for above in range(row)) else title
        cells[row, column] = _Cell(
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
) -> list[_Line]:
    def is_here(row: dict[str, Any]) -> bool:
        return _is_of(row, panel, init) or (
            row["panel"] == panel and any(some.covers(_curve(row)) for some in figure.everywhere)
        )

    def x(row: dict[str, Any]) -> float:
        return 100 * row["density"] if figure.x == "remaining" else 100 - 100 * row["density"]

    here = sorted((row for row in shown if is_here(row)), key=lambda row: init not in (None, row["init"]))
    curves = [*dict.fromkeys(_curve(row) for row in here)]
    told = _several_inits(figure, curves if figure.inits else [_curve(row) for row in shown])
    lines = []
    for curve in curves:
        points = [row for row in here if _curve(row) == curve]
        has = [row["density"] for row in points]
        lacks = {row["density"] for row in here if min(has) < row["density"] < max(has)}
        lacks -= {density for density in lacks if any(math.isclose(density, own, rel_tol=0.05) for own in has)}
        points += [{"density": density, "mean": math.nan, "stderr": None, "n": 0} for density in lacks]
        points.sort(key=lambda row: -row["density"])
        name, look = _look(figure, curve, init, told, styles)
        n = {row["n"] for row in points} - {0}
        of = [row for row in seeds if _curve(row) == curve and (row["level"] > 0 or figure.x == "pruned")]
        lines.append(
            _Line(
                name=name,
                look=look,
                n=n,
                x=[x(row) for row in points],
                y=[row["mean"] for row in points],
                error=[_or_nan(row["stderr"]) for row in points],
                seeds=[(x(row), row["value"]) for row in of] if max(n) > 1 else [],
            )
        )
    return lines


def _references(figure: Figure, panel: str, metric: str, rows: Rows) -> list[_Line]:
    lines = []
    for number, curve in enumerate(figure.references):
        at = Curve(task=curve.task, init=curve.init, panel=panel if curve.panel is None else curve.panel)
        look = {"color": "black", "linewidth": 0.7, "linestyle": LINES[number % len(LINES)], "zorder": 1}
        lines += [
            _Line(name=_reference_name(curve, figure.references), look=look, n={row["n"]}, y=[row["mean"]])
            for row in rows
            if _curve(row) == at and row["level"] == 0 and row["metric"] == metric
        ]
    return lines


def _curve(row: Mapping[str, Any]) -> Curve:
    return Curve(task=row["task"], init=row["init"], panel=row["panel"])


def _is_of(row: Mapping[str, Any], panel: str, init: str | None) -> bool:
    return row["panel"] == panel and init in (None, row["init"])


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value


def _wrapped(count: int) -> list[Place]:
    """Places in rows of at most four, as even as can be."""
    columns = math.ceil(count / math.ceil(count / 4))
    return [divmod(number, columns) for number in range(count)]


# ------------------------------------------------------------------------------------- names and looks


def _styles(tasks: Iterable[str]) -> dict[str, Look]:
    """Task to how it looks. A shuffled task, and random masks of non-zero weights, look like their own, hollow."""
    tasks, looks, used = list(tasks), dict[str, Look](), set[str]()
    for task in dict.fromkeys(_own(task) for task in tasks):
        kind = _kind(task)
        if kind in STYLE and kind not in used:
            looks[task] = STYLE[kind]
            used.add(kind)
        else:
            again, spare = divmod(len(looks) - len(used), len(SPARE))
            looks[task] = SPARE[spare] | {"linestyle": LINES[again % len(LINES)]}
    return {task: looks[_own(task)] | ({} if _own(task) == task else HOLLOW) for task in tasks}


def _own(task: str) -> str:
    return task.removeprefix("shuffled ").removesuffix(" nonzero")


def _kind(task: str) -> str:
    """The task whose style it has: on a part of the images as on all of them, but for labels."""
    name, share, part = _parts(task)
    return {"images": "few labels", "classes": "labels on classes"}[part] if share and name == "labels" else name


def _parts(task: str) -> tuple[str, str, str]:
    """``labels:10%-of-images`` as (labels, 10%, images); the last two may be empty."""
    found = re.fullmatch(r"(.+):(\d+%)-of-(images|classes)", task)
    return (found[1], found[2], found[3]) if found else (task, "", "")


def _name(task: str) -> str:
    if task.startswith("shuffled "):
        return f"{_name(_own(task))}, shuffled"
    name, share, part = _parts(task)
    shown = NAMES.get(name, name)
    if not share:
        return shown
    return f"{share} {shown}" if part == "images" else f"{shown}, {share} of classes"


def _title(text: str) -> str:
    return TITLES.get(text, text[:1].upper() + text[1:])


def _reference_name(curve: Curve, among: Sequence[Curve]) -> str:
    """Dense, and what tells it from the others."""
    if curve.init in UNTAUGHT:
        return _title(curve.init)
    twins = [other for other in among if other.task == curve.task and other.init not in UNTAUGHT]
    parts = ["Dense"]
    parts += [_name(curve.task)] if len(among) > 1 else []
    parts += [curve.init] if len({other.init for other in twins}) > 1 else []
    parts += [curve.panel] if curve.panel and len({other.panel for other in twins}) > 1 else []
    return ", ".join(parts)


def _several_inits(figure: Figure, curves: Sequence[Curve]) -> list[str]:
    """The inits that must be told apart: those of tasks that have several."""
    often = Counter(task for task, _ in {(curve.task, curve.init) for curve in curves})
    return [*dict.fromkeys(c.init for c in curves if often[c.task] > 1 or figure.colour == "init")]


def _look(
    figure: Figure, curve: Curve, init: str | None, told: list[str], styles: Mapping[str, Look]
) -> tuple[str, Look]:
    """Its name and style in the axes of ``init``, where the inits ``told`` must be told apart."""
    name, look = _name(curve.task), styles[curve.task]
    rank = told.index(curve.init) if curve.init in told else 0
    if {curve.task, curve.init} & {*figure.controls}:
        look = look | CONTROL
    if figure.colour == "init":
        shade = mpl.colormaps[SHADES](0.75 * rank / max(1, len(told) - 1))
        look = look | {"color": colors.to_hex(shade), "marker": MARKERS[rank % len(MARKERS)]}
        look |= {"linestyle": LINES[[*styles].index(curve.task) % len(LINES)]}
        return _title(curve.init) if len(styles) == 1 else f"{name}, {curve.init}", look
    if curve.init in told and curve.init != init:
        name = f"{name}, {curve.init}"
    if rank and look is styles[curve.task]:
        look = look | {"linestyle": LINES[rank % len(LINES)]} | _marker(look, rank, styles)
    return name, look


def _marker(look: Look, rank: int, styles: Mapping[str, Look]) -> Look:
    """Of a task's init, since a single point shows no line: what is filled is hollow first, then of no task's shape."""
    is_hollow = "markerfacecolor" in look
    if rank == 1 and not is_hollow:
        return {"markerfacecolor": "white"}
    taken = {style["marker"] for style in styles.values()}
    free = [marker for marker in MARKERS if marker not in taken] or MARKERS
    return {"marker": free[(rank - 2 + is_hollow) % len(free)]}


def _data_colours(inits: Sequence[str]) -> dict[str, str]:
    known = {init: colour for init in inits for data, colour in DATA.items() if init.lower().startswith(data)}
    spare = [init for init in inits if init not in known]
    return known | {init: OTHER_DATA[number % len(OTHER_DATA)] for number, init in enumerate(spare)}


def _samples(count: int) -> str:
    """As 0, 300, 1.2k, 3.84M."""
    for size, letter in ((1_000_000, "M"), (1_000, "k")):
        if count >= size:
            return f"{count / size:.3g}{letter}"
    return str(count)


# ------------------------------------------------------------------------------------- ink


def _grid(
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


def _paint(ax: Axes, cell: _Cell) -> None:
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


def _remaining_axis(ax: Axes, values: Collection[float], columns: int) -> None:
    ax.set_xscale("log")
    if values:
        spread = max(values) / min(values)
        pad = max(1.1, spread**0.05) if spread > 1.1 else 3.0  # a single one has ticks at its sides
        ax.set_xlim(min(99.0, max(values) * pad), min(values) / pad)
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if columns <= 2 else (1, 3), numticks=99))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda percent, _: f"{percent:g}"))
    ax.xaxis.set_minor_formatter(NullFormatter())


def _magnify(ax: Axes, cell: _Cell, *, log: bool) -> None:
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
        _paint(inset, cell)
    if log:
        _remaining_axis(inset, [], 4)
    inset.set(xlim=(ax.get_xlim()[0], sparsest), ylim=(bottom - 0.05 * (top - bottom), top + 0.1 * (top - bottom)))
    inset.tick_params(labelsize=6)
    inset.set_title("Enlarged", fontsize=6, pad=2)
    (x0, x1), (y0, y1) = inset.get_xlim(), inset.get_ylim()
    ax.indicate_inset((x0, y0, x1 - x0, y1 - y0), edgecolor="0.5", linewidth=0.6)


def _free_corner(ax: Axes, cell: _Cell, left: float, width: float, height: float) -> tuple[float, float] | None:
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


def _paint_search(ax: Axes, line: _Line, tried: Sequence[bool]) -> None:
    hollow = {"markerfacecolor": "white", "linestyle": "none", "zorder": 3}
    ax.errorbar(line.x, line.y, line.error, label=line.name, **line.look)
    others = [(x, y) for x, y, was in zip(line.x, line.y, tried, strict=True) if not was]
    if others:
        ax.plot(*zip(*others, strict=True), **line.look | hollow)
    known = [(y, x) for x, y, was in zip(line.x, line.y, tried, strict=True) if was and not math.isnan(y)]
    if known:
        best, x = max(known)
        ax.plot(x, best, **RING)


def _handles(lines: Iterable[_Line]) -> dict[str, Line2D]:
    """By name and n, which is over all axes."""
    named: dict[str, tuple[Look, set[int]]] = {}
    for line in lines:
        named.setdefault(line.name, (line.look, set()))[1].update(line.n)
    return {
        f"{name} (n={min(n)}{f' to {max(n)}' if len(n) > 1 else ''})": Line2D([], [], **look)
        for name, (look, n) in named.items()
        if n
    }


def _legend(canvas: Canvas, handles: Mapping[str, Line2D], note: str) -> None:
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


# ------------------------------------------------------------------------------------- masks

MOST_LETTERS, MOST_MARKERS = 100, 16
"""Of layers' names in a row of axes, else layers are numbered; of layers whose points have markers."""

EMPTY: Look = {"markersize": 4, "markerfacecolor": "white", "clip_on": False, "zorder": 3}

WIDE = 1.5
"""Of a single density's line: from so many times as much to such a part of it."""

MOST_PAIRS = 10
"""Pairs of tasks in one axes."""


@_own_style()
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
    lines: list[_Line] = []
    numbered = False
    with mpl.rc_context(PRINT if wide <= 2 else SMALL):
        canvas = Canvas(figsize=(TEXT_WIDTH, high * 1.8 + 0.8), layout="constrained")
        canvas.suptitle(textwrap.fill(title + (f" ({subtitle})" if subtitle else ""), 100), fontsize=9)
        grid = canvas.add_gridspec(high, wide)
        floor, first = _floor(100 * row["density"] for row in rows), None
        for (row, column), ((panel, task), some) in zip(places, cells.items(), strict=True):
            ax = canvas.add_subplot(grid[row, column], sharey=first)
            first = first or ax
            layers = [*dict.fromkeys(one["layer"] for one in some)]
            for rank, left in enumerate(lefts):
                here = sorted((one for one in some if one["left"] == left), key=lambda one: layers.index(one["layer"]))
                look = _shade(rank, len(lefts))
                line = _Line(
                    name=f"{100 * left:.2g}% left",
                    look=look if len(layers) <= MOST_MARKERS else look | {"marker": ""},
                    n={one["n"] for one in here},
                    x=[layers.index(one["layer"]) + 1 for one in here],
                    y=[100 * one["density"] for one in here],
                    error=[100 * _or_nan(one["stderr"]) for one in here],
                )
                lines.append(line)
                _paint_log(ax, line, floor)
            heading = textwrap.fill(_title(sources[task]), 90 // wide)
            ax.set(xlim=(0.7, len(layers) + 0.3), yscale="log", ylim=(floor, 130), title=heading)
            _decades(ax)
            ax.tick_params(labelleft=column == 0)
            if column == 0:
                ax.set_ylabel(_beside(panel, panels, "Weights left (%)"))
            names = _short(layers)
            if len("".join(names)) <= MOST_LETTERS / wide:
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
        _legend(canvas, _handles(lines), note)
    return _legible(canvas)


@_own_style()
def overlaps(title: str, table: pa.Table, *, subtitle: str = "") -> Canvas:
    """How much masks share: a row of axes for each panel, a column for each relation, a line for each pair of tasks.

    table: columns panel, relation, task_a, task_b, density, jaccard, stderr, n, chance (expected of random masks that
    are as dense in each layer) and chance_overall (as dense in all).
    """
    rows = table.to_pylist()
    panels, relations = ([*dict.fromkeys(row[name] for row in rows)] for name in ("panel", "relation"))
    tasks = [*dict.fromkeys(row[side] for row in rows for side in ("task_a", "task_b"))]
    styles, sources = _styles(tasks), _sources(tasks)
    cells: dict[Place, dict[tuple[str, str], Rows]] = {}
    for row in rows:
        place = (panels.index(row["panel"]), relations.index(row["relation"]))
        cells.setdefault(place, {}).setdefault((row["task_a"], row["task_b"]), []).append(row)
    shares: dict[Place, tuple[Hashable, str, str]] = {}
    for row, column in sorted(cells):
        heading = _title(relations[column]) if (row - 1, column) not in cells else ""
        shares[row, column] = ("jaccard", heading, _beside(panels[row], panels, "Jaccard index"))
    lines: list[_Line] = []
    black: Look = {"color": "black", "linewidth": 0.8}
    by_layer: Look = black | {"linestyle": "--"}
    overall: Look = black | {"linestyle": ":"}
    with mpl.rc_context(PRINT):
        canvas, axes = _grid(title, subtitle, shares or {(0, 0): ("", "", "")}, "Remaining weights (%)")
        floor = _floor(row[name] for row in rows for name in ("jaccard", "chance_overall"))
        for place, pairs in cells.items():
            for pair, some in [*pairs.items()][:MOST_PAIRS]:
                some.sort(key=lambda row: -row["density"])
                line = _Line(
                    name=_title(" and ".join(sources[task] for task in dict.fromkeys(pair))),
                    look=_pair(styles[pair[0]], styles[pair[1]]),
                    n={row["n"] for row in some},
                    x=[100 * row["density"] for row in some],
                    y=[row["jaccard"] for row in some],
                    error=[_or_nan(row["stderr"]) for row in some],
                )
                lines.append(line)
                _paint_log(axes[place], line, floor)
                chance: Look = by_layer | {"color": line.look["color"], "zorder": 1}
                _paint_chance(axes[place], line.x, [row["chance"] for row in some], chance)
            densest = max(pairs.values(), key=lambda some: len(some))
            x, y = [100 * row["density"] for row in densest], [row["chance_overall"] for row in densest]
            _paint_chance(axes[place], x, y, overall | {"zorder": 1})
        for ax in axes.values():
            ax.set(yscale="log", ylim=(floor, 1))
            _decades(ax)
        _remaining_axis(next(iter(axes.values())), [x for line in lines for x in line.x], len(relations))
        chances = {"Chance, given each layer's density": by_layer, "Chance, given the density": overall}
        handles = _handles(lines) | {name: Line2D([], [], **look) for name, look in chances.items() if lines}
        note = "n: seeds."
        if any(not math.isnan(e) for line in lines for e in line.error):
            note += " Bars: ± one standard error, by a jackknife over seeds."
        if any(not y for line in lines for y in line.y):
            note += " Circles on the axis: nothing is shared."
        hidden = max((len(pairs) for pairs in cells.values()), default=0) - MOST_PAIRS
        if hidden > 0:
            note += f" {hidden} more pairs are in the table only."
        _legend(canvas, handles, note)
    return _legible(canvas)


def _paint_chance(ax: Axes, x: Sequence[float], y: Sequence[float], look: Look) -> None:
    """A line without markers; of a single point a short one to its left and right."""
    ax.plot([x[0] * WIDE, x[0] / WIDE] if len(x) == 1 else x, [*y, *y] if len(y) == 1 else y, **look)


def _paint_log(ax: Axes, line: _Line, floor: float) -> None:
    """With bars that end at ``floor``, on which zeros are drawn too, as circles."""
    ax.plot(line.x, [y or math.nan for y in line.y], label=line.name, **line.look)
    ends = [(max(floor, y - e), y + e) for y, e in zip(line.y, line.error, strict=True)]
    ax.vlines(line.x, *zip(*ends, strict=True), color=line.look["color"], linewidth=0.7) if ends else None
    zeros = [(x, floor) for x, y in zip(line.x, line.y, strict=True) if not y]
    if zeros:
        ax.plot(*zip(*zeros, strict=True), "o", color=line.look["color"], **EMPTY)
    ax.grid(axis="y", linewidth=0.3, alpha=0.6)


def _decades(ax: Axes) -> None:
    """Each with its tick and its number on the axis of y."""
    ax.yaxis.set_major_locator(LogLocator(numticks=99))
    ax.yaxis.set_minor_locator(LogLocator(subs=range(2, 10), numticks=99))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.yaxis.set_minor_formatter(NullFormatter())


def _short(layers: Sequence[str]) -> list[str]:
    """Names of weights as those of their layers, without what all begin with."""
    parts = [layer.removesuffix(".weight").split(".") for layer in layers]
    common = sum(len(set(some)) == 1 for some in itertools.zip_longest(*parts)) if len(parts) > 1 else 0
    return [".".join(some[common:]) for some in parts]


def _floor(values: Iterable[float]) -> float:
    """The bottom of a logarithmic axis."""
    return min((value for value in values if value > 0), default=0.1) / 2


def _in_rows(counts: Iterable[int]) -> list[Place]:
    """Places for groups of so many axes, each of which begins a row."""
    places: list[Place] = []
    for count in counts:
        top = 1 + max((row for row, _ in places), default=-1)
        places += [(top + row, column) for row, column in _wrapped(count)]
    return places


def _beside(panel: str, panels: Sequence[str], label: str) -> str:
    """A label of y that says which panel it is, where there are several."""
    return f"{textwrap.fill(panel, 30)}\n{label}" if len(panels) > 1 else label


def _sources(tasks: Iterable[str]) -> dict[str, str]:
    """Tasks of masks for people, without what all have in common where something else tells them apart."""
    parts = {task: task.partition(", ") for task in tasks}
    if len(parts) > 1 and len({name for name, _, _ in parts.values()}) == 1:
        return {task: rest for task, (_, _, rest) in parts.items()}
    return {task: _name(name) + comma + rest for task, (name, comma, rest) in parts.items()}


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
