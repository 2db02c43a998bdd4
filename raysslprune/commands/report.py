"""``raysslprune report``: the results of the sweeps of a root, as one HTML page."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence

from raysslprune.commands.common import Parser, path, reports_errors
from raysslprune.messages import FAILED, USAGE, UserError, note
from raysslprune.paper import scalefile
from raysslprune.store.steps import Store


@reports_errors(stopped="stopped; nothing was written")
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return the exit code."""
    options = _parser().parse_args(arguments)
    folder, name = os.path.split(os.path.abspath(options.out))
    if not options.out or os.path.isdir(options.out):
        raise UserError(f"--out must be the name of a file, and {options.out!r} is none", code=USAGE)
    if not os.path.isdir(folder):
        raise UserError(f"can't write {options.out}: there is no folder {folder}")
    from raysslprune.report import contents, page

    store = Store(options.root)
    if options.set and options.scale is None:
        raise UserError("--set needs --scale", code=USAGE)
    scale = None if options.scale is None else scalefile.scale(options.scale, options.set)
    found = contents.find(options.sweeps, scale, store, note)
    report = contents.gather(found, store, note)
    text = page.render(report)
    try:
        Store(folder).write(name, text.encode())  # all of it or nothing
    except OSError as error:
        raise UserError(f"can't write {options.out}: {error.strerror or error}") from error
    print(os.path.join(folder, name))
    return FAILED if any(section.no_picture for section in report.sections) else 0


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="raysslprune report",
        description="Make one HTML page of the results of sweeps: figures, claims, tables, provenance, cost. Trains "
        "nothing.",
        examples=["raysslprune report", "raysslprune report fig3 fig5 --scale laptop --out paper.html"],
        codes="0 the page is written; 1 there are no results, or the root, a figure or the page failed; "
        "2 a wrong call or sweep file",
    )
    sweeps = "sweeps, by name or .py file (default: the package's sweeps that have results)"
    parser.add_argument("sweeps", nargs="*", metavar="SWEEP", help=sweeps)
    parser.add_scale("the results", default=None, choice="all of the package that have results")
    parser.add_root()
    parser.add_argument(
        "--out", type=path, default="report.html", metavar="FILE", help="file to write (default: ./report.html)"
    )
    return parser
