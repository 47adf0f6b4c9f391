"""What a tenant with a whole card loses to being held."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import pairwise
from statistics import median, stdev
from typing import TYPE_CHECKING

from flexai.apps.bench.frame import Case, Row, at_most, note_of
from flexai.apps.bench.slicing.solo import MOST_DRIFT, Alone, alone, drift
from flexai.apps.bench.slicing.stand import clock_text, flood, has_torch, outside, stand, step, torch
from flexai.apps.bench.tenants import rest, steady, tenants

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from flexai.apps.bench.frame import Run
    from flexai.apps.bench.tenants import Tenant


@dataclass(frozen=True, slots=True)
class _Turns:
    """How a loss is measured: so many turns that count, of so many at most, each so long and settled for so long."""

    n: int
    most: int
    seconds: float
    settle_s: float


def whole(run: Run) -> Iterator[Row]:
    """One tenant at 100 % in the pool against the same program outside of it, by turns in one run.

    What launches one kernel after the other has many short turns, since its rate is the host's, and moves.
    """
    plain = torch(1000, "gemm") if has_torch() else flood(1000, 1000)
    bound = torch(1000, "resnet") if has_torch() else step(1000, 20, 0)
    long = _Turns(2, 3, 1.0, 0.5) if run.quick else _Turns(3, 4, 2.0, 0.5)
    short = _Turns(3, 6, 0.4, 0.3) if run.quick else _Turns(6, 16, 0.6, 0.3)
    with stand() as on:
        for name, load, most, turns in (("plain", plain, 0.5, long), ("launch-bound", bound, 1.0, short)):
            card = replace(load, memory_bytes=0)
            with tenants(on.pool, run.folder, [card]) as (inside,), outside(on, run.folder, [load]) as (free,):
                for tenant in (inside, free):
                    steady(tenant, 0.5)
                    rest([tenant])
                helds, frees = _by_turns(inside, free, turns)
            yield _loss(f"{name} ({load.kind})", most, turns, helds, frees)


def _by_turns(inside: Tenant, free: Tenant, turns: _Turns) -> tuple[list[Alone], list[Alone]]:
    """Outside, inside, outside, ...: what drifts slowly cancels out. Goes on until enough turns count."""
    frees, helds = [alone(free, turns.seconds, turns.settle_s)], list[Alone]()
    while len(helds) < turns.most and len(_losses(helds, frees)) < turns.n:
        helds.append(alone(inside, turns.seconds, turns.settle_s))
        frees.append(alone(free, turns.seconds, turns.settle_s))
    return helds, frees


def _losses(helds: Sequence[Alone], frees: Sequence[Alone], most_drift: float = MOST_DRIFT) -> list[float]:
    """Loss (%) of each turn that counts: the program outside was as fast after it as before."""
    return [
        100 * (1 - 2 * held.rate / (before.rate + after.rate))
        for held, (before, after) in zip(helds, pairwise(frees), strict=True)
        if drift(before.rate, after.rate) <= most_drift
    ]


def _loss(name: str, most: float, turns: _Turns, helds: Sequence[Alone], frees: Sequence[Alone]) -> Row:
    losses, void = _losses(helds, frees), ""
    drifts = [drift(before.rate, after.rate) for before, after in pairwise(frees)]
    counted = f"{len(losses)} of {len(helds)} turns count (in the others a solo rate drifted by more than 1 %)"
    error = stdev(losses) / len(losses) ** 0.5 if len(losses) > 1 else 0.0
    if len(losses) < turns.n:
        void = f"{len(losses)} of {len(helds)} turns count, {turns.n} are needed: a solo rate drifted in the others"
        losses = _losses(helds, frees, math.inf)
    elif error > most:
        void = f"its standard error of {error:.2g} % is more than what is judged"
    clocks = f"clocks held {clock_text(helds[-1].mhz)}, free {clock_text(frees[-1].mhz)}"
    counted = counted if len(losses) < len(helds) else ""
    single = f"single turns {min(losses):.2f} to {max(losses):.2f} %, drift {100 * median(drifts):.2f} % (median)"
    return Row(
        "one tenant at 100 %: loss", f"{name}, median of {turns.n} turns of {turns.seconds:g} s", at_most(most),
        median(losses), "%", note_of(counted, single, clocks), tuple(losses), void=void,
        data={"held": [[*one.samples] for one in helds], "free": [[*one.samples] for one in frees]},
    )  # fmt: skip


CASES = (Case("whole", "what one tenant at 100 % loses, plain and launch-bound", whole, 90, 30),)
