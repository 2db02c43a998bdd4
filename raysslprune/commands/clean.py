"""``raysslprune clean fig3``: list, or delete, the steps of a root that sweeps do not need any more."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from contextlib import nullcontext

from raysslprune.commands.common import Parser, reports_errors
from raysslprune.experiment import Experiment
from raysslprune.store import leftovers
from raysslprune.store.leftovers import Leftovers
from raysslprune.terminal import tables


@reports_errors()
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return the exit code."""
    options = _parser().parse_args(arguments)
    sweeps = Experiment.load(
        *options.sweeps, scale=options.scale, set=options.set, seeds=options.seeds, root=options.root
    )
    sweeps.check_root()
    if options.delete:
        sweeps.store.create()  # raises an error if it is read-only
    with sweeps.store.lock() if options.delete else nullcontext() as lock:
        found = sweeps.leftovers()
        _show(sweeps, found)
        if lock is not None:
            leftovers.delete(sweeps.store, found.unneeded, lock.check)
    if found.unneeded:
        print("deleted; tables and figures are kept" if lock else "nothing is deleted yet; to delete, add --delete")
    return 0


def _show(sweeps: Experiment, found: Leftovers) -> None:
    seeds = len({point.seed for sweep in sweeps.sweeps for point in sweep.points})
    by = f"{sweeps.name} at scale {sweeps.scale} with {seeds} seed{'s' * (seeds != 1)}"
    if found.unneeded:
        tables.leftovers(tables.stdout(), found.unneeded, f"not needed in {sweeps.store.shown} by {by}")
    else:
        print(f"nothing to delete in {sweeps.store.shown}: all is needed by {by}, or kept")
    for sentence in _kept(found):
        print(sentence)


def _kept(found: Leftovers) -> Iterator[str]:
    """Yield a sentence for each reason to keep steps that the sweeps do not need."""
    if found.kept:
        yield f"kept: {_steps(found.kept)} behind tables of other sweeps, scales or seeds: {', '.join(found.tables)}"
    if found.imported:
        yield f"kept: imported masks and weights, which no sweep can make again: {', '.join(found.imported)}"
    if found.unreadable:
        yield f"kept: {_steps(len(found.unreadable))} without a readable spec.json: {', '.join(found.unreadable)}"


def _steps(number: int) -> str:
    return f"{number:,} step{'s' * (number != 1)}"


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="raysslprune clean",
        description="List the steps of a root that neither these sweeps nor the tables of others need, and their size. "
        "Nothing is deleted without --delete.",
        examples=["raysslprune clean all bites.py --seeds 3", "raysslprune clean all bites.py --seeds 3 --delete"],
        codes="0 listed or deleted; 1 the root can't be read, or a sweep runs on it; 2 a wrong call or sweep file",
    )
    add = parser.add_argument
    sweeps = "sweeps, by name or .py file, or all: the steps that they need are kept, finished or not"
    add("sweeps", nargs="+", metavar="SWEEP", help=sweeps)
    parser.add_scale("the sweeps")
    parser.add_seeds("as many as the scale says; 1 for laptop")
    parser.add_root()
    add("--delete", action="store_true", help="delete these steps; tables, figures and what was imported are kept")
    return parser
