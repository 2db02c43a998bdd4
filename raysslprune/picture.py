"""Pictures of sweeps: the way to ``figures`` for all commands. Whatever goes wrong there becomes one sentence."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from raysslprune.command import traceback_file
from raysslprune.loader import Sweep
from raysslprune.sweepfile import Figure, Magnitudes, Point, Search

if TYPE_CHECKING:
    import pyarrow as pa

    from raysslprune.figures import Canvas


class NoPicture(Exception):
    """A figure could not be drawn. The message is a sentence for the user."""


def files(name: str, draw: Callable[[], Canvas], *kinds: str) -> dict[str, bytes]:
    """What ``draw`` gives, as a file of each kind, by suffix. Raises NoPicture, whatever was raised.

    name: of the figure, for the sentence. Results must not depend on a picture, so no error of Matplotlib, nor of its
    import, may end a command: a user's fonts, settings or installation can cause one that nobody here has thought of.
    """
    try:
        canvas = draw()
        from raysslprune.figures import save

        return {f".{kind}": save(canvas, kind) for kind in kinds}
    except Exception as error:
        why = f"{type(error).__name__}: {error}{traceback_file()}"
        raise NoPicture(f"the figure of {name} could not be drawn, all else is there: {why}") from error


def draw(sweep: Sweep, table: pa.Table, tried: Mapping[tuple[str, int, int], float] | None = None) -> Canvas:
    """The figure of a sweep. Raises ValueError for a listing, which has none.

    table: of results; of ``results.magnitudes`` for Magnitudes. tried: by Optuna, for a Search.
    """
    from raysslprune import figures  # imports Matplotlib, which takes a second

    subtitle = about(sweep.points)
    match sweep.drawing:
        case Figure() as drawing:
            return figures.draw(drawing, table, subtitle=subtitle)
        case Magnitudes() as drawing:
            return figures.magnitudes(drawing, table, subtitle=subtitle)
        case Search() as drawing:
            from raysslprune.search import importances  # imports Optuna, which takes a second

            return figures.search(drawing, table, tried or {}, importances(tried or {}), subtitle=subtitle)
    raise ValueError(f"{sweep.name} is a table, and has no figure")


def about(points: Sequence[Point]) -> str:
    """Data and network of the points; empty where there are several, since the panels then say which."""
    of = {f"{point.step.data}, {point.step.arch}" for point in points}
    return of.pop() if len(of) == 1 else ""
