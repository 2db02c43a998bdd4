"""Contents of a sweep file: the points of a figure, how they are drawn, and the claims that they can confirm.

Standard library only: a sweep file imports in milliseconds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from raysslprune.spec import Fit, Train, all_of, check_types, is_number, is_text, is_whole, one_of


class Unfit(ValueError):
    """A figure can't be made at a scale. The message says why."""


class _Checked:
    """Base of the classes below: checks each field by its declared type."""

    def __post_init__(self) -> None:
        check_types(self, _TYPES)


@dataclass(frozen=True, kw_only=True)
class Point(_Checked):
    """One measurement of a figure: a training, and its place in the figure.

    task: task that the mask was pruned on, such as ``labels``, ``rotnet``, ``random``.
    init: weights that the masked network is trained from, such as ``winning ticket``, ``random re-init``.
    level: number of prunings so far.
    metric: metric of the training to draw.
    panel: whatever else distinguishes the figure's parts, such as the data set, the network, or the pruning scope.
    """

    step: Train
    task: str
    init: str
    level: int
    seed: int
    metric: str = "top1"
    panel: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("level", "seed"):
            _demand(0 <= getattr(self, name) < 2**31, f"a point's {name} is not from 0 to 2**31 - 1")

    @property
    def curve(self) -> Curve:
        return Curve(task=self.task, init=self.init, panel=self.panel)


PILOT_SEED = 1_000
"""The first of the seeds by which recipes and margins are chosen: no figure counts these."""


@dataclass(frozen=True, kw_only=True)
class Curve(_Checked):
    """The points of one task and one init, over levels and seeds. panel: None for all panels."""

    task: str
    init: str
    panel: str | None = None

    def __str__(self) -> str:
        return f"{self.task} {self.init}" + (f" of {self.panel}" if self.panel else "")

    def covers(self, other: Curve) -> bool:
        """Return whether this curve names ``other``, which is a curve of one panel."""
        return (self.task, self.init) == (other.task, other.init) and self.panel in (None, other.panel)


@dataclass(frozen=True, kw_only=True)
class Dense(_Checked):
    """The dense network of ``curve``, as a side of a claim: its value at level 0, the same at every density."""

    curve: Curve

    def __str__(self) -> str:
        return f"{self.curve}, dense"


@dataclass(frozen=True, kw_only=True)
class Claim(_Checked):
    """A sentence of the paper that a table can confirm, as data.

    says: the sentence. source: where the paper says so.
    higher, lower: the sides compared, seed by seed, at the densities that both have; in every panel that has both,
        unless a curve names its panel. ``lower`` may be a number.
    within: lowest and highest density at which they are compared.
    relation: ``above`` (higher exceeds lower), ``not worse`` (it exceeds lower minus ``margin`` points), ``equal``
        (they differ by less than ``margin`` points), ``widens`` (the difference grows) or ``narrows``.
    margin: difference that does not matter, in points.
    at: ``mean`` over the densities in range; or ``each``, for a sentence that must be true at each of them.
    along: axis of the growth: ``density``, from the densest to the sparsest point in range; or ``panels``, from the
        first to the last, in the order of the points, each with its mean over the levels in range that both have.
    """

    says: str
    source: str
    higher: Curve | Dense
    lower: Curve | Dense | float
    relation: str
    within: tuple[float, float] = (0.0, 1.0)
    margin: float = 0.0
    at: str = "mean"
    along: str = "density"

    def __post_init__(self) -> None:
        super().__post_init__()
        _demand(self.relation in RELATIONS, f"relation {self.relation!r} is not one of {', '.join(RELATIONS)}")
        _demand(
            (self.margin > 0) == (self.relation in ("equal", "not worse")),
            "relations 'equal' and 'not worse' need a margin; other relations must not have one",
        )
        _demand(self.at in AT, f"at {self.at!r} is not one of {', '.join(AT)}")
        _demand(
            self.at == "mean" or self.relation in ("above", "equal", "not worse"),
            "at 'each' needs relation 'above', 'equal' or 'not worse'",
        )
        _demand(self.along in ALONG, f"along {self.along!r} is not one of {', '.join(ALONG)}")
        _demand(
            self.along == "density" or self.relation in ("widens", "narrows"),
            "along 'panels' needs relation 'widens' or 'narrows'",
        )
        two = all(isinstance(side, Curve) and side.panel is None for side in (self.higher, self.lower))
        _demand(self.along == "density" or two, "along 'panels' needs two curves without a panel")

    @property
    def curves(self) -> tuple[Curve, ...]:
        """The curves that the claim names."""
        sides = (side.curve if isinstance(side, Dense) else side for side in (self.higher, self.lower))
        return tuple(side for side in sides if isinstance(side, Curve))


