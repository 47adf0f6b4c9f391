"""An idle share goes to whoever has work, and comes back to its owner: how soon, by the card's log."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from flexai.apps.bench.frame import Case, Row, at_most, quantile
from flexai.apps.bench.slicing.moments import first_run_ns, full_from_ns, runs_of
from flexai.apps.bench.slicing.stand import flood, name_of, stand
from flexai.apps.bench.tenants import IDLE, RUN, tenants

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from flexai.apps.bench.frame import Run
    from flexai.apps.bench.slicing.stand import Stand
    from flexai.apps.bench.tenants import Tenant

_HALF_S = 0.1


def _turns(on: Stand, owner: Tenant, n_turns: int) -> tuple[list[int], list[int]]:
    """Let the owner fall idle and wake by turns: when its last work ended, and when it was told to work again (ns)."""
    idle_ns, woken_ns = [], []
    for _ in range(n_turns):
        owner.order(IDLE)
        time.sleep(_HALF_S)
        idle_ns.append(owner.counted()[1])
        woken_ns.append(time.monotonic_ns())
        owner.order(RUN)
        time.sleep(_HALF_S)
        on.listen()
    return idle_ns, woken_ns


def lend(run: Run) -> Iterator[Row]:
    """From the end of the owner's last kernel to the moment from which the neighbour has 95 % of the card."""
    n_turns = 12 if run.quick else 60
    with stand() as on, tenants(on.pool, run.folder, [flood(500, 200), flood(500, 200)]) as (owner, neighbour):
        for tenant in (owner, neighbour):
            tenant.order(RUN)
        time.sleep(1.0)
        began_ns = time.monotonic_ns()
        idle_ns, _ = _turns(on, owner, n_turns)
        runs = runs_of(on.listen(), name_of(neighbour), began_ns, time.monotonic_ns())
    found = [full_from_ns(runs, at_ns, 0.95) for at_ns in idle_ns]
    lent_ms = [(full_ns - at_ns) / 1e6 for full_ns, at_ns in zip(found, idle_ns, strict=True) if full_ns is not None]
    conditions = f"two floods of 0.2 ms kernels, 50 % each, {len(lent_ms)} turns"
    note = (
        f"never in {n_turns - len(lent_ms)} turns"
        if len(lent_ms) < n_turns
        else "by the log, over the 20 ms that follow"
    )
    data = {"plot": "cdf", "label": "idle share lent"}
    for name, part, most in (("p50", 0.5, 2.0), ("p99", 0.99, 5.0)):
        yield Row(
            f"idle -> neighbour at 95 % of full speed, {name}", conditions, at_most(most), quantile(lent_ms, part),
            "ms", note if name == "p50" else "", tuple(lent_ms), void=on.overwritten,
            data=data if name == "p99" else {},
        )  # fmt: skip


def take_back(run: Run) -> Iterator[Row]:
    """From the order to work (the program looks for it every 0.5 ms) to the owner's first moment on the card."""
    n_turns = 12 if run.quick else 60
    with stand() as on:
        for n_borrowers, most in ((1, 5.0), (5, 20.0)):
            loads = [flood(500, 200), *[flood(500 // n_borrowers, 200)] * n_borrowers]
            with tenants(on.pool, run.folder, loads) as (owner, *borrowers):
                for tenant in (owner, *borrowers):
                    tenant.order(RUN)
                time.sleep(1.0)
                began_ns = time.monotonic_ns()
                _, woken_ns = _turns(on, owner, n_turns)
                end_ns = time.monotonic_ns()
            runs = runs_of(on.listen(), name_of(owner), began_ns, end_ns)
            back_ms = [(at_ns - woke) / 1e6 for woke in woken_ns if (at_ns := first_run_ns(runs, woke)) is not None]
            full = [full_from_ns(runs, woke, 0.475, 40_000_000) for woke in woken_ns]
            share_ms = [(at_ns - woke) / 1e6 for at_ns, woke in zip(full, woken_ns, strict=True) if at_ns is not None]
            note = f"p50 {quantile(back_ms, 0.5):.2f} ms; at its share over the next 40 ms after p50 {_text(share_ms)}"
            label = f"take-back, {n_borrowers} borrower{'s' * (n_borrowers > 1)}"
            yield Row(
                "take-back by a guaranteed tenant, p99",
                f"owner 50 %, {n_borrowers} borrower{'s' * (n_borrowers > 1)}, {len(back_ms)} turns", at_most(most),
                quantile(back_ms, 0.99), "ms", note, tuple(back_ms), void=on.overwritten,
                data={"plot": "cdf", "label": label},
            )  # fmt: skip


def _text(samples_ms: Sequence[float]) -> str:
    return f"{quantile(samples_ms, 0.5):.2f}, p99 {quantile(samples_ms, 0.99):.2f} ms"


CASES = (
    Case("lend", "how soon an idle share is lent", lend, 17, 8),
    Case("take-back", "how soon its owner has it back, from one borrower and from five", take_back, 33, 12),
)
