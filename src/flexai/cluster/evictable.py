"""What could be had back: compute and memory that evictable jobs hold, by card, and who holds something on a node.

Only an upper bound for a claimant (whether it may evict *these* jobs is for ``scheduling`` to say), but one that is
kept up to date by adding, so that "no eviction helps" takes one vector operation over the whole cluster.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from flexai.cluster.books import Books, Hold

    Ints = NDArray[np.int64]


def _none(*shape: int) -> Ints:
    return np.zeros(shape, dtype=np.int64)


@dataclass(slots=True)
class Evictable:
    """Sums over the holds of jobs that may be evicted; shapes as in ``Books``.

    ``holders`` counts the holds of each job on a node, of those that may not be evicted too.
    """

    cpu_milli: Ints = field(default_factory=lambda: _none(0))
    ram_bytes: Ints = field(default_factory=lambda: _none(0))
    milli: Ints = field(default_factory=lambda: _none(0, 0))
    memory: Ints = field(default_factory=lambda: _none(0, 0))
    cut: Ints = field(default_factory=lambda: _none(0, 0))
    holders: dict[int, dict[str, int]] = field(default_factory=dict)

    def add(self, books: Books, job_id: str, hold: Hold, *, evictable: bool) -> None:
        """A job holds this from now on."""
        self._grow(books)
        if evictable:
            self._move(hold, 1)
        on_row = self.holders.setdefault(hold.row, {})
        on_row[job_id] = on_row.get(job_id, 0) + 1

    def remove(self, job_id: str, hold: Hold, *, evictable: bool) -> None:
        """It holds it no more."""
        if evictable:
            self._move(hold, -1)
        on_row = self.holders[hold.row]
        on_row[job_id] -= 1
        if not on_row[job_id]:
            del on_row[job_id]

    def if_all_left(self, books: Books) -> Books:
        """The books as they would be without any evictable job."""
        self._grow(books)
        twin = books.copy()
        twin.cpu_milli += self.cpu_milli
        twin.ram_bytes += self.ram_bytes
        twin.free_milli += self.milli
        twin.granted_milli -= self.milli
        twin.free_memory += self.memory
        twin.granted_memory -= self.memory
        twin.cut -= self.cut
        return twin

    def _move(self, hold: Hold, sign: int) -> None:
        self.cpu_milli[hold.row] += sign * hold.cpu_milli
        self.ram_bytes[hold.row] += sign * hold.ram_bytes
        for column, memory in zip(hold.columns, hold.memory_bytes, strict=True):
            self.milli[hold.row, column] += sign * hold.compute_milli
            self.memory[hold.row, column] += sign * memory
        for column, places in zip(hold.columns, hold.cut, strict=False):
            self.cut[hold.row, column] += sign * places

    def _grow(self, books: Books) -> None:
        if self.milli.shape == books.free_milli.shape:
            return
        rows, columns = self.milli.shape
        for name, shape in (("cpu_milli", books.cpu_milli.shape), ("ram_bytes", books.ram_bytes.shape)):
            grown = _none(*shape)
            grown[:rows] = getattr(self, name)
            setattr(self, name, grown)
        for name in ("milli", "memory", "cut"):
            wide = _none(*books.free_milli.shape)
            wide[:rows, :columns] = getattr(self, name)
            setattr(self, name, wide)
