"""What each queue is entitled to now, by class of card, and who is owed most.

A *resource* is one class of cards that some queue has terms for, or ``ALL_CARDS``. Each is shared by itself: a job that
may use one such class alone is judged by what its queue holds of that class, any other by what it holds in all
(docs/adr/0006).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from flexai.cluster import ALL_CARDS
from flexai.policy.fair_share import Claim, fair_shares

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from flexai.cluster import Hold, Shape
    from flexai.model import Job
    from flexai.scheduling.records import JobRecord, LineKey
    from flexai.scheduling.state import State

Shares = dict[tuple[str, str], int]
"""Fair share by queue and resource, in thousandths of a card."""


def resource_of(state: State, device_class: str) -> str:
    """The resource in which a job that may use this class alone is judged."""
    return device_class if device_class in state.queues.managed else ALL_CARDS


def resource_for(state: State, shapes: Sequence[Shape]) -> str:
    """The resource in which a job of these shapes is judged."""
    return resource_of(state, state.class_of(shapes)) if state.queues.managed else ALL_CARDS


def is_over_limit(state: State, job: Job, milli: int, holds: Iterable[Hold]) -> bool:
    """Whether a job's queue, its user or a class of cards would be over a limit with ``milli`` more, on these holds."""
    queues = state.queues
    if job.queue not in queues or queues.over_limit(job.queue, milli) is not None:
        return True
    if queues.over_user_limit(job.queue, job.user, milli):
        return True
    by_class: dict[str, int] = {}
    for hold in holds if queues.limited else ():
        for name, part in state.books.by_class(hold).items():
            by_class[name] = by_class.get(name, 0) + part
    return not queues.full_classes(job.queue, 0, by_class).keys().isdisjoint(by_class)


def shares_of(state: State, k_milli: int, borrowed_milli: Mapping[str, int] | None = None) -> Shares:
    """Fair share of every queue in every resource now, with past use weighed by ``k_milli`` (0: the classic rule).

    What queues borrow is wanted by them beside what waits, if it is given.
    """
    out: Shares = {}
    for resource in (ALL_CARDS, *state.queues.managed):
        wanted: dict[str, int] = {}
        for name in state.queues.names():
            waiting = state.waiting_milli.get((name, resource), 0) + (borrowed_milli or {}).get(name, 0)
            for each in state.queues.path(name):
                wanted[each.queue.name] = wanted.get(each.queue.name, 0) + waiting
        _share_below(state, "", resource, 1000 * state.books.n_open(resource), wanted, out, k_milli)
    return out


def _share_below(
    state: State, parent: str, resource: str, capacity_milli: int, wanted: dict[str, int], out: Shares, k_milli: int
) -> None:
    children = state.queues.children(parent)
    claims = []
    for child in children:
        terms = child.queue.terms(resource)
        past_milli = state.queues.past(child, resource, state.now_ms) if k_milli else 0
        claims.append(
            Claim(
                child.quota_of(resource), child.used_of(resource) + wanted[child.queue.name], terms.limit_milli,
                terms.weight, terms.priority, past_milli,
            )
        )  # fmt: skip
    for child, share in zip(children, fair_shares(capacity_milli, claims, k_milli), strict=True):
        out[child.queue.name, resource] = share
        _share_below(state, child.queue.name, resource, share, wanted, out, k_milli)


def need_rank(state: State, shares: Shares, key: LineKey) -> tuple[float, ...]:
    """Order of queues: those below their quota first, then by use over fair share, then in the order they came.

    With past use u, the rule of ``policy.fair_share`` wants a queue to hold w + k (w - u), so it is used + k u that is
    held against (1 + k) w: that says who is owed even of queues that hold nothing now. The job itself counts with half
    of what it will add to u, else queues whose jobs are large against their share would always come out above it. For
    that ``shares`` are those of the classic rule.
    """
    if key.queue not in state.queues:
        return (2.0, 0.0)
    queue, resource = state.queues[key.queue], resource_for(state, key.shapes)
    below_quota = any(queue.used_of(each) < queue.quota_of(each) for each in {ALL_CARDS, resource})
    return (0.0 if below_quota else 1.0, use_over_share(state, shares, key, 0))


def is_within_quota(state: State, key: LineKey, milli: int) -> bool:
    """Whether a line's queue, with ``milli`` for a job of it, is within what it is guaranteed."""
    queue, resource = state.queues[key.queue], resource_for(state, key.shapes)
    return all(queue.used_of(each) + milli <= queue.quota_of(each) for each in {ALL_CARDS, resource})


def use_over_share(state: State, shares: Shares, key: LineKey, more_milli: int) -> float:
    """What a queue uses, and ``more_milli``, over its fair share; with past use (``need_rank``), if that counts."""
    queue, resource = state.queues[key.queue], resource_for(state, key.shapes)
    used: float = queue.used_of(resource) + more_milli
    share: float = max(shares.get((key.queue, resource), 0), 1)
    if state.settings.fair_k_milli:
        k = state.settings.fair_k_milli / 1000
        past = state.queues.past(queue, resource, state.now_ms) + _adds(state, key) / 2
        used, share = used + k * past, share * (1 + k)
    return used / share


