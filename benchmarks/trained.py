"""Results of points that are in no sweep file, trained for a benchmark."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterable

import pyarrow as pa

from raysslprune import results
from raysslprune.experiment import Experiment
from raysslprune.plan.graph import make_plan
from raysslprune.store.steps import Store
from raysslprune.sweep_loader import Sweep
from raysslprune.sweepfile import Figure, Point


def trained(name: str, scale: str, points: Iterable[Point], root: str, data: str = "") -> pa.Table:
    """Train what is missing of the points, as the sweep ``name``. Returns their table; progress goes to stderr.

    data: folder of data sets that do not come with the package.
    """
    sweep = Sweep(name=name, drawing=Figure(title=name), claims=(), points=tuple(points))
    store = Store(root)
    with contextlib.redirect_stdout(sys.stderr):
        Experiment(sweeps=(sweep,), scale=scale, store=store, data=os.path.abspath(data) if data else "").run()
    records, _ = store.survey(make_plan(sweep.points).ids)
    return results.table(name, scale, sweep.points, records)