RELATIONS = ("above", "not worse", "equal", "widens", "narrows")
AT = ("mean", "each")
ALONG = ("density", "panels")


@dataclass(frozen=True, kw_only=True)
class Figure(_Checked):
    """Curves over density: a column of axes for each panel, in the order of the points.

    title: of the picture and of its table.
    inits: a row of axes for each of these, in this order (a column, if there is only one panel). Empty: all inits
        are drawn in the same axes.
    x: ``remaining`` weights; or ``pruned`` weights, from level 0 on. Both on an axis of the logarithm of what remains.
    references: curves whose level 0 is drawn as a horizontal line, in their panel, or in all if they name their panel.
    controls: tasks and inits that are not in the paper; drawn thin.
    everywhere: curves to draw in the other rows too, for comparison, in the panels that have them.
    colour: ``task`` or ``init``, whichever sets a curve's colour. Inits get shades, in the order of the points.
    """

    title: str
    inits: tuple[str, ...] = ()
    x: str = "remaining"
    references: tuple[Curve, ...] = ()
    controls: tuple[str, ...] = ()
    everywhere: tuple[Curve, ...] = ()
    colour: str = "task"

    def __post_init__(self) -> None:
        super().__post_init__()
        _demand(self.x in ("remaining", "pruned"), f"a figure's x is 'remaining' or 'pruned', not {self.x!r:.80}")
        _demand(self.colour in ("task", "init"), f"a figure's colour is for 'task' or 'init', not {self.colour!r:.80}")


@dataclass(frozen=True, kw_only=True)
class Magnitudes(_Checked):
    """Sorted magnitudes of the weights of dense networks: axes for each panel, a line for each init and seed."""

    title: str


@dataclass(frozen=True, kw_only=True)
class Search(_Checked):
    """A search for the best state to rewind to, for each task and level of the points: successive halving of their
    rewinds over seeds, recorded by Optuna.

    objective: metric to maximise. Points with other metrics show what the choices come to on test images.
    """

    title: str
    objective: str = "top1_validation"


@dataclass(frozen=True, kw_only=True)
class Tuning(_Checked):
    """A search for the best recipe of a task among those of the points: successive halving over seeds, as in Search.

    objective: metric to maximise, which all points have. over: the recipe's fields that differ; an option of the task
    as ``options.margin``.
    """

    title: str
    objective: str
    over: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Listing(_Checked):
    """A table that needs no training: the sweep file's ``rows(scale)`` gives its rows."""

    title: str
    columns: tuple[str, ...]

    def __post_init__(self) -> None:
        super().__post_init__()
        _demand(len(self.columns) > 0, "a listing needs columns")


Drawing = Figure | Magnitudes | Search | Tuning | Listing


def _demand(condition: bool, sentence: str) -> None:
    if not condition:
        raise ValueError(sentence)


def _is_finite(item: object) -> bool:
    return is_number(item) and math.isfinite(item)  # pyright: ignore[reportArgumentType]


def _is_range(item: object) -> bool:
    return all_of(_is_finite)(item) and isinstance(item, tuple) and len(item) == 2


MAX_LABEL = 200
"""Maximum number of characters of a label in a figure."""


def _is_label(item: object) -> bool:
    return is_text(item) and str(item).isprintable() and len(str(item)) <= MAX_LABEL


_LABEL = f"printable text of at most {MAX_LABEL} characters"

_TYPES: Mapping[str, Fit] = {
    "Train": (one_of(Train), "a Train"),
    "str": (_is_label, _LABEL),
    "str | None": (lambda item: item is None or _is_label(item), f"{_LABEL}, or None"),
    "int": (is_whole, "a whole number"),
    "float": (_is_finite, "a number"),
    "tuple[float, float]": (_is_range, "two densities"),
    "Curve": (one_of(Curve), "a curve"),
    "Curve | Dense": (one_of(Curve, Dense), "a curve"),
    "Curve | Dense | float": (lambda item: one_of(Curve, Dense)(item) or _is_finite(item), "a curve or a number"),
    "tuple[str, ...]": (all_of(_is_label), f"a tuple, each of {_LABEL}"),
    "tuple[Curve, ...]": (all_of(one_of(Curve)), "a tuple of curves"),
}
"""Tests of the fields above, by declared type. Without them an error would show only after all trainings."""
