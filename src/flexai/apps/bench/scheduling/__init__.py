"""``flexai bench scheduling``: speed of Hi Scheduler, and the quality of its decisions on public traces.

Traces are read from the folder of ``--traces`` (``openb/``, ``philly/``); cases that need one say so when it
is not there. All of it is simulated but the time that deciding takes; the cases of redistribution run in a live pool on
a simulated card.
"""

from flexai.apps.bench.frame import Case
from flexai.apps.bench.scheduling import exactness, fairness, packing, queueing, redistribution, timing, utilisation

READS_TRACES = True
CASES: tuple[Case, ...] = (
    *timing.CASES, *exactness.CASES, *packing.CASES, *queueing.CASES, *fairness.CASES, *utilisation.CASES,
    *redistribution.CASES,
)  # fmt: skip


def hardware() -> tuple[str, str]:
    """Cards and driver of the header."""
    return "none (the cluster is simulated; decisions are the production core's)", "none"
