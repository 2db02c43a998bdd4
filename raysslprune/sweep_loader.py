"""Find, execute and check a sweep file before anything trains."""

from __future__ import annotations

import difflib
import importlib.util
import inspect
import os
import re
import sys
import traceback
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import Any

from raysslprune import catalogue, moved
from raysslprune.spec import SVM, Recipe, Rewind, Train, closure, is_text
from raysslprune.sweepfile import Claim, Drawing, Figure, Listing, Point

BESIDE = ("-runs", "-magnitudes", "-layers", "-overlap")
"""Reserved suffixes: of the tables that stand beside a sweep's results."""

MAX_POINTS = 1_000_000
"""Points of a seed, rows, or claims: who gives more will go on until the memory is full."""


class SweepError(Exception):
    """A sweep file can't be used. The message is a sentence for the user."""


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """A sweep file, loaded, with its points for all seeds, or the rows of its listing."""

    name: str
    drawing: Drawing
    claims: tuple[Claim, ...]
    points: tuple[Point, ...]
    rows: tuple[tuple[Any, ...], ...] = ()


def load(name: str | os.PathLike[str], scale: str, seeds: int) -> Sweep:
    """The sweep by its name in sweeps/, or by the path of a Python file. Raises SweepError."""
    path = _locate(os.path.expanduser(name))
    module = _execute(path)
    drawing = getattr(module, "FIGURE", None)
    if not isinstance(drawing, Drawing):
        raise SweepError(f"{path} needs FIGURE, a raysslprune.Figure")
    if isinstance(drawing, Listing):
        rows = tuple(_called(path, module, "rows", "rows(scale) that gives tuples", scale))
        _check_rows(path, drawing, rows)
        return Sweep(name=path.stem, drawing=drawing, claims=(), points=(), rows=rows)
    stated = _stated(path, module, scale)
    wanted = "points(scale, seed) that gives raysslprune.Point values"
    points = tuple(point for seed in range(seeds) for point in _called(path, module, "points", wanted, scale, seed))
    if not points or not all(isinstance(point, Point) for point in points):
        raise SweepError(f"points(scale, seed) in {path} must give one raysslprune.Point or more, and nothing else")
    sweep = Sweep(name=path.stem, drawing=drawing, claims=stated, points=points)
    check(sweep, path)
    return sweep


def check(sweep: Sweep, path: Path) -> None:
    """Raise SweepError, which names ``path``, where points, claims and figure do not fit, or a name is not known."""
    _check_names(path, sweep.points)
    _check_metrics(path, sweep.points)
    _check_seeds(path, sweep.points)
    _check_curves(path, sweep.drawing, sweep.claims, sweep.points)


def _stated(path: Path, module: ModuleType, scale: str) -> tuple[Claim, ...]:
    """What CLAIMS or claims(scale) says; neither: nothing. Raises SweepError."""
    stated: Any = getattr(module, "CLAIMS", ())
    if not isinstance(stated, tuple) or not all(isinstance(claim, Claim) for claim in stated):
        raise SweepError(f"CLAIMS in {path} must be a tuple of raysslprune.Claim")
    if not hasattr(module, "claims"):
        return stated
    if hasattr(module, "CLAIMS"):
        raise SweepError(f"{path} has both CLAIMS and claims(scale); it can have one of them")
    wanted = "claims(scale) that gives raysslprune.Claim values"
    stated = tuple(_called(path, module, "claims", wanted, scale))
    if not all(isinstance(claim, Claim) for claim in stated):
        raise SweepError(f"claims(scale) in {path} must give raysslprune.Claim values, and nothing else")
    return stated


