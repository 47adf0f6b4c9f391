"""Nodes and cards as arrays: what is free, what is granted, and to the byte.

Row = node, column = card of that node. A card that is absent, cordoned, ill or on a vanished node has ``CLOSED`` taken
off its free compute, so that nothing ever fits it and reopening is one addition. All numbers are 64-bit integers: give
is the exact inverse of take.
"""

from __future__ import annotations

from array import array
from copy import copy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from flexai.cluster.fitting import cards_that_fit, fits, n_fit
from flexai.cluster.topology import Topology
from flexai.model import best_start, partition_profile

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from flexai.cluster.card_filter import Filter
    from flexai.cluster.shape import Shape
    from flexai.model import Device, Node, PartitionProfile

    Ints = NDArray[np.int64]
    Flags = NDArray[np.bool_]

WHOLE = 1000
CLOSED = 10**6
GONE_CPU_MILLI = 10**12
MOST_KEPT = 64
"""So many answers of ``n_fit_emptied`` are kept."""
CARD_BITS = 20
"""Entries of ``Books.changed`` are a row above these bits, and below them a card's column + 1, or 0 for all of it."""
UNNAMED = "unnamed"
"""Class of cards whose vendor gives them no name."""


@dataclass(frozen=True, slots=True)
class Hold:
    """What one member holds on one node: the same compute on each of ``columns``, memory per column.

    ``cut`` are the places (bits) of each card that hardware partitions take; empty for none.
    """

    row: int
    columns: tuple[int, ...]
    compute_milli: int
    memory_bytes: tuple[int, ...]
    cpu_milli: int
    ram_bytes: int
    cut: tuple[int, ...] = ()


def _zeros(*shape: int) -> Ints:
    return np.zeros(shape, dtype=np.int64)


