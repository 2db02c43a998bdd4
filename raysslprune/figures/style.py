"""Style of curves and text: colours, markers, line styles, names, font sizes."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
from matplotlib import colors

from raysslprune.paper.experiments import PROPER_NAMES
from raysslprune.sweepfile import Curve, Figure

Look = dict[str, Any]
Rows = list[dict[str, Any]]
Place = tuple[int, int]  # row and column

# A colour, marker and line for each task in all figures. Tasks of one figure differ in grey print, and as seen with
# each kind of colour blindness; black is left to the dense network.
STYLE: dict[str, Look] = {
    "labels": {"color": "#003f7d", "marker": "o", "linestyle": "-"},
    "labels on classes": {"color": "#6a1fb0", "marker": ">", "linestyle": "-"},
    "exemplar": {"color": "#00694d", "marker": "^", "linestyle": "-"},
    "few labels": {"color": "#a83bb0", "marker": "<", "linestyle": "-"},
    "rotnet": {"color": "#d55e00", "marker": "s", "linestyle": "-"},
    "npid": {"color": "#d86f96", "marker": "D", "linestyle": "-"},
    "random": {"color": "#b3b3b3", "marker": "X", "linestyle": "-"},
    "s4l": {"color": "#35a8e8", "marker": "v", "linestyle": "-"},
}
SPARE = [
    {"color": "#6b4a10", "marker": "P", "linestyle": "-"},
    {"color": "#45b36b", "marker": "*", "linestyle": "-"},
    {"color": "#1f5fe0", "marker": "h", "linestyle": "-"},
    {"color": "#9080fc", "marker": "p", "linestyle": "-"},
]
"""Looks of tasks newer than the paper, and of a user's own tasks, in the order in which they first appear."""

SHADES = "viridis"
"""Colour map of densities: its order is visible to the colour-blind and in grey print."""

INITS = colors.LinearSegmentedColormap.from_list("inits", ["#3a1a86", "#c0283f", "#1f95b5", "#e8ad3a"])
"""Colour map of inits, which differ in hue and, from dark to light, in grey print."""

DATA = {"cifar": "#2ca02c", "imagenet": "#c0182b"}
"""Colours of magnitudes, as in the paper, by the first letters of their init, in lower case."""

OTHER_DATA = ("#0072b2", "#e69f00", "#9467bd", "#66bdf0")
LINES = ("-", "--", "-.", ":")
MARKERS = "osD^vP*X"
HOLLOW = {"linestyle": "--", "markerfacecolor": "white"}
HOLLOW_ERK = HOLLOW | {"linestyle": "-.", "marker": "d"}
CONTROL = {"linewidth": 0.8, "markersize": 2.8, "linestyle": ":", "markerfacecolor": "white"}
RING: Look = {"color": "black", "marker": "o", "linestyle": "none", "markerfacecolor": "none", "markersize": 9}
NAMES = PROPER_NAMES | {
    "labels": "Labels",
    "random": "Random",
    "random nonzero": "Random, non-zero weights",
    "random erk": "Random, ERK",
    "few labels": "Few labels",
}
TITLES = {"winning ticket": "Winning tickets"}
METRICS = {
    "top1": "Top-1 accuracy (%)",
    "top1_validation": "Top-1 accuracy on held-out images (%)",
    "map": "Mean average precision (%)",
    "natural_sparsity": "Natural sparsity (%)",
}
UNTAUGHT = ("untrained", "untrained, drawn anew", "from scratch")
"""Inits for which the task does not matter."""

PRECISION = 2.0**-23
"""Machine precision of float32: the bottom of an axis of magnitudes, at which smaller values are drawn."""

TEXT_WIDTH = 6.9
"""Text width of a page in inches. Figures are drawn at this width, so that their font sizes are right in print."""

PHONE_WIDTH = 3.6
"""Width of the narrow form of a figure in inches: on the screen of a phone its letters can be read."""

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
"""Settings for more than two columns of axes."""


@contextmanager
def own_style() -> Iterator[None]:
    """Apply Matplotlib's defaults: figures look the same whatever a matplotlibrc or a notebook sets."""
    with mpl.rc_context():
        mpl.rcdefaults()
        yield


# ------------------------------------------------------------------------------------- names and looks


