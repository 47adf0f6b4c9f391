"""``flexai bench slicing``: how exact, how cheap and how safe slices are on this machine's cards, real or simulated.

Every case runs on a pool of its own, with its own solo runs before and after (``solo``). Card time is judged by the
card's context-switch log (``residency``; by the arbiter's accounts where that cannot tell, which the row then says),
work by what the programs counted over what they count alone. ``FLEXAI_BENCH_SIMULATE=h200:1`` measures on a simulated
card even where there is a real one.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from flexai.apps.bench.slicing import (
    contexts,
    cost,
    faults,
    latency,
    lending,
    limits,
    memory,
    mixed,
    parking,
    shares,
    spinning,
    steps,
    whole,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from flexai.apps.bench.frame import Case, Row

CASES: tuple[Case, ...] = (
    *shares.CASES, *limits.CASES, *whole.CASES, *mixed.CASES, *lending.CASES, *latency.CASES, *memory.CASES,
    *faults.CASES, *cost.CASES, *parking.CASES, *spinning.CASES, *contexts.CASES, *steps.CASES,
)  # fmt: skip


def hardware() -> tuple[str, str]:
    """Cards and driver of the header."""
    from flexai.apps.bench.hardware import cards_here  # noqa: PLC0415  asks NVML

    return ("simulated: h200", "simulated") if os.environ.get("FLEXAI_BENCH_SIMULATE") else cards_here()


def draw(rows: Sequence[Row], folder: Path) -> dict[str, str]:
    """Pictures of the rows; file name to caption."""
    from flexai.apps.bench.slicing.plots import draw as draw_all  # noqa: PLC0415  matplotlib only when asked for

    return draw_all(rows, folder)
