"""``flexai bench pool``: the figures of a pool on one machine."""

from flexai.apps.bench.frame import Case
from flexai.apps.bench.pool import api, idle, memory, run_command, shares, shim

CASES: tuple[Case, ...] = (*shares.CASES, *memory.CASES, *shim.CASES, *run_command.CASES, *api.CASES, *idle.CASES)


def hardware() -> tuple[str, str]:
    """Cards and driver of the header: simulated unless a case says otherwise."""
    return "simulated", "simulated card of this repository"
