"""What borrowers weigh beside each other on their cards, by what their queues are owed of all that is lent.

The requests of those who hold compute are promises, and nobody changes them (docs/adr/0020): only who holds none has a
weight that this sets, again whenever use is measured, somebody comes or goes, or a queue changes.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from flexai.cluster import ALL_CARDS
from flexai.model import Residence, TenantClass
from flexai.policy.borrowing import Borrower, demands, dues
from flexai.policy.fair_share import Claim, fair_shares
from flexai.scheduling.commands import Weigh

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flexai.policy.borrowing import Card, Due
    from flexai.scheduling.records import MemberRecord
    from flexai.scheduling.state import State

LEAST_LENT_MILLI = 100
"""A card whose owners leave less may leave more at any moment."""

LENT_STEP_MILLI = 50
"""Smaller differences of what owners leave are no news."""

NEWS_MILLI = 10
"""Of its card's borrowers, by which what one has must differ from what it is due to be told anew."""

_FINE = 1000

At = tuple[str, int]


def run(state: State) -> None:
    """Tell borrowers their weights where they differ from what they are due."""
    if not state.settings.lend or not state.lent:
        return
    due = dues_of(state)
    by_card: dict[Card, list[At]] = {}
    for job_id, index in due:
        by_card.setdefault(_card_of(_member(state, (job_id, index))), []).append((job_id, index))
    for here in by_card.values():
        had = [_member(state, at).grants[0].borrow_weight for at in here]
        parts = [1000 * weight / max(sum(had), 1) for weight in had]
        stays = (
            0 not in had
            and abs(sum(had) - sum(due[at].weight for at in here)) <= len(here)
            and all(abs(part - due[at].part_milli) < NEWS_MILLI for at, part in zip(here, parts, strict=True))
        )
        for at, weight in zip(here, had, strict=True):
            if weight != due[at].weight and not stays:
                _tell(state, at, due[at])


def _tell(state: State, at: At, due: Due) -> None:
    member = _member(state, at)
    member.grants = tuple([replace(grant, borrow_weight=due.weight) for grant in member.grants])
    state.out.append(Weigh(*at, member.grants, cause_of(state.jobs[at[0]].job.queue, due)))


def cause_of(queue: str, due: Due) -> str:
    """Why a borrower has the weight that it has."""
    others = f"beside {due.n_beside} other{'s' * (due.n_beside != 1)}" if due.n_beside else "beside no other borrower"
    least = "the least that can be kept, since " if due.is_least else ""
    return (
        f"due {due.part_milli / 10:g}% of what is idle on its card {others}: {least}queue {queue} is owed "
        f"{due.queue_owed_milli / 10:g}% of all that is lent and has {due.queue_part_milli / 10:g}% here, and the job "
        f"asked for {due.asked_milli / 10:g}% of the {due.queue_asked_milli / 10:g}% that its queue asks for here"
    )


def dues_of(state: State) -> dict[At, Due]:
    """What each member that borrows now is due; none of one that has its card's idle compute to itself."""
    borrowers = _borrowers(state)
    if not borrowers:
        return {}
    left_milli, held_milli = _cards(state, {one.card for one in borrowers.values()})
    lent_milli = _lent(left_milli)
    owed_milli = _owed(state, lent_milli, demands(list(borrowers.values()), lent_milli))
    found = dues(list(borrowers.values()), lent_milli, held_milli, owed_milli)
    return {
        at: due
        for (at, one), due in zip(borrowers.items(), found, strict=True)
        if due.n_beside or held_milli.get(one.card)
    }


def outlook(state: State, queue: str) -> tuple[int, int, dict[Card, int]]:
    """What a queue could have where it borrows, what it is owed of all that is lent, and what else it might have.

    That is by card, of those on which others borrow and it does not, what is lent there; all in thousandths of a card.
    """
    borrowers = list(_borrowers(state).values())
    left_milli, _ = _cards(state, {one.card for one in borrowers})
    lent_milli = _lent(left_milli)
    reach = demands(borrowers, lent_milli)
    wanted = {**reach, queue: sum(lent_milli.values())}
    own = {one.card for one in borrowers if one.queue == queue}
    beyond = {card: milli for card, milli in left_milli.items() if card not in own and milli >= LEAST_LENT_MILLI}
    return reach.get(queue, 0), round(_owed(state, lent_milli, wanted).get(queue, 0)), beyond


