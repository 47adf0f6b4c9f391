"""Who holds more device memory than its cap, and by which path: one look a second, from outside. Pure.

The shim in a tenant counts what it sees; this is what holds where it sees nothing. Two sums are compared on each card:
what the driver attributes to each process against caps and charges, and what the card has in use against the sum of its
processes. The second must stand still (the driver's own part); where it grows, bytes are on the card that belong to no
process: managed pages and, with HMM, host memory.
"""

from collections import defaultdict, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

SLACK_BYTES = 64 << 20
"""So much over the cap is not told apart from the driver's own rounding and a moment's delay."""
_PAGE_TABLES_BYTES = 16 << 20
"""A process on the card may move the driver's own part by so much (an allowance, not a measurement)."""
LOOKS = 3
"""How many looks in a row must agree."""


class Leak(StrEnum):
    """The path by which bytes got past the cap."""

    NO_SHIM = "NoShim"
    UNCHARGED = "Uncharged"
    MANAGED_OR_HOST = "ManagedOrHost"
    CAP_LOWERED = "CapLowered"


SENTENCES = {
    Leak.NO_SHIM: "a process without the shim holds it: the preload was removed, or the program is linked statically",
    Leak.UNCHARGED: "processes with the shim hold more than they were charged for: memory shared between processes, or "
    "a path that the shim does not see",
    Leak.MANAGED_OR_HOST: "it belongs to no process: managed pages, or host memory by HMM (see `flexai doctor`)",
    Leak.CAP_LOWERED: "all of it is charged: the cap was lowered under it",
}


@dataclass(frozen=True, slots=True)
class Holding:
    """One process on one card.

    Attributes:
        tenant: name of the member it belongs to; empty for a program that is not ours.
        used_bytes: what the driver attributes to it; -1 when it does not say.
        has_shim: whether its shim is in touch with the agent.
    """

    uuid: str
    pid: int
    tenant: str
    used_bytes: int
    has_shim: bool


@dataclass(frozen=True, slots=True)
class Cap:
    """What a tenant may hold of a card (0: no cap), and what its own processes say they were charged."""

    tenant: str
    uuid: str
    cap_bytes: int
    charged_bytes: int


@dataclass(frozen=True, slots=True)
class Over:
    """A tenant holds more of a card than its cap.

    Attributes:
        used_bytes: all it holds, with what no process accounts for.
        leaks: the paths with their bytes, the largest first.
        pids: its processes on the card, those without a shim first.
    """

    tenant: str
    uuid: str
    used_bytes: int
    cap_bytes: int
    leaks: tuple[tuple[Leak, int], ...]
    pids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Adrift:
    """Bytes on a card that belong to no process and cannot be laid at one tenant's door.

    Attributes:
        suspects: tenants on the card that may hold them.
        outside: whether programs that are not ours may.
    """

    uuid: str
    n_bytes: int
    suspects: tuple[str, ...]
    outside: bool


@dataclass(slots=True)
class _Card:
    floor_bytes: int | None = None
    recent: deque[int] = field(default_factory=lambda: deque(maxlen=LOOKS))

    def stands(self, n_bytes: int) -> None:
        self.floor_bytes = n_bytes if self.floor_bytes is None else min(self.floor_bytes, n_bytes)


