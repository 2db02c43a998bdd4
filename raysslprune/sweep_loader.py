"""Find, execute and check a sweep file before anything trains."""

from __future__ import annotations

import difflib
import importlib.util
import os
import re
import sys
import traceback
import warnings
from collections.abc import Coroutine, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import Any

from raysslprune import catalogue, moved
from raysslprune.messages import USAGE, UserError
from raysslprune.paper.scales import Scale
from raysslprune.spec import SVM, Prune, Recipe, Train, closure, is_text
from raysslprune.sweepfile import Claim, Drawing, Figure, Listing, Point, Search, Unfit

TUNED = re.compile(r"tune_\w+_[0-9a-f]{8}")
"""Pattern of the names of what ``raysslprune tune`` writes."""

BESIDE = ("-runs", "-steps", "-claims", "-magnitudes", "-layers", "-overlap")
"""Reserved suffixes of sweeps' names: they mark the other tables that are written beside a sweep's results."""

MAX_POINTS = 1_000_000
"""Upper limit for the points of a seed, for rows and for claims: an endless loop must not fill the memory."""


class SweepError(UserError):
    """A sweep can't be used."""

    code = USAGE


class NotAtThisScale(SweepError):
    """A figure can't be made at a scale."""


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """A sweep file, loaded, with its points for all seeds, or the rows of its listing.

    given: name or path by which it was loaded; empty if it has no file. looks: if seeds are added until the claims are
    decided, the numbers of seeds at which the claims are judged. part: a sentence on what was left out, if this is a
    part of another sweep (plan.only).
    """

    name: str
    drawing: Drawing
    claims: tuple[Claim, ...]
    points: tuple[Point, ...]
    rows: tuple[tuple[Any, ...], ...] = ()
    looks: tuple[int, ...] = ()
    part: str = ""
    given: str = field(default="", compare=False)


@contextmanager
def refusing(what: str) -> Iterator[None]:
    """Raise a SweepError that begins with ``what`` in place of a ValueError."""
    try:
        yield
    except ValueError as error:
        raise SweepError(f"{what}: {error}") from error


def load(name: str | os.PathLike[str], scale: str, seeds: int | Iterable[int], looks: tuple[int, ...] = ()) -> Sweep:
    """Load a sweep of the package by its name, or a Python file by its path. Raises SweepError.

    seeds: the seeds, or their number, which stands for the seeds from 0 on. looks: those of a sweep that has claims,
    which then has as many seeds as the last look.
    """
    path = _locate(os.path.expanduser(name))
    module = _execute(path)
    drawing = getattr(module, "FIGURE", None)
    if not isinstance(drawing, Drawing):
        raise SweepError(f"{path} needs FIGURE, a raysslprune.Figure")
    if isinstance(drawing, Listing):
        rows = _called(path, module, "rows(scale)", "tuples", scale)
        _check_rows(path, drawing, rows)
        return Sweep(name=path.stem, drawing=drawing, claims=(), points=(), rows=rows, given=str(name))
    claims, points = _claims(path, module, scale), list[Any]()
    looks = looks if claims else ()
    chosen = looks[-1] if looks else seeds
    for seed in range(chosen) if isinstance(chosen, int) else chosen:
        points += _called(path, module, "points(scale, seed)", "raysslprune.Point values", scale, seed)
    whole = tuple(points)
    made = Sweep(name=path.stem, drawing=drawing, claims=claims, points=whole, looks=looks, given=str(name))
    return checked(made, path)


def checked(sweep: Sweep, path: str | Path) -> Sweep:
    """Return the sweep unchanged. Raises a SweepError that names ``path`` if the sweep can't be trained and drawn."""
    if not sweep.points or not all(isinstance(point, Point) for point in sweep.points):
        raise SweepError(f"points(scale, seed) in {path} must give one raysslprune.Point or more, and nothing else")
    _check_names(path, sweep.points)
    _check_metrics(path, sweep.points)
    _check_seeds(path, sweep.points)
    _check_curves(path, sweep.drawing, sweep.claims, sweep.points)
    return sweep


def _claims(path: Path, module: ModuleType, scale: str) -> tuple[Claim, ...]:
    """Return CLAIMS or the result of claims(scale), () if the file has neither. Raises SweepError."""
    name, claims = "CLAIMS", getattr(module, "CLAIMS", ())
    if hasattr(module, "claims"):
        if hasattr(module, "CLAIMS"):
            raise SweepError(f"{path} has both CLAIMS and claims(scale); it can have one of them")
        name, claims = "claims(scale)", _called(path, module, "claims(scale)", "raysslprune.Claim values", scale)
    if not isinstance(claims, tuple) or not all(isinstance(claim, Claim) for claim in claims):
        raise SweepError(f"{name} in {path} must be a tuple of raysslprune.Claim values")
    return claims


