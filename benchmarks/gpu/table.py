"""``python -m benchmarks.gpu.table FILE``: the results of a run as Markdown, for docs/performance.md."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path

from benchmarks.gpu.results import Record, number, read
from raysslprune.commands.common import Parser, path, reports_errors
from raysslprune.messages import FAILED, say

MEASURED = Path(__file__).with_name("measured.jsonl")
"""File of the results that the page shows."""

UNMEASURED = "Nothing has been measured on a GPU yet, and nothing is claimed."

BEGIN, END = "<!-- results: python -m benchmarks.gpu.table -->", "<!-- end of results -->"
"""Comments before and after the results on the page."""


def markdown(records: Sequence[Record]) -> str:
    """Format results: the machine in a sentence; for each part its failed checks, tables, and what was not measured."""
    facts = {name: number(v) for r in records if r["part"] == "machine" for name, v in r.get("values", {}).items()}
    parts = [f"On {facts.pop('name', 'an unknown device')}: {', '.join(f'{n} {v}' for n, v in facts.items())}."]
    for name, some in groupby((r for r in records if r["part"] != "machine"), key=lambda record: record["part"]):
        parts.append(_part(name, list(some)))
    return "\n\n".join(parts)


def _part(name: str, records: Sequence[Record]) -> str:
    checks = [record for record in records if "passed" in record]
    failed = [record for record in checks if not record["passed"]]
    said = [f"{len(checks) - len(failed)} of {len(checks)} checks passed."] if checks else []
    said += [f"FAILED: {record['name']}: {_why(record)}." for record in failed]
    said += [f"{record['name']}: {record['says']}." for record in records if "says" in record and record not in failed]
    measured = [record for record in records if "values" in record]
    tables = [_table(name, list(rows)) for _, rows in groupby(measured, key=lambda record: list(record["values"]))]
    return "\n\n".join([f"*{name}*: {' '.join(said)}".rstrip(": "), *tables])


def _why(record: Record) -> str:
    if "says" in record:
        return record["says"]
    return f"{number(record['found'])}, expected {number(record['expected'])} ± {number(record['tolerance'])}"


def _table(corner: str, records: Sequence[Record]) -> str:
    """Make a table of measurements with the same columns: medians, and in brackets the lowest and the highest."""
    columns = records[0]["values"]
    rows = [[record["name"], *map(_cell, record["values"].values())] for record in records]
    lines = [[corner, *columns], ["---"] * (len(columns) + 1), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(value: object) -> str:
    if isinstance(value, Mapping) and value["n"] > 1:
        return f"{number(value['median'])} ({number(value['lowest'])}-{number(value['highest'])})"
    return number(value)


def block(file: Path = MEASURED) -> str:
    """Return the page's block for a file of results, or UNMEASURED if there is no file. Raises ValueError."""
    return f"{BEGIN}\n\n{markdown(read(file)) if file.exists() else UNMEASURED}\n\n{END}"


def replaced(page: str, block: str) -> str:
    """Return a page with another block of results. Raises ValueError if the page has none."""
    pattern = f"{re.escape(BEGIN)}.*{re.escape(END)}"
    if not re.search(pattern, page, re.S):
        raise ValueError(f"the page has no line {BEGIN}")
    return re.sub(pattern, lambda _: block, page, flags=re.S)


@reports_errors()
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return the exit code."""
    options = _parser().parse_args(arguments)
    try:
        results = read(Path(options.file))
        if options.into:
            page = Path(options.into)
            page.write_text(replaced(page.read_text(), block(Path(options.file))))
        else:
            print(markdown(results))
    except (ValueError, OSError) as error:
        return say(str(error), FAILED)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m benchmarks.gpu.table",
        description="Results of python -m benchmarks.gpu as Markdown.",
        examples=["python -m benchmarks.gpu.table benchmarks/gpu/measured.jsonl --into docs/performance.md"],
        codes="0 printed or written; 1 a file can't be used; 2 a wrong call",
    )
    parser.add_argument("file", type=path, metavar="FILE", help="what python -m benchmarks.gpu wrote")
    parser.add_argument("--into", type=path, metavar="PAGE", help="write it between the page's two comments on results")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