class MemoryLook:
    """Remembers what stands still on each card, and how long somebody is over."""

    def __init__(self) -> None:
        self._cards: defaultdict[str, _Card] = defaultdict(_Card)
        self._over: dict[tuple[str, str], int] = {}
        self.adrift: dict[str, Adrift] = {}

    def stands(self, in_use: Mapping[str, int], busy: Iterable[str]) -> None:
        """A look before any job is on the cards: what is in use of those that nobody has is the driver's own part.

        Without it, bytes that were there at the first looks of all would count as such.

        Args:
            in_use: bytes of each card in use.
            busy: cards that some process has.
        """
        for uuid in in_use.keys() - set(busy):
            self._cards[uuid].stands(in_use[uuid])

    def look(
        self, in_use: Mapping[str, int], holdings: Iterable[Holding], caps: Iterable[Cap]
    ) -> tuple[list[Over], list[Over]]:
        """(who is over now, of whom ``LOOKS`` looks in a row say so since this one).

        Args:
            in_use: bytes of each card in use by anyone; a card that moved while it was looked at is left out.
            holdings: every process on every card.
            caps: every tenant on each of its cards.
        """
        by_card: defaultdict[str, list[Holding]] = defaultdict(list)
        for holding in holdings:
            by_card[holding.uuid].append(holding)
        caps_of: defaultdict[str, list[Cap]] = defaultdict(list)
        for cap in caps:
            caps_of[cap.uuid].append(cap)
        blamed = {}
        self.adrift = {}
        for uuid in caps_of.keys() | in_use.keys():
            blamed[uuid] = self._blame(uuid, in_use.get(uuid), by_card[uuid], caps_of[uuid])
        now = [
            over
            for uuid, of_card in caps_of.items()
            for cap in of_card
            if (over := _over(cap, by_card[uuid], blamed[uuid].get(cap.tenant, 0)))
        ]
        self._over = {(o.tenant, o.uuid): self._over.get((o.tenant, o.uuid), 0) + 1 for o in now}
        return now, [over for over in now if self._over[over.tenant, over.uuid] == LOOKS]

    def _blame(self, uuid: str, in_use_bytes: int | None, holdings: list[Holding], caps: list[Cap]) -> dict[str, int]:
        """What on the card belongs to no process, by the tenant it can only belong to."""
        if in_use_bytes is None or any(holding.used_bytes < 0 for holding in holdings):
            return {}
        card = self._cards[uuid]
        # Managed memory is charged whole by the shim and in no process's account: what is charged beyond is expected.
        expected = sum(max(0, cap.charged_bytes - _used(cap.tenant, holdings, with_shim=True)) for cap in caps)
        rest = in_use_bytes - sum(holding.used_bytes for holding in holdings)
        card.recent.append(rest - expected)
        if not holdings:  # nobody is on it: this is the driver's own part, at once
            card.stands(rest)
        if len(card.recent) < LOOKS:
            return {}
        # One look may fall between a process's end and its memory's: only what several agree on counts, up or down.
        card.stands(max(*card.recent, 0))
        assert card.floor_bytes is not None
        grown = min(card.recent) - card.floor_bytes
        if grown <= SLACK_BYTES + _PAGE_TABLES_BYTES * len(holdings):
            return {}
        present = {holding.tenant for holding in holdings if holding.tenant}
        bare = {holding.tenant for holding in holdings if holding.tenant and not holding.has_shim}
        suspects = tuple(sorted(bare or present))
        outside = not bare and any(not holding.tenant for holding in holdings)
        if len(suspects) == 1 and not outside:
            return {suspects[0]: grown}
        self.adrift[uuid] = Adrift(uuid, grown, suspects, outside)
        return {}


def _used(tenant: str, holdings: Iterable[Holding], *, with_shim: bool) -> int:
    return sum(max(0, h.used_bytes) for h in holdings if h.tenant == tenant and h.has_shim is with_shim)


def _over(cap: Cap, holdings: list[Holding], adrift_bytes: int) -> Over | None:
    bare_bytes = _used(cap.tenant, holdings, with_shim=False)
    shim_bytes = _used(cap.tenant, holdings, with_shim=True)
    used_bytes = bare_bytes + shim_bytes + adrift_bytes
    if not cap.cap_bytes or used_bytes <= cap.cap_bytes + SLACK_BYTES:
        return None
    leaks = {
        Leak.NO_SHIM: bare_bytes,
        Leak.UNCHARGED: max(0, shim_bytes - cap.charged_bytes),
        Leak.MANAGED_OR_HOST: adrift_bytes,
    }
    found = sorted(((leak, n) for leak, n in leaks.items() if n > 0), key=lambda pair: -pair[1])
    lowered = cap.charged_bytes - cap.cap_bytes
    if not found or lowered > SLACK_BYTES:
        found.append((Leak.CAP_LOWERED, max(0, lowered)))
    own = sorted((h for h in holdings if h.tenant == cap.tenant), key=lambda h: (h.has_shim, h.pid))
    return Over(cap.tenant, cap.uuid, used_bytes, cap.cap_bytes, tuple(found), tuple(h.pid for h in own))