def _check_rows(path: Path, drawing: Listing, rows: Sequence[object]) -> None:
    """Raise SweepError if the rows differ in width, or a column mixes words and numbers."""
    width = len(drawing.columns)
    if not rows or not all(isinstance(row, tuple) and len(row) == width for row in rows):
        raise SweepError(f"rows(scale) in {path} must give one tuple or more, each with {width} values, one per column")
    for name, *values in zip(drawing.columns, *rows, strict=True):  # pyright: ignore[reportArgumentType]
        words = all(is_text(value) for value in values)
        numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
        if not words and not numbers:
            raise SweepError(f"rows(scale) in {path} must give only words or only numbers in column {name!r}")


def _called(path: Path, module: ModuleType, signature: str, values: str, *arguments: object) -> tuple[Any, ...]:
    """Call a function of a sweep file by its signature. values: names what it must return. Raises SweepError."""
    function = getattr(module, signature.partition("(")[0], None)
    if not callable(function):
        raise SweepError(f"{path} needs a function {signature} that gives {values}")
    with _located(path, arguments[0]):
        returned: Any = function(*arguments)
        if isinstance(returned, Coroutine):
            returned.close()  # else Python warns that nobody waited for it
            raise TypeError("'coroutine' object is not iterable")
        given = None if returned is None else tuple(islice(returned, MAX_POINTS + 1))
    if given is None:
        raise SweepError(f"{signature} in {path} returned None; it must yield values or return a list")
    if len(given) > MAX_POINTS:
        raise SweepError(f"{signature} in {path} returns more than {MAX_POINTS:,} values; check for an endless loop")
    return given


def _check_names(path: str | Path, points: Sequence[Point]) -> None:
    """Raise SweepError for an unknown task, option, architecture or data set."""
    steps = closure(point.step for point in points)
    trainings = (step for step in steps if isinstance(step, Train))
    criteria = dict.fromkeys(step.criterion for step in steps if isinstance(step, Prune))
    unlike = {(step.task, step.arch, step.data, id(step.recipe)): step for step in trainings}
    with refusing(str(path)):
        for criterion in criteria:
            catalogue.check("criterion", catalogue.CRITERIA, criterion)
        for step in unlike.values():
            catalogue.check("task", catalogue.TASKS, step.task)
            if isinstance(step.recipe, Recipe) and step.task in catalogue.OPTIONS:  # users' tasks are not imported here
                catalogue.made(step.task, catalogue.OPTIONS[step.task], step.recipe.options)
            catalogue.check("architecture", catalogue.ARCHITECTURES, step.arch)
            catalogue.check("data set", catalogue.DATASETS, catalogue.data_parts(step.data)[0])


