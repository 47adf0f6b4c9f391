"""Submissions: who may, what is refused at the door, and how one becomes jobs."""

import asyncio
import os
from collections.abc import Sequence
from dataclasses import replace

from flexai.adapters.sqlite import rows
from flexai.apps.pool.book import JobRecord
from flexai.apps.pool.http import Refusal
from flexai.apps.pool.identity import Peer, user_name
from flexai.apps.pool.service import Pool
from flexai.model import Job, JobState
from flexai.wire.agent_rpc import MAX_LINE_BYTES
from flexai.wire.api import Submission, encode_submission
from flexai.wire.handed_over import handed_over
from flexai.wire.quantity import format_size
from flexai.wire.store import Member, dumps

MAX_ACTIVE_JOBS = 200_000
_MAX_START_BYTES = MAX_LINE_BYTES - (64 << 10)
# A job's place in the order of acknowledgement: that of its submission, then that of its element.
_SEQS_PER_SUBMISSION = 1 << 20
_MANY = 100


async def admit(pool: Pool, peer: Peer, submissions: Sequence[Submission]) -> list[JobRecord]:
    """Take submissions in, all or none; they are durable when this returns.

    Raises:
        Refusal: not allowed, or not possible.
        StoreError: they could not be written; none of them exists.
    """
    if pool.is_leaving:
        raise Refusal(503, "ShuttingDown", "The pool is shutting down.", "pool", None, "Submit when it is up again")
    after = []
    for submission in submissions:
        check(pool, peer, submission)
        after.append(await _dependencies(pool, peer, submission.after))
    now_ms = pool.core.clock()
    records: list[JobRecord] = []
    statements = []
    for submission, dependencies in zip(submissions, after, strict=True):
        number = pool.next_number
        pool.next_number += 1
        body = dumps(encode_submission(submission))
        if len(body) > _MAX_START_BYTES:
            raise Refusal(
                413, "TooLarge", f"Command and environment take {len(body)} bytes.", "env", len(body),
                f"Keep them under {_MAX_START_BYTES} bytes together; put the rest in a file",
            )  # fmt: skip
        statements.append(rows.put_submission(number, peer.uid, peer.gid, peer.user, body))
        if len(submission.array) < _MANY:
            records += _records(peer, submission, number, dependencies, now_ms)
        else:
            records += await asyncio.to_thread(_records, peer, submission, number, dependencies, now_ms)
    if len(pool.book.active) + len(records) > MAX_ACTIVE_JOBS:
        raise Refusal(
            503, "TooManyJobs", f"The pool holds {len(pool.book.active)} jobs that have not ended.", "jobs",
            len(records), f"At most {MAX_ACTIVE_JOBS} may; wait until some end",
        )  # fmt: skip
    await pool.core.submit(records, tuple(statements))
    return records


def check(pool: Pool, peer: Peer, submission: Submission) -> None:
    """Whether a submission may come in.

    Raises:
        Refusal: it may not.
    """
    if not peer.can_be_served():
        raise Refusal(
            403, "NotPrivileged",
            f"This pool runs as {user_name(os.geteuid())}, without root: it can neither run nor hold commands of "
            f"{peer.user}.", "user", peer.user, "Have root start the pool (`sudo flexai up`), or start one of your own",
        )  # fmt: skip
    queue = pool.book.queues.get(submission.queue)
    if queue is None:
        raise Refusal(
            404, "UnknownQueue", f"There is no queue {submission.queue}.", "queue", submission.queue,
            "Use one of: " + ", ".join(sorted(pool.book.queues)[:20]),
        )  # fmt: skip
    if any(other.parent == queue.name for other in pool.book.queues.values()):
        children = sorted(other.name for other in pool.book.queues.values() if other.parent == queue.name)
        raise Refusal(
            409, "QueueHasChildren", f"Queue {queue.name} only holds other queues.", "queue", queue.name,
            "Submit to one of: " + ", ".join(children[:20]),
        )  # fmt: skip
    if queue.users and not peer.is_among(queue.users) and not peer.is_operator:
        raise Refusal(
            403, "NotAllowed", f"User {peer.user} may not submit to queue {queue.name}.", "queue", queue.name,
            "Ask an operator to add you to its users, or use another queue",
        )  # fmt: skip
    for role in range(max(1, len(submission.roles))):
        _check_members(pool, submission, role)


