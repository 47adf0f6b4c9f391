"""A trial: takes and gives that can be undone to the byte."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flexai.cluster.books import Books, Hold


@dataclass(slots=True)
class Plan:
    """What was changed, in order, so that ``undo`` can take it back (KAI's Statement is the model).

    Integers only, so the arrays are byte-equal after ``undo``; ``changed`` and ``version`` go on, since caches that
    read in between must read again.
    """

    books: Books
    _done: list[tuple[bool, Hold]] = field(default_factory=list)

    def take(self, hold: Hold) -> None:
        """Grant on trial."""
        self.books.take(hold)
        self._done.append((True, hold))

    def give(self, hold: Hold) -> None:
        """Take back on trial."""
        self.books.give(hold)
        self._done.append((False, hold))

    def mark(self) -> int:
        """A point to undo to."""
        return len(self._done)

    def undo(self, mark: int = 0) -> None:
        """Take back everything after ``mark``, last first."""
        while len(self._done) > mark:
            took, hold = self._done.pop()
            if took:
                self.books.give(hold)
            else:
                self.books.take(hold)

    def keep(self) -> None:
        """Make it real: nothing can be undone any more."""
        self._done.clear()