def _check_metrics(path: str | Path, points: Sequence[Point]) -> None:
    """Raise SweepError for a metric that a training on one of the package's tasks does not have."""
    unlike = {(point.metric, point.step.task, point.step.data, id(point.step.recipe)): point for point in points}
    for point in unlike.values():
        given = catalogue.metrics(point.step)
        if given and point.metric not in given:
            near = difflib.get_close_matches(point.metric, given, 1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            of = "linear SVMs" if isinstance(point.step.recipe, SVM) else f"trainings on {point.step.task}"
            raise SweepError(
                f"{path}: {of} have no metric {point.metric!r} on {point.step.data}; {hint}Known: {', '.join(given)}"
            )


def _check_seeds(path: str | Path, points: Sequence[Point]) -> None:
    """Raise SweepError if one measurement would count twice, which would make its standard error too small."""
    places: set[tuple[object, ...]] = set()
    seeds: dict[tuple[object, ...], int] = {}
    for point in points:
        place = (point.panel, point.task, point.init, point.level, point.metric, point.step.rewind)
        where = f"{point.curve}, level {point.level}"
        if (*place, point.seed) in places:
            raise SweepError(f"{path} gives two points for {where}, seed {point.seed}")
        places.add((*place, point.seed))
        if seeds.setdefault((*place, point.step.id), point.seed) != point.seed:
            raise SweepError(f"{path} gives the same training for every seed at {where}: it must depend on the seed")


def _check_curves(path: str | Path, drawing: Drawing, claims: Sequence[Claim], points: Sequence[Point]) -> None:
    """Raise SweepError for a curve or init without points: it would leave a panel empty after all trainings.

    Of the curves of ``everywhere`` one must have points: others may be of panels that only other scales have.
    """
    curves = dict.fromkeys(point.curve for point in points)
    named = [curve for claim in claims for curve in claim.curves]
    if isinstance(drawing, Figure):
        drawn = [curve for curve in drawing.everywhere if any(curve.covers(other) for other in curves)]
        named += [*drawing.references, *(drawn or drawing.everywhere)]
        inits = dict.fromkeys(curve.init for curve in curves)
        for init in inits if drawing.inits else ():
            if init not in drawing.inits:
                axes = ", ".join(drawing.inits)
                raise SweepError(
                    f"{path} has points with init {init!r}, which is not among its figure's inits ({axes})"
                )
        for init in drawing.inits:
            if init not in inits:
                raise SweepError(f"{path} has no points with init {init!r}, which is among its figure's inits")
    if isinstance(drawing, Search) and len({point.metric == drawing.objective for point in points}) < 2:
        raise SweepError(
            f"{path}: a search chooses by points with the metric {drawing.objective}, as trainings have on a data set "
            "such as digits:25%-held-out, and shows points with another metric; it needs both"
        )
    for curve in named:
        if not any(curve.covers(other) for other in curves):
            raise SweepError(f"{path} names the curve {str(curve)!r}, which has no points")


def known() -> list[str]:
    """Return the names of the package's sweeps."""
    return sorted((path.stem for path in _folder().glob("*.py")), key=_words_and_numbers)


def _words_and_numbers(name: str) -> list[tuple[str, int]]:
    """Make the key that sorts fig2 before fig10."""
    return [(word, int(number or 0)) for word, number in re.findall(r"(\D+)(\d*)", name)]


def _locate(name: str) -> Path:
    if name.endswith(".py") or os.sep in name:
        path = Path(name)
        if not path.is_file():
            raise SweepError(f"there is no sweep file {name}")
        if path.suffix != ".py":
            raise SweepError(f"{name} is not a sweep file: its name must end in .py")
        if path.stem in known() and path.resolve().parent != _folder().resolve():
            raise SweepError(f"{name} would replace the results of the package's own {path.stem}; rename the file")
        if path.stem == "all":
            raise SweepError(f"{name}: 'all' is reserved for all sweeps of the package; rename the file")
        if path.stem.endswith(BESIDE):
            raise SweepError(f"{name} ends in a reserved suffix ({', '.join(BESIDE)}); rename the file")
        return path
    if name not in known():
        own = [f"{name}.py"] if os.path.isfile(f"{name}.py") else []
        near = own or difflib.get_close_matches(name, known(), 1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise SweepError(f"there is no sweep {name!r}; {hint}Known: {', '.join(known())}; or give a .py file")
    return _folder() / f"{name}.py"


def _folder() -> Path:
    """Return sweeps/: inside the package if it was installed from a wheel, beside it in a checkout."""
    here = Path(__file__).parent
    inside = here / "sweeps"
    return inside if inside.is_dir() else here.parent / "sweeps"


def _execute(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"raysslprune_sweep_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)  # dataclasses look up their module
    writes, sys.dont_write_bytecode = sys.dont_write_bytecode, True  # leave nothing beside a user's file
    try:
        with warnings.catch_warnings(), _located(path):
            warnings.simplefilter("ignore", SyntaxWarning)  # mostly for an error on the next line
            spec.loader.exec_module(module)
    finally:
        sys.dont_write_bytecode = writes
    return module


@contextmanager
def _located(path: Path, scale: object = "") -> Iterator[None]:
    """Turn an error that the sweep file raises into a SweepError that names the file's line.

    At a scale of the user's own, values that a figure of the package refuses are the scale's.
    """
    try:
        yield
    except (Exception, SystemExit) as error:
        own = isinstance(scale, Scale) and path.parent == _folder() and isinstance(error, ValueError | KeyError)
        if own or isinstance(error, Unfit):
            why = " ".join(str(error.args[0] if error.args else error).split())
            hint = ""
            if isinstance(scale, Scale) and (end := re.search(r"^can't rewind to .* to (\d+)$", why)):
                hint = f'; shorten the rewind too: --set "rewind={int(end[1]) // 2} samples"'
            raise NotAtThisScale(f"{path.stem} can't be made at scale {scale}: {why:.1000}{hint}") from error
        raise SweepError(moved.advice(error) or _where(path, error)) from error


def _where(path: Path, error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if os.path.abspath(frame.filename) == os.path.abspath(path)]
    line, text = lines[-1] if lines else None, str(error)
    if isinstance(error, SyntaxError):
        line, text = error.lineno, error.msg
    return f"{path}{f', line {line}' if line else ''}: {type(error).__name__}: {' '.join(text.split()):.1000}"
