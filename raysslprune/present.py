"""Show results: print and write tables, judge claims, draw figures.

An error in a figure is reported in one sentence, and never affects the numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

import pyarrow as pa

from raysslprune import results
from raysslprune.kinds import kind_of
from raysslprune.messages import UserError, traceback_file
from raysslprune.results import claims
from raysslprune.results.overlap import Placed, measure, shown
from raysslprune.store.record import Record
from raysslprune.store.steps import Store
from raysslprune.sweep_loader import Sweep, known, refusing
from raysslprune.terminal import tables

if TYPE_CHECKING:
    from raysslprune.figures.ink import Canvas
    from raysslprune.plan.search import Studies


class NoPicture(UserError):
    """A figure could not be drawn."""


def files(name: str, draw: Callable[[], Canvas], *kinds: str) -> dict[str, bytes]:
    """Draw a figure, and return it as a file of each kind, by suffix. Raises NoPicture for any exception.

    name: the figure's name in the error message. Results must not depend on a picture, so no error of Matplotlib, nor
    of its import, may end a command: a user's fonts, settings or installation can cause any error.
    """
    try:
        canvas = draw()
        from raysslprune.figures.ink import save

        return {f".{kind}": save(canvas, kind) for kind in kinds}
    except Exception as error:
        why = f"{type(error).__name__}: {error}{traceback_file()}"
        raise NoPicture(f"the figure of {name} could not be drawn (all other results are complete): {why}") from error


def present_masks(sweep: Sweep, scale: str, masks: Sequence[Placed], store: Store) -> list[str]:
    """Write tables of a sweep's masks; print and draw a summary. Returns a sentence for each missing figure.

    Raises Damaged for a mask that can't be read, SweepError for a mask of an unknown network.
    """
    with refusing(sweep.name):
        layers, overlaps = measure(masks, store)
    output = _Output(store, f"results/{scale}/{sweep.name}")
    output.write("-layers.parquet", results.to_parquet(layers))
    output.write("-overlap.parquet", results.to_parquet(overlaps))
    layers, overlaps = shown(masks, layers, overlaps)
    tables.mask_densities(output.console, layers)
    tables.mask_overlaps(output.console, overlaps)
    output.draw(f"{sweep.name}-layers", partial(draw_layers, sweep, layers), "-layers")
    if len(overlaps):
        output.draw(f"{sweep.name}-overlap", partial(draw_overlaps, sweep, overlaps), "-overlap")
    return output.end()


def draw_layers(sweep: Sweep, table: pa.Table) -> Canvas:
    """Draw the density of each layer. table: the first that :func:`results.overlap.shown` returns."""
    from raysslprune.figures.masks import layer_densities  # imports Matplotlib, which takes a second

    title = f"{sweep.drawing.title}: what is left of each layer"
    return layer_densities(title, table, subtitle=kind_of(sweep).subtitle)


def draw_overlaps(sweep: Sweep, table: pa.Table) -> Canvas:
    """Draw the overlaps of masks. table: the second that :func:`results.overlap.shown` returns."""
    from raysslprune.figures.masks import overlaps  # imports Matplotlib, which takes a second

    return overlaps(f"{sweep.drawing.title}: overlap of masks", table, subtitle=kind_of(sweep).subtitle)


def present_sweep(
    sweep: Sweep,
    scale: str,
    records: Mapping[str, Record],
    store: Store,
    seeds_hint: str,
    studies: Studies | None = None,
    folder: str = "results",
) -> list[str]:
    """Print and write the table, claims and figure of one sweep, from the store alone.

    The figure comes last, so that no error in it can affect the numbers. Returns a sentence for each missing figure.
    """
    kind, output = kind_of(sweep), _Output(store, f"{folder}/{scale}/{sweep.name}")
    table = kind.table(scale, records)
    if not kind.trains:
        output.write(".parquet", results.to_parquet(table))
        tables.show(output.console, kind.listing)
        return output.end()
    if not len(table):
        return []
    output.write(".parquet", results.to_parquet(table))
    output.write("-runs.parquet", results.to_parquet(results.provenance(sweep.points, records)))
    output.write("-steps.parquet", results.to_parquet(results.steps(sweep.points, records)))
    if not kind.shows:
        return []
    verdicts = claims.judge(sweep.claims, table)
    output.write("-claims.parquet", results.to_parquet(claims.table(verdicts)))
    tables.table(output.console, sweep.drawing.title, kind.shown(table), kind.layout, kind.inits)
    tables.claims(output.console, verdicts, of_paper=sweep.name in known(), seeds_hint=seeds_hint)
    tried = studies and studies.tried
    if tried is not None:
        tables.search(output.console, kind.shown(table), tried, kind.importances(kind.shown(table)))
    drawn = kind.drawn_table(sweep.points, table, store)
    if kind.draws_weights:
        output.write("-magnitudes.parquet", results.to_parquet(drawn))
    output.draw(sweep.name, partial(kind.canvas, drawn, tried))
    return output.end()


class _Output:
    """Console output of a sweep, and its files, whose names begin with ``prefix``."""

    def __init__(self, store: Store, prefix: str) -> None:
        self.console, self.store, self.prefix = tables.stdout(), store, prefix
        self.written: list[str] = []
        self.faults: list[str] = []

    def write(self, suffix: str, data: bytes) -> None:
        self.store.write(f"{self.prefix}{suffix}", data)
        self.written.append(self.store.path(f"{self.prefix}{suffix}"))

    def draw(self, name: str, draw: Callable[[], Canvas], suffix: str = "") -> None:
        try:
            drawn = files(name, draw, "png", "pdf")
        except NoPicture as fault:
            self.faults.append(str(fault))
            return
        for form, data in drawn.items():
            self.write(f"{suffix}{form}", data)

    def end(self) -> list[str]:
        """Print the paths of the files. Returns a sentence for each missing figure."""
        for path in self.written:
            self.console.print(path, highlight=False, soft_wrap=True, markup=False)
        return self.faults