def curve_styles(tasks: Iterable[str]) -> dict[str, Look]:
    """Looks by task. Shuffled masks and the variants of random masks look like the plain ones, but hollow.

    ERK's masks, which stand beside random ones in many figures, have a marker of their own too.
    """
    tasks, looks, used = list(tasks), dict[str, Look](), set[str]()
    for task in dict.fromkeys(_own(task) for task in tasks):
        kind = _kind(task)
        if kind in STYLE and kind not in used:
            looks[task] = STYLE[kind]
            used.add(kind)
        else:
            again, spare = divmod(len(looks) - len(used), len(SPARE))
            looks[task] = SPARE[spare] | {"linestyle": LINES[again % len(LINES)]}
    return {task: looks[_own(task)] | _variant(task) for task in tasks}


def _own(task: str) -> str:
    return task.removeprefix("shuffled ").removesuffix(" nonzero").removesuffix(" erk")


def _variant(task: str) -> Look:
    if task == _own(task):
        return {}
    return HOLLOW_ERK if task.endswith(" erk") else HOLLOW


def _kind(task: str) -> str:
    """Return the key in STYLE of a task: on a subset, that of the task on all images, except for labels."""
    name, share, part = _parts(task)
    return {"images": "few labels", "classes": "labels on classes"}[part] if share and name == "labels" else name


def _parts(task: str) -> tuple[str, str, str]:
    """Split ``labels:10%-of-images`` into (labels, 10%, images); the last two may be empty."""
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
    """Name of a reference: "Dense", and what distinguishes it from the others."""
    if curve.init in UNTAUGHT:
        return panel_title(curve.init)
    twins = [other for other in among if other.task == curve.task and other.init not in UNTAUGHT]
    parts = ["Dense"]
    parts += [curve_name(curve.task)] if len(among) > 1 else []
    parts += [curve.init] if len({other.init for other in twins}) > 1 else []
    parts += [curve.panel] if curve.panel and len({other.panel for other in twins}) > 1 else []
    return ", ".join(parts)


def inits_to_name(figure: Figure, curves: Sequence[Curve]) -> list[str]:
    """Return the inits that curves' names or looks must show: those of tasks with several; all if inits set colours."""
    often = Counter(task for task, _ in {(curve.task, curve.init) for curve in curves})
    return [*dict.fromkeys(c.init for c in curves if often[c.task] > 1 or figure.colour == "init")]


def look_of(
    figure: Figure, curve: Curve, init: str | None, named: list[str], styles: Mapping[str, Look]
) -> tuple[str, Look]:
    """Name and look of a curve in the axes of ``init``. named: as :func:`inits_to_name` returns it."""
    name, look = curve_name(curve.task), styles[curve.task]
    rank = named.index(curve.init) if curve.init in named else 0
    if {curve.task, curve.init} & {*figure.controls}:
        look = look | CONTROL
        controls = [other for other in named if other in figure.controls]
        if curve.init in controls[1:]:  # a task's second control
            number = controls.index(curve.init)
            look |= {"linestyle": LINES[(number + 1) % len(LINES)]} | _marker(look, number, styles)
    if figure.colour == "init":
        shade = INITS(rank / max(1, len(named) - 1))
        look = look | {"color": colors.to_hex(shade), "marker": MARKERS[rank % len(MARKERS)]}
        look |= {"linestyle": LINES[[*styles].index(curve.task) % len(LINES)]}
        return panel_title(curve.init) if len(styles) == 1 else f"{name}, {curve.init}", look
    if curve.init in named and curve.init != init:
        name = f"{name}, {curve.init}"
    if rank and look is styles[curve.task]:
        look = look | {"linestyle": LINES[rank % len(LINES)]} | _marker(look, rank, styles)
    return name, look


def _marker(look: Look, rank: int, styles: Mapping[str, Look]) -> Look:
    """Marker of a task's further init, since a single point shows no line: hollow, then shapes that no task has."""
    is_hollow = "markerfacecolor" in look
    if rank == 1 and not is_hollow:
        return {"markerfacecolor": "white"}
    taken = {style["marker"] for style in styles.values()}
    free = [marker for marker in MARKERS if marker not in taken] or MARKERS
    return {"marker": free[(rank - 2 + is_hollow) % len(free)]}


def data_colours(inits: Sequence[str]) -> dict[str, str]:
    """Colours of magnitudes by init: fixed ones for known data."""
    known = {init: colour for init in inits for data, colour in DATA.items() if init.lower().startswith(data)}
    spare = [init for init in inits if init not in known]
    return known | {init: OTHER_DATA[number % len(OTHER_DATA)] for number, init in enumerate(spare)}


def samples_in_words(count: int) -> str:
    """Write a count as 0, 300, 1.2k, 3.84M."""
    for size, letter in ((1_000_000, "M"), (1_000, "k")):
        if count >= size:
            return f"{count / size:.3g}{letter}"
    return str(count)