def _borrowers(state: State) -> dict[At, Borrower]:
    out = {}
    for at in state.lent:
        member, record = _member(state, at), state.jobs[at[0]]
        if member.hold is not None and not member.evicting and member.residence is Residence.ON_CARD:
            limit_milli = member.grants[0].limit_milli
            out[at] = Borrower(_card_of(member), record.job.queue, record.shape.compute_milli, limit_milli)
    return out


def _owed(state: State, lent_milli: Mapping[Card, int], wanted: Mapping[str, int]) -> dict[str, float]:
    """Each queue's fair share of all that is lent; whole units of ``fair_share`` are parts of a thousandth here."""
    out: dict[str, int] = {}
    fine = {queue: milli * _FINE for queue, milli in wanted.items()}
    _owe_below(state, "", sum(lent_milli.values()) * _FINE, fine, out)
    return {queue: share / _FINE for queue, share in out.items()}


def _member(state: State, at: At) -> MemberRecord:
    return state.jobs[at[0]].members[at[1]]


def _card_of(member: MemberRecord) -> Card:
    assert member.hold is not None
    return member.hold.row, member.hold.columns[0]


def _cards(state: State, cards: set[Card]) -> tuple[dict[Card, int], dict[Card, int]]:
    """Of each of these cards: what is left by those who hold compute of it, and how much of that is best-effort's."""
    books = state.books
    left = {at: int(books.free_milli[at] + books.granted_milli[at]) for at in cards}
    held: dict[Card, int] = {}
    for job_id in state.running:
        record = state.jobs[job_id]
        for index, member in enumerate(record.members):
            if member.hold is None or member.lent or member.residence is Residence.IN_HOST:
                continue
            for grant, column in zip(member.grants, member.hold.columns, strict=True):
                at = member.hold.row, column
                if at not in left:
                    continue
                if grant.tenant_class is TenantClass.BEST_EFFORT:
                    held[at] = held.get(at, 0) + grant.compute_milli
                left[at] -= state.measured_milli.get((job_id, index, grant.device), grant.compute_milli)
    return left, held


def _lent(left_milli: Mapping[Card, int]) -> dict[Card, int]:
    return {at: max(milli // LENT_STEP_MILLI * LENT_STEP_MILLI, LEAST_LENT_MILLI) for at, milli in left_milli.items()}


def _owe_below(state: State, parent: str, lent_milli: int, wanted: Mapping[str, int], out: dict[str, int]) -> None:
    """Share what is lent among the queues below one, by the rule of ``fair_share``: first what a quota still lacks."""
    children = [child.queue.name for child in state.queues.children(parent) if _wants(state, child.queue.name, wanted)]
    claims = [_claim(state, name, wanted) for name in children]
    for name, share in zip(children, fair_shares(lent_milli, claims), strict=True):
        own = wanted.get(name, 0)
        below = _wants(state, name, wanted) - own
        if not below:
            out[name] = share
            continue
        # What a queue's own jobs and its children's share, they have by how much they could borrow.
        own_share = share * own // (own + below)
        if own:
            out[name] = own_share
        _owe_below(state, name, share - own_share, wanted, out)


def _claim(state: State, name: str, wanted: Mapping[str, int]) -> Claim:
    child = state.queues[name]
    lacks_milli = max(0, child.quota_of(ALL_CARDS) - child.used_milli) * _FINE
    terms = child.queue.terms(ALL_CARDS)
    return Claim(lacks_milli, _wants(state, name, wanted), -1, terms.weight, terms.priority)


def _wants(state: State, name: str, wanted: Mapping[str, int]) -> int:
    """What a queue and those below it could borrow."""
    return sum(
        milli for queue, milli in wanted.items() if any(each.queue.name == name for each in state.queues.path(queue))
    )
