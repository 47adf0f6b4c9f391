"""Hardware partitions as data: the sizes a card can be cut into, and where on the card each may lie.

MIG (NVIDIA, MIG User Guide, "Supported MIG profiles" and ``nvidia-smi mig -lgipp``): a card has 7 compute slices and 8
memory slices (the A30 4 and 4); an instance takes a run of memory slices that may begin only at certain ones, which is
why a card with room enough may still refuse. vNPU templates (Ascend, ``npu-smi set -t create-vnpu``): AI cores and
memory of the card, up to eight, anywhere.

A card is cut or it is shared whole, never both at once.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache


@dataclass(frozen=True, slots=True)
class PartitionProfile:
    """One size.

    Attributes:
        name: as the vendor writes it.
        compute_milli: of the card, rounded down.
        memory_bytes: of the card.
        size: neighbouring places that it takes.
        starts: places that it may begin at.
    """

    name: str
    compute_milli: int
    memory_bytes: int
    size: int
    starts: tuple[int, ...]

    def places(self, start: int) -> int:
        """The places taken from ``start`` on, as bits."""
        return ((1 << self.size) - 1) << start

    def free_starts(self, cut: int) -> tuple[int, ...]:
        """Where it may begin on a card whose places ``cut`` (bits) are taken."""
        return tuple(start for start in self.starts if not cut & self.places(start))

    def n_more(self, cut: int) -> int:
        """How many of it can be cut beside what is there, memory and compute apart."""
        n = 0
        for start in self.starts:  # runs of one length: the first that ends is always a best choice
            if not cut & self.places(start):
                cut |= self.places(start)
                n += 1
        return n


GB = 10**9
MIB = 2**20
_MIG = re.compile(r"([1-7])g\.(\d{1,3})gb(\+me|\+gfx|-me)*\Z")
_MIG_SEVENTHS = {1: ((1, tuple(range(7))), (2, (0, 2, 4, 6))), 2: ((2, (0, 2, 4)),), 3: ((4, (0, 4)),),
                 4: ((4, (0,)),), 7: ((8, (0,)),)}  # fmt: skip
"""By compute slices: memory slices, the fewest first, and the places to begin at."""
_MIG_QUARTERS = {1: ((1, (0, 1, 2, 3)),), 2: ((2, (0, 2)),), 4: ((4, (0,)),)}
_VNPU_PLACES = tuple(range(8, 16))
"""Ids of virtual NPUs on a card, above the memory slices of MIG."""
_VNPU: dict[str, tuple[int, dict[str, tuple[int, int]]]] = {
    "910A": (30, {"vir02": (2, 2184), "vir04": (4, 4369), "vir08": (8, 8738), "vir16": (16, 17476)}),
    "910B2": (24, {"vir03_1c_8g": (3, 8192), "vir06_1c_16g": (6, 16384), "vir12_3c_32g": (12, 32768)}),
    "910B3": (20, {"vir05_1c_16g": (5, 16384), "vir10_3c_32g": (10, 32768)}),
    "910B4-1": (20, {"vir05_1c_16g": (5, 16384), "vir10_3c_32g": (10, 32768)}),
    "910B4": (20, {"vir05_1c_8g": (5, 8192), "vir10_3c_16g": (10, 16384)}),
    "310P3": (8, {"vir01": (1, 3072), "vir02": (2, 6144), "vir04": (4, 12288)}),
}
"""By the end of a product's name: its AI cores, and of each template the AI cores and MiB."""


@cache
def partition_profile(model: str, memory_bytes: int, name: str) -> PartitionProfile | None:
    """What a profile is on a card of a model with so much memory; None if the card cannot be cut that way."""
    if match := _MIG.match(name):
        n_compute, gigabytes = int(match[1]), int(match[2])
        quarters = "A30" in model
        shapes = (_MIG_QUARTERS if quarters else _MIG_SEVENTHS).get(n_compute, ())
        slices = 4 if quarters else 8
        fitting = [shape for shape in shapes if gigabytes * GB * slices <= memory_bytes * shape[0] * 11 // 10]
        if not fitting:
            return None
        size, starts = fitting[0]
        memory = min(gigabytes * GB, memory_bytes * size // slices)
        return PartitionProfile(name, 1000 * n_compute // (4 if quarters else 7), memory, size, starts)
    for product in sorted(_VNPU, key=len, reverse=True):
        cores, templates = _VNPU[product]
        if model.endswith(product) and name in templates:
            n_cores, mebibytes = templates[name]
            return PartitionProfile(name, 1000 * n_cores // cores, mebibytes * MIB, 1, _VNPU_PLACES)
    return None


def best_start(cut: int, wanted: PartitionProfile, others: tuple[PartitionProfile, ...]) -> int:
    """Where to cut so that most of the card can still be cut in every other way; -1 if nowhere."""
    starts = wanted.free_starts(cut)
    if not starts:
        return -1

    def left(start: int) -> int:
        taken = cut | wanted.places(start)
        return sum(other.n_more(taken) * other.compute_milli for other in others)

    return max(starts, key=lambda start: (left(start), -start))
