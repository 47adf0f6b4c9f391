"""Aligned tables that fit the screen: what matters least is left out first, and nothing is cut to a single letter.

A column's name may end in marks, in any order: ``>`` aligned right, ``<`` cut short with an ellipsis where there is no
room (``<<`` sooner: a name beside a sentence), ``~`` broken into lines instead, and ``?`` left out on a narrow screen,
the more of them the sooner. What has no text in any row is left out first.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich import box
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rich.console import Console, ConsoleOptions, RenderResult

_MARKS = "><~?"
_GAP = 3  # columns of the screen between two of a table
_LEAST = 24  # what a flexible column needs before others are left out for it
_LEAST_NAME = 14  # and one of short texts
_FAIR_NAME = 20  # what such a one gets before sentences get more than they need


@dataclass(frozen=True, slots=True)
class _Column:
    title: str
    marks: str
    natural: int
    place: int
    is_empty: bool

    @property
    def least(self) -> int:
        if not self.is_flexible:
            return self.natural
        return min(self.natural, _LEAST_NAME if self.is_name else _LEAST)

    @property
    def is_flexible(self) -> bool:
        return "<" in self.marks or "~" in self.marks

    @property
    def is_name(self) -> bool:
        return "<<" in self.marks


class Listing:
    """A table that looks at the width of its screen when it is printed."""

    def __init__(self, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
        self._rows = [["" if cell is None else str(cell) for cell in row] for row in rows]
        self._columns = [self._column(place, name) for place, name in enumerate(columns)]

    def _column(self, place: int, name: str) -> _Column:
        title = name.rstrip(_MARKS)
        cells = [title, *(row[place] for row in self._rows)]
        widths = (max((len(line) for line in Text.from_markup(cell).plain.split("\n")), default=0) for cell in cells)
        is_empty = not any(row[place] for row in self._rows) and bool(self._rows)
        return _Column(title, name[len(title) :], max(widths), place, is_empty)

    def __rich_console__(self, _: Console, options: ConsoleOptions) -> RenderResult:
        """One table, made for this width."""
        yield self.fitted(options.max_width)

    def fitted(self, width: int) -> Table:
        """The table for a screen so wide."""
        shown = list(self._columns)
        if _needed(shown, _FAIR_NAME) > width:
            shown = [column for column in shown if not column.is_empty] or shown
        while _needed(shown) > width and any("?" in column.marks for column in shown):
            shown.remove(max(shown, key=lambda column: (column.marks.count("?"), column.place)))
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="bold")
        parts = _parts(shown, width - _needed(shown))
        for column in shown:
            table.add_column(
                column.title,
                justify="right" if ">" in column.marks else "left",
                no_wrap="~" not in column.marks,
                overflow="fold" if "~" in column.marks else "ellipsis",
                width=parts[column.title, column.place] if len(shown) > 1 else None,
            )
        for row in self._rows:
            table.add_row(*[row[column.place] for column in shown])
        return table


def table_of(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> Listing:
    """A table; see the marks of the columns above."""
    return Listing(columns, rows)


def _parts(columns: Sequence[_Column], spare: int) -> dict[tuple[str, int], int]:
    """How wide each column is; below 0, ``spare`` is what is missing."""
    parts = {(column.title, column.place): column.least for column in columns}
    names = [column for column in columns if column.is_name]
    others = [column for column in columns if column.is_flexible and not column.is_name]
    for column, most in (
        *((each, min(each.natural, _FAIR_NAME)) for each in names),
        *((each, each.natural) for each in (*others, *names)),
    ):
        at = column.title, column.place
        part = max(1, min(most, parts[at] + spare))
        spare -= part - parts[at]
        parts[at] = part
    return parts


def _needed(columns: Sequence[_Column], name: int = 0) -> int:
    """The least width that they all fit; ``name`` is what names get at least, up to what they need."""
    wants = sum(max(column.least, min(column.natural, name) if column.is_name else 0) for column in columns)
    return wants + _GAP * max(0, len(columns) - 1)
