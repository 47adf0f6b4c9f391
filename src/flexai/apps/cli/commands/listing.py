"""Aligned tables that fit the screen: what matters least is left out first, and nothing is cut to a single letter.

A column's name may end in marks, in any order: ``>`` aligned right, ``<`` cut short with an ellipsis where there is no
room, ``~`` broken into lines instead, and ``?`` left out on a narrow screen, the more of them the sooner.
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


@dataclass(frozen=True, slots=True)
class _Column:
    title: str
    marks: str
    natural: int
    place: int

    @property
    def least(self) -> int:
        return min(self.natural, _LEAST) if self.is_flexible else self.natural

    @property
    def is_flexible(self) -> bool:
        return "<" in self.marks or "~" in self.marks


class Listing:
    """A table that looks at the width of its screen when it is printed."""

    def __init__(self, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
        self._rows = [["" if cell is None else str(cell) for cell in row] for row in rows]
        self._columns = [self._column(place, name) for place, name in enumerate(columns)]

    def _column(self, place: int, name: str) -> _Column:
        title = name.rstrip(_MARKS)
        cells = [title, *(row[place] for row in self._rows)]
        widths = (max((len(line) for line in Text.from_markup(cell).plain.split("\n")), default=0) for cell in cells)
        return _Column(title, name[len(title) :], max(widths), place)

    def __rich_console__(self, _: Console, options: ConsoleOptions) -> RenderResult:
        """One table, made for this width."""
        yield self.fitted(options.max_width)

    def fitted(self, width: int) -> Table:
        """The table for a screen so wide."""
        shown = list(self._columns)
        while _needed(shown) > width and any("?" in column.marks for column in shown):
            shown.remove(max(shown, key=lambda column: (column.marks.count("?"), column.place)))
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="bold")
        spare = width - _needed(shown)
        for column in shown:
            part = max(1, min(column.natural, column.least + spare)) if column.is_flexible else column.natural
            spare -= part - column.least
            table.add_column(
                column.title,
                justify="right" if ">" in column.marks else "left",
                no_wrap="~" not in column.marks,
                overflow="fold" if "~" in column.marks else "ellipsis",
                width=part if len(shown) > 1 else None,
            )
        for row in self._rows:
            table.add_row(*[row[column.place] for column in shown])
        return table


def table_of(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> Listing:
    """A table; see the marks of the columns above."""
    return Listing(columns, rows)


def _needed(columns: Sequence[_Column]) -> int:
    return sum(column.least for column in columns) + _GAP * max(0, len(columns) - 1)
