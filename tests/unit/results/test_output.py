"""Answers as CSV, JSON, text and files."""

from __future__ import annotations

import csv
import io
import json
import os
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.ipc
import pyarrow.parquet as pq
import pytest

from raysslprune import results
from raysslprune.commands.results import main
from raysslprune.results import output

ODD = """
SELECT * FROM (VALUES
    (1, 0.1 + 0.2::DOUBLE, 'a, "b"', [1.5, NULL], DATE '2020-02-01', 12::HUGEINT, {'k': 'v'}, TRUE),
    (2, 'nan'::DOUBLE, '', [], NULL, NULL, NULL, FALSE),
    (3, NULL, NULL, NULL, NULL, 3::HUGEINT, {'k': NULL}, NULL),
    (4, '-inf'::DOUBLE, 'ü', ['nan'::DOUBLE], NULL, NULL, NULL, NULL)
) AS t(whole, real, text, list, day, huge, struct, yes) ORDER BY whole
"""


def asked(capfdbinary: pytest.CaptureFixture[bytes], *arguments: str) -> bytes:
    assert main([*arguments]) == 0
    return capfdbinary.readouterr().out


def test_csv_has_all_digits_and_tells_null_from_nothing(
    small_root: str, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    text = asked(capfdbinary, ODD, "--root", small_root, "--format", "csv").decode()
    assert text.splitlines() == [
        '"whole","real","text","list","day","huge","struct","yes"',
        '1,0.30000000000000004,"a, ""b""","[1.5, null]",2020-02-01,12,"{""k"": ""v""}",true',
        '2,nan,"","[]",,,,false',
        '3,,,,,3,"{""k"": null}",',
        '4,-inf,"ü","[null]",,,,',
    ]


def test_text_for_the_shell_is_values_alone(small_root: str, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    odd = ODD.replace("'ü'", "chr(9) || 'ü' || chr(10) || 'b'")
    text = asked(capfdbinary, odd, "--root", small_root, "--format", "txt").decode()
    assert text.splitlines() == [
        '1\t0.30000000000000004\ta, "b"\t[1.5, null]\t2020-02-01\t12\t{"k": "v"}\ttrue',
        "2\tnan\t\t[]\t\t\t\tfalse",
        '3\t\t\t\t\t3\t{"k": null}\t',
        "4\t-inf\tü b\t[null]\t\t\t\t",
    ]
    step = asked(capfdbinary, "SELECT step FROM results LIMIT 1", "--root", small_root, "--format", "txt").decode()
    assert re.fullmatch("[0-9a-f]{16}\n", step), "as it is, in $(...)"


def test_json_is_json(small_root: str, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    def no_constant(name: str) -> None:
        raise AssertionError(name)

    text = asked(capfdbinary, ODD, "--root", small_root, "--format", "json")
    names = ("whole", "real", "text", "list", "day", "huge", "struct", "yes")
    assert [tuple(row[name] for name in names) for row in json.loads(text, parse_constant=no_constant)] == [
        (1, 0.1 + 0.2, 'a, "b"', [1.5, None], "2020-02-01", 12, {"k": "v"}, True),
        (2, None, "", [], None, None, None, False),
        (3, None, None, None, None, 3, {"k": None}, None),
        (4, None, "ü", [None], None, None, None, None),
    ]
    assert json.loads(asked(capfdbinary, "FROM results LIMIT 0", "--root", small_root, "--format", "json")) == []
    odd = "SELECT 1.25::DECIMAL(5,2) AS d, TIMESTAMPTZ '2020-01-02 03:04:05+00' AS t, '\\xAB'::BLOB AS b"
    (row,) = json.loads(asked(capfdbinary, odd, "--root", small_root, "--format", "json"))
    assert (row["d"], row["t"], row["b"]) == (1.25, "2020-01-02T03:04:05+00:00", "ab")


def test_csv_and_json_give_every_number_back(results_root: str, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    wanted = results.query("FROM everything ORDER BY ALL", results_root).to_pylist()
    found = json.loads(asked(capfdbinary, "FROM everything ORDER BY ALL", "--root", results_root, "--format", "json"))
    text = asked(capfdbinary, "FROM everything ORDER BY ALL", "--root", results_root, "--format", "csv").decode()
    table = [*csv.DictReader(io.StringIO(text))]
    assert len(wanted) == len(found) == len(table)
    for one, other, cells in zip(wanted, found, table, strict=True):
        assert {**one, "begun": one["begun"].isoformat()} == other
        for name in ("density", "value", "seconds", "images_per_second"):
            assert float(cells[name]) == one[name]
        assert json.loads(cells["figures"]) == one["figures"]


@pytest.mark.parametrize("ending", ["csv", "txt", "json", "parquet", "arrow"])
def test_a_file_has_what_stdout_has(
    ending: str, small_root: str, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    query = "SELECT value, task, i FROM results, range(4_000) AS t(i) ORDER BY ALL"
    path = tmp_path / f"all.v1.{ending}"
    assert output.format_of(f"a.b.{ending.upper()}") == ending
    path.write_text("before")
    assert main([query, "--root", small_root, "--export", str(path)]) == 0
    said = capfdbinary.readouterr()
    wanted = results.query(query, small_root)
    assert wanted["i"].num_chunks > 1
    assert said.out == b""
    assert said.err.decode() == f"raysslprune: {path}: {wanted.num_rows:,} rows\n"
    assert asked(capfdbinary, query, "--root", small_root, "--format", ending) == path.read_bytes()
    if ending == "parquet":
        assert pq.read_table(path).equals(wanted)
    elif ending == "arrow":
        assert pa.ipc.open_file(path).read_all().equals(wanted)
    elif ending == "csv":
        assert pyarrow.csv.read_csv(path)["value"].to_pylist() == wanted["value"].to_pylist()
    assert sorted(os.listdir(tmp_path)) == [path.name, "runs"]


def test_a_file_is_whole_or_as_it_was(small_root: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "all.csv"
    path.write_text("before")
    query = "SELECT 1 // (i - 900_000) AS n FROM range(1_000_000) AS t(i)"
    assert main([query, "--root", small_root, "--export", str(path)]) == 2
    assert main(["SELECT INTERVAL 1 DAY AS i", "--root", small_root, "--export", str(path)]) == 2
    assert "csv can't store a value of this answer: " in capfd.readouterr().err
    assert path.read_text() == "before"
    assert sorted(os.listdir(tmp_path)) == ["all.csv", "runs"]


def test_a_table_for_people(small_root: str, capfd: pytest.CaptureFixture[str]) -> None:
    """Numbers to the right; a text of several lines keeps them, and can't steer the terminal."""
    odd = ODD.replace("'ü'", "'ü\x1b[31m\n two'")
    assert main([odd, "--root", small_root]) == 0
    shown = capfd.readouterr()
    assert shown.out == (
        "whole    real  text    list         day         huge  struct       yes\n"
        '    1  0.3000  a, "b"  1.500, null  2020-02-01    12  {"k": "v"}   true\n'
        "    2     nan                       null        null  null         false\n"
        '    3    null  null    null         null           3  {"k": null}  null\n'
        "    4    -inf  ü\ufffd[31m  nan          null        null  null         null\n"
        "                two\n"
    )
    assert shown.err == ""


def test_a_table_for_people_has_a_hundred_rows(small_root: str, capfd: pytest.CaptureFixture[str]) -> None:
    for rows_there, told in ((100, False), (101, True)):
        assert main([f"SELECT i FROM range({rows_there}) AS t(i) ORDER BY i", "--root", small_root]) == 0
        shown = capfd.readouterr()
        assert shown.out.split() == ["i", *map(str, range(100))]
        said = "raysslprune: these are the first 100 rows; --format csv or --export FILE gives all\n"
        assert shown.err == (said if told else "")
    assert main(["SELECT task, begun FROM everything LIMIT 0", "--root", small_root]) == 0
    assert capfd.readouterr().out == "task  begun\n"


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (97.83333, "97.83"),
        (98.0, "98.00"),
        (0.0047223, "0.004722"),
        (1.0, "1.000"),
        (14_000.6, "14001"),
        (-1234.5678, "-1235"),
        (999.96, "1000"),
        (0.0, "0"),
        (1.2e-7, "1.200e-07"),
        (3e20, "3.000e+20"),
        (float("nan"), "nan"),
        (float("-inf"), "-inf"),
    ],
)
def test_numbers_for_people(value: float, shown: str) -> None:
    assert output._number(value) == shown
