"""What ``flexai run`` adds before the command begins."""

from __future__ import annotations

import subprocess
import sys
import time
from typing import TYPE_CHECKING

from flexai.adapters.own_pool import own_pool
from flexai.apps.bench.frame import Case, Row, at_most, quantile
from flexai.apps.bench.pool.cards import CARD

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from flexai.apps.bench.frame import Run

_SAY_WHEN = ("date", "+%s%N")


def overhead(run: Run) -> Iterator[Row]:
    """From the start of ``flexai run`` to the start of the command, beside the command alone."""
    n_runs = 5 if run.quick else 30

    with own_pool(CARD) as stand:
        times_ms = _times_ms(stand.environment, n_runs)
    yield Row(
        "run overhead before the command", "idle pool, median", at_most(150.0), quantile(times_ms, 0.5), "ms",
        f"p90 {quantile(times_ms, 0.9):.0f} ms", tuple(times_ms),
    )  # fmt: skip


def _times_ms(environment: Mapping[str, str], n_runs: int) -> list[float]:
    words = [sys.executable, "-m", "flexai.apps.cli", "run", "--quiet", "--", *_SAY_WHEN]
    alone_ms = [_until_it_began_ms(_SAY_WHEN, environment) for _ in range(n_runs)]
    base_ms = quantile(alone_ms, 0.5)
    return [_until_it_began_ms(words, environment) - base_ms for _ in range(n_runs)]


def _until_it_began_ms(words: Sequence[str], environment: Mapping[str, str]) -> float:
    began_ns = time.time_ns()
    said = subprocess.run(words, env=environment, capture_output=True, text=True, check=True, timeout=60)
    return (int(said.stdout) - began_ns) / 1e6


CASES = (Case("run", "what `flexai run` takes before the command begins", overhead, 8, 5),)
