"""Rows of traces: lines with named fields, whose errors name file, line, field and value, or are counted.

No file is opened here: a reader gets lines and the name of their source.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TypeVar

from flexai.wire.errors import BadInput

if TYPE_CHECKING:
    from _csv import Reader as CsvReader
    from collections.abc import Callable, Iterable, Iterator, Sequence

T = TypeVar("T")


@dataclass(slots=True)
class BadRows:
    """What was left out of a trace, for the run card: first few errors in words, all of them counted."""

    skip: bool = False
    n: int = 0
    first: list[str] = field(default_factory=list)

    def take(self, error: BadInput) -> None:
        """Count the error, or raise it when bad rows are not to be skipped."""
        if not self.skip:
            raise error
        self.n += 1
        if len(self.first) < 5:
            self.first.append(str(error))


def _lines(lines: Iterable[str], source: str, needed: tuple[str, ...], delimiter: str = ",") -> Iterator[Row]:
    reader = csv.reader(lines, delimiter=delimiter)
    header = _next(reader)
    if not header:
        raise BadInput(source, "", "has no header line", "Give a trace whose first line names its columns")
    missing = [name for name in needed if name not in header]
    if missing:
        raise BadInput(
            f"{source}:1", ",".join(header)[:200], f"lacks the columns {', '.join(missing)}", "Check --format"
        )
    while (values := _next(reader)) is not None:
        yield Row(source, reader.line_num, header, values)


def _next(reader: CsvReader) -> list[str] | None:
    """The next line's fields; none of a line that is no CSV (its field count then tells), None at the end."""
    try:
        return next(reader, None)
    except csv.Error:
        return []


FLAGS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


class Row:
    """One line, whose fields are read with errors that name file, line, field and value."""

    def __init__(self, source: str, number: int, header: Sequence[str], values: Sequence[str]) -> None:
        self._where = f"{source}:{number}"
        self.number = number
        self.names = frozenset(header)
        if len(values) != len(header):
            self._values: dict[str, str] = {}
            self.problem: str | None = f"has {len(values)} fields where the header has {len(header)}"
        else:
            self._values = dict(zip(header, values, strict=True))
            self.problem = None

    def text(self, name: str) -> str:
        """The field without blanks around it.

        Raises:
            BadInput: the line has no such field; as from all methods here.
        """
        if self.problem:
            raise BadInput(self._where, "", self.problem, "Mend the line, or use --skip-bad")
        if name not in self._values:
            raise BadInput(f"{self._where}: {name}", "", "is not given", "Give it, or use --skip-bad")
        return self._values[name].strip()

    def flag(self, name: str) -> bool:
        """``true`` or ``false``, in any case; also 1 and 0, yes and no."""
        text = self.text(name).lower()
        if text not in FLAGS:
            raise self.wrong(name, "is neither true nor false")
        return FLAGS[text]

    def integer(self, name: str, *, least: int = 0, most: int = 2**53) -> int:
        """A whole number within bounds."""
        return int(self._number(name, least, most))

    def number_of(self, name: str) -> float:
        """A number of at least 0."""
        return self._number(name, 0, 2**53)

    def scaled(self, name: str, scale: int, least: int) -> int:
        """A number times ``scale``, rounded, at least ``least``."""
        return round(self._number(name, least / scale, 2**53 / scale) * scale)

    def ms(self, name: str) -> int:
        """A number of seconds, as ms."""
        return round(self._number(name, 0, 2**40) * 1000)

    def moment_ms(self, name: str) -> int:
        """A time written ``2017-10-02 12:00:00`` or with a T; as ms since 1970 in UTC."""
        text = self.text(name)
        try:
            return round(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)
        except ValueError:
            raise self.wrong(name, "is not a time like 2017-10-02 12:00:00") from None

    def _number(self, name: str, least: float, most: float) -> float:
        text = self.text(name)
        try:
            value = float(text)
        except ValueError:
            raise self.wrong(name, "is not a number") from None
        if not least <= value <= most:
            raise self.wrong(name, f"is not within {least:g} to {most:g}")
        return value

    def wrong(self, name: str, problem: str) -> BadInput:
        """The error to raise for a field that was read but makes no sense."""
        return BadInput(f"{self._where}: {name}", self._values.get(name, ""), problem, "Mend it, or use --skip-bad")


def read_rows(
    lines: Iterable[str],
    source: str,
    needed: tuple[str, ...],
    make: Callable[[Row], T | None],
    bad: BadRows,
    *,
    delimiter: str = ",",
) -> list[T]:
    """Every line of a file with a header that ``make`` makes something of.

    Raises:
        BadInput: no header, columns missing from it, or a bad line (unless skipped).
    """
    return made_of(_lines(lines, source, needed, delimiter), make, bad)


def made_of(rows: Iterable[Row], make: Callable[[Row], T | None], bad: BadRows) -> list[T]:
    """What ``make`` makes of rows; a row that is bad stops it, or is counted."""
    out: list[T] = []
    for row in rows:
        try:
            made = make(row)
        except BadInput as error:
            bad.take(error)
        else:
            if made is not None:
                out.append(made)
    return out
