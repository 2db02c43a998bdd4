"""A table for people, independent of how it is rendered: as text, in a terminal, as HTML or Markdown.

This module renders text and Markdown. ``terminal.tables.show`` fits a table to a terminal's width; ``report/page.html``
renders HTML.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import NamedTuple


class Link(NamedTuple):
    """A word that links to a place on the same page."""

    text: str
    to: str


class Cell(NamedTuple):
    """A cell. parts: its text and links. value: number to sort by; None for words. strong: bold, where possible."""

    parts: tuple[str | Link, ...]
    value: float | None = None
    strong: bool = False

    @property
    def text(self) -> str:
        return "".join(part if isinstance(part, str) else part.text for part in self.parts)


class Row(NamedTuple):
    """A row. anchor: name by which links refer to the row; '' if there are none."""

    cells: tuple[Cell, ...]
    anchor: str = ""


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table. right: for each column, True to align it right. note: text below, on what the table leaves out."""

    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    right: tuple[bool, ...]
    caption: str = ""
    note: str = ""

    @classmethod
    def of(
        cls,
        columns: Sequence[str] | Mapping[str, bool],
        rows: Iterable[Sequence[str | Cell]],
        *,
        anchors: Sequence[str] = (),
        right: Sequence[bool] = (),
        caption: str = "",
        note: str = "",
    ) -> Table:
        """Make a table of words and cells. columns: names; or a mapping from each name to True if its column is kept.

        anchors: one for each row. right: by default True for the columns that have numbers.
        """
        kept = list(columns.values()) if isinstance(columns, Mapping) else [True] * len(columns)
        made: list[Row] = []
        for row, anchor in zip_longest(rows, anchors, fillvalue=""):
            chosen = (cell for cell, keep in zip(row, kept, strict=True) if keep)
            made.append(Row(tuple(Cell((cell,)) if isinstance(cell, str) else cell for cell in chosen), anchor))
        names = tuple(name for name, keep in zip(columns, kept, strict=True) if keep)
        numbers = (any(row.cells[place].value is not None for row in made) for place in range(len(names)))
        return cls(columns=names, rows=tuple(made), right=tuple(right or numbers), caption=caption, note=note)

    def texts(self) -> list[list[str]]:
        """Return the names of the columns, then the text of each row."""
        return [list(self.columns), *([cell.text for cell in row.cells] for row in self.rows)]

    @property
    def width(self) -> int:
        """Characters of the longest cell of each column, in sum, with two between columns."""
        longest = [max(map(len, column)) for column in zip(*self.texts(), strict=True)]
        return sum(longest) + 2 * (len(longest) - 1)

    @property
    def turned(self) -> Table:
        """The table with its rows as columns, without anchors."""
        head, *columns = zip(*(row.cells for row in self.rows), strict=True)
        rows = [(name, *cells) for name, cells in zip(self.columns[1:], columns, strict=True)]
        right = (False, *self.right[1:2] * len(head))
        names = (self.columns[0], *(cell.text for cell in head))
        return Table.of(names, rows, right=right, caption=self.caption, note=self.note)


def number(text: str, value: float | None) -> Cell:
    """Make a cell of a number: its text, and the value to sort by."""
    return Cell((text,), value)


def whole(value: int) -> Cell:
    """Make a cell of a whole number."""
    return number(f"{value:,}", value)


def lines(table: Table) -> list[str]:
    """Render a table as lines of text of any width, for a pipe or a file. A cell may have several lines."""
    texts = table.texts()
    widths = [max(len(line) for cell in column for line in cell.split("\n")) for column in zip(*texts, strict=True)]
    found: list[str] = []
    for row in texts:
        for parts in zip_longest(*(cell.split("\n") for cell in row), fillvalue=""):
            aligned = zip(parts, widths, table.right, strict=True)
            found.append("  ".join(f"{part:{'>' if right else '<'}{width}}" for part, width, right in aligned).rstrip())
    return found


def markdown(table: Table) -> str:
    """Render a table as GitHub's Markdown."""
    rows = [[f"**{cell.text}**" if cell.strong else cell.text for cell in row.cells] for row in table.rows]
    return "\n".join(
        f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |"
        for line in (table.columns, ["---"] * len(table.columns), *rows)
    )
