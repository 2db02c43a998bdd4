"""The answer to a query as a file or a stream for other programs, or as a table for people.

Files are written batch by batch, numbers with all their digits. In CSV null is an empty cell, empty text ``""``, NaN
``nan``, a list or map JSON. JSON has no NaN: null and NaN both become ``null``. ``txt`` has values with tabs between
them, without a header line or quotes.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import date, datetime, time
from decimal import Decimal
from itertools import islice
from typing import Any, BinaryIO

import pyarrow as pa
from pyarrow.csv import CSVWriter
from pyarrow.parquet import ParquetWriter

from raysslprune.results.sql import QueryError
from raysslprune.table import Table


def write(answer: pa.RecordBatchReader, form: str, out: BinaryIO) -> int:
    """Write all rows in one of FORMATS; return their number. Raises QueryError for values that a format can't hold."""
    rows = 0

    def counted() -> Iterator[pa.RecordBatch]:
        nonlocal rows
        for batch in answer:
            rows += len(batch)
            yield batch

    try:
        FORMATS[form](pa.RecordBatchReader.from_batches(answer.schema, counted()), out)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise QueryError(f"{form} can't store a value of this answer: {error}") from None
    return rows


def export(answer: pa.RecordBatchReader, path: str) -> int:
    """Write all rows to a file, in the format of its extension; return their number.

    If this fails, the file stays as it was. Raises QueryError as :func:`write` does, and OSError.
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
    """Return the format that a file's extension names. Raises ValueError if there is no such format."""
    form = os.path.splitext(path)[1][1:].lower()
    if form not in FORMATS:
        raise ValueError(f"the file name must end in {', '.join(f'.{name}' for name in FORMATS)}, not {path!r}")
    return form


def _copy(batches: Iterable[pa.RecordBatch], writer: Any) -> None:
    with writer:
        for batch in batches:
            writer.write_batch(batch)


def _csv(answer: pa.RecordBatchReader, out: BinaryIO) -> None:
    """Write lists and structs as JSON, because Arrow's CSV writer has no form for them."""
    nested = [number for number, field in enumerate(answer.schema) if pa.types.is_nested(field.type)]
    schema = answer.schema
    for number in nested:
        schema = schema.set(number, pa.field(schema.names[number], pa.string()))

    def flat() -> Iterator[pa.RecordBatch]:
        for batch in answer:
            for number in nested:
                values = batch[number].to_pylist(maps_as_pydicts="strict")
                text = [None if value is None else _json_of(value) for value in values]
                batch = batch.set_column(number, schema.field(number), pa.array(text, pa.string()))
            yield batch

    _copy(flat(), CSVWriter(out, schema))


def _txt(answer: pa.RecordBatchReader, out: BinaryIO) -> None:
    for row in _rows(answer):
        out.write(("\t".join(map(_bare, row.values())) + "\n").encode())


def _bare(value: Any) -> str:
    """Format a value for the shell: nothing for null, and text as one line."""
    if value is None:
        return ""
    if isinstance(value, float):
        return repr(value)
    plain = _plain(value)
    return " ".join(plain.split()) if isinstance(plain, str) else _json_of(plain)


def _json(answer: pa.RecordBatchReader, out: BinaryIO) -> None:
    before = "[\n"
    for row in _rows(answer):
        out.write(f"{before}{_json_of(row)}".encode())
        before = ",\n"
    out.write(b"[]\n" if before == "[\n" else b"\n]\n")


FORMATS: Mapping[str, Callable[[pa.RecordBatchReader, BinaryIO], None]] = {
    "csv": _csv,
    "txt": _txt,
    "json": _json,
    "parquet": lambda answer, out: _copy(answer, ParquetWriter(out, answer.schema, compression="zstd")),
    "arrow": lambda answer, out: _copy(answer, pa.ipc.new_file(out, answer.schema)),
}
"""Writers by format: ``arrow`` is an Arrow IPC file, ``txt`` is for the shell."""

BINARY = ("parquet", "arrow")


def _rows(answer: pa.RecordBatchReader) -> Iterator[dict[str, Any]]:
    """Yield rows as Python values, a few at a time, because these take much more memory than Arrow's."""
    for batch in answer:
        for start in range(0, len(batch), 1024):
            try:
                yield from batch.slice(start, 1024).to_pylist(maps_as_pydicts="strict")
            except (ValueError, OverflowError):  # such as 'infinity'::DATE
                raise QueryError(
                    "a date or time in the answer is outside the years 1 to 9999; CAST it AS VARCHAR"
                ) from None


def _json_of(value: Any) -> str:
    return json.dumps(_plain(value), ensure_ascii=False)


def _plain(value: Any) -> Any:
    """Convert a value to the types of JSON."""
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
"""Maximum number of rows of a table for people."""


def shown(answer: pa.RecordBatchReader) -> tuple[Table, bool]:
    """Return the first MAX_ROWS rows, and whether there are more."""
    found = list(islice(_rows(answer), MAX_ROWS + 1))
    numeric = [pa.types.is_integer(t) or pa.types.is_floating(t) or pa.types.is_decimal(t) for t in answer.schema.types]
    rows = [[_cell(value) for value in row.values()] for row in found[:MAX_ROWS]]
    return Table.of(answer.schema.names, rows, right=numeric), len(found) > MAX_ROWS


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
        case str():  # without characters that control a terminal
            return "".join(c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in value)
    return str(_plain(value))


def _number(value: float) -> str:
    """Format a number with four significant digits, or with all digits before the decimal point."""
    if not math.isfinite(value) or value == 0:
        return f"{value:g}"
    return f"{value:.0f}" if 1000 <= abs(value) < 1e15 else f"{value:#.4g}".rstrip(".")
