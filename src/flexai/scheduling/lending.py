"""Redistribution: waiting best-effort work starts on compute that is granted to others but measured idle.

A lent start holds memory, CPU and RAM like any other, but no compute: it runs on what the arbiter finds idle from one
turn to the next, and the owner has its compute back at once. Memory is never lent. So the books stay true: no card is
ever granted beyond a whole one.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from flexai.model import TenantClass
from flexai.scheduling.placing import begin

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from flexai.scheduling.state import State


def run(state: State) -> None:
    """Start best-effort jobs whose compute is idle somewhere, the longest waiting first."""
    if not state.settings.lend or not state.measured_milli:
        return
    waiting = [
        line.head
        for line in state.lines.values()
        if line.head.job.request.tenant_class is TenantClass.BEST_EFFORT
        and line.key.n_members == 1
        and line.key.shape.n_devices == 1
        and not line.key.shape.whole
    ]
    if not waiting:
        return
    idle = idle_milli(state)
    books = state.books
    for record in sorted(waiting, key=lambda each: each.job.seq):
        if state.queues.over_limit(record.job.queue, 0) or record.job.queue not in state.queues:
            continue
        free = replace(record.shape, compute_milli=0)
        n = len(books.names)
        open_cards = books.free_milli[:n] >= 0
        host = (books.cpu_milli[:n] >= free.cpu_milli) & (books.ram_bytes[:n] >= free.ram_bytes)
        fits = books.cards_that_fit(free) & open_cards & host[:, None] & (idle >= record.shape.compute_milli)
        if not fits.any():
            continue
        row, column = np.unravel_index(int(np.where(fits, idle, -1).argmax()), idle.shape)
        hold = books.hold_for(record.shape, int(row), (int(column),), compute_milli=0)
        idle[row, column] -= record.shape.compute_milli
        books.take(hold)
        begin(state, record, [hold], "lent: its compute is idle there now")


def idle_milli(state: State) -> NDArray[np.int64]:
    """Compute of each card that is measured idle: (nodes, cards). A tenant not measured yet counts as fully busy."""
    books = state.books
    n = len(books.names)
    idle = np.where(books.free_milli[:n] >= 0, 1000, -1).astype(np.int64)
    for job_id in state.running:
        record = state.jobs[job_id]
        for index, member in enumerate(record.members):
            if member.hold is None:
                continue
            for grant, column in zip(member.grants, member.hold.columns, strict=True):
                asked = grant.compute_milli or record.shape.compute_milli
                used = state.measured_milli.get((job_id, index, grant.device), asked)
                idle[member.hold.row, column] -= used
    return idle
