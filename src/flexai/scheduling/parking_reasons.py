"""Why a parked job stays in host memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flexai.model import PendingReason, Reason, Residence
from flexai.scheduling import returning
from flexai.scheduling.queue_reasons import of_queue
from flexai.scheduling.wording import card_name, lack_of, n_cards, say

if TYPE_CHECKING:
    from flexai.scheduling.records import JobRecord
    from flexai.scheduling.state import State


def of_parked(state: State, record: JobRecord) -> PendingReason:
    """It is in host memory: what keeps it from coming back."""
    if not returning.is_settled(record):
        returns = any(member.residence is Residence.RETURNING for member in record.members)
        where = "back to its card" if returns else "to host memory"
        return say(state, Reason.PARKED, f"Its device memory is being moved {where}.")
    if record.kept_away:
        return say(
            state, Reason.PARKED,
            "It is in host memory, as its user asked, and its place is free for others; "
            f"`flexai wake {record.job.id}` brings it back.",
        )  # fmt: skip
    if returning.is_over_limit(state, record):
        milli, queue = record.home_milli, record.job.queue
        told = f"Queue {queue} or one above it has no room within its limits for the {n_cards(milli)} that it held."
        return of_queue(state, record) or say(state, Reason.QUEUE_LIMIT, told, asked_milli=milli)
    lack = returning.missing(state, record) if returning.back_on(state, record) is None else {}
    wait_ms = max(0, record.wakes_from_ms - state.now_ms)
    for (row, column), (milli, n_bytes) in lack.items():
        card = card_name(state.books, row, column)
        is_open = returning.is_open(state, (row, column))
        told = f"lacks {lack_of(milli, n_bytes)} for it" if is_open else "is closed to new work"
        return say(
            state, Reason.PARKED,
            f"It is in host memory and comes back to the card that it left: {card} {told}"
            f"{f', and {len(lack) - 1} others lack something too' if len(lack) > 1 else ''}"
            f"{', and no others of its model on the node have room' if returning.can_move(state, record) else ''}"
            f"{_only_its_own(record)}.",
            row=row, column=column, missing_milli=milli, missing_memory_bytes=n_bytes, missing_cards=len(lack),
            wait_ms=wait_ms,
        )  # fmt: skip
    if wait_ms and record.why_refused:
        return say(
            state, Reason.PARKED,
            f"It is in host memory: its wake was refused ({record.why_refused.rstrip('.')}), and is tried again in "
            f"{wait_ms / 1000:.1f} s.",
            wait_ms=wait_ms,
        )  # fmt: skip
    if wait_ms:
        return say(
            state, Reason.PARKED, f"It is in host memory, and stays there for {wait_ms / 1000:.1f} s more at least.",
            wait_ms=wait_ms,
        )  # fmt: skip
    borrows = any(member.lent for member in record.members)
    then = "it comes back when that is idle enough again" if borrows else "its turn comes next"
    return say(state, Reason.PARKED, f"It is in host memory; its card has room for it, and {then}.")


def _only_its_own(record: JobRecord) -> str:
    return f"; on another it could not be woken ({record.cannot_move.rstrip('.')})" if record.cannot_move else ""
