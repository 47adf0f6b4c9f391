"""A trace's rows as jobs of the model, and the questions that change them: arrival rate, whole cards only.

Pure: the caller draws the random numbers. What a trace does not say is not invented silently: shares without a memory
figure get ``NOMINAL_MEMORY_BYTES`` and the run card says so.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from flexai.model import Job, Node, Role, SliceRequest
from flexai.simulation.kernel import SimulatedJob

if TYPE_CHECKING:
    from collections.abc import Sequence

NOMINAL_MEMORY_BYTES = 2**20
"""Memory of a slice whose trace gives none: small enough never to decide a placement."""


@dataclass(frozen=True, slots=True)
class Work:
    """What a job of a trace asks for, whatever trace it came from; times in ms, -1 where the trace gives none.

    ``min_member`` -1 stands for all. Where members are unlike, ``roles`` are what those of each role ask for.
    """

    name: str
    queue: str
    user: str
    submit_ms: int
    duration_ms: int
    n_members: int
    n_devices: int
    compute_milli: int
    cpu_milli: int
    ram_bytes: int
    models: tuple[str, ...] = ()
    priority: int = 0
    preemptible: bool = True
    checkpointable: bool = False
    min_member: int = -1
    role: str = ""
    roles: tuple[Work, ...] = ()

    @property
    def least(self) -> int:
        """Members that must start together."""
        if self.roles:
            return sum(role.least for role in self.roles)
        return self.n_members if self.min_member < 0 else self.min_member

    @property
    def asked_milli(self) -> int:
        """Compute over all members and cards."""
        if self.roles:
            return sum(role.asked_milli for role in self.roles)
        return self.n_members * self.n_devices * self.compute_milli


def job_of(work: Work, seq: int, at_ms: int) -> Job:
    """Make the model's job; its id is its place in the run."""
    first = next((role for role in work.roles if role.n_devices), work)
    return Job(
        id=str(seq), user=work.user or "nobody", queue=work.queue or "default", request=_request(first),
        n_members=work.n_members, min_member=work.least, cpu_milli=work.cpu_milli, ram_bytes=work.ram_bytes,
        roles=tuple(
            Role(role.role, _request(role), role.n_members, role.least, role.cpu_milli, role.ram_bytes)
            for role in work.roles
        ),
        submitted_at_ms=at_ms, seq=seq, priority=work.priority, preemptible=work.preemptible,
        checkpointable=work.checkpointable,
    )  # fmt: skip


def _request(work: Work) -> SliceRequest:
    whole = work.compute_milli == 1000
    return SliceRequest(
        compute_milli=work.compute_milli, limit_milli=work.compute_milli,
        memory_bytes=0 if whole else NOMINAL_MEMORY_BYTES, n_devices=work.n_devices, models=work.models,
    )  # fmt: skip


def jobs_in_time(works: Sequence[Work], arrival: float = 1.0) -> list[SimulatedJob]:
    """Jobs at their own times from the first submission on, ``arrival`` times as dense."""
    first_ms = works[0].submit_ms if works else 0
    return [
        SimulatedJob(job_of(work, seq, round((work.submit_ms - first_ms) / arrival)), work.duration_ms)
        for seq, work in enumerate(works)
    ]


def jobs_by_amount(works: Sequence[Work], capacity_milli: int, arrival: float, repeats: Sequence[int]) -> list[Job]:
    """Jobs in the order given, then repeats, until the compute asked reaches ``arrival`` times capacity.

    ``repeats`` are indices into ``works`` drawn by the caller, more than enough of them.
    """
    jobs: list[Job] = []
    asked_milli = 0
    for work in works:
        jobs.append(job_of(work, len(jobs), len(jobs)))
        asked_milli += work.asked_milli
    for index in repeats:
        if asked_milli >= arrival * capacity_milli:
            break
        jobs.append(job_of(works[index], len(jobs), len(jobs)))
        asked_milli += works[index].asked_milli
    return jobs


def whole_cards(works: Sequence[Work]) -> list[Work]:
    """Round every share up to whole cards, as a cluster without slices must."""
    return [
        replace(
            work, compute_milli=1000 if work.n_devices else work.compute_milli, roles=tuple(whole_cards(work.roles))
        )
        for work in works
    ]


def over_nodes(works: Sequence[Work], nodes: Sequence[Node]) -> list[Work]:
    """Jobs wider than the widest node as gangs of equal members, as few as fit; the others as they are."""
    widest = max((len(node.devices) for node in nodes), default=0)

    def split(work: Work) -> Work:
        if work.roles:
            roles = tuple(map(split, work.roles))
            return replace(work, n_members=sum(role.n_members for role in roles), roles=roles)
        if work.n_devices <= widest or not widest:
            return work
        parts = next(
            n for n in range(2, work.n_devices + 1) if work.n_devices % n == 0 and work.n_devices // n <= widest
        )
        least = work.min_member * parts if work.min_member > 0 else work.min_member
        return replace(work, n_members=work.n_members * parts, n_devices=work.n_devices // parts, min_member=least)

    return [split(work) for work in works]


def one_queue(works: Sequence[Work]) -> list[Work]:
    """Everybody in one queue, so that nothing is owed between queues; the trace's queue stays visible as the user."""
    return [replace(work, queue="default", user=work.user or work.queue) for work in works]


def capacity_milli(nodes: Sequence[Node]) -> int:
    """Compute of all cards."""
    return sum(len(node.devices) for node in nodes) * 1000


def add_cards(nodes: Sequence[Node], n_cards: int) -> tuple[Node, ...]:
    """The cluster with ``n_cards`` more, in nodes like its last one."""
    like = nodes[-1]
    out = list(nodes)
    left = n_cards
    while left > 0:
        name = f"added{len(out)}"
        devices = tuple(
            replace(like.devices[i % len(like.devices)], uuid=f"{name}/{i}", index=i)
            for i in range(min(left, len(like.devices)))
        )
        out.append(replace(like, name=name, devices=devices))
        left -= len(devices)
    return tuple(out)
