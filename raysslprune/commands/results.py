"""``raysslprune results "SELECT ..."``: SQL over all results of a root."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from textwrap import wrap

from raysslprune.commands.common import Parser, path, reports_errors
from raysslprune.messages import ROOT, note
from raysslprune.results import output, sql
from raysslprune.table import lines

FIGURES = """
SELECT figure, scale, count(DISTINCT seed) AS seeds, count(*) AS rows FROM results GROUP BY ALL ORDER BY scale, figure
"""
"""What is there, for people."""


@reports_errors()
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return the exit code."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if len(options.sql) > 1:
        parser.error("a query is one argument: put it into double quotes")
    if not options.sql and (options.export or options.format != "table"):
        parser.error("--format and --export need a query")
    if options.format in output.BINARY and sys.stdout.isatty():
        parser.error(f"{options.format} is not for a terminal: name a file with --export")
    if not options.sql:
        print(overview(options.root))
        return 0
    answer = sql.ask(options.sql[0], options.root)
    if options.export is not None:
        rows = output.export(answer, options.export)
        note(f"{options.export}: {rows:,} rows")
    elif options.format == "table":
        table, cut = output.shown(answer)
        rows = len(table.rows)
        print("\n".join(lines(table)))
        if cut:
            note(f"these are the first {output.MAX_ROWS} rows; --format csv or --export FILE gives all")
    else:
        rows = output.write(answer, options.format, sys.stdout.buffer)
    if not rows:
        note(f"no rows; figures here: {sql.contents(options.root)}")
    return 0


def overview(root: str) -> str:
    """Describe what a root has: its figures with scale, seeds and rows, its other tables, and how to query them."""
    figures = sql.query(FIGURES, root)
    names = {*zip(figures["figure"].to_pylist(), figures["scale"].to_pylist(), strict=True)}
    others = sql.contents(root, but=names)
    parts = ["\n".join(lines(output.shown(figures.to_reader())[0]))] if names else []
    parts += [f"other tables: {others}"] if others else []
    parts = parts or ["single trainings only"]
    first = figures["figure"][0].as_py() if names else ""
    query = f"FROM means WHERE figure = '{first}'" if names else "FROM steps"
    where = [] if root == ROOT else ["--root", root]
    ask = f'raysslprune results "{query}"{"".join(f" {shlex.quote(word)}" for word in where)}'
    return "\n\n".join(
        [*parts, f"tables in SQL: {', '.join(sql.VIEWS)}; their columns: raysslprune results --help\nexample: {ask}"]
    )


def described() -> str:
    """Describe the tables and their columns: a column's type and meaning in the first table that has it."""
    lines: list[str] = []
    seen: set[str] = set()
    for name, (about, schema) in sql.VIEWS.items():
        lines.append(f"{name}: {about}")
        if again := [column for column in schema.names if column in seen]:
            lines += wrap(f"as above: {', '.join(again)}", 116, initial_indent="    ", subsequent_indent="    ")
        for field in schema:
            if field.name not in seen:
                meaning = (field.metadata or {}).get(b"about", b"").decode()
                lines.append(f"    {field.name:<18} {field.type!s:<22} {meaning}")
        seen |= set(schema.names)
    return "\n".join(lines)


def _parser() -> Parser:
    parser = Parser(
        prog="raysslprune results",
        description="Query the results of all sweeps of a root in SQL. Without a query: show which figures there are.",
        examples=[
            'raysslprune results "SELECT task, density, mean FROM means ORDER BY ALL"',
            'raysslprune results "FROM everything" --export everything.csv',
        ],
        codes="0 answered; 1 the root can't be read, or the file not written; 2 a wrong call or query",
    )
    parser.epilog = f"tables and their columns:\n\n{described()}\n\n{parser.epilog}"
    parser.add_argument("sql", nargs="*", metavar="SQL", help="one query in DuckDB's SQL, in quotes")
    parser.add_root()
    where = parser.add_mutually_exclusive_group()
    shown = f"on stdout: a table of at most {output.MAX_ROWS} rows (default), or all rows for other programs"
    where.add_argument("--format", default="table", choices=["table", *output.FORMATS], help=shown)
    written = f"write all rows to a file, by its ending: {' '.join(f'.{name}' for name in output.FORMATS)}"
    where.add_argument("--export", type=_file, metavar="FILE", help=written)
    return parser


def _file(text: str) -> str:
    try:
        output.format_of(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return path(text)
