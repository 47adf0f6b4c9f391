"""The tree of queues and what each holds: compute granted by class of card, decayed use, per user.

A queue's numbers include its descendants'. Cycles and contradictions are refused by the wire layer; a parent that is
not there makes a queue top-level, so that the order in which queues arrive does not matter. A class of cards is a
product name; ``ALL_CARDS`` stands for the sum over all of them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from flexai.model import ROOT_QUEUE, Queue

if TYPE_CHECKING:
    from collections.abc import Mapping

ALL_CARDS = ""
"""In the place of a class: every card."""


@dataclass(slots=True)
class QueueState:
    """One queue: its settings and what it holds.

    Attributes:
        queue: the settings.
        used: compute granted to it and below, by class, and in all under ``ALL_CARDS``.
        own: the same of this queue alone.
        by_user: compute per user, of this queue alone.
        history: compute used in the past, decayed, in 1024ths of a thousandth of a card, by class as ``used``.
        history_at_ms: when ``history`` was last brought up to date.
        guaranteed: quota by class: its own or, where that is larger, the sum of its children's.
    """

    queue: Queue
    used: dict[str, int] = field(default_factory=dict)
    own: dict[str, int] = field(default_factory=dict)
    by_user: dict[str, int] = field(default_factory=dict)
    history: dict[str, int] = field(default_factory=dict)
    history_at_ms: int = 0
    guaranteed: dict[str, int] = field(default_factory=dict)

    @property
    def used_milli(self) -> int:
        """Compute granted to it and below, on all cards."""
        return self.used.get(ALL_CARDS, 0)

    def used_of(self, device_class: str) -> int:
        """The same on the cards of one class."""
        return self.used.get(device_class, 0)

    def quota_of(self, device_class: str) -> int:
        """Compute it is guaranteed on the cards of one class."""
        return self.guaranteed.get(device_class, 0)


@dataclass(slots=True)
class QueueTree:
    """Queues by name; holds of queues that are gone are remembered until they end.

    Attributes:
        managed: classes of cards for which any queue has terms, in order of name.
        limited: whether any of those terms is a limit.
    """

    half_life_ms: int = 0
    managed: tuple[str, ...] = ()
    limited: bool = False
    _states: dict[str, QueueState] = field(default_factory=dict)
    _orphans: dict[str, QueueState] = field(default_factory=dict)

    def __contains__(self, name: object) -> bool:
        return name in self._states

    def __len__(self) -> int:
        return len(self._states)

    def __getitem__(self, name: str) -> QueueState:
        return self._states[name]

    def names(self) -> list[str]:
        """All queues, in the order in which they came."""
        return list(self._states)

    def put(self, queue: Queue) -> None:
        """Create or change a queue; what it holds stays."""
        old = self._states.get(queue.name)
        if old is None:
            old = self._states[queue.name] = self._orphans.pop(queue.name, QueueState(queue))
            moved = True
        else:
            moved = old.queue.parent != queue.parent
        old.queue = queue
        if moved:
            self._recount()
        self._learn_terms()

    def drop(self, name: str) -> None:
        """Remove a queue; its children become top-level."""
        state = self._states.pop(name, None)
        if state is not None:
            if state.by_user:
                self._orphans[name] = state
            self._recount()
            self._learn_terms()

    def add(self, name: str, user: str, by_class: Mapping[str, int], at_ms: int = 0) -> None:
        """Book compute granted to a user of a queue (negative: given back), by class, and to all its ancestors."""
        own = self._states.get(name) or self._orphans.get(name)
        if own is None:
            own = self._orphans[name] = QueueState(Queue(name))
        milli = sum(by_class.values())
        own.by_user[user] = own.by_user.get(user, 0) + milli
        if not own.by_user[user]:
            del own.by_user[user]
        _book(own.own, by_class, milli)
        for each in self.path(name):
            if self.half_life_ms:
                self._age(each, at_ms)
            _book(each.used, by_class, milli)

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

    def full_classes(self, name: str, milli: int, more: Mapping[str, int] | None = None) -> dict[str, QueueState]:
        """Classes of which ``milli`` more would take a queue of the path over its limit there, and the first such.

        ``more`` is booked on trial beside what is held.
        """
        full: dict[str, QueueState] = {}
        if self.limited:
            for state in self.path(name):
                for terms in state.queue.classes:
                    used = state.used_of(terms.device_class) + (more or {}).get(terms.device_class, 0)
                    if 0 <= terms.limit_milli < used + milli:
                        full.setdefault(terms.device_class, state)
        return full

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

    def past(self, state: QueueState, device_class: str, at_ms: int) -> int:
        """Decayed use at ``at_ms``, in thousandths of a card."""
        self._age(state, at_ms)
        return state.history.get(device_class, 0) >> 10

    def _age(self, state: QueueState, at_ms: int) -> None:
        """Exponential average of ``used`` with the half-life, in fixed point (2**-16 steps)."""
        passed_ms = at_ms - state.history_at_ms
        if passed_ms <= 0 or not self.half_life_ms:
            return
        state.history_at_ms = at_ms
        keep = round(2 ** (16 - passed_ms / self.half_life_ms)) if passed_ms < 40 * self.half_life_ms else 0
        for device_class, used in state.used.items():
            before = state.history.get(device_class, 0)
            state.history[device_class] = (before * keep + (used << 10) * (65536 - keep)) >> 16

    def _recount(self) -> None:
        """Sum what each queue holds over the tree again: queues come and go rarely."""
        for state in self._states.values():
            state.used = {}
        for name, own in self._states.items():
            by_class = {each: milli for each, milli in own.own.items() if each != ALL_CARDS}
            for each in self.path(name):
                _book(each.used, by_class, own.own.get(ALL_CARDS, 0))

    def _learn_terms(self) -> None:
        """Note which classes have terms, and what each queue is guaranteed with its children."""
        terms = [each for state in self._states.values() for each in state.queue.classes]
        self.managed = tuple(sorted({each.device_class for each in terms}))
        self.limited = any(each.limit_milli >= 0 for each in terms)
        deepest_first = sorted(self._states.values(), key=lambda each: -len(self.path(each.queue.name)))
        for device_class in (ALL_CARDS, *self.managed):
            below: dict[str, int] = {}
            for state in deepest_first:
                own = state.queue.terms(device_class).quota_milli
                milli = state.guaranteed[device_class] = max(own, below.get(state.queue.name, 0))
                below[state.queue.parent] = below.get(state.queue.parent, 0) + milli


def _book(held: dict[str, int], by_class: Mapping[str, int], milli: int) -> None:
    for device_class, part in by_class.items():
        held[device_class] = held.get(device_class, 0) + part
    held[ALL_CARDS] = held.get(ALL_CARDS, 0) + milli
