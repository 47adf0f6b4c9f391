"""Whom to evict so that members fit: a cheap set of victims, by work lost.

The cost of a victim is the card time it would repeat. On one node victims are taken cheapest per freed compute first
until one more member fits, then those not needed are spared, dearest first; where few could go, every set is tried
instead. The node on which the next member costs least is taken, again and again, until enough members have a place: a
victim that also holds something elsewhere is paid for once. Of few victims in all, the exact optimum is taken.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

from flexai.cluster.card_filter import Cards, n_passing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from flexai.cluster import Books, Hold, Shape
    from flexai.cluster.card_filter import Filter

EXACT_ROWS = 8
EXACT_UP_TO = 7
"""So many possible victims on a node, and every set of them is tried."""
JOINT_UP_TO = 14
"""So many possible victims on all nodes, and the best set of them is found, whatever nodes they hold something on."""


@dataclass(frozen=True, slots=True)
class Victim:
    """What may be evicted: a job, or members of it that it can do without.

    Attributes:
        job_id: the job.
        holds: what they hold, on all nodes.
        lost: card time lost with them (ms x thousandths).
        members: the members, if they can go while the job goes on; empty for the job as a whole.
    """

    job_id: str
    holds: tuple[Hold, ...]
    lost: int
    members: tuple[int, ...] = ()

    @property
    def key(self) -> tuple[str, tuple[int, ...]]:
        """What tells victims apart."""
        return self.job_id, self.members

    @property
    def milli(self) -> int:
        """Compute it holds in all."""
        return sum(hold.compute_milli * len(hold.columns) for hold in self.holds)

    def freed_milli(self, row: int) -> int:
        """Compute it frees on one node."""
        return sum(hold.compute_milli * len(hold.columns) for hold in self.holds if hold.row == row)


@dataclass(slots=True)
class RowTrial:
    """One node's free resources as plain numbers, to give and take on trial; ``n_fit`` says what ``Books.n_fit`` says.

    On a single node plain Python is ten times quicker than arrays.
    """

    shape: Shape
    row: int
    cpu_milli: int
    ram_bytes: int
    free_milli: list[int]
    free_memory: list[int]
    granted_memory: list[int]
    usable: list[bool]
    cut: list[int]
    filters: tuple[Filter, ...] = ()

    @staticmethod
    def of(books: Books, row: int, shape: Shape) -> RowTrial:
        """Copy a row."""
        n = int(books.n_columns[row])
        usable = [shape.models == -1 or bool((shape.models >> model) & 1) for model in books.model[row, :n].tolist()]
        if shape.partition:
            able = books.partitions.get(shape.partition, set())
            usable = [ok and (row, column) in able for column, ok in enumerate(usable)]
        return RowTrial(
            shape, row, int(books.cpu_milli[row]), int(books.ram_bytes[row]), books.free_milli[row, :n].tolist(),
            books.free_memory[row, :n].tolist(), books.granted_memory[row, :n].tolist(), usable,
            books.cut[row, :n].tolist(), books.filters,
        )  # fmt: skip

    def move(self, victim: Victim, sign: int) -> None:
        """Let a victim go (1) or come back (-1)."""
        for hold in victim.holds:
            if hold.row != self.row:
                continue
            self.cpu_milli += sign * hold.cpu_milli
            self.ram_bytes += sign * hold.ram_bytes
            for column, memory in zip(hold.columns, hold.memory_bytes, strict=True):
                self.free_milli[column] += sign * hold.compute_milli
                self.free_memory[column] += sign * memory
                self.granted_memory[column] -= sign * memory
            for column, places in zip(hold.columns, hold.cut, strict=False):
                self.cut[column] -= sign * places

    def n_fit(self) -> int:
        """How many members the node could take together."""
        shape = self.shape
        most = 10**9
        if shape.cpu_milli:
            most = min(most, self.cpu_milli // shape.cpu_milli)
        if shape.ram_bytes:
            most = min(most, self.ram_bytes // shape.ram_bytes)
        if most <= 0 or self.cpu_milli < 0 or self.ram_bytes < 0:
            return 0
        if not shape.n_devices:
            return most
        slots = [self._slots(column) for column in range(len(self.usable))]
        if self.filters:
            slots = self._passing(slots)
        if shape.n_devices == 1:
            return min(most, sum(slots))
        # The cards of one member differ: m members fit if the cards, each for at most m of them, have room for m * n.
        members = min(most, sum(slots) // shape.n_devices)
        while members > 0 and sum(min(slot, members) for slot in slots) < members * shape.n_devices:
            members -= 1
        return members

    def _passing(self, slots: list[int]) -> list[int]:
        """What filters leave of it."""
        free, memory, granted = (np.array([each]) for each in (self.free_milli, self.free_memory, self.granted_memory))
        left: list[int] = n_passing(self.filters, Cards(free, memory, granted > 0), self.shape, np.array([slots]))[
            0
        ].tolist()
        return left

    def _slots(self, column: int) -> int:
        shape, free = self.shape, self.free_milli[column]
        if not self.usable[column] or free < shape.compute_milli:
            return 0
        if shape.whole:
            return int(self.granted_memory[column] == 0)
        if self.free_memory[column] < shape.memory_bytes:
            return 0
        slots = free // max(shape.compute_milli, 1)
        if shape.profile is not None:
            if self.granted_memory[column] and not self.cut[column]:
                return 0
            slots = min(slots, shape.profile.n_more(self.cut[column]))
        elif self.cut[column]:
            return 0
        return min(slots, self.free_memory[column] // shape.memory_bytes) if shape.memory_bytes else slots


def cheapest_on(trial: RowTrial, victims: Sequence[Victim]) -> list[Victim] | None:
    """A cheap set of victims after whose end one more member fits on the node; None if all do not suffice.

    The trial is as before when this returns.
    """
    wanted = trial.n_fit() + 1
    order = sorted(victims, key=lambda each: (each.lost / max(1, each.freed_milli(trial.row)), each.key))
    taken: list[Victim] = []
    for victim in order:
        trial.move(victim, 1)
        taken.append(victim)
        if trial.n_fit() >= wanted:
            break
    found = trial.n_fit() >= wanted
    if found:
        for victim in sorted(taken, key=lambda each: (-each.lost, each.key)):
            trial.move(victim, -1)
            if trial.n_fit() >= wanted:
                taken.remove(victim)
            else:
                trial.move(victim, 1)
    for victim in taken:
        trial.move(victim, -1)
    if not found:
        return None
    if 1 < len(taken) < len(victims) <= EXACT_UP_TO:  # when all must go, each alone being needed, no other set would do
        return cheapest_reference(trial, victims)
    return taken


def cheapest_reference(trial: RowTrial, victims: Sequence[Victim]) -> list[Victim] | None:
    """The exact optimum on one node by trying every set, smallest sets first."""
    wanted = trial.n_fit() + 1
    best: tuple[int, list[Victim]] | None = None
    for n in range(len(victims) + 1):
        for some in combinations(victims, n):
            lost = sum(victim.lost for victim in some)
            if best is not None and lost >= best[0]:
                continue
            for victim in some:
                trial.move(victim, 1)
            if trial.n_fit() >= wanted:
                best = (lost, list(some))
            for victim in some:
                trial.move(victim, -1)
    return None if best is None else best[1]


@dataclass(slots=True)
class _Search:
    """Nodes by what the next member would cost there."""

    victims_on: Mapping[int, Sequence[Victim]]
    allowed: Callable[[Iterable[Victim]], bool]
    trials: dict[int, RowTrial]
    chosen: dict[tuple[str, tuple[int, ...]], Victim] = field(default_factory=dict)
    heap: list[tuple[int, int, int]] = field(default_factory=list)
    offers: dict[int, list[Victim]] = field(default_factory=dict)
    n_chosen_at: dict[int, int] = field(default_factory=dict)

    def offer(self, row: int) -> None:
        """Compute what one more member costs on a node, and put it in its place."""
        trial = self.trials[row]
        left = [victim for victim in self.victims_on[row] if victim.key not in self.chosen]
        some = cheapest_on(trial, left)
        if some is not None:
            self.offers[row] = some
            self.n_chosen_at[row] = len(self.chosen)
            heapq.heappush(self.heap, (sum(victim.lost for victim in some), row, len(self.chosen)))

    def accept(self, row: int) -> None:
        """Evict what was offered, wherever it holds something."""
        for victim in self.offers[row]:
            self.chosen[victim.key] = victim
            for other in {hold.row for hold in victim.holds}:
                if other in self.trials:
                    self.trials[other].move(victim, 1)


def cheapest_set(
    books: Books,
    shape: Shape,
    needed: int,
    victims_on: Mapping[int, Sequence[Victim]],
    allowed: Callable[[Iterable[Victim]], bool],
) -> list[Victim] | None:
    """Victims after whose end ``needed`` members fit on these nodes together; None if there are none.

    ``allowed`` says whether a set of victims may go together (quotas); nodes are those of ``victims_on`` and whatever
    fits elsewhere is the caller's to subtract from ``needed``.
    """
    trials = {row: RowTrial.of(books, row, shape) for row in victims_on}
    victims = {victim.key: victim for some in victims_on.values() for victim in some}
    if len(trials) <= EXACT_ROWS and len(victims) <= JOINT_UP_TO:
        joint = _Joint(trials, list(victims.values()), needed, allowed).best()
        if joint is not None:
            return joint
    if len(trials) <= EXACT_ROWS and all(len(victims) <= EXACT_UP_TO for victims in victims_on.values()):
        exact = _exact_set(trials, victims_on, needed)
        if exact is None or allowed(exact):
            return exact
    before = {row: trial.n_fit() for row, trial in trials.items()}
    search = _Search(victims_on, allowed, trials)
    for row in victims_on:
        search.offer(row)
    gained = 0
    while search.heap and gained < needed:
        _, row, n_chosen = heapq.heappop(search.heap)
        if n_chosen != search.n_chosen_at[row]:
            continue  # a later offer of this node stands further down
        some = search.offers[row]
        if any(victim.key in search.chosen for victim in some):
            search.offer(row)  # part of it is paid for already
            continue
        if not allowed([*search.chosen.values(), *some]):
            continue
        touched = {hold.row for victim in some for hold in victim.holds} & trials.keys()
        search.accept(row)
        gained = gained + sum(trials[other].n_fit() - before[other] for other in touched)
        before.update({other: trials[other].n_fit() for other in touched})
        search.offer(row)
    if gained < needed or not search.chosen:
        return None
    for victim in sorted(search.chosen.values(), key=lambda each: (-each.lost, each.key)):
        touched = {hold.row for hold in victim.holds} & trials.keys()
        for row in touched:
            trials[row].move(victim, -1)
        less = sum(before[row] - trials[row].n_fit() for row in touched)
        if gained - less >= needed:  # others made room enough
            gained -= less
            before.update({row: trials[row].n_fit() for row in touched})
            del search.chosen[victim.key]
        else:
            for row in touched:
                trials[row].move(victim, 1)
    return list(search.chosen.values())


@dataclass(slots=True)
class _Joint:
    """The cheapest set of all over few victims: everybody gone, then each spared or not, dearest first.

    To spare more never makes more room, so a branch ends where the members no longer fit or where those that go cost
    as much as the best set that is known.
    """

    trials: Mapping[int, RowTrial]
    victims: list[Victim]
    needed: int
    allowed: Callable[[Iterable[Victim]], bool]
    found: list[Victim] | None = None
    least: int = 0

    def best(self) -> list[Victim] | None:
        """The set; None if there is none that suffices and may go. The trials are as before."""
        self.victims.sort(key=lambda each: (-each.lost, each.key))
        before = sum(trial.n_fit() for trial in self.trials.values())
        for victim in self.victims:
            self._move(victim, 1)
        self._branch(0, [], 0, before + self.needed)
        for victim in self.victims:
            self._move(victim, -1)
        return self.found

    def _branch(self, at: int, gone: list[Victim], lost: int, wanted: int) -> None:
        if (self.found is not None and lost >= self.least) or sum(t.n_fit() for t in self.trials.values()) < wanted:
            return
        if at == len(self.victims):
            if gone and self.allowed(gone):
                self.found, self.least = list(gone), lost
            return
        victim = self.victims[at]
        self._move(victim, -1)
        self._branch(at + 1, gone, lost, wanted)
        self._move(victim, 1)
        self._branch(at + 1, [*gone, victim], lost + victim.lost, wanted)

    def _move(self, victim: Victim, sign: int) -> None:
        for row in {hold.row for hold in victim.holds} & self.trials.keys():
            self.trials[row].move(victim, sign)


def _exact_set(
    trials: Mapping[int, RowTrial], victims_on: Mapping[int, Sequence[Victim]], needed: int
) -> list[Victim] | None:
    """The cheapest set of all, on few nodes with few victims: every set of each node, then the best sum over nodes.

    A victim that holds something on several nodes is judged on each by itself, so what is found always suffices.
    """
    best: dict[int, tuple[int, list[Victim]]] = {0: (0, [])}
    for row, trial in trials.items():
        before = trial.n_fit()
        here: dict[int, tuple[int, list[Victim]]] = {}
        for n in range(1, len(victims_on[row]) + 1):
            for some in combinations(victims_on[row], n):
                for victim in some:
                    trial.move(victim, 1)
                gain, lost = min(trial.n_fit() - before, needed), sum(victim.lost for victim in some)
                for victim in some:
                    trial.move(victim, -1)
                if gain > 0 and (gain not in here or lost < here[gain][0]):
                    here[gain] = (lost, list(some))
        for had, (paid, taken) in sorted(best.items(), reverse=True):
            for gain, (_, group) in here.items():
                more = [victim for victim in group if victim not in taken]
                total, price = min(needed, had + gain), paid + sum(victim.lost for victim in more)
                if total not in best or price < best[total][0]:
                    best[total] = (price, [*taken, *more])
    return best[needed][1] if needed in best else None
