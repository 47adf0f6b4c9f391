"""What programs do when they have the card to themselves, right before and right after they are measured together.

A *solo run* is a program alone: it settles until its rate is steady, then is counted for a second or more, by quarters
of a second whose scatter is the standard error. What is measured stands between two solo runs of every program in it,
and counts only where these agree within ``MOST_DRIFT``: else card or machine were others in between, and it is void.
All solo runs have the same past (settled from rest): a card that was hot a moment ago clocks lower.

The rate of a program that launches one kernel after the other is the host's too, which on a machine that others share
moves by a tenth from one second to the next. That is not averaged away: such programs are measured in shorter pieces,
each between solo runs of its own (``limits``, ``whole``), and what is void is measured again from its later solo run
on (``Solos.between``). What counts is chosen by the solo runs alone, never by what came out; what was left out is told.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from itertools import pairwise
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any, TypeVar

from flexai.apps.bench.slicing.stand import clock_mhz, clock_text, stolen_s
from flexai.apps.bench.tenants import begin, rate_between, rest, steady

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from flexai.apps.bench.frame import Run
    from flexai.apps.bench.tenants import Tenant

Measured = TypeVar("Measured")

MOST_DRIFT = 0.01
"""More between before and after, and the card or the machine was another one in between."""
MOST_REPEATS = 2
_QUARTER_S = 0.25
_SETTLE_S, _SETTLED_S = 0.75, 2.0


@dataclass(frozen=True, slots=True)
class Alone:
    """A solo run.

    Attributes:
        rate: iterations per second.
        error: standard error of it, by its quarters of a second.
        mhz: SM clock, mean of the quarters.
        samples: of each quarter: iterations per second, clock, part of the machine's processor time taken by its host.
    """

    rate: float
    error: float
    mhz: float
    samples: tuple[tuple[float, float, float], ...] = ()


def alone(tenant: Tenant, seconds: float, settle_s: float | None = None) -> Alone:
    """Let it run alone: for ``settle_s`` or until its rate is steady, then for so long; then let it rest."""
    if settle_s is None:
        steady(tenant, _SETTLE_S, _SETTLED_S)
    else:
        begin([tenant], settle_s)
    n = max(1, round(seconds / _QUARTER_S))
    began_s = time.monotonic()
    counts, clocks, stolen = [tenant.counted()], [], [stolen_s()]
    for number in range(1, n + 1):
        time.sleep(max(0.0, began_s + number * seconds / n - time.monotonic()))
        counts.append(tenant.counted())
        clocks.append(clock_mhz())
        stolen.append(stolen_s())
    rest([tenant])
    rates = [rate_between(was, now, seconds / n) for was, now in pairwise(counts)]
    taken = [(now - was) / (seconds / n) for was, now in pairwise(stolen)]
    error = stdev(rates) / n**0.5 if n > 1 else 0.0
    samples = tuple(zip(rates, clocks, taken, strict=True))
    return Alone(rate_between(counts[0], counts[-1], seconds), error, fmean(clocks), samples)


def drift(before: float, after: float) -> float:
    """How much a rate changed."""
    return abs(after / before - 1) if before else 0.0


@dataclass(frozen=True, slots=True)
class Around:
    """Solo runs before and after something that was measured, by program.

    Attributes:
        left_out: drifts of what was measured before it and left out, since the solo runs around that did not agree.
    """

    running: tuple[Tenant, ...]
    before: Mapping[tuple[object, ...], Alone]
    after: Mapping[tuple[object, ...], Alone]
    left_out: tuple[float, ...] = ()

    def rate(self, tenant: Tenant) -> float:
        """Iterations per second, mean of before and after."""
        return (self.before[tenant.load.program].rate + self.after[tenant.load.program].rate) / 2

    def part(self, tenant: Tenant) -> float:
        """Part of the card's time that it can use: below 1 where it leaves gaps.

        By what it counted, where the length of its kernels is known: the log of a card says nothing while one context
        has it alone, whether that works or not.
        """
        load = tenant.load
        if load.is_torch or load.kind == "graph":
            return 1.0
        return min(1.0, self.rate(tenant) * load.kernel_us / 1e6)

    def work(self, rates: Sequence[float]) -> list[float]:
        """Work done by each tenant, in percent of what it does alone."""
        return [100 * rate / (self.rate(tenant) or 1.0) for rate, tenant in zip(rates, self.running, strict=True)]

    @property
    def drift(self) -> float:
        """Greatest change of a solo rate from before to after."""
        return max((drift(self.before[name].rate, self.after[name].rate) for name in self.before), default=0.0)

    @property
    def void(self) -> str:
        """Why what stands between them is void; empty when it is not."""
        return f"a solo rate drifted by {100 * self.drift:.1f} %" if self.drift > MOST_DRIFT else ""

    @property
    def note(self) -> str:
        """Rates with their standard errors and the clocks at which they were had."""
        texts = []
        for name, tenant in {one.load.program: one for one in self.running}.items():
            told = " then ".join(
                f"{one.rate:.5g}/s ± {one.error:.2g} at {clock_text(one.mhz)}"
                for one in (self.before[name], self.after[name])
            )
            kernels = f" {tenant.load.kernel_us:g} us" if tenant.load.kernel_us else ""
            texts.append(f"{tenant.load.kind}{kernels} alone {told}")
        left_out = ", ".join(f"{100 * one:.1f}" for one in self.left_out)
        again = f"; measured again, as solo rates had drifted by {left_out} %" if left_out else ""
        return f"{', '.join(texts)}; drift {100 * self.drift:.2f} %{again}"

    @property
    def data(self) -> dict[str, Any]:
        """Samples of each solo run, for doubts about the machine."""
        return {
            str(name[0]): [[*turn[name].samples] for turn in (self.before, self.after)] for name in self.before
        }  # fmt: skip


class Solos:
    """Solo runs of tenants that run together; the first ones when made, once each program is warm.

    Tenants that run the same program have the same rate: it is measured once.
    """

    def __init__(self, run: Run, running: Sequence[Tenant]) -> None:
        self._running = tuple(running)
        self._programs = {tenant.load.program: tenant for tenant in running}
        self._spare = run.spare
        self._repeats_left = 0 if run.quick else MOST_REPEATS
        moves = any(tenant.load.is_torch or tenant.load.is_by_host for tenant in running)
        self._seconds = 1.5 if moves and not run.quick else 1.0
        for tenant in self._programs.values():
            if tenant.load.is_torch:
                steady(tenant, _SETTLE_S)
        rest(running)
        self._last = self._turn()

    def _turn(self) -> dict[tuple[object, ...], Alone]:
        return {name: alone(tenant, self._seconds) for name, tenant in self._programs.items()}

    def again(self) -> Around:
        """The next ones: what they and the ones before say of what was measured in between."""
        before, self._last = self._last, self._turn()
        return Around(self._running, before, self._last)

    def between(self, take: Callable[[], Measured]) -> tuple[Measured, Around]:
        """What is measured between solo runs that agree; where they do not, once more, from the later ones on.

        ``MOST_REPEATS`` times in all, as long as there is time to spare, and not in a quick run: what is void is told.
        """
        left_out: list[float] = []
        while True:
            began_s = time.monotonic()
            measured, around = take(), self.again()
            if not (around.void and self._repeats_left and self._spare.take(time.monotonic() - began_s)):
                return measured, replace(around, left_out=tuple(left_out))
            self._repeats_left -= 1
            left_out.append(around.drift)
