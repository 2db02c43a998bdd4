"""Sweeps from Python, for notebooks and scripts: plan, run, tables, claims and figures.

    fig3 = Experiment.load("fig3", seeds=3)
    fig3.run()
    fig3.draw()

A sweep made of points in a notebook is as good as one in a file: they share a root, and what one has trained the other
finds.
"""

from __future__ import annotations

import functools
import operator
import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, SupportsIndex

import pyarrow as pa

from raysslprune import analysis, loader, names, picture, plan, progress, results, terminal
from raysslprune import claims as judged
from raysslprune import sweep as command
from raysslprune.command import note
from raysslprune.loader import Sweep, SweepError
from raysslprune.scales import SETTINGS
from raysslprune.store import Record, Store
from raysslprune.sweepfile import Claim, Figure, Listing, Magnitudes, Point, Search

if TYPE_CHECKING:
    from raysslprune.figures import Canvas


class Failed(Exception):
    """A sweep did not come to its end. Why was said on stderr."""


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """A sweep at a scale, and the root that its results live in.

    data: where data sets lie. Nothing is remembered here: each method looks at what the root has now.
    """

    sweep: Sweep = field(repr=False)
    scale: str
    store: Store = field(repr=False)
    data: str = field(repr=False)

    def __repr__(self) -> str:
        return f"<{self.sweep.name} at scale {self.scale}, {len(self.sweep.points)} points, root {self.store.shown}>"

    @classmethod
    def load(
        cls,
        name: str | os.PathLike[str],
        *,
        scale: str = "laptop",
        seeds: SupportsIndex | None = None,
        root: str | os.PathLike[str] = "runs",
        data: str | os.PathLike[str] | None = None,
    ) -> Experiment:
        """A sweep of the package by its name, or one's own by the path of its file.

        seeds: how many; the scale's by default. root: a folder, s3:// or gs://. data: where data sets lie, as the
        command has it by default. In paths a leading ``~`` is the home folder. Raises SweepError for a sweep that can't
        be used, and StoreError for such a root.
        """
        return cls(
            sweep=loader.load(name, scale, _seeds(scale, seeds)), scale=scale, store=Store(root), data=_data(data)
        )

    @classmethod
    def of(
        cls,
        points: Callable[[str, int], Iterable[Point]],
        figure: Figure | Magnitudes | Search,
        *,
        name: str,
        claims: Iterable[Claim] = (),
        scale: str = "laptop",
        seeds: SupportsIndex | None = None,
        root: str | os.PathLike[str] = "runs",
        data: str | os.PathLike[str] | None = None,
    ) -> Experiment:
        """A sweep without a file: its points, figure and claims as a file has them. Its results' files begin with name.

        All else is as in :meth:`load`.
        """
        if not re.fullmatch(r"\w[\w.]*", name) or name in loader.known():
            raise SweepError(f"a sweep of one's own has a name of letters and digits, and a new one, not {name!r}")
        found = tuple(point for seed in range(_seeds(scale, seeds)) for point in points(scale, seed) or ())
        if not found or not all(isinstance(point, Point) for point in found):
            raise SweepError(f"{name}: points(scale, seed) must give one raysslprune.Point or more")
        made = Sweep(name=name, drawing=figure, claims=tuple(claims), points=found)
        loader.check(made, Path(name))
        return cls(sweep=made, scale=scale, store=Store(root), data=_data(data))

    # ------------------------------------------------------------------ run it

    def plan(self, *, keep: str = "all") -> None:
        """Print what would run, what is done, and what it would cost."""
        graph = command.planned([self.sweep], keep)
        records, damaged = ({}, []) if self.store.is_new() else self.store.survey(graph.ids)
        command.tell_of_results([self.sweep], self.scale, self.store, _ASKING)
        missing = command.missing_data(graph.pending(records), self.data, fetch=False)
        on_gpu, alone = SETTINGS[self.scale].gpus > 0, {self.sweep.name: graph}
        terminal.dry_run(
            terminal.stdout(), self.store, graph, records, damaged, missing, progress.cores(), on_gpu, alone
        )

    def run(
        self,
        *,
        keep: str = "all",
        workers_per_step: int | None = None,
        gpus_per_worker: float | None = None,
        dashboard: bool = False,
        curves: bool = False,
    ) -> None:
        """Train what is missing, on Ray; then print tables and claims, and write the results' files.

        Interrupted, or called again, it goes on from what is done. The arguments are the command's options. Raises
        Failed where a step failed or data are missing, and StoreError where the root or Ray can't be used.
        """
        gpus = SETTINGS[self.scale].gpus if gpus_per_worker is None else gpus_per_worker
        how = command.Manner(
            workers_per_step=workers_per_step, gpus_per_worker=gpus, dashboard=dashboard, curves=curves, asking=_ASKING
        )
        if command.make([self.sweep], self.scale, self.store, self.data, keep, how):
            raise Failed(
                f"{self.sweep.name} did not come to its end; what was finished is kept. See what is said above"
            )

    def explain(self, row: int | str) -> None:
        """Print how a row of the table came about, by its number or its step's id. Raises ValueError."""
        from raysslprune.explain import explain

        explain(terminal.stdout(), self.sweep.name, self.sweep.points, str(row), self._records(), self.store)

    # ------------------------------------------------------------------ what came out

    def table(self) -> pa.Table:
        """A row for each point whose training is done (results.SCHEMA), with a note on stderr where some are not.

        Of a listing, its rows.
        """
        if isinstance(self.sweep.drawing, Listing):
            return results.listing(self.sweep.drawing, self.sweep.rows)
        records = self._records()
        table = results.table(self.sweep.name, self.scale, self.sweep.points, records)
        points = len(self.sweep.points)
        if lacking := results.unmeasured(self.sweep.points, records):
            note(f"{self.sweep.name}: {lacking}")
        elif len(table) < points and not isinstance(self.sweep.drawing, Search):  # which trains only what it chooses
            note(f"{self.sweep.name}: {points - len(table)} of {points} points are not done; run() goes on with them")
        return table

    def means(self) -> pa.Table:
        """Over seeds: mean, standard error and n."""
        return results.summary(self.table())

    def verdicts(self) -> list[judged.Verdict]:
        """Each claim, tested on the table."""
        return judged.judge(self.sweep.claims, self.table()) if self.sweep.claims else []

    def draw(self) -> Canvas:
        """The figure of what is done. Raises ValueError for a listing, which is a table only."""
        table = self.table()
        if isinstance(self.sweep.drawing, Magnitudes):
            table = results.magnitudes(self.sweep.points, self.store)
        studies = command.studies_of(self.sweep, self.scale, self._records(), self.store)
        return _shown(picture.draw(self.sweep, table, studies and studies.tried))

    # ------------------------------------------------------------------ its masks

    def masks(self) -> tuple[pa.Table, pa.Table]:
        """What each mask that is done keeps of each layer (analysis.LAYERS), and how much each two of a level share
        (analysis.OVERLAPS). Raises store.Damaged for one that can't be read.
        """
        return analysis.measure(self._masks(), self.store)

    def draw_layers(self) -> Canvas:
        """What is left of each layer, by task and level. Raises ValueError where no mask is done."""
        return self._draw_masks("layers")

    def draw_overlaps(self) -> Canvas:
        """How much the masks of different tasks or seeds share. Raises ValueError where no two are done."""
        return self._draw_masks("overlap")

    def _draw_masks(self, which: str) -> Canvas:
        masks = self._masks()
        layers, pairs = analysis.shown(masks, *analysis.measure(masks, self.store))
        table = {"layers": layers, "overlap": pairs}[which]
        if not len(table):
            raise ValueError(f"{self.sweep.name} has {len(masks)} masks that are done, which is too few to draw")
        return _shown(analysis.draw(self.sweep, which, table))

    # ------------------------------------------------------------------

    def _records(self) -> dict[str, Record]:
        return {} if self.store.is_new() else self.store.survey(plan.make(self.sweep.points).ids)[0]

    def _masks(self) -> list[analysis.Placed]:
        records = self._records()
        return [mask for mask in analysis.placed(self.sweep.points) if mask.mask.id in records]


_ASKING = "seeds="
"""Here, for what is ``--seeds`` of the command."""


def _seeds(scale: str, seeds: SupportsIndex | None) -> int:
    """Raises SweepError for an unknown scale, and for what is no number of seeds."""
    if scale not in SETTINGS:
        raise SweepError(f"there is no scale {scale!r}, only {', '.join(SETTINGS)}")
    if seeds is None:
        return SETTINGS[scale].seeds
    if isinstance(seeds, bool) or not isinstance(seeds, SupportsIndex) or operator.index(seeds) < 1:
        raise SweepError(f"seeds are a number from 1, not {seeds!r:.40}")
    return operator.index(seeds)


def _data(given: str | os.PathLike[str] | None) -> str:
    return os.path.abspath(names.data_root(given))


def _shown(canvas: Canvas) -> Canvas:
    """The same, which a notebook shows as it is, without pyplot."""
    canvas._repr_png_ = functools.partial(_png, canvas)  # pyright: ignore[reportAttributeAccessIssue]
    return canvas


def _png(canvas: Canvas) -> bytes:
    from raysslprune.figures import save

    return save(canvas, "png", dpi=150)
