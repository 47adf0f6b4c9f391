"""What tenants did over windows of time: card time by the card's log, work by what they counted, the card's clock."""

from __future__ import annotations

import time
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean
from typing import TYPE_CHECKING

from flexai.apps.bench.slicing.residency import by_log
from flexai.apps.bench.slicing.stand import clock_mhz, name_of
from flexai.apps.bench.tenants import begin, rate_between, rest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flexai.apps.bench.slicing.stand import Stand
    from flexai.apps.bench.tenants import Tenant


@dataclass(frozen=True, slots=True)
class Window:
    """What tenants did over a time.

    Attributes:
        began_ns: CLOCK_MONOTONIC.
        rates: iterations per second of each.
        parts: of the card's time that each had, by the card's log; by ``accounts`` where there is a ``doubt``.
        accounts: the same by the arbiter's accounts, which are up to 25 ms older than the heartbeat that dates them.
        doubt: why the log cannot tell it; empty where it can.
    """

    began_ns: int
    seconds: float
    rates: tuple[float, ...]
    parts: tuple[float, ...]
    mhz: float
    accounts: tuple[float, ...]
    doubt: str = ""

    @property
    def ended_ns(self) -> int:
        """CLOCK_MONOTONIC."""
        return self.began_ns + round(self.seconds * 1e9)

    @property
    def told_by(self) -> str:
        """For a note: empty where the log told it."""
        return f"card time by the arbiter's accounts: {self.doubt}" if self.doubt else ""


def measure(on: Stand, running: Sequence[Tenant], seconds: float, settle_s: float = 1.0) -> list[Window]:
    """Let all run together; one window per second, after ``settle_s``."""
    begin(running, settle_s)
    on.listen()
    missed = on.ring.n_missed
    n, each_s = max(1, round(seconds)), min(1.0, seconds)
    states = [_look(on, running)]
    for number in range(1, n + 1):
        time.sleep(max(0.0, states[0].at_ns / 1e9 + number * each_s - time.monotonic()))
        states.append(_look(on, running))
        on.listen()
    heard = on.hear_out(states[-1].at_ns)
    told = on.listen()
    rest(running)
    log = by_log(told, [name_of(tenant) for tenant in running], [state.at_ns for state in states])
    doubt = log.doubt if heard else "the log was not read up to their end in time"
    if on.ring.n_missed > missed:
        doubt = on.overwritten
    pairs = zip(pairwise(states), log.held_ns, strict=True)
    return [_window(before, after, held_ns, doubt) for (before, after), held_ns in pairs]


def over(windows: Sequence[Window]) -> Window:
    """Several windows as one."""
    seconds = sum(window.seconds for window in windows)

    def mean(of: Sequence[tuple[float, ...]]) -> tuple[float, ...]:
        weighed = [[one * window.seconds for one in each] for each, window in zip(of, windows, strict=True)]
        return tuple(sum(column) / seconds for column in zip(*weighed, strict=True))

    return Window(
        windows[0].began_ns,
        seconds,
        mean([window.rates for window in windows]),
        mean([window.parts for window in windows]),
        fmean(window.mhz for window in windows),
        mean([window.accounts for window in windows]),
        "; ".join(dict.fromkeys(window.doubt for window in windows if window.doubt)),
    )


@dataclass(frozen=True, slots=True)
class _State:
    """At a moment; the accounts are published every 100 ms and dated by their own heartbeat."""

    at_ns: int
    counts: tuple[tuple[int, int], ...]
    accounts_at_ns: int
    held_ns: tuple[int, ...]
    mhz: float


def _look(on: Stand, running: Sequence[Tenant]) -> _State:
    at_ns = time.monotonic_ns()
    counts = tuple(tenant.counted() for tenant in running)
    usage = on.usage.read()
    held = {entry.tenant: entry.held_ns for entry in usage.tenants} if usage else {}
    accounts_at_ns = usage.heartbeat_ns if usage else at_ns
    return _State(at_ns, counts, accounts_at_ns, tuple(held.get(name_of(one), 0) for one in running), clock_mhz())


def _window(before: _State, after: _State, held_ns: Sequence[int], doubt: str) -> Window:
    took_ns = max(after.at_ns - before.at_ns, 1)
    rates = tuple(rate_between(was, now, took_ns / 1e9) for was, now in zip(before.counts, after.counts, strict=True))
    accounts_ns = max(after.accounts_at_ns - before.accounts_at_ns, 1)
    accounts = tuple((held - was) / accounts_ns for was, held in zip(before.held_ns, after.held_ns, strict=True))
    parts = accounts if doubt else tuple(one / took_ns for one in held_ns)
    return Window(before.at_ns, took_ns / 1e9, rates, parts, after.mhz, accounts, doubt)
