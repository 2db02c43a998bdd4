"""The answer to a query as a file or a stream for other programs, or as a table for people.

Files are written batch by batch, numbers with all their digits. CSV has an empty cell for null, ``""`` for empty text
and ``nan``; JSON, which has no NaN, ``null`` for both. Lists stand in CSV as JSON. ``txt`` has values alone, with tabs
between them: no heading and no quotes.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import uuid
from collections.abc import Callable, Iterator, Mapping
from datetime import date, datetime, time
from decimal import Decimal
from itertools import islice, zip_longest
from typing import Any, BinaryIO

import pyarrow as pa

from raysslprune.results.sql import Answer, QueryError


def write(answer: Answer, form: str, out: BinaryIO) -> int:
    """Write all rows, in one of FORMATS; returns how many. Raises QueryError for what a format can't hold."""
    rows = 0

    def counted() -> Iterator[pa.RecordBatch]:
        nonlocal rows
        for batch in answer.batches:
            rows += len(batch)
            yield batch

    try:
        FORMATS[form](Answer(schema=answer.schema, batches=counted()), out)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise QueryError(f"{form} can't hold this: {error}") from None
    return rows


def export(answer: Answer, path: str) -> int:
    """Write all rows to a file, whole or not at all, in the format of its ending; returns how many.

    Raises QueryError as :func:`write`, and OSError.
    """
    part = f"{path}.{uuid.uuid4().hex}.part"
    try:
        with open(part, "wb") as out:
            rows = write(answer, format_of(path), out)
        os.replace(part, path)
    except OSError as error:
        raise OSError(f"can't write {path}: {error.strerror or error}") from None
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.remove(part)
    return rows


def format_of(path: str) -> str:
    """By the ending. Raises ValueError."""
    form = os.path.splitext(path)[1][1:].lower()
    if form not in FORMATS:
        raise ValueError(f"a file ends in {', '.join(f'.{name}' for name in FORMATS)}, not {path!r}")
    return form


def _csv(answer: Answer, out: BinaryIO) -> None:
    from pyarrow import csv

    nested = [number for number, field in enumerate(answer.schema) if pa.types.is_nested(field.type)]
    schema = answer.schema
    for number in nested:
        schema = schema.set(number, pa.field(schema.names[number], pa.string()))
    with csv.CSVWriter(out, schema) as writer:
        for batch in answer.batches:
            for number in nested:
                text = [None if value is None else _json_of(value) for value in batch[number].to_pylist()]
                batch = batch.set_column(number, schema.field(number), pa.array(text, pa.string()))
            writer.write_batch(batch)


def _txt(answer: Answer, out: BinaryIO) -> None:
    for batch in answer.batches:
        for row in _rows(batch):
            out.write(("\t".join(map(_bare, row.values())) + "\n").encode())


def _bare(value: Any) -> str:
    """As a shell takes it: null is nothing, and text no more than a line."""
    if value is None or isinstance(value, float):
        return "" if value is None else repr(value)
    plain = _plain(value)
    return " ".join(plain.split()) if isinstance(plain, str) else _json_of(plain)


def _json(answer: Answer, out: BinaryIO) -> None:
    before = "[\n"
    for batch in answer.batches:
        for row in _rows(batch):
            out.write(f"{before}{_json_of(row)}".encode())
            before = ",\n"
    out.write(b"[]\n" if before == "[\n" else b"\n]\n")


def _parquet(answer: Answer, out: BinaryIO) -> None:
    import pyarrow.parquet as pq

    with pq.ParquetWriter(out, answer.schema, compression="zstd") as writer:
        for batch in answer.batches:
            writer.write_batch(batch)


def _arrow(answer: Answer, out: BinaryIO) -> None:
    with pa.ipc.new_file(out, answer.schema) as writer:
        for batch in answer.batches:
            writer.write_batch(batch)


FORMATS: Mapping[str, Callable[[Answer, BinaryIO], None]] = {
    "csv": _csv,
    "txt": _txt,
    "json": _json,
    "parquet": _parquet,
    "arrow": _arrow,
}
"""For other programs; ``arrow`` is an Arrow IPC file, ``txt`` for the shell."""

BINARY = ("parquet", "arrow")


def _rows(batch: pa.RecordBatch) -> Iterator[dict[str, Any]]:
    """As Python values, few at a time, since these take many times the room."""
    for start in range(0, len(batch), 1024):
        try:
            yield from batch.slice(start, 1024).to_pylist()
        except (ValueError, OverflowError):  # as 'infinity'::DATE
            raise QueryError("a date or time in the answer is not of the years 1 to 9999; CAST it AS VARCHAR") from None


def _json_of(value: Any) -> str:
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, default=_plain)
    except ValueError:  # there is a NaN somewhere
        return json.dumps(_plain(value), ensure_ascii=False)


def _plain(value: Any) -> Any:
    """Of what JSON has."""
    match value:
        case float():
            return value if math.isfinite(value) else None
        case Decimal():
            return int(value) if value == value.to_integral_value() else float(value)
        case dict():
            return {str(name): _plain(inner) for name, inner in value.items()}
        case list() | tuple():
            return [_plain(inner) for inner in value]
        case datetime() | date() | time():
            return value.isoformat()
        case bytes():
            return value.hex()
        case None | bool() | int() | str():
            return value
    return str(value)


# ------------------------------------------------------------------ for people

MAX_ROWS = 100
"""Rows of a table for people."""


def lines(answer: Answer) -> tuple[list[str], bool]:
    """The first MAX_ROWS rows as lines of text, a heading first; and whether there are more."""
    found = list(islice((row for batch in answer.batches for row in _rows(batch)), MAX_ROWS + 1))
    table = [answer.schema.names, *([_cell(value) for value in row.values()] for row in found[:MAX_ROWS])]
    widths = [max(len(line) for cell in column for line in cell.split("\n")) for column in zip(*table, strict=True)]
    numeric = [
        pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
        for kind in answer.schema.types
    ]
    text: list[str] = []
    for row in table:
        for parts in zip_longest(*(cell.split("\n") for cell in row), fillvalue=""):  # a cell may have several lines
            aligned = zip(parts, widths, numeric, strict=True)
            text.append("  ".join(f"{part:{'>' if right else '<'}{width}}" for part, width, right in aligned).rstrip())
    return text, len(found) > MAX_ROWS


def _cell(value: Any) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case float():
            return _number(value)
        case datetime():
            return value.isoformat(" ", "seconds").removesuffix("+00:00")
        case list():
            return ", ".join(map(_cell, value))
        case dict():
            return _json_of(value)
        case str():  # nothing that could steer a terminal
            return "".join(c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in value)
    return str(_plain(value))


def _number(value: float) -> str:
    """Four digits, or all before the point."""
    if not math.isfinite(value) or value == 0:
        return f"{value:g}"
    return f"{value:.0f}" if 1000 <= abs(value) < 1e15 else f"{value:#.4g}".rstrip(".")
