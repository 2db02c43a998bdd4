"""``raysslprune status``: how far the sweep on a root is."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from raysslprune.commands.common import Parser, reports_errors
from raysslprune.messages import FAILED, STOPPED, say
from raysslprune.store.record import StoreError
from raysslprune.store.steps import Store
from raysslprune.terminal import tables
from raysslprune.terminal.status import Seen, lines


@reports_errors
def main(arguments: Sequence[str] | None = None) -> int:
    """The command line. Returns the exit code."""
    options = _parser().parse_args(arguments)
    console = tables.stdout()
    try:
        store = Store(options.root)
        if store.is_new():
            console.print(f"no sweep has run on {store.path('').rstrip('/')}", soft_wrap=True, markup=False)
            return 0
        for name, text in lines(store, Seen.of(store)):
            console.print(f"{name:<10} {text}", highlight=False, soft_wrap=True, markup=False)
    except KeyboardInterrupt:
        return say("stopped", STOPPED)
    except (StoreError, OSError) as error:
        return say(str(error), FAILED)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="raysslprune status",
        description="Say how far the sweep on a root is: what runs, what is done, what is left, what failed. It changes"
        " nothing, and needs no more than to read the root.",
        examples=["raysslprune status", "raysslprune status --root s3://bucket/runs"],
        codes="0 said, whether a sweep runs or not; 1 the root can't be read; 2 a wrong call; 130 Ctrl-C",
    )
    parser.add_root()
    return parser
