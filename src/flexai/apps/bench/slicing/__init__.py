"""``flexai bench slicing``: how exact, how cheap and how safe slices are on this machine's cards, real or simulated.

Every case runs on a pool of its own, with its own solo runs. Card time is judged by the arbiter's accounting (the
card's context-switch log where the backend has it), work by what the programs counted over what they count alone.
``FLEXAI_BENCH_SIMULATE=h200:1`` measures on a simulated card even where there is a real one.
"""

import os

from flexai.apps.bench.frame import Case
from flexai.apps.bench.slicing import faults, latency, limits, shares

CASES: tuple[Case, ...] = (*shares.CASES, *limits.CASES, *latency.CASES, *faults.CASES)


def hardware() -> tuple[str, str]:
    """Cards and driver of the header."""
    from flexai.apps.bench.slicing.stand import cards_here  # noqa: PLC0415  asks NVML

    return ("simulated: h200", "simulated") if os.environ.get("FLEXAI_BENCH_SIMULATE") else cards_here()
