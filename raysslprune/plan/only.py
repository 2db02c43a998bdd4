"""A part of a sweep: the points for which an expression is true, over columns that are known before training.

Python's parser reads the expression, and it is evaluated here: it is data, and can't call anything.
"""

from __future__ import annotations

import ast
import hashlib
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from raysslprune.plan.looks import needs
from raysslprune.sweep_loader import Sweep, SweepError
from raysslprune.sweepfile import Claim, Curve, Dense, Figure, Point

COLUMNS: Mapping[str, Callable[[Point], str | float | None]] = {
    "panel": lambda point: point.panel,
    "task": lambda point: point.task,
    "init": lambda point: point.init,
    "level": lambda point: point.level,
    "density": lambda point: point.step.target_density,
    "rewind": lambda point: point.step.rewind,
    "seed": lambda point: point.seed,
    "metric": lambda point: point.metric,
    "data": lambda point: point.step.data,
    "arch": lambda point: point.step.arch,
}
"""Columns of a table of results that are known before training. The density is the nominal one, before rounding."""

TEXT = {"panel", "task", "init", "metric", "data", "arch"}
"""Columns of text; the others are numbers. A rewind may be None, for which every comparison but ``!=`` is false."""

RELATIONS: Mapping[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.In: lambda item, among: item in among,
    ast.NotIn: lambda item, among: item not in among,
}

PART = "-only-"
"""What stands between the name of a sweep and that of a part of it."""

MAX_WORDS = 40
"""Characters of the expression in the name of the results."""


class NoPoint(SweepError):
    """An expression is true for no point of a sweep."""


Value = str | float | tuple[str | float, ...] | None


def part(sweep: Sweep, text: str) -> Sweep:
    """The points of a sweep for which an expression is true, as a sweep with a name of its own.

    Claims and curves that lack points are left out. Raises SweepError for a wrong expression, or if it leaves no point.
    """
    tree = _parsed(text)
    points = tuple(point for point in sweep.points if _holds(tree, point))
    if not points:
        raise NoPoint(_nothing_left(sweep, tree, text))
    claims = tuple(claim for claim in sweep.claims if _has_points(claim, points))
    gone = len(sweep.claims) - len(claims)
    lacking = f"; {gone} of {len(sweep.claims)} claims lack points, and are left out" if gone else ""
    name = f"{sweep.name}{PART}{_name(tree)}"
    return replace(
        sweep,
        name=name,
        drawing=_drawing(sweep.drawing, points),
        claims=claims,
        points=points,
        part=f"{sweep.name}: {len(points)} of {len(sweep.points)} points, as {name}{lacking}",
    )


def _name(tree: ast.expr) -> str:
    """The expression as a part of a file's name: its words, and a hash, as another one may have the same words."""
    canonical = spelled = ast.unparse(tree)
    for sign, word in (("==", "eq"), ("!=", "ne"), ("<=", "le"), (">=", "ge"), ("<", "lt"), (">", "gt")):
        spelled = spelled.replace(sign, word)
    words = re.sub(r"[^\w.]+", "-", spelled).strip("-")[:MAX_WORDS].strip("-.")
    return f"{words}-{hashlib.sha256(canonical.encode()).hexdigest()[:6]}"


# ------------------------------------------------------------------------------------- expressions


def _parsed(text: str) -> ast.expr:
    """The expression, checked. Raises SweepError."""
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise SweepError(f"--only {text!r:.200} is not an expression such as {EXAMPLE}") from None
    try:
        _check(tree)
    except ValueError as error:
        raise SweepError(f"--only {text!r:.200}: {error}") from None
    return tree


EXAMPLE = "task in ('labels', 'rotnet') and level >= 10"


def _check(tree: ast.expr) -> None:
    """Raise ValueError unless this is a condition: comparisons of columns with values, and, or, not."""
    match tree:
        case ast.BoolOp(values=parts):
            for one in parts:
                _check(one)
        case ast.UnaryOp(op=ast.Not(), operand=one):
            _check(one)
        case ast.Compare(left=left, ops=relations, comparators=others):
            sides = [left, *others]
            for before, relation, after in zip(sides, relations, others, strict=False):
                _check_pair(before, relation, after)
        case _:
            raise ValueError(
                f"{ast.unparse(tree):.80} is no condition; compare {', '.join(COLUMNS)} by == != < <= > >= in, and "
                "join conditions by and, or, not"
            )


