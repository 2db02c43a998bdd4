"""The rewind study: Optuna looks for the best point to rewind winning tickets to.

Section 5 of the paper: winning tickets are particularly sensitive to it, and "early in training" is ill-defined. For
each task and density Optuna chooses among states of the dense training, spaced evenly in the logarithm of the samples
seen around the paper's choice, and at the beginning. Only what it chooses is trained.
"""

from collections.abc import Iterator

from raysslprune import SETTINGS, TICKET, Point, Search

FIGURE = Search(title="Where to rewind winning tickets to", trials=7)


def points(scale: str, seed: int) -> Iterator[Point]:
    """All points among which Optuna may choose, for one seed."""
    s = SETTINGS[scale]
    for task in ("labels", "rotnet"):
        paper = s.rewind[task]
        for rewind in (0, *(round(paper * 2.0**power) for power in range(-3, 4))):
            if rewind < min(s.recipes[task].samples, s.recipes["labels"].samples):
                chain = s.imp(task, seed=seed, levels=max(s.levels), keep=s.keep, rewind=rewind)
                for level in s.levels[-4::2]:
                    yield Point(step=s.ticket(chain, level), task=task, init=TICKET, level=level, seed=seed)
