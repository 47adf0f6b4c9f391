"""Why does it wait? Computed when asked, from the books as they are, naming the nearest miss.

Each resource reason names the node where the job came nearest and what is missing there; given just that, the job would
fit. ``testing.reason_checker`` supplies it and watches the job start.
"""

from __future__ import annotations

from copy import copy
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from flexai.cluster import group_sums
from flexai.model import JobState, PendingReason, Reason
from flexai.policy.gang import fits_together, most_together, usable
from flexai.policy.roles import fits, pack
from flexai.scheduling import booking, returning
from flexai.scheduling.parking_reasons import of_parked
from flexai.scheduling.queue_reasons import of_class_limit, of_fair_share, of_queue
from flexai.scheduling.wording import (
    asked_for,
    card_name,
    free_part,
    host_lack,
    lack_of,
    part,
    say,
    size,
    want,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from flexai.cluster import Shape
    from flexai.cluster.card_filter import Filter
    from flexai.scheduling.records import JobRecord
    from flexai.scheduling.state import State


def reason_for(state: State, job_id: str) -> PendingReason | None:
    """The reason now; None if the job runs, is over, or is not known."""
    record = state.jobs.get(job_id)
    if record is not None and record.state is JobState.PARKED:
        return of_parked(state, record)
    if record is None or record.state not in (JobState.QUEUED, JobState.HELD) or record.is_placed:
        return None
    seen = booking.unbooked(state)
    bare = _without_filters(seen)
    return (
        _waiting(state, record)
        or of_queue(state, record)
        or _of_any_role(record, lambda one: _impossible(bare, one))
        or of_fair_share(state, record)
        or _of_any_role(record, lambda one: _resources(bare, one))
        or _beside(bare, record)
        or _of_any_role(record, lambda one: _filtered(seen, one))
        or _beside(seen, record)
        or _of_any_role(record, lambda one: of_class_limit(seen, one))
        or _booked(state, record)
        or _order(state, record)
    )


def _of_any_role(record: JobRecord, find: Callable[[JobRecord], PendingReason | None]) -> PendingReason | None:
    """What keeps the job, or the first of its roles that something keeps even if there were no others."""
    if not record.job.roles:
        return find(record)
    for each, one in zip(record.needed_roles(), record.alone(), strict=True):
        reason = find(one)
        if reason is not None:
            message = f"Role {each.role.name}: {reason.message}"
            return replace(reason, message=message, numbers=reason.numbers | {"role": each.index})
    return None


def _beside(state: State, record: JobRecord) -> PendingReason | None:
    """Each role has room, but not one of them beside the others: too few cards, CPUs or memory for both."""
    if not record.job.roles or fits(state.books, record.need):
        return None
    need, waiting = record.need, record.needed_roles()
    if need.grows:
        return None
    ever = pack(state.books.emptied(), need)
    packing = ever if ever.lacks >= 0 else pack(state.books, need)
    if packing.lacks < 0:
        return None
    short, n_fit, n = waiting[packing.lacks], len(packing.holds[packing.lacks]), need.parts[packing.lacks][1].n_members
    others = " and ".join(
        f"{each.role.name} ({len(holds)})" for each, holds in zip(waiting, packing.holds, strict=True)
        if holds and each is not short
    )  # fmt: skip
    where = f" inside one {need.level}" if need.level else ""
    numbers = {"role": short.index, "n_members": n, "missing_members": n - n_fit}
    if packing.group >= 0:
        where += f" ({state.books.place_name(need.level, packing.group)} comes nearest)"
        numbers["group"] = packing.group
    if ever.lacks >= 0:
        return say(
            state, Reason.TOO_LARGE,
            f"Role {short.role.name}: even when empty, the pool can host {n_fit} of its {n} members beside "
            f"{others or 'the others'}{where}.",
            most_members=n_fit, n_devices=short.shape.n_devices, **numbers,
        )  # fmt: skip
    return say(
        state, Reason.GANG_INCOMPLETE,
        f"Role {short.role.name}: {n_fit} of {n} members would fit now beside {others or 'the others'}{where}; none "
        "starts before all do.",
        n_fit=n_fit, **numbers,
    )  # fmt: skip


def _without_filters(state: State) -> State:
    """What is missing is told first as if there were no filters; what they keep away would fit."""
    if not state.books.filters:
        return state
    bare = copy(state)
    bare.books = state.books.filtered_by(())
    return bare


def _filtered(state: State, record: JobRecord) -> PendingReason | None:
    """It would fit, but for the filters in use."""
    books, shape, together = state.books, record.shape, record.together
    if not books.filters or fits_together(books, shape, together):
        return None
    needed, n = record.job.min_member, len(books.names)
    bare = books.filtered_by(())
    harmless: tuple[Filter, ...] = ()
    out: list[str] = []  # it would fit without these, and with all others
    for name, each in zip(state.settings.filters, books.filters, strict=True):
        if fits_together(books.filtered_by((*harmless, each)), shape, together):
            harmless += (each,)
        else:
            out.append(name)
    n_bare, n_left = (most_together(each, each.n_fit(shape), together) for each in (bare, books))
    cards, left = (int(each.cards_that_fit(shape)[:n].sum()) for each in (bare, books))
    most = most_together(books, books.n_fit_emptied(shape), together)
    says = f"filter{'s' * (len(out) > 1)} {' and '.join(out)} keep{'s' * (len(out) == 1)}"
    told = (
        f"{cards} cards have {free_part(record)}, but {says} it off {cards - left} of them"
        if needed == 1
        else f"{n_bare} of its members would fit now, but {says} all but {n_left} of the {needed} needed away"
    )
    it = "it" if len(out) == 1 else "them"
    helps = "wait" if most >= needed else f"have {it} taken out: even empty cards would not do"
    return say(
        state, Reason.FILTERED,
        f"{told}; ask for less, or {helps}.",
        n_cards=cards, n_refused=cards - left, n_members=needed, n_fit=n_left, n_fit_unfiltered=n_bare,
        most_members=most, missing_members=needed - n_left,
    )  # fmt: skip


def _waiting(state: State, record: JobRecord) -> PendingReason | None:
    if record.state is JobState.HELD:
        return say(state, Reason.HELD, "It is held; release it with `flexai release`.")
    if record.waits_on:
        names = ", ".join(sorted(record.waits_on))
        n = len(record.waits_on)
        return say(state, Reason.WAITING_FOR_JOBS, f"It starts after job {names}.", n_jobs=n)
    return None


def _like(state: State, shape: Shape) -> NDArray[np.bool_]:
    """Open cards of a model and partition that the shape may use, whatever is free on them: (nodes, cards)."""
    books, n = state.books, len(state.books.names)
    like: NDArray[np.bool_] = (books.free_milli + books.granted_milli)[:n] > 0
    if shape.models != -1:
        like &= (shape.models >> books.model[:n]) & 1 == 1
    if shape.partition:
        like &= books.partition_mask(shape.partition)[:n]
    return like


def _impossible(state: State, record: JobRecord) -> PendingReason | None:
    """No card at all, no such card, or more than there is even when empty."""
    books, shape = state.books, record.shape
    if shape.n_devices:
        if not ((books.free_milli + books.granted_milli)[: len(books.names)] > 0).any():
            return say(state, Reason.NO_DEVICES, "No card is healthy and open to new work; see `flexai devices`.")
        if not _like(state, shape).any():
            wanted = " or ".join(record.job.request.models)
            if shape.partition:
                wanted = f"{wanted or 'of a kind'} that can be cut into {shape.partition}"
            has = ", ".join(books.models)
            return say(state, Reason.NO_SUCH_DEVICE, f"No open card is {wanted}; there are {has}.")
    return _too_large(state, record)


def _too_large(state: State, record: JobRecord) -> PendingReason | None:
    """More than there would be with every job of ours gone."""
    shape, needed = record.shape, record.job.min_member
    where = f"any one {record.job.required_level}" if record.job.required_level else "the pool"
    if record.job.subgroup_size:
        where += f", in subgroups of {record.job.subgroup_size} in one {record.job.subgroup_level} each,"
    most = most_together(state.books, state.books.n_fit_emptied(shape), record.together)
    if most >= needed:
        return None
    asked = asked_for(record)
    told = (
        f"It asks for {asked}; even when empty, {where} cannot give that."
        if needed == 1
        else f"It asks for {needed} members at once, each with {asked}; when empty, {where} can host {most} of them."
    )
    levels = (record.job.required_level, record.job.subgroup_level if record.job.subgroup_size else "")
    for level in levels:
        if level and level not in state.books.topology:
            known = ", ".join(state.books.topology.tightest_first()) or "none"
            told = f"No node says in which {level} it is; levels known are: {known}."
    return say(
        state, Reason.TOO_LARGE, told,
        n_members=needed, n_devices=shape.n_devices, most_members=most, missing_members=needed - most,
    )  # fmt: skip


def _resources(state: State, record: JobRecord) -> PendingReason | None:
    """What is missing now, at the node where it came nearest."""
    books, shape, job = state.books, record.shape, record.job
    n, fit = len(books.names), books.n_fit(shape)
    if most_together(books, fit, record.together) >= record.n_needed:
        return None
    total = int(fit.sum())
    fit = usable(books, fit, record.together)
    if job.subgroup_size and total >= job.min_member > int(fit.sum()):
        return say(
            state, Reason.TOPOLOGY,
            f"{total} members would fit now, but only {int(fit.sum())} of the {job.min_member} needed in subgroups of "
            f"{job.subgroup_size} inside one {job.subgroup_level} each.",
            n_fit=int(fit.sum()), n_members=job.min_member, missing_members=job.min_member - int(fit.sum()),
        )  # fmt: skip
    if job.required_level and total >= job.min_member:
        groups = group_sums(books.topology.groups(job.required_level, n), fit)
        nearest = int(groups.argmax())
        name, most = books.place_name(job.required_level, nearest), int(groups[nearest])
        return say(
            state, Reason.TOPOLOGY,
            f"{total} members would fit now, but not {job.min_member} inside one {job.required_level}: {name} comes "
            f"nearest with {most}; prefer the level instead of requiring it, or wait.",
            n_fit=most, n_members=job.min_member, missing_members=job.min_member - most, group=nearest,
        )  # fmt: skip
    if total:
        return say(
            state, Reason.GANG_INCOMPLETE,
            f"{total} of {job.min_member} members would fit now; none starts before all do.",
            n_fit=total, n_members=job.min_member, missing_members=job.min_member - total,
        )  # fmt: skip
    cards = books.cards_that_fit(shape)
    n_ok = cards.sum(axis=1)
    cpu = np.maximum(0, shape.cpu_milli - books.cpu_milli[:n])
    ram = np.maximum(0, shape.ram_bytes - books.ram_bytes[:n])
    with_cards = n_ok >= shape.n_devices
    if with_cards.any():
        row = int(np.where(with_cards, cpu / max(shape.cpu_milli, 1) + ram / max(shape.ram_bytes, 1), np.inf).argmin())
        node = books.names[row]
        if cpu[row]:
            return say(
                state, Reason.NOT_ENOUGH_CPU,
                f"The cards are there on {int(with_cards.sum())} nodes, but {node}, the nearest, lacks "
                f"{cpu[row] / 1000:g} CPUs.",
                row=row, missing_cpu_milli=int(cpu[row]), missing_ram_bytes=int(ram[row]),
            )  # fmt: skip
        return say(
            state, Reason.NOT_ENOUGH_RAM,
            f"The cards are there on {int(with_cards.sum())} nodes, but {node}, the nearest, lacks {size(ram[row])} "
            "of host memory.",
            row=row, missing_cpu_milli=0, missing_ram_bytes=int(ram[row]),
        )  # fmt: skip
    return _cards_missing(state, record, n_ok)


def _cards_missing(state: State, record: JobRecord, n_ok: NDArray[np.int64]) -> PendingReason:
    """No node has the cards: where it comes nearest, and all that is missing there."""
    books, shape = state.books, record.shape
    n = len(books.names)
    free_milli, free_memory = books.free_milli[:n], books.free_memory[:n]
    like = _like(state, shape)
    is_cut = (books.cut[:n] != 0) & (shape.profile is None)  # what is left of it is for partitions only
    compute = like & ~is_cut & (free_milli >= shape.compute_milli)
    memory = like & ~is_cut & (books.granted_memory[:n] == 0 if shape.whole else free_memory >= shape.memory_bytes)
    n_like, n_compute, n_memory = int(like.sum()), int(compute.sum()), int(memory.sum())
    cpu = np.maximum(0, shape.cpu_milli - books.cpu_milli[:n])
    ram = np.maximum(0, shape.ram_bytes - books.ram_bytes[:n])
    host = (cpu + 0.0) / np.maximum(books.cpu_total[:n], 1) + ram / np.maximum(books.ram_total[:n], 1)
    host += (books.cpu_total[:n] < shape.cpu_milli) | (books.ram_total[:n] < shape.ram_bytes)  # never there
    all_cut = not (like & ~is_cut).any()
    if shape.n_devices > 1 or shape.partition or all_cut:
        row = int(np.where(like.sum(axis=1) >= shape.n_devices, n_ok - host / 4, -np.inf).argmax())
        have, total = int(n_ok[row]), int(n_ok.sum())
        return say(
            state, Reason.FRAGMENTED if total >= shape.n_devices else Reason.NOT_ENOUGH_DEVICES,
            f"{total} of {n_like} cards have {free_part(record)}; it needs "
            f"{shape.n_devices} on one node, and {books.names[row]} comes nearest with {have}"
            f"{host_lack(int(cpu[row]), int(ram[row]))}{'; all are cut into partitions' * all_cut}.",
            row=row, n_fit=have, n_devices=shape.n_devices, missing_devices=shape.n_devices - have,
            missing_cpu_milli=int(cpu[row]), missing_ram_bytes=int(ram[row]),
        )  # fmt: skip
    lack_milli = np.maximum(0, shape.compute_milli - free_milli)
    lack_memory = np.maximum(0, (books.granted_memory[:n] if shape.whole else shape.memory_bytes - free_memory))
    distance = lack_milli / 1000 + lack_memory / np.maximum(books.memory_total[:n], 1) + host[:, None]
    too_small = 0 if shape.whole else (books.memory_total[:n] < shape.memory_bytes)
    distance = np.where(like, distance + 10 * too_small + 100 * is_cut, np.inf)
    row, column = (int(index) for index in np.unravel_index(int(distance.argmin()), distance.shape))
    code = Reason.NOT_ENOUGH_MEMORY if n_compute else Reason.NOT_ENOUGH_COMPUTE
    if n_compute and n_memory:
        code = Reason.FRAGMENTED
    nearest = lack_of(int(lack_milli[row, column]), int(lack_memory[row, column]))
    return say(
        state, code,
        f"{n_compute} of {n_like} cards have {part(shape.compute_milli)} left, {n_memory or 'none'} "
        f"{'have' if n_memory != 1 else 'has'} {want(record)}; "
        f"{card_name(books, row, column)} comes nearest, lacking {nearest}{host_lack(int(cpu[row]), int(ram[row]))}.",
        n_open=n_like, n_with_compute=n_compute, n_with_memory=n_memory, row=row, column=column,
        missing_milli=int(lack_milli[row, column]), missing_memory_bytes=int(lack_memory[row, column]),
        missing_cpu_milli=int(cpu[row]), missing_ram_bytes=int(ram[row]),
    )  # fmt: skip


def _booked(state: State, record: JobRecord) -> PendingReason | None:
    """It would fit where others are being stopped for somebody else."""
    claimant = booking.kept_from(state, record)
    if claimant is None:
        return None
    wait_ms = booking.free_in_ms(state, claimant)
    return say(
        state, Reason.RESERVED,
        f"What it needs is held for job {claimant.job.id}, for which others are being stopped; they will be gone in "
        f"{wait_ms / 1000:.0f} s at the latest.",
        wait_ms=wait_ms,
    )  # fmt: skip


def _order(state: State, record: JobRecord) -> PendingReason:
    """It would fit: others come first."""
    held = state.reservation
    if held is not None and held.job_id != record.job.id:
        wait_ms = max(0, held.shadow_ms - state.now_ms)
        return say(
            state, Reason.RESERVED,
            f"What it needs is held for job {held.job_id}, expected to start in {wait_ms // 60_000} min, and it would "
            "likely not be over by then.",
            wait_ms=wait_ms,
        )  # fmt: skip
    older = returning.first_kept_for(state, record)
    if older is not None:
        return say(
            state, Reason.RESERVED,
            f"What it needs is kept for job {older.job.id} of its queue, which was there before and waits in host "
            "memory; it would likely not be over by the time that that one can come back.",
            wait_ms=max(0, returning.comes_back_ms(state, older) - state.now_ms),
        )  # fmt: skip
    ahead = sum(len(line.jobs) for line in state.lines.values()) - 1
    return say(state, Reason.BEHIND_EARLIER_JOBS, f"{ahead} jobs wait with it; its turn comes next.", n_ahead=ahead)
