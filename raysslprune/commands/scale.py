"""``raysslprune scale laptop``: a scale as a TOML file, complete and with comments, to change and to use."""

from __future__ import annotations

from collections.abc import Sequence

from raysslprune.commands.common import Parser, reports_errors
from raysslprune.paper import scalefile, scaletext
from raysslprune.paper.scales import SETTINGS


@reports_errors()
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return the exit code."""
    options = _parser().parse_args(arguments)
    print(scaletext.text(scalefile.scale(options.name)), end="")
    return 0


def _parser() -> Parser:
    parser = Parser(
        prog="raysslprune scale",
        description="Print a scale as a TOML file, complete and with comments. Change what you like, and use the file "
        "by --scale FILE.",
        examples=["raysslprune scale laptop > pets.toml", "raysslprune scale pets.toml"],
        codes="0 printed; 2 there is no such scale, or a wrong file",
    )
    known = f"{', '.join(SETTINGS)}, or a .toml file, which is printed with all that it inherits"
    parser.add_argument("name", metavar="SCALE", help=known)
    return parser
