"""Why a job waits for its queue: there is none of that name, a limit, or its share."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from flexai.model import PendingReason, Reason
from flexai.policy.gang import fits_together
from flexai.scheduling import due, entitlement
from flexai.scheduling.wording import card_time, lasting, n_cards, say

if TYPE_CHECKING:
    from flexai.cluster import Shape
    from flexai.scheduling.records import JobRecord
    from flexai.scheduling.state import State


def of_queue(state: State, record: JobRecord) -> PendingReason | None:
    """There is no such queue, or it or its user is at a limit."""
    name, asked = record.job.queue, record.needed_milli
    if name not in state.queues:
        return say(state, Reason.UNKNOWN_QUEUE, f"Queue {name} does not exist; create it with `flexai queue set`.")
    over = state.queues.over_limit(name, asked)
    if over is not None:
        limit, used = over.queue.limit_milli, over.used_milli
        return say(
            state, Reason.QUEUE_LIMIT,
            f"Queue {over.queue.name} holds {n_cards(used)} of its limit of {n_cards(limit)}; "
            f"it asks for {n_cards(asked)}.",
            limit_milli=limit, used_milli=used, asked_milli=asked, missing_milli=used + asked - limit,
        )  # fmt: skip
    if state.queues.over_user_limit(name, record.job.user, asked):
        queue = state.queues[name]
        limit, used = queue.queue.user_limit_milli, queue.by_user.get(record.job.user, 0)
        return say(
            state, Reason.USER_LIMIT,
            f"{record.job.user} holds {n_cards(used)} in queue {name}, where one user may hold {n_cards(limit)}.",
            limit_milli=limit, used_milli=used, asked_milli=asked, missing_milli=used + asked - limit,
        )  # fmt: skip
    return None


def of_fair_share(state: State, record: JobRecord) -> PendingReason | None:
    """It is large, its queue's large jobs had more than the queue's share, and others wait: no place is made for it."""
    if record.job.id not in state.big or record.job.id in state.booked or record.job.id in state.claims:
        return None
    shares = entitlement.shares_of(state, 0)
    if len(state.queues) == 1 or not due.must_make_up(state, shares, record):
        return None
    advance, queues = due.advance_of(state, shares, record), due.who_waits(state, record)
    wait_ms, queue = advance.made_up_in_ms, record.job.queue
    until = f"for {lasting(wait_ms)}" if wait_ms >= 0 else "as long as they run, and for a while after"
    others = f" and {len(queues) - 1} other{'s' * (len(queues) > 2)} go" if len(queues) > 1 else " goes"
    return say(
        state, Reason.FAIR_SHARE,
        f"Large jobs of queue {queue} hold {n_cards(advance.held_milli)} and had {card_time(advance.owed)} more than "
        f"its fair share of {n_cards(advance.share_milli)}: {until}, {queues[0]}{others} first, and until then it "
        "starts only if what it needs is left.",
        held_milli=advance.held_milli, share_milli=advance.share_milli, owed_milli_ms=advance.owed,
        n_queues=len(queues), wait_ms=wait_ms,
    )  # fmt: skip


def of_class_limit(state: State, record: JobRecord) -> PendingReason | None:
    """It would fit, but not on the cards that the limits of its queue leave it: the class where it would fit best."""
    shape, job = state.shape_now(record), record.job
    if shape is record.shape or fits_together(state.books, shape, record.together):
        return None
    asked = record.needed_milli
    full = state.queues.full_classes(job.queue, asked)
    able = [name for name in full if name in state.books.models and _may_use(state, record.shape, name)]
    if not able:
        return None
    room = {
        name: int(state.books.n_fit(replace(record.shape, models=1 << state.books.models[name])).sum()) for name in able
    }
    name = max(able, key=lambda each: (room[each], each))
    over = full[name]
    limit, used = over.queue.terms(name).limit_milli, over.used_of(name)
    return say(
        state, Reason.QUEUE_LIMIT,
        f"Queue {over.queue.name} holds {n_cards(used)} of its limit of {n_cards(limit)} of {name}; "
        f"it asks for {n_cards(asked)}.",
        limit_milli=limit, used_milli=used, asked_milli=asked, missing_milli=used + asked - limit,
        device_class=state.books.models[name],
    )  # fmt: skip


def _may_use(state: State, shape: Shape, model: str) -> bool:
    """Whether a shape may use cards of a model."""
    return bool((shape.models >> state.books.models[model]) & 1)