@dataclass(slots=True)
class Books:
    """The ledger of cards and hosts.

    Attributes:
        cpu_milli, ram_bytes: free on the host, shape (rows,).
        free_milli, free_memory: free on the card, shape (rows, columns); compute is negative where closed.
        granted_milli, granted_memory: held by members, same shape.
        cut: places taken by hardware partitions, as bits, same shape.
        model: index into ``models``, same shape.
        parking: cards whose programs can be parked.
        moving: cards whose parked programs may come back to another such card of the same model and node.
        changed: cards and whole rows in the order in which they changed (``CARD_BITS``); caches remember how far they
            have read. A host's CPU and RAM change with any of its cards.
        gained: rows where something became free since ``gained`` was last cleared by its reader.
        version: counts changes.
        filters: what else must let a member onto a card, beside that it fits.
        fit_emptied: answers of ``n_fit_emptied``, which keeps them here.
    """

    cpu_milli: Ints = field(default_factory=lambda: _zeros(0))
    ram_bytes: Ints = field(default_factory=lambda: _zeros(0))
    cpu_total: Ints = field(default_factory=lambda: _zeros(0))
    ram_total: Ints = field(default_factory=lambda: _zeros(0))
    free_milli: Ints = field(default_factory=lambda: _zeros(0, 0))
    free_memory: Ints = field(default_factory=lambda: _zeros(0, 0))
    granted_milli: Ints = field(default_factory=lambda: _zeros(0, 0))
    granted_memory: Ints = field(default_factory=lambda: _zeros(0, 0))
    cut: Ints = field(default_factory=lambda: _zeros(0, 0))
    memory_total: Ints = field(default_factory=lambda: _zeros(0, 0))
    model: Ints = field(default_factory=lambda: _zeros(0, 0))
    link_group: Ints = field(default_factory=lambda: _zeros(0, 0))
    n_columns: Ints = field(default_factory=lambda: _zeros(0))
    topology: Topology = field(default_factory=Topology)
    names: list[str] = field(default_factory=list)
    nodes: dict[str, Node] = field(default_factory=dict)
    row_of: dict[str, int] = field(default_factory=dict)
    place_of: dict[str, tuple[int, int]] = field(default_factory=dict)
    uuids: list[list[str]] = field(default_factory=list)
    models: dict[str, int] = field(default_factory=dict)
    model_names: list[str] = field(default_factory=list)
    partitions: dict[str, set[tuple[int, int]]] = field(default_factory=dict)
    profiles: dict[str, dict[int, PartitionProfile]] = field(default_factory=dict)
    parking: set[tuple[int, int]] = field(default_factory=set)
    moving: set[tuple[int, int]] = field(default_factory=set)
    changed: array[int] = field(default_factory=lambda: array("q"))
    gained: set[int] = field(default_factory=set)
    version: int = 0
    filters: tuple[Filter, ...] = ()
    _closed: dict[str, set[str]] = field(default_factory=dict)
    _foreign: dict[str, tuple[int, int]] = field(default_factory=dict)
    fit_emptied: dict[tuple[Shape, tuple[Filter, ...]], Ints] = field(default_factory=dict)

    def put_node(self, node: Node) -> None:
        """A node appeared or changed. Cards it no longer has are closed; new ones are added."""
        row = self.row_of.get(node.name)
        if row is None:
            row = self._add_row(node.name)
        columns = {device.uuid for device in node.devices}
        self._widen(len({*self.uuids[row], *columns}))
        if node.name not in self.nodes and self.cpu_total[row]:
            self.cpu_milli[row] += GONE_CPU_MILLI
        self.nodes[node.name] = node
        self.topology.put(row, node.topology)
        self.cpu_milli[row] += node.cpu_milli - self.cpu_total[row]
        self.ram_bytes[row] += node.ram_bytes - self.ram_total[row]
        self.cpu_total[row], self.ram_total[row] = node.cpu_milli, node.ram_bytes
        for device in node.devices:
            if device.uuid not in self.place_of:
                column = len(self.uuids[row])
                self.uuids[row].append(device.uuid)
                self.place_of[device.uuid] = (row, column)
                self.n_columns[row] = column + 1
                self.free_milli[row, column] = WHOLE
                for reason in self._closed.get(device.uuid, ()):
                    assert reason
                    self.free_milli[row, column] -= CLOSED
                taken_milli, taken_bytes = self._foreign.get(device.uuid, (0, 0))
                self.free_milli[row, column] -= taken_milli
                self.free_memory[row, column] -= taken_bytes
            place = self.place_of[device.uuid]
            self.free_memory[place] += device.memory_bytes - self.memory_total[place]
            self.memory_total[place] = device.memory_bytes
            if device.model not in self.models:
                self.models[device.model] = len(self.models)
                self.model_names.append(device.model or UNNAMED)
            self.model[place] = self.models[device.model]
            self.link_group[place] = device.link_group
            self._learn_partitions(device, place)
            (self.parking.add if device.can_park else self.parking.discard)(place)
            (self.moving.add if device.can_move_when_parked else self.moving.discard)(place)
            self.open(device.uuid, "gone")
        for uuid in self.uuids[row]:
            if uuid not in columns:
                self.close(uuid, "gone")
        self.fit_emptied.clear()
        self._touch(row, (), gained=True)

    def _learn_partitions(self, device: Device, place: tuple[int, int]) -> None:
        """Ways that a card can be cut; names that nobody knows are left out."""
        for name, places in self.partitions.items():
            if name not in device.partitions:
                places.discard(place)
        for name in device.partitions:
            profile = partition_profile(device.model, device.memory_bytes, name)
            if profile is not None:
                self.partitions.setdefault(name, set()).add(place)
                self.profiles.setdefault(name, {})[self.models[device.model]] = profile

    def drop_node(self, name: str) -> list[str]:
        """A node vanished: its cards are closed; their UUIDs are answered."""
        row = self.row_of.get(name)
        if row is None:
            return []
        for uuid in self.uuids[row]:
            self.close(uuid, "gone")
        if name in self.nodes:
            del self.nodes[name]
            self.cpu_milli[row] -= GONE_CPU_MILLI
            self.fit_emptied.clear()
            self._touch(row, (), gained=False)
        return list(self.uuids[row])

    def close(self, uuid: str, why: str) -> None:
        """Keep new work off a card; reasons are counted apart, so that opening one leaves the others."""
        reasons = self._closed.setdefault(uuid, set())
        if why not in reasons:
            reasons.add(why)
            self._shift(uuid, -CLOSED, 0)

    def open(self, uuid: str, why: str) -> None:
        """Take one reason back."""
        reasons = self._closed.get(uuid)
        if reasons and why in reasons:
            reasons.remove(why)
            self._shift(uuid, CLOSED, 0)

    def is_open(self, uuid: str) -> bool:
        """Whether new work may come to the card."""
        return not self._closed.get(uuid)

    def set_foreign(self, uuid: str, compute_milli: int, memory_bytes: int) -> None:
        """What programs outside the pool hold on a card."""
        before = self._foreign.get(uuid, (0, 0))
        self._foreign[uuid] = (compute_milli, memory_bytes)
        self._shift(uuid, before[0] - compute_milli, before[1] - memory_bytes)

    def take(self, hold: Hold) -> None:
        """Grant."""
        self._move(hold, -1)
        self._touch(hold.row, hold.columns, gained=False)

    def give(self, hold: Hold) -> None:
        """Take a grant back: the exact inverse of ``take``."""
        self._move(hold, 1)
        self._touch(hold.row, hold.columns, gained=True)

    def model_mask(self, models: tuple[str, ...]) -> int:
        """Bits of the models named; -1 for none named. Unknown names have no bit."""
        if not models:
            return -1
        return sum(1 << self.models[name] for name in models if name in self.models)

    def only_model(self, mask: int) -> str:
        """The model that a mask allows, if it is one alone; else an empty name."""
        if mask <= 0 or mask & (mask - 1):
            return ""
        return self.model_names[mask.bit_length() - 1]

    def by_class(self, hold: Hold) -> dict[str, int]:
        """Compute of a hold by the model of the cards that it is on."""
        out: dict[str, int] = {}
        for column in hold.columns:
            name = self.model_names[self.model.item(hold.row, column)]
            out[name] = out.get(name, 0) + hold.compute_milli
        return out

    def cards_that_fit(self, shape: Shape, rows: Ints | slice | None = None) -> Flags:
        """Which cards of ``rows`` (all nodes) could take one card's part of ``shape`` now: (rows, columns)."""
        return cards_that_fit(self, shape, self._rows(rows))

    def fits(self, shape: Shape, rows: Ints | slice | None = None) -> Flags:
        """Which of ``rows`` (all nodes) could take one member of ``shape`` now: (rows,)."""
        return fits(self, shape, self._rows(rows))

    def n_fit(self, shape: Shape, rows: Ints | slice | None = None) -> Ints:
        """How many members of ``shape`` each of ``rows`` (all nodes) could take together, at most: (rows,)."""
        return n_fit(self, shape, self._rows(rows))

    def _rows(self, rows: Ints | slice | None) -> Ints | slice:
        return slice(0, len(self.names)) if rows is None else rows

    def n_open(self, model: str = "") -> int:
        """Cards that new work may come to, of one model or of all."""
        usable = self.free_milli + self.granted_milli > 0
        if model:
            usable &= self.model == self.models.get(model, -1)
        return int(usable.sum())

    def place_name(self, level: str, group: int) -> str:
        """Name of a group of a level; a host's is its node's."""
        return self.topology.name(level, group) or self.names[group]

    def hold_for(self, shape: Shape, row: int, columns: tuple[int, ...], compute_milli: int | None = None) -> Hold:
        """What a member of ``shape`` would hold there; whole cards take all memory that is free now."""
        memory = tuple(int(self.free_memory[row, column]) if shape.whole else shape.memory_bytes for column in columns)
        milli = shape.compute_milli if compute_milli is None else compute_milli
        cut = tuple(self._cut_for(shape.profile, row, column) for column in columns) if shape.profile else ()
        return Hold(row, columns, milli, memory, shape.cpu_milli, shape.ram_bytes, cut)

    def _cut_for(self, profile: PartitionProfile, row: int, column: int) -> int:
        """Places for one more partition on a card; there must be some."""
        model = int(self.model[row, column])
        others = tuple(
            by_model[model] for name, by_model in sorted(self.profiles.items())
            if model in by_model and (row, column) in self.partitions[name]
        )  # fmt: skip
        start = best_start(int(self.cut[row, column]), profile, others)
        assert start >= 0, "a card without room for a partition was chosen for one"
        return profile.places(start)

    def copy(self) -> Books:
        """Books whose free resources are a copy; what never changes by take and give is shared."""
        twin = copy(self)
        for name in ("cpu_milli", "ram_bytes", "free_milli", "free_memory", "granted_milli", "granted_memory", "cut"):
            setattr(twin, name, getattr(self, name).copy())
        twin.changed, twin.gained, twin.fit_emptied = array("q"), set(), {}
        return twin

    def filtered_by(self, filters: tuple[Filter, ...]) -> Books:
        """The same books, to be read only, as other filters would have them."""
        twin = copy(self)
        twin.filters = filters
        return twin

    def emptied(self) -> Books:
        """The books as they would be with every member gone; what is closed or held by others stays so."""
        twin = self.copy()
        there = self.cpu_milli > -GONE_CPU_MILLI // 2
        twin.cpu_milli = np.where(there, self.cpu_total, self.cpu_milli)
        twin.ram_bytes = self.ram_total.copy()
        twin.free_milli += self.granted_milli
        twin.free_memory += self.granted_memory
        twin.granted_milli[:] = 0
        twin.granted_memory[:] = 0
        twin.cut[:] = 0
        return twin

    def n_fit_emptied(self, shape: Shape) -> Ints:
        """``emptied().n_fit(shape)``, to be read only: the same until a node or card changes, whatever is taken."""
        key = shape, self.filters
        fit = self.fit_emptied.get(key)
        if fit is None:
            if len(self.fit_emptied) >= MOST_KEPT:
                self.fit_emptied.clear()
            fit = self.fit_emptied[key] = self.emptied().n_fit(shape)
        return fit

    def check(self) -> None:
        """Assert the invariants: no card over a whole card of requests or over its memory, nothing negative."""
        assert (self.granted_milli >= 0).all(), "negative grant"
        assert (self.granted_milli <= WHOLE).all(), "a card is granted beyond a whole card"
        assert (self.granted_memory <= self.memory_total).all(), "a card is granted beyond its memory"
        assert (self.granted_memory >= 0).all(), "negative memory"
        assert ((self.cut >= 0) & (self.cut < 1 << 16)).all(), "a place of a card is cut twice"

    def _move(self, hold: Hold, sign: int) -> None:
        row = hold.row
        self.cpu_milli[row] += sign * hold.cpu_milli
        self.ram_bytes[row] += sign * hold.ram_bytes
        for column, memory in zip(hold.columns, hold.memory_bytes, strict=True):
            self.free_milli[row, column] += sign * hold.compute_milli
            self.granted_milli[row, column] -= sign * hold.compute_milli
            self.free_memory[row, column] += sign * memory
            self.granted_memory[row, column] -= sign * memory
        for column, places in zip(hold.columns, hold.cut, strict=False):
            self.cut[row, column] -= sign * places

    def _touch(self, row: int, columns: tuple[int, ...], *, gained: bool) -> None:
        """Note a change of these cards of a row; of none: of all of it."""
        first = row << CARD_BITS
        if len(columns) == 1:
            self.changed.append(first + columns[0] + 1)
        else:
            self.changed.extend([first + column + 1 for column in columns] or (first,))
        self.version += 1
        if gained:
            self.gained.add(row)

    def _shift(self, uuid: str, milli: int, memory_bytes: int) -> None:
        place = self.place_of.get(uuid)
        if place is not None and (milli or memory_bytes):
            self.free_milli[place] += milli
            self.free_memory[place] += memory_bytes
            self.fit_emptied.clear()
            self._touch(place[0], (place[1],), gained=milli > 0 or memory_bytes > 0)

    def partition_mask(self, profile: str) -> Flags:
        """Which cards can be cut into a profile: (rows, columns)."""
        mask: Flags = np.zeros(self.free_milli.shape, dtype=np.bool_)
        for place in self.partitions.get(profile, ()):
            mask[place] = True
        return mask

    def _add_row(self, name: str) -> int:
        row = self.row_of[name] = len(self.names)
        self.names.append(name)
        self.uuids.append([])
        if row >= len(self.cpu_milli):
            self._resize(max(16, 2 * row), self.free_milli.shape[1])
        return row

    def _widen(self, n: int) -> None:
        if n > self.free_milli.shape[1]:
            self._resize(len(self.cpu_milli), n)

    def _resize(self, rows: int, columns: int) -> None:
        """Grow the arrays; absent cards are closed and have no free compute, absent rows no host."""
        for name in ("cpu_milli", "ram_bytes", "cpu_total", "ram_total", "n_columns"):
            old = getattr(self, name)
            new = np.zeros(rows, dtype=np.int64)
            new[: len(old)] = old
            setattr(self, name, new)
        for name in (
            "free_milli", "free_memory", "granted_milli", "granted_memory", "memory_total", "model", "link_group",
            "cut",
        ):  # fmt: skip
            old = getattr(self, name)
            new = np.full((rows, columns), -CLOSED if name == "free_milli" else 0, dtype=np.int64)
            new[: old.shape[0], : old.shape[1]] = old
            setattr(self, name, new)