def _check_members(pool: Pool, submission: Submission, role: int) -> None:
    """Whether members of a role (0 where there are none) may come in."""
    request = submission.roles[role].role.request if submission.roles else submission.request
    cards = [card for _, card in pool.book.devices() if not request.models or card.model in request.models]
    largest = max(cards, key=lambda card: card.memory_bytes, default=None)
    if largest is not None and request.memory_bytes > largest.memory_bytes:
        raise Refusal(
            422, "TooLarge", f"{format_size(request.memory_bytes)} is more than any card has.", "memory_bytes",
            request.memory_bytes,
            f"Ask for at most {format_size(largest.memory_bytes)} ({largest.model}), or spread over --devices",
        )  # fmt: skip
    handed = handed_over(submission.what_runs(role).command)
    if handed is not None:
        says = f"{handed.client} {handed.problem}."
        raise Refusal(422, "HandedOver", says, "command", handed.client, handed.remedy)


async def _dependencies(pool: Pool, peer: Peer, after: tuple[str, ...]) -> tuple[str, ...]:
    """The jobs to wait for: array ids stand for their elements, and what has succeeded already is left out."""
    waited: list[str] = []
    for given in after:
        number = int(given.partition("_")[0])
        found = [await pool.record(given)] if "_" in given else await pool.records(number)
        known = [record for record in found if record is not None and peer.owns(record.uid)]
        if not known:
            raise Refusal(
                404, "UnknownJob", f"There is no job {given} to wait for.", "after", given, "See `flexai jobs`"
            )  # fmt: skip
        for record in known:
            if record.state in {JobState.FAILED, JobState.CANCELLED}:
                raise Refusal(
                    409, "DependencyFailed", f"Job {record.id} {record.stands}, so this would never start.",
                    "after", given, "Wait for a job that can still succeed",
                )  # fmt: skip
            if not record.state.is_final:
                waited.append(record.id)
    return tuple(dict.fromkeys(waited))


def _records(
    peer: Peer,
    submission: Submission,
    number: int,
    after: tuple[str, ...],
    now_ms: int,
) -> list[JobRecord]:
    # The environment stays in the store: 10,000 jobs with 4 KiB of it each need not be in memory.
    slim = replace(submission, env={}, roles=tuple(replace(each, env={}) for each in submission.roles))
    records: list[JobRecord] = []
    for index in submission.array or (None,):
        job = Job(
            id=str(number) if index is None else f"{number}_{index}",
            user=peer.user,
            queue=submission.queue,
            request=submission.request,
            n_members=submission.n_members,
            min_member=submission.min_member,
            cpu_milli=submission.cpu_milli,
            ram_bytes=submission.ram_bytes,
            priority=submission.priority,
            preemptible=submission.preemptible,
            submitted_at_ms=now_ms,
            seq=number * _SEQS_PER_SUBMISSION + len(records),
            time_limit_ms=submission.time_limit_ms,
            after=after,
            held=submission.held,
            required_level=submission.required_level,
            preferred_level=submission.preferred_level,
            subgroup_size=submission.subgroup_size,
            subgroup_level=submission.subgroup_level,
            most_at_once=submission.most_at_once,
            min_runtime_ms=submission.min_runtime_ms,
            checkpointable=submission.checkpointable,
            parkable=submission.parkable,
            grace_ms=submission.grace_ms,
            roles=tuple(each.role for each in submission.roles),
        )
        state = JobState.HELD if submission.held else JobState.QUEUED
        members = [Member() for _ in range(submission.n_members)]
        records.append(
            JobRecord(job, number, peer.uid, peer.gid, slim, array_index=index, state=state, members=members)
        )
    return records
