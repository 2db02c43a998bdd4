"""Show results: print and write tables, judge claims, draw figures, for each kind of drawing.

Whatever goes wrong with a figure becomes one sentence, and costs no numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

import pyarrow as pa

from raysslprune import results
from raysslprune.messages import FAILED, say, traceback_file
from raysslprune.results import claims
from raysslprune.results.overlap import Placed, measure, shown
from raysslprune.store.record import Record
from raysslprune.store.steps import Store
from raysslprune.sweep_loader import Sweep, SweepError, known
from raysslprune.sweepfile import Figure, Listing, Magnitudes, Point, Search
from raysslprune.terminal import tables

if TYPE_CHECKING:
    from raysslprune.figures.ink import Canvas
    from raysslprune.plan.search import Studies


class NoPicture(Exception):
    """A figure could not be drawn. The message is a sentence for the user."""


def files(name: str, draw: Callable[[], Canvas], *kinds: str) -> dict[str, bytes]:
    """What ``draw`` gives, as a file of each kind, by suffix. Raises NoPicture, whatever was raised.

    name: of the figure, for the sentence. Results must not depend on a picture, so no error of Matplotlib, nor of its
    import, may end a command: a user's fonts, settings or installation can cause one that nobody here has thought of.
    """
    try:
        canvas = draw()
        from raysslprune.figures.ink import save

        return {f".{kind}": save(canvas, kind) for kind in kinds}
    except Exception as error:
        why = f"{type(error).__name__}: {error}{traceback_file()}"
        raise NoPicture(f"the figure of {name} could not be drawn, all else is there: {why}") from error


def draw(sweep: Sweep, table: pa.Table, tried: Mapping[tuple[str, int, int], float] | None = None) -> Canvas:
    """The figure of a sweep. Raises ValueError for a listing, which has none.

    table: of results; of ``results.magnitudes`` for Magnitudes. tried: by Optuna, for a Search.
    """
    from raysslprune.figures import curves, others  # imports Matplotlib, which takes a second

    subtitle = about(sweep.points)
    match sweep.drawing:
        case Figure() as drawing:
            return curves.draw(drawing, table, subtitle=subtitle)
        case Magnitudes() as drawing:
            return others.magnitudes(drawing, table, subtitle=subtitle)
        case Search() as drawing:
            from raysslprune.plan.search import importances  # imports Optuna, which takes a second

            return others.search(drawing, table, tried or {}, importances(tried or {}), subtitle=subtitle)
    raise ValueError(f"{sweep.name} is a table, and has no figure")


def about(points: Sequence[Point]) -> str:
    """Data and network of the points; empty where there are several, since the panels then say which."""
    of = {f"{point.step.data}, {point.step.arch}" for point in points}
    return of.pop() if len(of) == 1 else ""


def present_masks(sweep: Sweep, scale: str, masks: Sequence[Placed], store: Store) -> int:
    """Write the tables of some masks of a sweep, print what matters most, and draw it. Returns the exit code.

    Raises Damaged for a mask that can't be read, SweepError for one of a network that can't be found.
    """
    try:
        layers, shared = measure(masks, store)
    except ValueError as error:
        raise SweepError(f"{sweep.name}: {error}") from error
    drawn, pairs = shown(masks, layers, shared)
    written: list[str] = []

    def write(name: str, files: Mapping[str, bytes]) -> None:
        for suffix, data in files.items():
            path = f"results/{scale}/{sweep.name}-{name}{suffix}"
            store.write(path, data)
            written.append(store.path(path))

    for name, table in (("layers", layers), ("overlap", shared)):
        write(name, {".parquet": results.to_parquet(table)})
    console = tables.stdout()
    tables.mask_densities(console, drawn)
    tables.mask_overlaps(console, pairs)
    code = 0
    for name, table in {"layers": drawn, **({"overlap": pairs} if len(pairs) else {})}.items():
        try:
            write(name, files(f"{sweep.name}-{name}", partial(draw_masks, sweep, name, table), "png", "pdf"))
        except NoPicture as fault:
            code = say(str(fault), FAILED)
    for path in written:
        console.print(path, highlight=False, soft_wrap=True, markup=False)
    return code


def draw_masks(sweep: Sweep, which: str, table: pa.Table) -> Canvas:
    """The figure ``layers`` or ``overlap`` of the sweep's masks, of a table that :func:`shown` gives."""
    from raysslprune.figures.masks import layer_densities, overlaps  # imports Matplotlib, which takes a second

    title, subtitle = sweep.drawing.title, about(sweep.points)
    if which == "layers":
        return layer_densities(f"{title}: what is left of each layer", table, subtitle=subtitle)
    return overlaps(f"{title}: overlap of masks", table, subtitle=subtitle)


def present_sweep(
    sweep: Sweep,
    scale: str,
    records: Mapping[str, Record],
    store: Store,
    seeds_hint: str,
    studies: Studies | None = None,
    folder: str = "results",
) -> int:
    """Table, claims and figure of one sweep, from the store alone. Returns the exit code.

    The figure comes last, so that nothing which goes wrong with it can cost the numbers.
    """
    console, drawing, folder = tables.stdout(), sweep.drawing, f"{folder}/{scale}"
    if isinstance(drawing, Listing):
        table = results.to_parquet(results.listing(drawing, sweep.rows))
        written = _write(store, folder, sweep.name, {".parquet": table})
        tables.listing(console, drawing, sweep.rows)
        _tell(written)
        return 0
    table = results.table(sweep.name, scale, sweep.points, records)
    if not len(table):
        return 0
    provenance = results.provenance(sweep.points, records)
    parquet = {".parquet": results.to_parquet(table), "-runs.parquet": results.to_parquet(provenance)}
    written = _write(store, folder, sweep.name, parquet)
    tables.table(console, drawing, table)
    tables.claims(console, claims.judge(sweep.claims, table), of_paper=sweep.name in known(), seeds_hint=seeds_hint)
    tried = None
    if studies is not None:
        from raysslprune.plan.search import importances

        tried = studies.tried
        tables.search(console, table, tried, importances(tried))
    drawn, code = table, 0
    if isinstance(drawing, Magnitudes):
        drawn = results.magnitudes(sweep.points, store)
        written += _write(store, folder, sweep.name, {"-magnitudes.parquet": results.to_parquet(drawn)})
    try:
        drawing_of = partial(draw, sweep, drawn, tried)
        written += _write(store, folder, sweep.name, files(sweep.name, drawing_of, "png", "pdf"))
    except NoPicture as fault:
        code = say(str(fault), FAILED)
    _tell(written)
    return code


def _write(store: Store, folder: str, name: str, files: Mapping[str, bytes]) -> list[str]:
    """In a folder of the root; gives where."""
    paths = [f"{folder}/{name}{suffix}" for suffix in files]
    for path, data in zip(paths, files.values(), strict=True):
        store.write(path, data)
    return [store.path(path) for path in paths]


def _tell(written: Sequence[str]) -> None:
    for path in written:
        tables.stdout().print(path, highlight=False, soft_wrap=True, markup=False)
