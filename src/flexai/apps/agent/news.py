"""Events with sequence numbers, kept for readers that come back."""

from collections import deque
from collections.abc import Callable
from typing import Any

from flexai.wire import agent_rpc

_KEPT = 10_000

Listener = Callable[[bytes], None]


class News:
    """Numbers events and hands them to who listens."""

    def __init__(self) -> None:
        self._seq = 0
        self._kept: deque[tuple[int, bytes]] = deque(maxlen=_KEPT)
        self._listeners: set[Listener] = set()

    @property
    def has_listeners(self) -> bool:
        """Whether anybody would hear."""
        return bool(self._listeners)

    def say(self, name: str, *, keep: bool = True, **fields: Any) -> None:
        """Tell all, and with ``keep`` those who come later."""
        self._seq += 1
        line = agent_rpc.event(name, self._seq, fields)
        if keep:
            self._kept.append((self._seq, line))
        for listener in list(self._listeners):
            listener(line)

    def subscribe(self, listener: Listener, from_seq: int) -> int:
        """Hand over what was missed from ``from_seq`` on (0: nothing of the past), then all; the next number."""
        if from_seq > 0:
            for seq, line in self._kept:
                if seq >= from_seq:
                    listener(line)
        self._listeners.add(listener)
        return self._seq + 1

    def leave(self, listener: Listener) -> None:
        """No longer."""
        self._listeners.discard(listener)
