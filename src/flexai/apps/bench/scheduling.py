"""``flexai bench scheduling``: how fast the decision core is. Nothing is simulated but the cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flexai.apps.bench import scheduling_speed
from flexai.apps.bench.frame import Case, Row, at_least, at_most

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from flexai.apps.bench.frame import Goal, Run
    from flexai.apps.bench.scheduling_speed import Measured

# What is promised of a figure, by its name; other figures are reported without a judgement.
GOALS: dict[str, Goal] = {
    "event to decision, p50": at_most(2.0),
    "event to decision, p99": at_most(20.0),
    "gang reclaim: whom to evict": at_most(0.5),
    "cannot fit: step and Reason": at_most(50.0),
    "binds": at_least(5000.0),
}


def hardware() -> tuple[str, str]:
    """No card takes part."""
    return "none (the decision core alone)", "none"


def _case(
    name: str, about: str, full: Callable[[], Iterable[Measured]], quick: Callable[[], Iterable[Measured]]
) -> Case:
    def measure(run: Run) -> Iterator[Row]:
        for one in quick() if run.quick else full():
            conditions = ", ".join(f"{value:g} {key.replace('_', ' ')}" for key, value in one.conditions.items())
            yield Row(one.name, conditions, GOALS.get(one.name), one.got, one.unit)

    return Case(name, about, measure)


CASES = (
    _case("latency", "from an event to its decision, 5,000 jobs pending", scheduling_speed.event_latency,
          lambda: scheduling_speed.event_latency(100, 500, 200)),
    _case("gang", "an 800-card gang reclaimed out of a full cluster of 8,000 cards", scheduling_speed.gang_reclaim,
          lambda: scheduling_speed.gang_reclaim(100, 10)),
    _case("verdict", "a gang that cannot fit on 65,000 fragmented cards, with its reason", scheduling_speed.verdict,
          lambda: scheduling_speed.verdict(500)),
)  # fmt: skip
