"""The tree of queues and what each holds: compute granted, decayed use, per user.

A queue's numbers include its descendants'. Cycles and contradictions are refused by the wire layer; a parent that is
not there makes a queue top-level, so that the order in which queues arrive does not matter.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from flexai.model import ROOT_QUEUE

if TYPE_CHECKING:
    from flexai.model import Queue


@dataclass(slots=True)
class QueueState:
    """One queue: its settings and what it holds.

    Attributes:
        queue: the settings.
        used_milli: compute granted to it and below.
        by_user: compute per user, of this queue alone.
        history: compute used in the past, decayed, in 1024ths of a thousandth of a card.
        history_at_ms: when ``history`` was last brought up to date.
    """

    queue: Queue
    used_milli: int = 0
    by_user: dict[str, int] = field(default_factory=dict)
    history: int = 0
    history_at_ms: int = 0


@dataclass(slots=True)
class QueueTree:
    """Queues by name; holds of queues that are gone are remembered until they end."""

    half_life_ms: int = 0
    _states: dict[str, QueueState] = field(default_factory=dict)
    _orphans: dict[str, dict[str, int]] = field(default_factory=dict)

    def __contains__(self, name: object) -> bool:
        return name in self._states

    def __getitem__(self, name: str) -> QueueState:
        return self._states[name]

    def names(self) -> list[str]:
        """All queues, in the order in which they came."""
        return list(self._states)

    def put(self, queue: Queue) -> None:
        """Create or change a queue; what it holds stays."""
        old = self._states.get(queue.name)
        if old is not None and old.queue.parent == queue.parent:
            old.queue = queue
            return
        if old is not None:
            old.queue = queue
        else:
            self._states[queue.name] = QueueState(queue, by_user=self._orphans.pop(queue.name, {}))
        self._recount()

    def drop(self, name: str) -> None:
        """Remove a queue; its children become top-level."""
        state = self._states.pop(name, None)
        if state is not None:
            if state.by_user:
                self._orphans[name] = state.by_user
            self._recount()

    def add(self, name: str, user: str, milli: int, at_ms: int = 0) -> None:
        """Book ``milli`` more (or less) granted to a user of a queue, and to all its ancestors."""
        state = self._states.get(name)
        by_user = state.by_user if state is not None else self._orphans.setdefault(name, {})
        by_user[user] = by_user.get(user, 0) + milli
        if not by_user[user]:
            del by_user[user]
        for each in self.path(name):
            if self.half_life_ms:
                self._age(each, at_ms)
            each.used_milli += milli

    def path(self, name: str) -> list[QueueState]:
        """The queue and its ancestors, itself first. A cycle ends where it closes."""
        out: list[QueueState] = []
        seen: set[str] = set()
        while name in self._states and name not in seen:
            seen.add(name)
            state = self._states[name]
            out.append(state)
            name = state.queue.parent
        return out

    def children(self, parent: str) -> list[QueueState]:
        """Queues right below ``parent``; those whose parent is not there count as top-level."""
        if parent == ROOT_QUEUE:
            return [state for state in self._states.values() if state.queue.parent not in self._states]
        return [state for state in self._states.values() if state.queue.parent == parent]

    def over_limit(self, name: str, milli: int) -> QueueState | None:
        """The first queue of the path that ``milli`` more would take over its limit; None if none."""
        for state in self.path(name):
            if 0 <= state.queue.limit_milli < state.used_milli + milli:
                return state
        return None

    def over_user_limit(self, name: str, user: str, milli: int) -> bool:
        """Whether ``milli`` more takes the user over what one user may hold in the queue."""
        state = self._states.get(name)
        if state is None or state.queue.user_limit_milli < 0:
            return False
        return state.by_user.get(user, 0) + milli > state.queue.user_limit_milli

    def room_milli(self, name: str, user: str) -> int:
        """Compute that the limits of the path and of the user leave."""
        room = 10**15
        for state in self.path(name):
            if state.queue.limit_milli >= 0:
                room = min(room, state.queue.limit_milli - state.used_milli)
        own = self._states.get(name)
        if own is not None and own.queue.user_limit_milli >= 0:
            room = min(room, own.queue.user_limit_milli - own.by_user.get(user, 0))
        return max(room, 0)

    def past(self, state: QueueState, at_ms: int) -> int:
        """Decayed use at ``at_ms``, in thousandths of a card."""
        self._age(state, at_ms)
        return state.history >> 10

    def _age(self, state: QueueState, at_ms: int) -> None:
        """Exponential average of ``used_milli`` with the half-life, in fixed point (2**-16 steps)."""
        passed_ms = at_ms - state.history_at_ms
        if passed_ms <= 0 or not self.half_life_ms:
            return
        state.history_at_ms = at_ms
        keep = round(2 ** (16 - passed_ms / self.half_life_ms)) if passed_ms < 40 * self.half_life_ms else 0
        state.history = (state.history * keep + (state.used_milli << 10) * (65536 - keep)) >> 16

    def _recount(self) -> None:
        """Sum what each queue holds over the tree again: queues come and go rarely."""
        for state in self._states.values():
            state.used_milli = 0
        for name, own in self._states.items():
            total = sum(own.by_user.values())
            for each in self.path(name):
                each.used_milli += total
