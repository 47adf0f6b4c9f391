"""The place that is booked for one claimant: what of it is free and held already, and what is still to be vacated."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from flexai.cluster import Hold

if TYPE_CHECKING:
    from flexai.cluster import Books, Plan
    from flexai.policy.gang import Need


@dataclass(slots=True)
class Booking:
    """The place of one claimant.

    Attributes:
        need: what it was chosen for.
        place: what its members will hold, by number.
        kept: what of that is free, and held in the books for it.
        lacks: compute, memory and partition places that are not free yet, by card.
        host_lacks: CPUs and RAM likewise, by row.
    """

    need: Need
    place: dict[int, Hold]
    kept: list[Hold] = field(default_factory=list)
    lacks: dict[tuple[int, int], tuple[int, int, int]] = field(default_factory=dict)
    host_lacks: dict[int, tuple[int, int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """At first it lacks everything."""
        for hold in self.place.values():
            cpu_milli, ram_bytes = self.host_lacks.get(hold.row, (0, 0))
            self.host_lacks[hold.row] = cpu_milli + hold.cpu_milli, ram_bytes + hold.ram_bytes
            for at, (column, memory) in enumerate(zip(hold.columns, hold.memory_bytes, strict=True)):
                milli, n_bytes, cut = self.lacks.get((hold.row, column), (0, 0, 0))
                cut |= hold.cut[at] if hold.cut else 0
                self.lacks[hold.row, column] = milli + hold.compute_milli, n_bytes + memory, cut

    @property
    def is_complete(self) -> bool:
        """Whether all of the place is free, and held."""
        return not self.lacks and not self.host_lacks

    @property
    def rows(self) -> set[int]:
        """Nodes that the place is on."""
        return {hold.row for hold in self.place.values()}

    def keep(self, books: Books) -> bool:
        """Hold what became free of the place; whether that was anything."""
        n_kept = len(self.kept)
        for (row, column), (milli, n_bytes, cut) in list(self.lacks.items()):
            got_milli = max(0, min(milli, books.free_milli.item(row, column)))
            got_bytes = max(0, min(n_bytes, books.free_memory.item(row, column)))
            got_cut = cut & ~books.cut.item(row, column)
            if got_milli or got_bytes or got_cut:
                self._take(books, Hold(row, (column,), got_milli, (got_bytes,), 0, 0, (got_cut,) if cut else ()))
            left = milli - got_milli, n_bytes - got_bytes, cut & ~got_cut
            if any(left):
                self.lacks[row, column] = left
            else:
                del self.lacks[row, column]
        for row, (cpu_milli, ram_bytes) in list(self.host_lacks.items()):
            got_cpu = max(0, min(cpu_milli, books.cpu_milli.item(row)))
            got_ram = max(0, min(ram_bytes, books.ram_bytes.item(row)))
            if got_cpu or got_ram:
                self._take(books, Hold(row, (), 0, (), got_cpu, got_ram))
            if got_cpu < cpu_milli or got_ram < ram_bytes:
                self.host_lacks[row] = cpu_milli - got_cpu, ram_bytes - got_ram
            else:
                del self.host_lacks[row]
        return len(self.kept) > n_kept

    def move_in(self, books: Books | Plan) -> None:
        """As if all of the place were had: what is kept becomes part of it. For books of a trial: ``kept`` stays."""
        for hold in self.kept:
            books.give(hold)
        for hold in self.place.values():
            books.take(hold)

    def _take(self, books: Books, hold: Hold) -> None:
        books.take(hold)
        self.kept.append(hold)
