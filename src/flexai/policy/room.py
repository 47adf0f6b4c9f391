"""Room for what a job needs, in books that change: counted again only where something was taken or given."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from flexai.policy.gang import most_together
from flexai.policy.roles import fits

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from flexai.cluster import Books, Hold
    from flexai.policy.gang import Need


@dataclass(slots=True)
class Room:
    """Books of which the caller leaves every change to this, and what must fit in them at the same time.

    How many members fit on each node is kept; for needs of several roles, which take from each other, everything is
    looked at each time.
    """

    books: Books
    need: Need
    _n_fit: NDArray[np.int64] | None = None
    _touched: set[int] = field(default_factory=set)

    def take(self, hold: Hold) -> None:
        """Grant."""
        self.books.take(hold)
        self._touched.add(hold.row)

    def give(self, hold: Hold) -> None:
        """Take back."""
        self.books.give(hold)
        self._touched.add(hold.row)

    def suffices(self) -> bool:
        """Whether all that is needed fits."""
        if len(self.need.parts) != 1 or self.need.level:
            return fits(self.books, self.need)
        shape, together = self.need.parts[0]
        if self._n_fit is None:
            self._n_fit = self.books.n_fit(shape)
        elif self._touched:
            rows = np.array(sorted(self._touched), dtype=np.int64)
            self._n_fit[rows] = self.books.n_fit(shape, rows)
        self._touched.clear()
        return most_together(self.books, self._n_fit, together) >= together.n_members
