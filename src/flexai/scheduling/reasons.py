"""Why does it wait? Computed when asked, from the books as they are, naming the nearest miss.

Each resource reason names the node where the job came nearest and what is missing there; given just that, the job would
fit. ``testing.reason_checker`` supplies it and watches the job start.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from flexai.model import JobState, PendingReason, Reason
from flexai.policy.reservation import fits_together

if TYPE_CHECKING:
    from flexai.scheduling.records import JobRecord
    from flexai.scheduling.state import State

GIB = 2**30


def reason_for(state: State, job_id: str) -> PendingReason | None:
    """The reason now; None if the job runs, is over, or is not known."""
    record = state.jobs.get(job_id)
    if record is None or record.state not in (JobState.QUEUED, JobState.HELD) or record.is_placed:
        return None
    found = _waiting(state, record) or _queue(state, record) or _impossible(state, record) or _resources(state, record)
    return found or _order(state, record)


def _say(state: State, code: Reason, message: str, **numbers: int) -> PendingReason:
    return PendingReason(code, message, numbers, state.books.version)


def _waiting(state: State, record: JobRecord) -> PendingReason | None:
    if record.state is JobState.HELD:
        return _say(state, Reason.HELD, "It is held; release it with `flexai release`.")
    if record.waits_on:
        names = ", ".join(sorted(record.waits_on))
        n = len(record.waits_on)
        return _say(state, Reason.WAITING_FOR_JOBS, f"It starts after job {names}.", n_jobs=n)
    return None


def _queue(state: State, record: JobRecord) -> PendingReason | None:
    name, asked = record.job.queue, record.asked_milli
    if name not in state.queues:
        return _say(state, Reason.UNKNOWN_QUEUE, f"Queue {name} does not exist; create it with `flexai queue set`.")
    over = state.queues.over_limit(name, asked)
    if over is not None:
        limit, used = over.queue.limit_milli, over.used_milli
        return _say(
            state, Reason.QUEUE_LIMIT,
            f"Queue {over.queue.name} holds {_cards(used)} of its limit of {_cards(limit)}; "
            f"it asks for {_cards(asked)}.",
            limit_milli=limit, used_milli=used, asked_milli=asked, missing_milli=used + asked - limit,
        )  # fmt: skip
    if state.queues.over_user_limit(name, record.job.user, asked):
        queue = state.queues[name]
        limit, used = queue.queue.user_limit_milli, queue.by_user.get(record.job.user, 0)
        return _say(
            state, Reason.USER_LIMIT,
            f"{record.job.user} holds {_cards(used)} in queue {name}, where one user may hold {_cards(limit)}.",
            limit_milli=limit, used_milli=used, asked_milli=asked, missing_milli=used + asked - limit,
        )  # fmt: skip
    return None


def _impossible(state: State, record: JobRecord) -> PendingReason | None:
    """No card at all, no such card, or more than any node has even when empty."""
    books, shape = state.books, record.shape
    n = len(books.names)
    open_cards = (books.free_milli + books.granted_milli)[:n] > 0
    if not shape.n_devices:
        return None
    if not open_cards.any():
        return _say(state, Reason.NO_DEVICES, "No card is healthy and open to new work; see `flexai devices`.")
    like = open_cards.copy()
    if shape.models != -1:
        like &= (shape.models >> books.model[:n]) & 1 == 1
    if shape.partition:
        like &= books.partition_mask(shape.partition)[:n]
    if not like.any():
        wanted = " or ".join(record.job.request.models) or shape.partition
        has = ", ".join(books.models)
        return _say(state, Reason.NO_SUCH_DEVICE, f"No open card is {wanted}; there are {has}.")
    room = like & (books.memory_total[:n] >= shape.memory_bytes)
    hosts = (books.cpu_total[:n] >= shape.cpu_milli) & (books.ram_total[:n] >= shape.ram_bytes)
    slots = np.where(hosts, room.sum(axis=1), 0)
    per_card = 1000 // max(shape.compute_milli, 1) if not shape.whole else 1
    if shape.memory_bytes and not shape.whole:
        per_card = min(per_card, max(1, int(books.memory_total[:n].max()) // shape.memory_bytes))
    most = int((slots // shape.n_devices * per_card)[slots >= shape.n_devices].sum())
    if most >= record.job.min_member:
        return None
    return _say(
        state, Reason.TOO_LARGE,
        f"It asks for {record.job.min_member} x {shape.n_devices} cards of {_size(shape.memory_bytes)} at once with "
        f"{shape.cpu_milli / 1000:g} CPUs each; the pool, when empty, can host {most} such members.",
        n_members=record.job.min_member, n_devices=shape.n_devices, most_members=most,
        most_devices=int(slots.max(initial=0)), most_memory_bytes=int(np.where(like, books.memory_total[:n], 0).max()),
    )  # fmt: skip


def _resources(state: State, record: JobRecord) -> PendingReason | None:
    """What is missing now, at the node where it came nearest."""
    books, shape, job = state.books, record.shape, record.job
    if fits_together(books, shape, job.min_member):
        return None
    n = len(books.names)
    if job.min_member > 1:
        fit = int(books.n_fit(shape).sum())
        if fit:
            return _say(
                state, Reason.GANG_INCOMPLETE,
                f"{fit} of {job.min_member} members would fit now; none starts before all do.",
                n_fit=fit, n_members=job.min_member, missing_members=job.min_member - fit,
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
            return _say(
                state, Reason.NOT_ENOUGH_CPU,
                f"The cards are there on {int(with_cards.sum())} nodes, but {node}, the nearest, lacks "
                f"{cpu[row] / 1000:g} CPUs.",
                row=row, missing_cpu_milli=int(cpu[row]), missing_ram_bytes=int(ram[row]),
            )  # fmt: skip
        return _say(
            state, Reason.NOT_ENOUGH_RAM,
            f"The cards are there on {int(with_cards.sum())} nodes, but {node}, the nearest, lacks {_size(ram[row])} "
            "of host memory.",
            row=row, missing_cpu_milli=0, missing_ram_bytes=int(ram[row]),
        )  # fmt: skip
    return _cards_missing(state, record, n_ok)


def _cards_missing(state: State, record: JobRecord, n_ok: np.ndarray[tuple[int], np.dtype[np.int64]]) -> PendingReason:
    books, shape = state.books, record.shape
    n = len(books.names)
    free_milli, free_memory = books.free_milli[:n], books.free_memory[:n]
    is_open = (free_milli + books.granted_milli[:n]) > 0
    compute = is_open & (free_milli >= shape.compute_milli)
    memory = is_open & (books.granted_memory[:n] == 0 if shape.whole else free_memory >= shape.memory_bytes)
    n_open, n_compute, n_memory = int(is_open.sum()), int(compute.sum()), int(memory.sum())
    if shape.n_devices > 1:
        row = int(np.where(is_open.sum(axis=1) >= shape.n_devices, n_ok, -1).argmax())
        have, total = int(n_ok[row]), int(n_ok.sum())
        code = Reason.FRAGMENTED if total >= shape.n_devices else Reason.NOT_ENOUGH_DEVICES
        return _say(
            state, code,
            f"{total} of {n_open} cards have {_part(shape.compute_milli)} and {_want(record)} free; it needs "
            f"{shape.n_devices} on one node, and {books.names[row]} comes nearest with {have}.",
            row=row, n_fit=have, n_devices=shape.n_devices, missing_devices=shape.n_devices - have,
        )  # fmt: skip
    lack_milli = np.maximum(0, shape.compute_milli - free_milli)
    lack_memory = np.maximum(0, (books.granted_memory[:n] if shape.whole else shape.memory_bytes - free_memory))
    distance = np.where(is_open, lack_milli / 1000 + lack_memory / np.maximum(books.memory_total[:n], 1), np.inf)
    row, column = (int(index) for index in np.unravel_index(int(distance.argmin()), distance.shape))
    code = Reason.NOT_ENOUGH_MEMORY if n_compute else Reason.NOT_ENOUGH_COMPUTE
    if n_compute and n_memory:
        code = Reason.FRAGMENTED
    nearest = _lack(int(lack_milli[row, column]), int(lack_memory[row, column]))
    return _say(
        state, code,
        f"{n_compute} of {n_open} cards have {_part(shape.compute_milli)} left, {n_memory or 'none'} "
        f"{'have' if n_memory != 1 else 'has'} {_want(record)}; "
        f"{books.uuids[row][column]} comes nearest, lacking {nearest}.",
        n_open=n_open, n_with_compute=n_compute, n_with_memory=n_memory, row=row, column=column,
        missing_milli=int(lack_milli[row, column]), missing_memory_bytes=int(lack_memory[row, column]),
    )  # fmt: skip


def _order(state: State, record: JobRecord) -> PendingReason:
    """It would fit: others come first."""
    held = state.reservation
    if held is not None and held.job_id != record.job.id:
        wait_ms = max(0, held.shadow_ms - state.now_ms)
        return _say(
            state, Reason.RESERVED,
            f"What it needs is held for job {held.job_id}, expected to start in {wait_ms // 60_000} min, and it would "
            "likely not be over by then.",
            wait_ms=wait_ms,
        )  # fmt: skip
    if record.job.required_level:
        return _say(
            state, Reason.TOPOLOGY,
            f"It would fit, but not inside one {record.job.required_level}; prefer the level instead of requiring it.",
        )  # fmt: skip
    ahead = sum(len(line.jobs) for line in state.lines.values()) - 1
    return _say(state, Reason.BEHIND_EARLIER_JOBS, f"{ahead} jobs wait with it; its turn comes next.", n_ahead=ahead)


def _cards(milli: int) -> str:
    return f"{milli / 1000:g} cards"


def _part(milli: int) -> str:
    return f"{milli / 10:g} %"


def _size(n_bytes: int) -> str:
    return f"{n_bytes / GIB:.3g} GiB"


def _want(record: JobRecord) -> str:
    return "all of their memory" if record.shape.whole else _size(record.shape.memory_bytes)


def _lack(milli: int, memory_bytes: int) -> str:
    parts = [_part(milli)] if milli else []
    return " and ".join([*parts, *([_size(memory_bytes)] if memory_bytes else [])]) or "nothing"
