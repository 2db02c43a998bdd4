"""How curves look and what they are called: colours, markers, line styles, names, sizes of type."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
from matplotlib import colors

from raysslprune.sweepfile import Curve, Figure

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


@contextmanager
def own_style() -> Iterator[None]:
    """Matplotlib's own defaults meanwhile: a figure looks the same whatever a matplotlibrc or a notebook has set."""
    with mpl.rc_context():
        mpl.rcdefaults()
        yield


# ------------------------------------------------------------------------------------- names and looks


def curve_styles(tasks: Iterable[str]) -> dict[str, Look]:
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


def curve_name(task: str) -> str:
    if task.startswith("shuffled "):
        return f"{curve_name(_own(task))}, shuffled"
    name, share, part = _parts(task)
    shown = NAMES.get(name, name)
    if not share:
        return shown
    return f"{share} {shown}" if part == "images" else f"{shown}, {share} of classes"


def panel_title(text: str) -> str:
    return TITLES.get(text, text[:1].upper() + text[1:])


def reference_name(curve: Curve, among: Sequence[Curve]) -> str:
    """Dense, and what tells it from the others."""
    if curve.init in UNTAUGHT:
        return panel_title(curve.init)
    twins = [other for other in among if other.task == curve.task and other.init not in UNTAUGHT]
    parts = ["Dense"]
    parts += [curve_name(curve.task)] if len(among) > 1 else []
    parts += [curve.init] if len({other.init for other in twins}) > 1 else []
    parts += [curve.panel] if curve.panel and len({other.panel for other in twins}) > 1 else []
    return ", ".join(parts)


def several_inits(figure: Figure, curves: Sequence[Curve]) -> list[str]:
    """The inits that must be told apart: those of tasks that have several."""
    often = Counter(task for task, _ in {(curve.task, curve.init) for curve in curves})
    return [*dict.fromkeys(c.init for c in curves if often[c.task] > 1 or figure.colour == "init")]


def look_of(
    figure: Figure, curve: Curve, init: str | None, told: list[str], styles: Mapping[str, Look]
) -> tuple[str, Look]:
    """Its name and style in the axes of ``init``, where the inits ``told`` must be told apart."""
    name, look = curve_name(curve.task), styles[curve.task]
    rank = told.index(curve.init) if curve.init in told else 0
    if {curve.task, curve.init} & {*figure.controls}:
        look = look | CONTROL
    if figure.colour == "init":
        shade = mpl.colormaps[SHADES](0.75 * rank / max(1, len(told) - 1))
        look = look | {"color": colors.to_hex(shade), "marker": MARKERS[rank % len(MARKERS)]}
        look |= {"linestyle": LINES[[*styles].index(curve.task) % len(LINES)]}
        return panel_title(curve.init) if len(styles) == 1 else f"{name}, {curve.init}", look
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


def data_colours(inits: Sequence[str]) -> dict[str, str]:
    known = {init: colour for init in inits for data, colour in DATA.items() if init.lower().startswith(data)}
    spare = [init for init in inits if init not in known]
    return known | {init: OTHER_DATA[number % len(OTHER_DATA)] for number, init in enumerate(spare)}


def samples_in_words(count: int) -> str:
    """As 0, 300, 1.2k, 3.84M."""
    for size, letter in ((1_000_000, "M"), (1_000, "k")):
        if count >= size:
            return f"{count / size:.3g}{letter}"
    return str(count)
