"""Results: what a part yields, as a line of JSON in a file and as a line for people in the terminal."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Check:
    """A comparison of two numbers that should differ by at most ``tolerance``. why: reason for its size."""

    name: str
    found: float
    expected: float
    tolerance: float
    why: str

    @property
    def passed(self) -> bool:
        return abs(self.found - self.expected) <= self.tolerance  # False for NaN

    def plain(self) -> dict[str, Any]:
        compared = {"found": self.found, "expected": self.expected, "tolerance": self.tolerance}
        return {"name": self.name, **compared, "why": self.why, "passed": self.passed}


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Measured numbers, or their ``statistics.spread``, by name; also facts as text."""

    name: str
    values: Mapping[str, Any]

    def plain(self) -> dict[str, Any]:
        return {"name": self.name, "values": dict(self.values)}


@dataclass(frozen=True, kw_only=True)
class Said:
    """A sentence in place of a number. failed: True for an error; else something is missing, or time ran out.

    details: more for debugging, such as a traceback.
    """

    name: str
    says: str
    failed: bool = False
    details: str = ""

    def plain(self) -> dict[str, Any]:
        failed = {"passed": False} if self.failed else {}
        return {"name": self.name, "says": self.says, **({"details": self.details} if self.details else {}), **failed}


Line = Check | Measured | Said

Record = dict[str, Any]
"""A line as it is read back: ``part``, ``seconds`` since the command began, and the fields of a Line."""


@dataclass(frozen=True)
class Results:
    """The file of one run, which several processes append to one after the other.

    begun: its start, by ``time.monotonic``. shows: True if lines are also printed, as only the first of ranks does.
    """

    path: str
    begun: float
    shows: bool = True

    def add(self, part: str, line: Line) -> None:
        """Write a line, flush it to the disk, and print it if ``shows``."""
        record = {"part": part, "seconds": round(time.monotonic() - self.begun, 1), **_finite(line.plain())}
        with open(self.path, "a") as file:
            file.write(json.dumps(record) + "\n")
            file.flush()
            os.fsync(file.fileno())
        if self.shows:
            print(shown(record), flush=True)

    def read(self) -> list[Record]:
        return read(Path(self.path))


def read(path: Path) -> list[Record]:
    """Read the lines of a file. Raises OSError, and ValueError, with a sentence, if it has another form."""
    try:
        records = [json.loads(line) for line in path.read_text().splitlines()]
        for record in records:
            _ = record["part"], record["name"], record["seconds"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is no file of results of python -m benchmarks.gpu") from error
    return records


def shown(record: Record) -> str:
    """Format a line for people."""
    return f"{record['seconds']:6.1f} s  {record['part']:<12}{record['name']}: {_said(record)}"


def _said(record: Record) -> str:
    if "found" in record:
        verdict = "passed" if record["passed"] else "FAILED"
        found, expected, tolerance = (number(record[key]) for key in ("found", "expected", "tolerance"))
        return f"{verdict}, {found}, expected {expected} ± {tolerance}"
    if "values" in record:
        return ", ".join(f"{name} {number(value)}" for name, value in record["values"].items())
    return f"{'FAILED, ' if 'passed' in record else ''}{record['says']}"


def number(value: Any) -> str:
    """Format a value with three or more digits; of a spread, its median."""
    if isinstance(value, Mapping):
        value = value["median"]
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return str(value)


def _finite(value: Any) -> Any:
    """Replace NaN and infinity, which JSON does not have, by text."""
    if isinstance(value, Mapping):
        return {name: _finite(inner) for name, inner in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def failures(records: Iterable[Record]) -> int:
    """Count the lines that are failed checks or errors."""
    return sum(record.get("passed") is False for record in records)
