"""Pages of jobs: first those that have not ended, in order of submission, then those that have, latest first."""

from collections.abc import Iterator
from itertools import islice

from fastapi import Request

from flexai.apps.pool.book import JobRecord
from flexai.apps.pool.http import page_limit
from flexai.apps.pool.identity import Peer
from flexai.apps.pool.service import Pool
from flexai.apps.pool.views import shown_state
from flexai.model import JobState
from flexai.wire.errors import BadInput

_DEFAULT_LIMIT, _MAX_LIMIT = 100, 1000
_ALL = frozenset(JobState)


async def list_jobs(pool: Pool, peer: Peer, request: Request) -> tuple[list[JobRecord], str | None]:
    """The jobs of one page that the caller may see, and the cursor of the next page.

    Raises:
        BadInput: an unknown state, or a cursor that is not ours.
    """
    limit = page_limit(request, _DEFAULT_LIMIT, _MAX_LIMIT)
    states = _states(request)
    user, queue = request.query_params.get("user", ""), request.query_params.get("queue", "")
    part, at = _cursor(request.query_params.get("cursor", ""))
    records: list[JobRecord] = []
    if part == "active":
        matching = (
            record
            for record in _active_after(pool, at)
            if peer.owns(record.uid)
            and (not user or record.job.user == user)
            and (not queue or record.job.queue == queue)
            and (JobState(shown_state(record)) in states or record.state in states)
        )
        records = list(islice(matching, limit + 1))
        if len(records) > limit:
            return records[:limit], f"active:{records[limit - 1].job.seq}"
        at = 2**62
    final = tuple(state.value for state in states if state.is_final)
    if not final:
        return records, None
    await pool.core.stored()
    wanted = limit - len(records) + 1
    rows = await pool.reader.ended_jobs(
        at, wanted, uid=None if peer.is_operator else peer.uid, user=user, queue=queue,
        states=final if len(final) < 3 else (),
    )  # fmt: skip
    cut = len(rows) == wanted
    rows = rows[: wanted - 1]
    records += await pool.from_rows(rows)
    if not cut:
        return records, None
    return records, f"ended:{rows[-1].ended_seq if rows else at}"


def _active_after(pool: Pool, seq: int) -> Iterator[JobRecord]:
    later = (record for record in pool.book.active.values() if record.job.seq > seq)
    return iter(sorted(later, key=lambda record: record.job.seq))


def _states(request: Request) -> frozenset[JobState]:
    """``?state=queued,running``; ``active`` and ``final`` stand for several."""
    given = request.query_params.get("state", "")
    if not given:
        return _ALL
    states: set[JobState] = set()
    for word in given.split(","):
        if word == "active":
            states |= {state for state in JobState if not state.is_final}
        elif word == "final":
            states |= {state for state in JobState if state.is_final}
        else:
            try:
                states.add(JobState(word))
            except ValueError:
                known = ", ".join([*JobState, "active", "final"])
                raise BadInput("state", word[:80], "is not a state of jobs", f"Use some of: {known}") from None
    return frozenset(states)


def _cursor(text: str) -> tuple[str, int]:
    if not text:
        return "active", 0
    part, _, digits = text.partition(":")
    if part not in {"active", "ended"} or not (digits.isascii() and digits.isdigit()) or len(digits) > 18:
        raise BadInput("cursor", text[:80], "is not a cursor of this pool", "Use the cursor of the page before")
    return part, int(digits)
