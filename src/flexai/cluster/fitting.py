"""What fits where, from the arrays of the books: cards for one card's part of a shape, and members per node."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np

from flexai.cluster.card_filter import Cards, n_passing, passing

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from flexai.cluster.card_filter import Filter
    from flexai.cluster.shape import Shape
    from flexai.model import PartitionProfile

    Ints = NDArray[np.int64]
    Flags = NDArray[np.bool_]


class Free(Protocol):
    """What is free and taken, as :class:`flexai.cluster.Books` has it."""

    cpu_milli: Ints
    ram_bytes: Ints
    free_milli: Ints
    free_memory: Ints
    granted_milli: Ints
    granted_memory: Ints
    cut: Ints
    model: Ints
    partitions: dict[str, set[tuple[int, int]]]
    filters: tuple[Filter, ...]

    def partition_mask(self, profile: str) -> Flags:
        """Which cards can be cut into a profile: (rows, columns)."""
        ...


def cards_that_fit(free: Free, shape: Shape, rows: Ints | slice) -> Flags:
    """Which cards of ``rows`` could take one card's part of ``shape``: (rows, columns)."""
    ok: Flags = free.free_milli[rows] >= shape.compute_milli
    if shape.whole:
        ok &= free.granted_memory[rows] == 0
    else:
        ok &= free.free_memory[rows] >= shape.memory_bytes
    if shape.models != -1:
        ok &= (shape.models >> free.model[rows]) & 1 == 1
    if shape.profile is not None:
        ok &= free.partition_mask(shape.partition)[rows] & (_n_more(free, shape.profile, rows) > 0)
    elif free.partitions:
        ok &= free.cut[rows] == 0
    if free.filters:
        ok &= passing(free.filters, _cards(free, rows), shape)
    return ok


def fits(free: Free, shape: Shape, rows: Ints | slice) -> Flags:
    """Which of ``rows`` could take one member of ``shape``: (rows,)."""
    ok: Flags = (free.cpu_milli[rows] >= shape.cpu_milli) & (free.ram_bytes[rows] >= shape.ram_bytes)
    if shape.n_devices:
        ok &= cards_that_fit(free, shape, rows).sum(axis=1) >= shape.n_devices
    return ok


def n_fit(free: Free, shape: Shape, rows: Ints | slice) -> Ints:
    """How many members of ``shape`` each of ``rows`` could take together, at most: (rows,)."""
    most: Ints = np.full(len(free.cpu_milli[rows]), 10**9, dtype=np.int64)
    if shape.cpu_milli:
        most = np.minimum(most, free.cpu_milli[rows] // shape.cpu_milli)
    if shape.ram_bytes:
        most = np.minimum(most, free.ram_bytes[rows] // shape.ram_bytes)
    if shape.n_devices:
        ok = cards_that_fit(free, shape, rows)
        per_card = free.free_milli[rows] // max(shape.compute_milli, 1)
        if shape.whole:
            per_card = np.minimum(per_card, 1)
        elif shape.memory_bytes:
            per_card = np.minimum(per_card, free.free_memory[rows] // shape.memory_bytes)
        if shape.profile is not None:
            per_card = np.minimum(per_card, _n_more(free, shape.profile, rows))
        slots = np.where(ok, per_card, 0)
        if free.filters:
            slots = n_passing(free.filters, _cards(free, rows), shape, slots)
        most = np.minimum(most, slots.sum(axis=1) // shape.n_devices)
        if shape.n_devices > 1:
            most = _of_different_cards(slots, most, shape.n_devices)
    return np.maximum(most, 0)


def _cards(free: Free, rows: Ints | slice) -> Cards:
    """What filters look at."""
    return Cards(free.free_milli[rows], free.free_memory[rows], free.granted_memory[rows] > 0)


def _n_more(free: Free, profile: PartitionProfile, rows: Ints | slice) -> Ints:
    """How many partitions can still be cut out of each card, for their places alone: (rows, columns)."""
    cut, milli = free.cut[rows], free.granted_milli[rows]
    out = np.zeros_like(cut)
    for state in np.unique(cut).tolist():
        out[cut == state] = profile.n_more(state)
    shared = (cut == 0) & ((free.granted_memory[rows] > 0) | (milli > 0))
    return np.where(shared, 0, out)


def _of_different_cards(slots: Ints, most: Ints, n_devices: int) -> Ints:
    """How many members, at most ``most``, have all their cards different.

    m members fit if the cards, each giving at most m of its slots, have room for ``m * n_devices``. What is left over
    is concave in m and 0 at m = 0, so the largest m is found by halving.
    """
    low, high = np.zeros_like(most), np.maximum(most, 0)
    while (low < high).any():
        middle = (low + high + 1) // 2
        room = np.minimum(slots, middle[:, None]).sum(axis=1) >= middle * n_devices
        low, high = np.where(room, middle, low), np.where(room, high, middle - 1)
    return low
