"""``raysslprune status``: the progress of the sweep on a root."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from raysslprune.commands.common import Parser, reports_errors
from raysslprune.store.steps import Store
from raysslprune.terminal import tables
from raysslprune.terminal.status import Seen, lines


@reports_errors()
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return the exit code."""
    options = _parser().parse_args(arguments)
    console, store = tables.stdout(), Store(options.root)
    if store.is_new():
        console.print(f"no sweep has run on {store.shown}", soft_wrap=True, markup=False)
        return 0
    for name, text in lines(store, Seen.of(store)):
        console.print(f"{name:<10} {text}", highlight=False, soft_wrap=True, markup=False)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="raysslprune status",
        description="Show the progress of the sweep on a root: what runs, is done, is left, or failed. It changes "
        "nothing, and only needs to read the root.",
        examples=["raysslprune status", "raysslprune status --root s3://bucket/runs"],
        codes="0 shown, whether a sweep runs or not; 1 the root can't be read; 2 a wrong call",
    )
    parser.add_root()
    return parser
