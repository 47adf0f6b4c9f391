"""Rates out of the arbiter's counters: what each slice got of its card in the last second and the last ten."""

from collections import deque
from dataclasses import dataclass

from flexai.ports import TenantUsage, Usage

_NOW_NS = 400_000_000
_SHORT_NS = 1_000_000_000
_LONG_NS = 10_000_000_000
_SLACK_NS = 100_000_000

Place = tuple[str, str]
"""(tenant, card uuid)."""


@dataclass(frozen=True, slots=True)
class Rates:
    """Thousandths of the card's time.

    Attributes:
        got_milli_1s: over the last second.
        got_milli_10s: over the last ten.
        borrowed_milli: above its request, over the last second.
        stopped_milli: time it was held back while it had work.
        wanted_milli: time it had work.
        held_ns: since the arbiter knows it.
    """

    got_milli_1s: int = 0
    got_milli_10s: int = 0
    borrowed_milli: int = 0
    stopped_milli: int = 0
    wanted_milli: int = 0
    held_ns: int = 0
    n_turns: int = 0
    n_stops: int = 0
    state: int = 0
    hostile: int = 0


class Figures:
    """Keeps ten seconds of readings."""

    def __init__(self) -> None:
        self._readings: deque[tuple[int, int, dict[Place, tuple[int, TenantUsage]]]] = deque()

    def take(self, usage: Usage) -> None:
        """One more reading; those of another arbiter are forgotten, since its counters began anew."""
        if self._readings and self._readings[-1][1] != usage.arbiter_pid:
            self._readings.clear()
        table = {(t.tenant, t.uuid): (usage.told_until_ns(t.uuid), t) for t in usage.tenants}
        self._readings.append((usage.at_ns, usage.arbiter_pid, table))
        while self._readings and usage.at_ns - self._readings[0][0] > _LONG_NS + _SLACK_NS:
            self._readings.popleft()

    def places(self) -> list[Place]:
        """Tenants and cards of the last reading."""
        return list(self._readings[-1][2]) if self._readings else []

    def rates(self, place: Place) -> Rates:
        """What it got; zeros when nothing is known."""
        if not self._readings or place not in self._readings[-1][2]:
            return Rates()
        _, now = self._readings[-1][2][place]
        short, long = self._before(place, _SHORT_NS), self._before(place, _LONG_NS)
        return Rates(
            _milli(now.held_ns, short[1].held_ns if short else 0, short),
            _milli(now.held_ns, long[1].held_ns if long else 0, long),
            _milli(now.borrowed_ns, short[1].borrowed_ns if short else 0, short),
            _milli(now.stopped_ns, short[1].stopped_ns if short else 0, short),
            _milli(now.wanted_ns, short[1].wanted_ns if short else 0, short),
            now.held_ns, now.n_turns, now.n_stops, now.state, now.hostile,
        )  # fmt: skip

    def used_milli(self, uuid: str, busy_milli: int) -> dict[Place, int]:
        """What each tenant of a card made use of just now, outsiders included.

        A tenant alone on a card holds it whether it works or not, and nothing in the log tells the two apart. So where
        all of them together held the card for longer than it was at work (``busy_milli``, as its driver says; -1 when
        it does not), what they held is taken for that much less. One that was not there a moment ago is left out.
        """
        got = {}
        for place in self.places():
            before = self._before(place, _NOW_NS) if place[1] == uuid else None
            if before is not None:
                got[place] = _milli(self._readings[-1][2][place][1].held_ns, before[1].held_ns, before)
        total = sum(got.values())
        if 0 <= busy_milli < total:
            got = {place: milli * busy_milli // total for place, milli in got.items()}
        return got

    def _before(self, place: Place, window_ns: int) -> tuple[int, TenantUsage] | None:
        """The oldest reading within the window: (how much earlier its figures are of, counters)."""
        last_ns, _, last = self._readings[-1]
        for at_ns, _, table in self._readings:
            if last_ns - at_ns > window_ns + _SLACK_NS or place not in table:
                continue
            told_ns, then = table[place]
            if last[place][0] > told_ns:
                return last[place][0] - told_ns, then
        return None


def _milli(now_ns: int, then_ns: int, before: tuple[int, TenantUsage] | None) -> int:
    # A counter that went back is another tenant of the same name: nothing is known of it yet.
    return round((now_ns - then_ns) * 1000 / before[0]) if before and now_ns >= then_ns else 0
