"""What a sweep file says: the points of a figure, how they are drawn, and the sentences that they can confirm.

Standard library only: a sweep file imports in milliseconds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from raysslprune.spec import Fit, Train, all_of, check_types, is_number, is_text, is_whole, one_of


@dataclass(frozen=True, kw_only=True)
class Point:
    """One measurement of a figure: which training, and where it stands in the figure.

    task: what the mask was pruned on, as ``labels``, ``rotnet``, ``random``.
    init: the weights that the masked network is trained from, as ``winning ticket``, ``random re-init``.
    level: number of prunings so far.
    metric: which of the training's metrics is drawn.
    panel: what else tells the figure's parts apart, as the data set, the network, or how deep it is pruned.
    """

    step: Train
    task: str
    init: str
    level: int
    seed: int
    metric: str = "top1"
    panel: str = ""

    def __post_init__(self) -> None:
        check_types(self, _TYPES)
        for name in ("level", "seed"):
            _demand(0 <= getattr(self, name) < 2**31, f"a point's {name} is not from 0 to 2**31 - 1")

    @property
    def curve(self) -> Curve:
        return Curve(task=self.task, init=self.init, panel=self.panel)


@dataclass(frozen=True, kw_only=True)
class Curve:
    """The points of one task and one init, over levels and seeds. panel: None for that curve of every panel."""

    task: str
    init: str
    panel: str | None = None

    def __post_init__(self) -> None:
        check_types(self, _TYPES)

    def __str__(self) -> str:
        return f"{self.task} {self.init}" + (f" of {self.panel}" if self.panel else "")

    def covers(self, other: Curve) -> bool:
        """Whether this names the curve of one panel, ``other``."""
        return (self.task, self.init) == (other.task, other.init) and self.panel in (None, other.panel)


@dataclass(frozen=True, kw_only=True)
class Dense:
    """In the place of a curve in a claim: what the network of ``curve`` has at level 0, at every density."""

    curve: Curve

    def __post_init__(self) -> None:
        check_types(self, _TYPES)

    def __str__(self) -> str:
        return f"{self.curve}, dense"


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A sentence of the paper that a table can confirm, as data.

    says: the sentence. source: where the paper says so.
    higher, lower: what is compared, seed by seed, at the densities ``within`` (low, high) that both have; in every
        panel that has both, unless a curve names its panel. ``lower`` may be a number.
    relation: ``above`` (higher exceeds lower), ``equal`` (they differ by less than ``margin`` points), ``widens`` (the
        difference grows) or ``narrows``.
    along: what it grows with: ``density``, from the densest to the sparsest point in range; or ``panels``, from the
        first to the last, in the order of the points, each with its mean over the levels in range that both have.
    """

    says: str
    source: str
    higher: Curve | Dense
    lower: Curve | Dense | float
    relation: str
    within: tuple[float, float] = (0.0, 1.0)
    margin: float = 0.0
    along: str = "density"

    def __post_init__(self) -> None:
        check_types(self, _TYPES)
        _demand(self.relation in RELATIONS, f"relation {self.relation!r} is not one of {', '.join(RELATIONS)}")
        _demand((self.margin > 0) == (self.relation == "equal"), "a margin goes with 'equal', and 'equal' needs one")
        _demand(self.along in ALONG, f"along {self.along!r} is not one of {', '.join(ALONG)}")
        _demand(
            self.along == "density" or self.relation in ("widens", "narrows"),
            "along 'panels' goes with 'widens' and 'narrows'",
        )
        two = all(isinstance(side, Curve) and side.panel is None for side in (self.higher, self.lower))
        _demand(self.along == "density" or two, "along 'panels' two curves are compared, of every panel")

    @property
    def curves(self) -> tuple[Curve, ...]:
        """Those that it names."""
        sides = (side.curve if isinstance(side, Dense) else side for side in (self.higher, self.lower))
        return tuple(side for side in sides if isinstance(side, Curve))


RELATIONS = ("above", "equal", "widens", "narrows")
ALONG = ("density", "panels")


@dataclass(frozen=True, kw_only=True)
class Figure:
    """Curves over density: a column of axes for each panel, in the order of the points.

    inits: a row of axes for each of these, in this order (columns, where there is one panel only). Empty: all inits
        are drawn in the same axes.
    x: ``remaining`` weights on a logarithmic axis, or ``pruned`` weights on a linear one, from level 0 on.
    references: curves whose level 0 is drawn as a line through their panel, or through all if they name their panel.
    controls: tasks and inits that the paper does not have; drawn thin.
    everywhere: curves to draw in the other rows too, for comparison.
    colour: whether it is a curve's ``task`` or its ``init`` that has a colour of its own. Inits are then shades, in
        the order of the points.
    """

    title: str
    inits: tuple[str, ...] = ()
    x: str = "remaining"
    references: tuple[Curve, ...] = ()
    controls: tuple[str, ...] = ()
    everywhere: tuple[Curve, ...] = ()
    colour: str = "task"

    def __post_init__(self) -> None:
        check_types(self, _TYPES)
        _demand(self.x in ("remaining", "pruned"), f"a figure's x is 'remaining' or 'pruned', not {self.x!r:.80}")
        _demand(self.colour in ("task", "init"), f"a figure's colour is for 'task' or 'init', not {self.colour!r:.80}")


@dataclass(frozen=True, kw_only=True)
class Magnitudes:
    """Sorted magnitudes of the weights of dense networks: axes for each panel, a line for each init and seed."""

    title: str

    def __post_init__(self) -> None:
        check_types(self, _TYPES)


@dataclass(frozen=True, kw_only=True)
class Search:
    """A search for the best state to rewind to: for each task and level of the points, Optuna chooses among the
    rewinds that they have.

    trials: how many of them it may try in each study; fewer than there are, or nothing would be gained.
    """

    title: str
    trials: int

    def __post_init__(self) -> None:
        check_types(self, _TYPES)
        _demand(self.trials > 0, f"a search needs trials, not {self.trials}")


@dataclass(frozen=True, kw_only=True)
class Listing:
    """A table that needs no training: its rows are what the sweep file's ``rows(scale)`` gives."""

    title: str
    columns: tuple[str, ...]

    def __post_init__(self) -> None:
        check_types(self, _TYPES)
        _demand(len(self.columns) > 0, "a listing needs columns")


Drawing = Figure | Magnitudes | Search | Listing


def _demand(condition: bool, sentence: str) -> None:
    if not condition:
        raise ValueError(sentence)


def _is_finite(item: object) -> bool:
    return is_number(item) and math.isfinite(item)  # pyright: ignore[reportArgumentType]


def _is_range(item: object) -> bool:
    return all_of(_is_finite)(item) and isinstance(item, tuple) and len(item) == 2


MAX_LABEL = 200
"""Characters: of what stands in figures."""


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
"""Of the fields above, by how they are declared. What is wrong would be found out only when all is trained."""