def _check_pair(before: ast.expr, relation: ast.cmpop, after: ast.expr) -> None:
    """Raise ValueError unless the two sides of a relation can be compared."""
    if type(relation) not in RELATIONS:
        raise ValueError("values are compared by == != < <= > >= in, not in; not by is")
    kinds = [_kind(side) for side in (before, after)]
    if _is_several(before):
        raise ValueError(f"{ast.unparse(before):.80} must be on the right of in or not in")
    wanted = isinstance(relation, ast.In | ast.NotIn)
    if _is_several(after) != wanted:
        raise ValueError(f"{ast.unparse(after):.80} must be {'several values in ()' if wanted else 'a single value'}")
    if len({kind for kind in kinds if kind}) > 1:
        raise ValueError(f"{ast.unparse(before):.80} is {kinds[0]}, and {ast.unparse(after):.80} is {kinds[1]}")


def _is_several(side: ast.expr) -> bool:
    return isinstance(side, ast.Tuple | ast.List | ast.Set)


def _kind(side: ast.expr) -> str:
    """``text`` or ``a number``; '' for an empty list. Raises ValueError for anything but a column or a constant."""
    match side:
        case ast.Name(id=name) if name in COLUMNS:
            return "text" if name in TEXT else "a number"
        case ast.Name(id=name):
            raise ValueError(f"there is no column {name} before training; known: {', '.join(COLUMNS)}")
        case ast.Tuple(elts=parts) | ast.List(elts=parts) | ast.Set(elts=parts):
            kinds = {_kind(one) for one in parts}
            if len(kinds) > 1:
                raise ValueError(f"{ast.unparse(side):.80} mixes text and numbers")
            return kinds.pop() if kinds else ""
        case ast.UnaryOp(op=ast.USub(), operand=one) if _kind(one) == "a number":
            return "a number"
        case ast.Constant(value=str()):
            return "text"
        case ast.Constant(value=int() | float() as value) if not isinstance(value, bool):
            return "a number"
    raise ValueError(f"{ast.unparse(side):.80} is neither a column nor a value")


def _holds(tree: ast.expr, point: Point) -> bool:
    """Evaluate a checked condition."""
    match tree:
        case ast.BoolOp(op=ast.And(), values=parts):
            return all(_holds(one, point) for one in parts)
        case ast.BoolOp(values=parts):
            return any(_holds(one, point) for one in parts)
        case ast.UnaryOp(operand=one):
            return not _holds(one, point)
        case ast.Compare(left=left, ops=relations, comparators=others):
            values = [_value(side, point) for side in (left, *others)]
            pairs = zip(values, relations, values[1:], strict=False)
            return all(_compared(before, relation, after) for before, relation, after in pairs)
    raise AssertionError(ast.dump(tree))


def _compared(before: Value, relation: ast.cmpop, after: Value) -> bool:
    if before is None or after is None:
        return isinstance(relation, ast.NotEq | ast.NotIn)
    return RELATIONS[type(relation)](before, after)


def _value(side: ast.expr, point: Point) -> Value:
    if isinstance(side, ast.Name):
        return COLUMNS[side.id](point)
    value: Value = ast.literal_eval(side)
    return tuple(value) if isinstance(value, list | set) else value  # pyright: ignore[reportUnnecessaryIsInstance]


def _nothing_left(sweep: Sweep, tree: ast.expr, text: str) -> str:
    """Say that no point is left, and the values that the columns of the expression have."""
    if not sweep.points:
        return f"{sweep.name} is a table without points, so --only can't choose among them"
    names = dict.fromkeys(node.id for node in ast.walk(tree) if isinstance(node, ast.Name))
    has = [f"{name}: {', '.join(_values(name, sweep.points))}" for name in names]
    return f"{sweep.name} has no point for which --only {text!r:.200} is true; it has {'; '.join(has)}"


def _values(name: str, points: Sequence[Point]) -> list[str]:
    values = {value for point in points if (value := COLUMNS[name](point)) is not None}
    shown = [value if isinstance(value, str) else f"{value:.4g}" for value in sorted(values)]  # pyright: ignore
    return shown if len(shown) <= 20 else [*shown[:19], "..."]


# ------------------------------------------------------------------------------------- what is left of a sweep


def _has_points(claim: Claim, points: Sequence[Point]) -> bool:
    """True if both sides of a claim have points that it compares."""
    sides = [side for side in (claim.higher, claim.lower) if isinstance(side, Curve | Dense)]
    return all(any(needs(replace(claim, higher=side, lower=side), "", point) for point in points) for side in sides)


def _drawing(drawing: Any, points: Sequence[Point]) -> Any:
    """The drawing without curves and inits that have no points."""
    if not isinstance(drawing, Figure):
        return drawing
    inits = {point.init for point in points}
    return replace(
        drawing,
        inits=tuple(init for init in drawing.inits if init in inits),
        references=_with_points(drawing.references, points),
        everywhere=_with_points(drawing.everywhere, points),
    )


def _with_points(curves: Sequence[Curve], points: Sequence[Point]) -> tuple[Curve, ...]:
    return tuple(curve for curve in curves if any(curve.covers(point.curve) for point in points))
