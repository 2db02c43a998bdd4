"""What differs between the kinds of drawing. Everything that shows a sweep asks this module, and looks at no type."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from raysslprune import results, words
from raysslprune.plan.graph import Plan, make_plan
from raysslprune.plan.schedule import Schedule
from raysslprune.spec import value_of
from raysslprune.store.record import Record
from raysslprune.store.steps import Store
from raysslprune.sweep_loader import Sweep, refusing
from raysslprune.sweepfile import Figure, Listing, Magnitudes, Point, Search, Tuning
from raysslprune.table import Table
from raysslprune.terminal import tables

if TYPE_CHECKING:
    from raysslprune.figures.ink import Canvas
    from raysslprune.plan.search import Studies

Tried = Mapping[tuple[str, int, int], float]
"""Means over all seeds by which the finalists of a search are compared, by (task, level, rewind)."""

Note = Callable[[str], None]
"""A function that takes a sentence for the user."""

Live = tuple[Plan, Schedule]
"""A running plan, and the schedule to which a search adds jobs."""


class Kind:
    """A sweep, and how its kind of drawing is trained and shown. Attributes and methods of this class are defaults.

    trains: False if there are no points. chooses: True if a search chooses which points are trained.
    draws_weights: True if the figure shows final weights. shows: False if tables are written and nothing is shown.
    inits: inits that get separate tables in a terminal; if empty, all share one table. over, measures: the figure's x
    and y axes in words; if ``measures`` is '', y shows the points' metrics.
    """

    trains, chooses, draws_weights, shows = True, False, False, True
    layout: tables.Layout = tables.BY_PRUNING
    inits: tuple[str, ...] = ()
    over = measures = ""

    def __init__(self, sweep: Sweep) -> None:
        self.sweep = sweep
        self.drawing: Any = sweep.drawing

    @property
    def plan_note(self) -> str:
        """A sentence to print below the table of a plan; may be empty."""
        if not (looks := self.sweep.looks):
            return ""
        most = f"{self.sweep.name}: the table counts {looks[-1]} seeds of all points, the most that it can cost"
        return f"{most}; seeds after the first {looks[0]} are trained for undecided claims only"

    @property
    def listing(self) -> Table:
        """The table of a sweep that trains nothing."""
        raise NotImplementedError

    @property
    def subtitle(self) -> str:
        """Data set and network of the points; '' if they differ between points: then the panels name them."""
        settings = {(point.step.data, point.step.arch): words.setting(point.step) for point in self.sweep.points}
        return next(iter(settings.values())) if len(settings) == 1 else ""

    def table(self, scale: str, records: Mapping[str, Record]) -> pa.Table:
        """Make the table of results, a row for each finished point."""
        return results.table(self.sweep.name, scale, self.sweep.points, records, self.sweep.looks)

    def shown(self, table: pa.Table) -> pa.Table:
        """Return the rows of :meth:`table` that people are shown: by default, all."""
        return table

    def importances(self, shown: pa.Table) -> dict[str, float]:
        """Return the share of each parameter in the variance of the values shown, if Optuna can tell."""
        return {}

    def drawn_table(self, points: Sequence[Point], table: pa.Table, store: Store) -> pa.Table:
        """Return the table that the figure of these points shows: by default, as :meth:`shown`. May raise Damaged."""
        return self.shown(table)

    def canvas(self, table: pa.Table, tried: Tried | None, *, narrow: bool = False) -> Canvas:
        """Draw a :meth:`drawn_table`, as wide as a page or, if ``narrow``, as a phone. Raises ValueError for a listing.

        tried: the finalists of a search.
        """
        raise NotImplementedError

    def studies(
        self, scale: str, records: Mapping[str, Record], store: Store, note: Note, live: Live | None = None
    ) -> Studies | None:
        """Open the studies by which a search chooses; None for other kinds. live: place to add jobs; None: add none.

        Raises SweepError if the points do not form a grid.
        """
        return None


class _Figure(Kind):
    def __init__(self, sweep: Sweep) -> None:
        super().__init__(sweep)
        self.inits, self.over = self.drawing.inits, f"{self.drawing.x} weights"

    def canvas(self, table: pa.Table, tried: Tried | None, *, narrow: bool = False) -> Canvas:
        from raysslprune.figures import curves  # imports Matplotlib, which takes a second

        return curves.draw(self.drawing, table, subtitle=self.subtitle, narrow=narrow)


class _Magnitudes(Kind):
    layout = tables.BY_THRESHOLD
    draws_weights, over, measures = True, "the rank of the weight", "magnitudes"

    def drawn_table(self, points: Sequence[Point], table: pa.Table, store: Store) -> pa.Table:
        return results.magnitudes(points, store)

    def canvas(self, table: pa.Table, tried: Tried | None, *, narrow: bool = False) -> Canvas:
        from raysslprune.figures import others  # imports Matplotlib, which takes a second

        return others.magnitudes(self.drawing, table, subtitle=self.subtitle, narrow=narrow)


class _Search(Kind):
    chooses = True
    layout = tables.BY_REWIND
    over = "the rewind in samples seen"

    @property
    def plan_note(self) -> str:
        counted = f"{self.sweep.name}: the table counts all seeds of all candidates"
        return f"{counted}; after 1, 2, 4, ... seeds only the better half of them is trained on"

    def shown(self, table: pa.Table) -> pa.Table:
        return table.filter(pc.field("metric") != self.drawing.objective)

    def canvas(self, table: pa.Table, tried: Tried | None, *, narrow: bool = False) -> Canvas:
        from raysslprune.figures import others

        importance = self.importances(table)
        return others.search(self.drawing, table, tried or {}, importance, subtitle=self.subtitle, narrow=narrow)

    def importances(self, shown: pa.Table) -> dict[str, float]:
        from raysslprune.plan.search import importances  # imports Optuna, which takes a second

        rows = [row for row in results.summary(shown).to_pylist() if row["rewind"] is not None]
        return importances({(row["task"], row["level"], row["rewind"]): row["mean"] for row in rows})

    def studies(
        self, scale: str, records: Mapping[str, Record], store: Store, note: Note, live: Live | None = None
    ) -> Studies:
        from raysslprune.plan.search import Studies  # imports Optuna, which takes a second

        name, points = f"{self.sweep.name}-{scale}", self.sweep.points
        plan, schedule = live or (make_plan(points), Schedule([], {}))
        points = [point for point in points if point.metric == self.drawing.objective]
        with refusing(self.sweep.name):
            return Studies(name, points, plan, schedule, records, store, note)


class _Tuning(_Search):
    shows = False

    def studies(
        self, scale: str, records: Mapping[str, Record], store: Store, note: Note, live: Live | None = None
    ) -> Studies:
        from raysslprune.plan.search import Studies, by_recipe  # imports Optuna, which takes a second

        name, points = f"{self.sweep.name}-{scale}", self.sweep.points
        plan, schedule = live or (make_plan(points), Schedule([], {}))

        def parameters(point: Point) -> dict[str, Any]:
            return {name: value_of(point.step.recipe, name) for name in self.drawing.over}

        return Studies(name, points, plan, schedule, records, store, note, by_recipe, parameters)


class _Listing(Kind):
    trains = False

    @property
    def listing(self) -> Table:
        return tables.listing_table(self.drawing, self.sweep.rows)

    def table(self, scale: str, records: Mapping[str, Record]) -> pa.Table:
        return results.listing(self.drawing, self.sweep.rows)

    def canvas(self, table: pa.Table, tried: Tried | None, *, narrow: bool = False) -> Canvas:
        raise ValueError(f"{self.sweep.name} is a table, and has no figure")


_KINDS: Mapping[type, type[Kind]] = {
    Figure: _Figure,
    Magnitudes: _Magnitudes,
    Search: _Search,
    Tuning: _Tuning,
    Listing: _Listing,
}


def kind_of(sweep: Sweep) -> Kind:
    """Return the sweep as its kind of drawing."""
    return _KINDS[type(sweep.drawing)](sweep)