def _check_rows(path: Path, drawing: Listing, rows: Sequence[object]) -> None:
    """Raise SweepError for rows that are no table: of another width, or with a column of words and numbers."""
    width = len(drawing.columns)
    if not rows or not all(isinstance(row, tuple) and len(row) == width for row in rows):
        raise SweepError(f"rows(scale) in {path} must give one tuple or more, each of {width}, as there are columns")
    for name, *values in zip(drawing.columns, *rows, strict=True):  # pyright: ignore[reportArgumentType]
        words = all(is_text(value) for value in values)
        numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
        if numbers and any(isinstance(value, int) and abs(value) > 2**53 for value in values):
            raise SweepError(f"rows(scale) in {path} must give numbers up to 2**53 in column {name!r}")
        if not words and not numbers:
            raise SweepError(f"rows(scale) in {path} must give words alone or numbers alone in column {name!r}")


def _called(path: Path, module: ModuleType, name: str, wanted: str, *arguments: object) -> list[Any]:
    """What a function of a sweep file gives, as a list. Raises SweepError."""
    function = getattr(module, name, None)
    if not callable(function) or inspect.iscoroutinefunction(function):
        raise SweepError(f"{path} needs a function {wanted}")
    try:
        returned: Any = function(*arguments)
        if returned is None:
            raise SweepError(f"{name} in {path} gave nothing: does it yield, or return a list?")
        given = list(islice(returned, MAX_POINTS + 1))
    except (KeyboardInterrupt, SweepError):
        raise
    except BaseException as error:  # whatever a file may raise, SystemExit too
        raise SweepError(_where(path, error)) from error
    if len(given) > MAX_POINTS:
        raise SweepError(f"{name} in {path} gives more than {MAX_POINTS:,}: does it ever end?")
    return given


def _check_names(path: Path, points: Sequence[Point]) -> None:
    """Raise SweepError for a task, an option of it, an architecture or a data set that nobody knows."""
    trainings = [step for step in closure(point.step for point in points) if isinstance(step, Train)]
    try:
        for task in dict.fromkeys(step.task for step in trainings):
            catalogue.check("task", catalogue.TASKS, task)
        for step in {(step.task, id(step.recipe)): step for step in trainings}.values():
            if isinstance(step.recipe, Recipe) and step.task in catalogue.OPTIONS:  # a user's own is not imported here
                catalogue.made(step.task, catalogue.OPTIONS[step.task], step.recipe.options)
        for arch in dict.fromkeys(step.arch for step in trainings):
            catalogue.check("architecture", catalogue.ARCHITECTURES, arch)
        for data in dict.fromkeys(step.data for step in trainings):
            catalogue.check("data set", catalogue.DATASETS, catalogue.data_parts(data)[0])
    except ValueError as error:
        raise SweepError(f"{path}: {error}") from error


