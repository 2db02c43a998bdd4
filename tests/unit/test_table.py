"""Tables for people: what is kept of them, and each way to render them, against one written out by hand."""

from __future__ import annotations

import io

from jinja2 import Environment
from rich.console import Console

from raysslprune.report import page
from raysslprune.table import Cell, Link, Table, lines, markdown, number, whole
from raysslprune.terminal import tables

TABLE = Table.of(
    ("task", "[n]", "made by"),
    [
        ("a|b", whole(1234), Cell(("run ", Link("7", "run-7")))),
        (Cell(("all\nof it",), strong=True), number("5.0", 5.0), ""),
    ],
    anchors=("", "total"),
    caption="Counts",
)


def test_numbers_are_aligned_to_the_right_unless_it_is_said() -> None:
    assert TABLE.right == (False, True, False)
    assert Table.of(("a", "b"), [("1", whole(1))], right=(True, False)).right == (True, False)


def test_columns_that_are_not_wanted_are_left_out() -> None:
    table = Table.of({"a": True, "b": False, "c": True}, [("1", "2", whole(3)), ("4", "5", "6")])
    assert table.texts() == [["a", "c"], ["1", "3"], ["4", "6"]]
    assert table.right == (False, True)


def test_as_text() -> None:
    assert lines(TABLE) == [
        "task     [n]  made by",
        "a|b    1,234  run 7",
        "all      5.0",
        "of it",
    ]


def test_in_a_terminal() -> None:
    """Nothing in a cell is markup, and what is too wide is folded."""
    out = io.StringIO()
    tables.show(Console(file=out, width=40), TABLE)
    assert [line.rstrip() for line in out.getvalue().splitlines()] == [
        "",
        "Counts",
        "task     [n]  made by",
        "a|b    1,234  run 7",
        "all      5.0",
        "of it",
    ]
    for keep in (True, False):
        out, wide = io.StringIO(), Table.of(("first second", "third fourth"), [("one", "two")])
        tables.show(Console(file=out, width=24), wide, keep_first=keep)
        assert ("first second" in out.getvalue()) == keep


def test_rows_as_columns() -> None:
    table = Table.of(("% pruned", "labels", "random"), [("10", "9", "8"), ("50", "7", "")], right=(True, True, True))
    assert lines(table.turned) == ["% pruned  10  50", "labels     9   7", "random     8"]
    assert (table.width, table.turned.width) == (8 + 2 + 6 + 2 + 6, 8 + 2 + 2 + 2 + 2)
    assert table.turned.turned.texts() == table.texts()


def test_as_markdown() -> None:
    table = Table.of(("task", "n"), [("a|b", whole(1234)), (Cell(("c",), strong=True), "")])
    assert markdown(table) == "| task | n |\n| --- | --- |\n| a\\|b | 1,234 |\n| **c** |  |"


def test_as_html() -> None:
    source = page.files(page.report).joinpath("page.html").read_text("utf-8").partition("<!doctype")[0]
    made = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(source + "{{ grid(table) }}")
    text = made.render(table=TABLE)
    assert '<th scope="col">task</th><th scope="col" class="number">[n]</th><th scope="col">made by</th>' in text
    assert '<td>a|b</td><td data-v="1234">1,234</td><td>run <a href="#run-7">7</a></td>' in "".join(text.split("\n"))
    assert '<tr id="total"><td><b>all\nof it</b></td>' in text
