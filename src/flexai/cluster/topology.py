"""Where nodes stand: for each level of the machine room, the group of every row, widest level to tightest.

Levels are told apart by name and ordered by bandwidth rank, the same for all vendors: host, board, HCCS or NVLink
domain, rack, super-pod are only names here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from flexai.model import TopologyLevel

    Ints = NDArray[np.int64]


HOST = "host"
"""A level that is always there: every node by itself, tighter than all that are told."""


@dataclass(slots=True)
class _Level:
    rank: int
    names: dict[str, int] = field(default_factory=dict)
    group: Ints = field(default_factory=lambda: np.zeros(0, dtype=np.int64))


@dataclass(slots=True)
class Topology:
    """Groups of rows by level."""

    _levels: dict[str, _Level] = field(default_factory=dict)

    def put(self, row: int, places: tuple[TopologyLevel, ...]) -> None:
        """Say where a row stands; what it was before is forgotten."""
        for level in self._levels.values():
            if row < len(level.group):
                level.group[row] = -1
        for place in places:
            level = self._levels.setdefault(place.level, _Level(place.bandwidth_rank))
            level.rank = place.bandwidth_rank
            if row >= len(level.group):
                grown = np.full(max(16, 2 * row), -1, dtype=np.int64)
                grown[: len(level.group)] = level.group
                level.group = grown
            level.group[row] = level.names.setdefault(place.name, len(level.names))

    def __contains__(self, level: object) -> bool:
        return level in self._levels or level == HOST

    def groups(self, level: str, n_rows: int) -> Ints:
        """Group of each of the first ``n_rows`` rows at a level; -1 where a row stands in none."""
        if level not in self._levels and level == HOST:
            return np.arange(n_rows, dtype=np.int64)
        out: Ints = np.full(n_rows, -1, dtype=np.int64)
        known = self._levels[level].group[:n_rows]
        out[: len(known)] = known
        return out

    def name(self, level: str, group: int) -> str:
        """Name of a group; empty for a host."""
        if level not in self._levels:
            return ""
        return next(name for name, number in self._levels[level].names.items() if number == group)

    def tightest_first(self) -> list[str]:
        """All levels, highest bandwidth first; equals by name of the level."""
        named = sorted(self._levels, key=lambda name: (-self._levels[name].rank, name))
        return named if HOST in self._levels else [HOST, *named]

    def around(self, level: str) -> tuple[list[str], list[str]]:
        """Levels wider than this one, and tighter ones, each widest first."""
        widest_first = self.tightest_first()[::-1]
        at = widest_first.index(level) if level in widest_first else len(widest_first)
        return widest_first[:at], widest_first[at + 1 :]

    def at_least(self, level: str) -> list[str]:
        """Levels as tight as ``level`` or tighter, tightest first, ending with it; empty if it is not known."""
        named = self.tightest_first()
        return named[: named.index(level) + 1] if level in named else []


def group_sums(groups: Ints, values: Ints) -> Ints:
    """Sum of ``values`` over each group; rows in no group (-1) count nowhere. Shape (highest group + 1,)."""
    inside = groups >= 0
    if not inside.any():
        return np.zeros(0, dtype=np.int64)
    sums: Ints = np.bincount(groups[inside], weights=values[inside].astype(np.float64)).astype(np.int64)
    return sums