def _adds(state: State, key: LineKey) -> float:
    """What a job of the line would add to its queue's decayed use by the time that it is likely over."""
    half_life_ms = state.queues.half_life_ms
    if not half_life_ms:
        return 0.0
    lasts_ms = state.run_times.expected_ms(key.burst, state.now_ms)
    return float(key.asked_milli * (1 - 2 ** (-lasts_ms / half_life_ms)))


@dataclass(frozen=True, slots=True)
class Standing:
    """How queues stand, by queue and resource: what they are entitled to, and what will be theirs.

    Attributes:
        shares: fair shares, where they entitle; else empty.
        leaving: compute of members that are being stopped: held still, but as good as gone.
        coming: compute of jobs for which others are being stopped: not held yet, but as good as there.
    """

    shares: Shares
    leaving: Shares
    coming: Shares


def standing_of(state: State) -> Standing:
    """How queues stand now."""
    fair = state.settings.reclaim == "fair_share"
    leaving: Shares = {}
    for job_id, member in state.stopping:
        record = state.jobs[job_id]
        _add(state, leaving, record.job.queue, record.members[member].by_class)
    coming: Shares = {}
    for job_id in state.claims:
        claimant = state.jobs.get(job_id)
        if claimant is not None and not claimant.is_placed and is_claiming(state, claimant):
            by_class = {state.class_of(claimant.shapes): claimant.needed_milli}
            _add(state, coming, claimant.job.queue, by_class)
    return Standing(shares_of(state, state.settings.fair_k_milli) if fair else {}, leaving, coming)


def is_claiming(state: State, record: JobRecord) -> bool:
    """Whether something is being stopped for the job and is not over yet."""
    return any(at in state.stopping for at in state.claims.get(record.job.id, ()))


def _add(state: State, sums: Shares, queue: str, by_class: Mapping[str, int]) -> None:
    """Book compute by class to a queue and those above it."""
    for each in state.queues.path(queue):
        for device_class, milli in by_class.items():
            for resource in {ALL_CARDS, resource_of(state, device_class)}:
                at = each.queue.name, resource
                sums[at] = sums.get(at, 0) + milli


def entitled_milli(state: State, queue: str, resource: str, standing: Standing) -> int:
    """What a queue may hold without giving it back: its quota, or its fair share where that is larger."""
    return max(state.queues[queue].quota_of(resource), standing.shares.get((queue, resource), 0))


def entitled_up_to(state: State, record: JobRecord, standing: Standing) -> set[str]:
    """Queues of the job's path, from its own up, that with the job would still be within what they are entitled to.

    It may take from the queues that leave such a path: from brothers of the last one named, and their children.
    """
    resource, milli = resource_for(state, record.shapes), record.needed_milli
    within: set[str] = set()
    for each in state.queues.path(record.job.queue):
        if not _stays_within(state, each.queue.name, resource, milli, standing):
            break
        within.add(each.queue.name)
    return within


def is_entitled(state: State, record: JobRecord, standing: Standing) -> bool:
    """Whether the job's own queue, with it, would be within what it is entitled to."""
    resource = resource_for(state, record.shapes)
    return _stays_within(state, record.job.queue, resource, record.needed_milli, standing)


def _stays_within(state: State, queue: str, resource: str, milli: int, standing: Standing) -> bool:
    at = queue, resource
    will_hold = state.queues[queue].used_of(resource) - standing.leaving.get(at, 0) + standing.coming.get(at, 0)
    return will_hold + milli <= entitled_milli(state, queue, resource, standing)


def may_take_from(state: State, record: JobRecord, within: set[str], victim_queue: str) -> bool:
    """Whether the job's queue and all above it, up to the first that it shares with the victim's, are ``within``."""
    theirs = {each.queue.name for each in state.queues.path(victim_queue)}
    for each in state.queues.path(record.job.queue):
        if each.queue.name in theirs:
            return True
        if each.queue.name not in within:
            return False
    return True


def leaves_enough(state: State, claimant: JobRecord, taken: Shares, standing: Standing) -> bool:
    """Whether the queues that lose ``taken`` (by queue and class), and their parents, keep what they are entitled to.

    Queues above the claimant too lose nothing by it, and are left out.
    """
    own = {each.queue.name for each in state.queues.path(claimant.job.queue)}
    losses: Shares = {}
    for (queue, device_class), milli in taken.items():
        _add(state, losses, queue, {device_class: milli})
    return all(
        state.queues[queue].used_of(resource) - standing.leaving.get((queue, resource), 0) - milli
        >= entitled_milli(state, queue, resource, standing)
        for (queue, resource), milli in losses.items()
        if queue not in own
    )
