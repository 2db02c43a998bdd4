"""``raysslprune report``: what the sweeps of a root found, as one HTML page."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence

from raysslprune.commands.common import Parser, path, reports_errors
from raysslprune.messages import FAILED, STOPPED, USAGE, note, say
from raysslprune.paper.scales import SETTINGS
from raysslprune.store.record import StoreError
from raysslprune.store.steps import Store
from raysslprune.sweep_loader import SweepError


@reports_errors
def main(arguments: Sequence[str] | None = None) -> int:
    """The command line. Returns the exit code."""
    options = _parser().parse_args(arguments)
    try:
        return _run(options)
    except KeyboardInterrupt:
        return say("stopped; nothing was written", STOPPED)
    except SweepError as error:
        return say(str(error), USAGE)
    except (StoreError, OSError) as error:
        return say(str(error), FAILED)


def _run(options: argparse.Namespace) -> int:
    folder, name = os.path.split(os.path.abspath(options.out))
    if not options.out or os.path.isdir(options.out):
        return say(f"--out wants the name of a file, and {options.out!r} is none", USAGE)
    if not os.path.isdir(folder):
        return say(f"can't write {options.out}: there is no folder {folder}", FAILED)
    from raysslprune.report import contents, page

    store = Store(options.root)
    found = contents.find(options.sweeps, options.scale, store, note)
    report = contents.gather(found, store, note)
    text = page.render(report)
    try:
        Store(folder).write(name, text.encode())  # whole or not at all
    except OSError as error:
        return say(f"can't write {options.out}: {error.strerror or error}", FAILED)
    print(options.out)
    return FAILED if any(section.no_picture for section in report.sections) else 0


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="raysslprune report",
        description="One HTML page of what sweeps found: figures, claims, tables, provenance, cost. Trains nothing.",
        examples=[
            "raysslprune report",
            "raysslprune report fig3 fig5 --scale laptop --out paper.html",
        ],
        codes="0 the page is there; 1 the root has no results, or can't be read, or a figure or the page not made; "
        "2 a wrong call or sweep; 130 Ctrl-C",
    )
    parser.add_argument(
        "sweeps",
        nargs="*",
        metavar="SWEEP",
        help="names or .py files of sweeps (default: those of the package that have results)",
    )
    parser.add_argument("--scale", choices=list(SETTINGS), help="of this scale alone (default: all that have results)")
    parser.add_root()
    parser.add_argument(
        "--out", type=path, default="report.html", metavar="FILE", help="the page (default: ./report.html)"
    )
    return parser
