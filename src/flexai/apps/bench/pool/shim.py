"""What the shim costs a program."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flexai.apps.bench.frame import Case, Row, at_most
from flexai.apps.bench.shim_cost import shim_cost

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flexai.apps.bench.frame import Run


def cost(run: Run) -> Iterator[Row]:
    """Added to a launch while the gate is open, and to the start of a process."""
    folder = run.folder / "shim"
    folder.mkdir()
    got = shim_cost(folder, rounds=50 if run.quick else 200, repeats=3, starts=8 if run.quick else 30)
    driver = "over a driver that does nothing"
    yield Row("shim, added per launch", f"gate open, {driver}", at_most(30.0), got.launch_added_ns, "ns")
    yield Row(
        "shim, added per launch", f"gate open, 8 cards, {driver}", at_most(30.0), got.launch_added_8_cards_ns, "ns"
    )
    yield Row("shim, added to a process start", driver, at_most(5.0), got.start_added_ms, "ms")


CASES = (Case("shim", "what the shim adds to a launch and to a process start", cost),)
