"""``flexai bench pool``: the figures of a pool on one machine."""

from flexai.apps.bench.frame import Case
from flexai.apps.bench.pool import api, idle, make, memory, run_command, shares
from flexai.apps.bench.pool.cards import REAL
from flexai.apps.bench.shim_cost import SHIM

CASES: tuple[Case, ...] = (
    *shares.CASES,
    *memory.CASES,
    SHIM,
    *run_command.CASES,
    *api.CASES,
    *idle.CASES,
    *make.CASES,
)


def hardware() -> tuple[str, str]:
    """Cards and driver of the header: simulated unless a case says otherwise, or the real card was asked for."""
    if REAL:
        from flexai.apps.bench.hardware import cards_here  # noqa: PLC0415  asks NVML

        return cards_here()
    return "simulated", "simulated card of this repository"
