"""A sweep made in Python."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from raysslprune.experiment import Experiment
from raysslprune.spec import Train
from raysslprune.sweepfile import Claim, Curve, Figure, Point

TICKET, REINIT = (Curve(task="labels", init=init) for init in ("winning ticket", "random re-init"))
FIGURE = Figure(title="Tickets", references=(TICKET,))
CLAIMS = (Claim(says="Tickets win", source="here", higher=TICKET, lower=REINIT, relation="above"),)
SOURCE = """
from raysslprune.lottery import random_reinit
from raysslprune.paper.scales import SETTINGS
from raysslprune.sweepfile import Point


def points(scale, seed):
    s = SETTINGS[scale]
    chain = s.imp("labels", seed=seed, levels=2, keep=0.5)
    for level in (0, 1, 2):
        yield Point(step=s.ticket(chain, level), task="labels", init="winning ticket", level=level, seed=seed)
    again = random_reinit(chain.masks[2], like=chain.dense, task="labels", recipe=s.recipes["labels"])
    yield Point(step=again, task="labels", init="random re-init", level=2, seed=seed)
"""


def _points() -> Callable[[str, int], Iterator[Point]]:
    """What a user writes in a cell."""
    names: dict[str, Any] = {}
    exec(SOURCE, names)
    return names["points"]


points = _points()


def tickets(root: Path, **more: Any) -> Experiment:
    said = {"name": "tickets", "claims": CLAIMS, "scale": "smoke", "seeds": 3, **more}
    return Experiment.of(points, FIGURE, root=str(root), **said)


def step_of(some: Iterable[Point]) -> list[Train]:
    return [point.step for point in some]
