"""``raysslprune results "SELECT ..."``: SQL over all results of a root."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from textwrap import wrap

from raysslprune.commands.common import Parser, path, reports_errors
from raysslprune.messages import FAILED, STOPPED, USAGE, say, without_stdout
from raysslprune.results import output, sql
from raysslprune.store.record import StoreError


@reports_errors
def main(arguments: Sequence[str] | None = None) -> int:
    """The command line. Returns the exit code."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if len(options.sql) > 1:
        parser.error("a query is one argument: put it into double quotes")
    if not options.sql and (options.export or options.format != "table"):
        parser.error("--format and --export want a query")
    if options.format in output.BINARY and sys.stdout.isatty():
        parser.error(f"{options.format} is not for a terminal: name a file with --export")
    try:
        return _run(options)
    except KeyboardInterrupt:
        return say("stopped", STOPPED)
    except BrokenPipeError:  # as by `| head`
        return without_stdout(0)
    except sql.QueryError as error:
        return say(str(error), USAGE)
    except StoreError as error:
        return say(str(error), FAILED)
    except OSError as error:
        return without_stdout(say(str(error), FAILED))


def _run(options: argparse.Namespace) -> int:
    if not options.sql:
        contents = sql.contents(options.root)  # who has none wants no more than to be told
        print(described(), flush=True)
        print(f"\nin {options.root}: {contents}")
        return 0
    answer = sql.ask(options.sql[0], options.root)
    if options.export is not None:
        rows = output.export(answer, options.export)
        return say(f"{options.export}: {rows:,} rows", 0)
    if options.format == "table":
        lines, cut = output.lines(answer)
        print("\n".join(lines))
        if cut:
            say(f"these are the first {output.MAX_ROWS} rows; --format csv or --export FILE gives all", 0)
    else:
        output.write(answer, options.format, sys.stdout.buffer)
    sys.stdout.flush()
    return 0


def described() -> str:
    """What tables there are, with their columns: type and meaning where a name comes first."""
    lines: list[str] = []
    told: set[str] = set()
    for name, (about, schema) in sql.VIEWS.items():
        lines.append(f"{name}: {about}")
        if again := [column for column in schema.names if column in told]:
            lines += wrap(f"as above: {', '.join(again)}", 116, initial_indent="    ", subsequent_indent="    ")
        for field in schema:
            if field.name not in told:
                means = (field.metadata or {}).get(b"about", b"").decode()
                lines.append(f"    {field.name:<18} {field.type!s:<22} {means}")
        told |= set(schema.names)
    return "\n".join(lines)


def _parser() -> Parser:
    parser = Parser(
        prog="raysslprune results",
        description="Ask the results of all sweeps of a root, in SQL. Without a query: say what tables there are.",
        examples=[
            'raysslprune results "SELECT task, density, mean FROM means ORDER BY ALL"',
            'raysslprune results "FROM everything" --export everything.csv',
        ],
        codes="0 answered; 1 the root can't be read, or the file not written; 2 a wrong call or query; 130 Ctrl-C",
    )
    parser.epilog = f"tables and their columns:\n\n{described()}\n\n{parser.epilog}"
    parser.add_argument("sql", nargs="*", metavar="SQL", help="one query, as DuckDB knows them, in quotes")
    parser.add_root()
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--format",
        default="table",
        choices=["table", *output.FORMATS],
        help=f"on stdout: a table of at most {output.MAX_ROWS} rows (default), or all rows for other programs",
    )
    endings = " ".join(f".{name}" for name in output.FORMATS)
    where.add_argument(
        "--export", type=_file, metavar="FILE", help=f"write all rows to a file, by its ending: {endings}"
    )
    return parser


def _file(text: str) -> str:
    try:
        output.format_of(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return path(text)
