"""What programs do when they have the card to themselves, before and after they were measured together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flexai.apps.bench.slicing.stand import clock_text
from flexai.apps.bench.slicing.windows import measure, over
from flexai.apps.bench.tenants import steady

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flexai.apps.bench.slicing.stand import Stand
    from flexai.apps.bench.slicing.windows import Window
    from flexai.apps.bench.tenants import Tenant

MOST_DRIFT = 0.01
"""More between before and after, and the card was another one in between: the case is void."""


class Solos:
    """Solo rates of tenants that will run together; measured when made, and once more by ``again``.

    Tenants that run the same program have the same rate: it is measured once, when it is steady.
    """

    def __init__(self, on: Stand, running: Sequence[Tenant], seconds: float) -> None:
        self._on, self._running, self._seconds = on, running, seconds
        self._before = self._measure(0.5, warm_up=True)
        self._after: dict[tuple[object, ...], Window] = {}

    def again(self) -> Solos:
        """After the case."""
        self._after = self._measure(0.5)
        return self

    def _measure(self, settle_s: float, *, warm_up: bool = False) -> dict[tuple[object, ...], Window]:
        found: dict[tuple[object, ...], Window] = {}
        for tenant in self._running:
            if tenant.load.program not in found:
                if warm_up:
                    steady(tenant, 0.5)
                windows = measure(self._on, [tenant], self._seconds, settle_s)
                found[tenant.load.program] = over(windows)
        return found

    def rate(self, tenant: Tenant) -> float:
        """Iterations per second, mean of before and after."""
        rates = [turn[tenant.load.program].rates[0] for turn in (self._before, self._after) if turn]
        return sum(rates) / len(rates)

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
        return [100 * rate / (self.rate(tenant) or 1.0) for rate, tenant in zip(rates, self._running, strict=True)]

    @property
    def drift(self) -> float:
        """Greatest change of a solo rate from before to after."""
        pairs = [(self._before[name].rates[0], window.rates[0]) for name, window in self._after.items()]
        return max((abs(after / before - 1) for before, after in pairs if before), default=0.0)

    @property
    def void(self) -> str:
        """Why the case is void; empty when it is not."""
        return f"a solo rate drifted by {100 * self.drift:.1f} %" if self.drift > MOST_DRIFT else ""

    @property
    def note(self) -> str:
        """Rates with the clocks at which they were had."""
        texts = []
        for tenant in {one.load.program: one for one in self._running}.values():
            turns = [turn[tenant.load.program] for turn in (self._before, self._after) if turn]
            told = " then ".join(f"{turn.rates[0]:.5g}/s at {clock_text(turn.mhz)}" for turn in turns)
            kernels = f" {tenant.load.kernel_us:g} us" if tenant.load.kernel_us else ""
            texts.append(f"{tenant.load.kind}{kernels} alone {told}")
        return f"{', '.join(texts)}; drift {100 * self.drift:.2f} %"
