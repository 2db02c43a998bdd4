"""What a finished step is to a tracker: a run with parameters, metrics, a learning curve and tags."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields
from typing import Any, Protocol

from raysslprune.results.steps import OPTION, STEPS, steps
from raysslprune.spec import SVM, Mask, Recipe, Step, Train, closure
from raysslprune.store.record import CURVE, Record
from raysslprune.sweep_loader import Sweep
from raysslprune.words import describe, title

_OF_STEP = ("kind", "task", "data", "arch", "seed", "start", "rewind", "trunk_frozen", "level", "keep", "scope")
_OF_RECIPE = tuple(one.name for kind in (Recipe, SVM) for one in fields(kind) if one.name != "options")
_MEASURED = ("density", "density_of_all", "multiply_adds", "seconds", "images_per_second")


@dataclass(frozen=True, kw_only=True)
class Run:
    """A finished step.

    parameters: fields of the step and its recipe, options of its task. metrics: at the end. curve: metrics by samples
    seen. tags: the step's id, its parents, its device, and its place in the figures. begun: seconds since 1970.
    """

    step: str
    name: str
    parameters: Mapping[str, Any]
    metrics: Mapping[str, float]
    curve: Mapping[int, Mapping[str, float]]
    tags: Mapping[str, str]
    begun: float
    seconds: float


class Tracker(Protocol):
    """A tracker. Its methods raise an exception, whichever, if it can't be reached."""

    def known(self) -> set[str]:
        """Return the ids of the steps that it has."""
        ...

    def add(self, run: Run) -> None:
        """Add a step. If an earlier call was cut short, complete that run."""
        ...


def runs(sweeps: Collection[Sweep], scale: str, records: Mapping[str, Record], without: Collection[str]) -> list[Run]:
    """Return a run for each finished step of the sweeps that is not in ``without``, parents first."""
    points = [point for sweep in sweeps for point in sweep.points]
    made = {step.id: step for step in closure(point.step for point in points)}
    new = {i for i in made if i in records} - set(without)
    needed = new | {parent.id for i in new for parent in made[i].parents}
    known = {i: records[i] for i in needed if i in records}
    places = _places(sweeps)
    found = []
    for row in steps(points, known).to_pylist() if new else []:
        if (step_id := row["step"]) in new:
            step, tags = made[step_id], {"scale": scale, **places.get(step_id, {})}
            name = _name(step)
            found.append(_run(row, name, tags, dict(records[step_id].facts)))
    return found


def _name(step: Step) -> str:
    if isinstance(step, Train):
        return title(step)
    return describe(step) if isinstance(step, Mask) else f"imported weights {step.id}"


def _run(row: Mapping[str, Any], name: str, tags: Mapping[str, str], facts: Mapping[str, Any]) -> Run:
    given = {key: value for key, value in row.items() if value is not None}
    options = {key.removeprefix(OPTION): value for key, value in given.items() if key.startswith(OPTION)}
    metrics = {
        key: float(value) for key, value in given.items() if key not in STEPS.names and not key.startswith(OPTION)
    }
    own = {key: str(given[key]) for key in ("step", "task", "level", "seed", "device") if key in given}
    return Run(
        step=row["step"],
        name=name,
        parameters={key: given[key] for key in (*_OF_STEP, *_OF_RECIPE) if key in given} | options,
        metrics=metrics | {key: float(given[key]) for key in _MEASURED if key in given},
        curve=dict(facts.get(CURVE, ())),
        tags={**own, **tags, "parents": " ".join(row["parents"])},
        begun=facts.get("begun", 0.0),
        seconds=facts.get("seconds", 0.0),
    )


def _places(sweeps: Collection[Sweep]) -> dict[str, dict[str, str]]:
    """Map step to its place in the figures: of several, all that differ, with commas between."""
    found: dict[str, dict[str, dict[str, None]]] = {}
    for sweep in sweeps:
        for point in sweep.points:
            place = {"figure": sweep.name, "panel": point.panel, "task": point.task, "init": point.init}
            place |= {"level": str(point.level), "seed": str(point.seed)}
            for key, value in place.items():
                found.setdefault(point.step.id, {}).setdefault(key, {})[value] = None
    return {step: {key: ", ".join(values) for key, values in place.items()} for step, place in found.items()}
