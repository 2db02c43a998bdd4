"""``raysslprune try mine:SimCLR --data digits``: one update and one evaluation of your own code, and what is wrong."""

from __future__ import annotations

from collections.abc import Sequence

from raysslprune.commands.common import Parser, reports_errors
from raysslprune.commands.train import add_data_root, add_set
from raysslprune.messages import note
from raysslprune.table import Table, lines


@reports_errors()
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return the exit code."""
    options = _parser().parse_args(arguments)
    from raysslprune.tryout import try_out  # imports torch, which takes seconds

    report = try_out(
        options.object,
        task=options.task,
        data=options.data,
        arch=options.arch,
        changes=dict(options.set),
        data_root=options.data_root,
    )
    for sentence in report.notes:
        note(f"{options.object}: {sentence}")
    print(f"{options.object}: the {report.kind} works")
    for line in lines(Table.of(("what", "value"), [*report.facts.items()])):
        print(line)
    return 0


def _parser() -> Parser:
    parser = Parser(
        prog="raysslprune try",
        description="Try a task, a network or a data set of your own: one update, one evaluation. Nothing is stored.",
        examples=["raysslprune try mine:SimCLR --data digits", "raysslprune try mine:Tiny --data folder/pets"],
        codes="0 it works; 1 something is wrong with it, which the sentence names; 2 a wrong call",
    )
    what = "module:attribute, as in a sweep file; the module is in this folder, or installed"
    parser.add_argument("object", metavar="OBJECT", help=what)
    parser.add_argument("--task", default="labels", metavar="NAME", help="with this task (default: labels)")
    parser.add_argument("--data", default="digits", metavar="DATA", help="on this data set (default: digits)")
    parser.add_argument("--arch", default="conv4", metavar="NAME", help="with this network (default: conv4)")
    add_set(parser)
    add_data_root(parser)
    return parser