def _check_metrics(path: Path, points: Sequence[Point]) -> None:
    """Raise SweepError for a metric that a training of the package's tasks does not have."""
    kinds = {(point.metric, point.step.task, point.step.data, id(point.step.recipe)): point for point in points}
    for point in kinds.values():
        given = catalogue.metrics(point.step)
        if given and point.metric not in given:
            near = difflib.get_close_matches(point.metric, given, 1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            of = "linear SVMs" if isinstance(point.step.recipe, SVM) else f"trainings on {point.step.task}"
            raise SweepError(
                f"{path}: {of} have no metric {point.metric!r} on {point.step.data}; {hint}Known: {', '.join(given)}"
            )


def _check_seeds(path: Path, points: Sequence[Point]) -> None:
    """Raise SweepError where one measurement would be counted twice: its standard error would be a lie."""
    places: set[tuple[object, ...]] = set()
    seeds: dict[tuple[object, ...], int] = {}
    for point in points:
        start = point.step.start
        rewind = start.samples if isinstance(start, Rewind) else None
        place = (point.panel, point.task, point.init, point.level, point.metric, rewind)
        where = f"{point.curve}, level {point.level}"
        if (*place, point.seed) in places:
            raise SweepError(f"{path} gives two points for {where}, seed {point.seed}")
        places.add((*place, point.seed))
        if seeds.setdefault((*place, point.step.id), point.seed) != point.seed:
            raise SweepError(f"{path} gives the same training for every seed at {where}: it must depend on the seed")


def _check_curves(path: Path, drawing: Drawing, stated: Sequence[Claim], points: Sequence[Point]) -> None:
    """Raise SweepError where a name is wrong: it would be found out only when all is trained, as an empty panel."""
    curves = dict.fromkeys(point.curve for point in points)
    named = [curve for claim in stated for curve in claim.curves]
    if isinstance(drawing, Figure):
        named += [*drawing.references, *drawing.everywhere]
        for init in dict.fromkeys(curve.init for curve in curves) if drawing.inits else ():
            if init not in drawing.inits:
                inits = ", ".join(drawing.inits)
                raise SweepError(f"{path} has points with init {init!r}, which is none of its figure's inits ({inits})")
        for init in drawing.inits:
            if all(curve.init != init for curve in curves):
                raise SweepError(f"{path} has no points with init {init!r}, which its figure has a place for")
    for curve in named:
        if not any(curve.covers(known) for known in curves):
            raise SweepError(f"{path} names the curve {str(curve)!r}, which none of its points is on")


def known() -> list[str]:
    """Names of the sweeps that come with the package."""
    return sorted((path.stem for path in _folder().glob("*.py")), key=_in_words_and_numbers)


def _in_words_and_numbers(name: str) -> list[tuple[str, int]]:
    """So that fig2 comes before fig10."""
    return [(word, int(number or 0)) for word, number in re.findall(r"(\D+)(\d*)", name)]


def _locate(name: str) -> Path:
    if name.endswith(".py") or os.sep in name:
        path = Path(name)
        if not path.is_file():
            raise SweepError(f"there is no sweep file {name}")
        if path.suffix != ".py":
            raise SweepError(f"{name} is no sweep file: its name must end in .py")
        if path.stem in known() and path.resolve().parent != _folder().resolve():
            raise SweepError(f"{name} would replace the results of the package's own {path.stem}; rename the file")
        if path.stem == "all":
            raise SweepError(f"{name}: 'all' is reserved for all sweeps of the package; rename the file")
        if path.stem.endswith(BESIDE):
            raise SweepError(f"{name} ends in a reserved suffix ({', '.join(BESIDE)}); rename the file")
        return path
    path = _folder() / f"{name}.py"
    if name not in known():
        own = [f"{name}.py"] if os.path.isfile(f"{name}.py") else []
        near = own or difflib.get_close_matches(name, known(), 1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise SweepError(f"there is no sweep {name!r}; {hint}Known: {', '.join(known())}; or give a .py file")
    return path


def _folder() -> Path:
    """sweeps/: inside the package where it was installed from a wheel, beside it in a checkout."""
    here = Path(__file__).parent
    inside = here / "sweeps"
    return inside if inside.is_dir() else here.parent / "sweeps"


def _execute(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"raysslprune_sweep_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)  # dataclasses look their module up
    writes, sys.dont_write_bytecode = sys.dont_write_bytecode, True  # leave nothing beside a user's file
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)  # of what is an error a line later, most of the time
            spec.loader.exec_module(module)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # whatever a file may raise, SystemExit too
        raise SweepError(_where(path, error)) from error
    finally:
        sys.dont_write_bytecode = writes
    return module


def _where(path: Path, error: BaseException) -> str:
    """The error as one sentence, with the line of the sweep file that it came from."""
    if advice := moved.advice(error):
        return advice
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if os.path.abspath(frame.filename) == os.path.abspath(path)]
    line = error.lineno if isinstance(error, SyntaxError) else lines[-1] if lines else None
    try:
        text = error.msg if isinstance(error, SyntaxError) else " ".join(str(error).split())
    except Exception:  # an error of the file's own, that can't say what it is
        text = "no more is known"
    return f"{path}{f', line {line}' if line else ''}: {type(error).__name__}: {text:.1000}"
