"""Devices and the nodes that hold them."""

from dataclasses import dataclass
from enum import StrEnum


class DeviceHealth(StrEnum):
    """Whether new slices may be placed on a device."""

    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"


@dataclass(frozen=True, slots=True)
class Device:
    """One physical card, known by its UUID.

    Attributes:
        uuid: the vendor's stable name of the card.
        model: the vendor's product name, for example ``NVIDIA H200``.
        vendor: ``nvidia``, ``ascend`` or ``simulated``.
        index: its ordinal on its node.
        memory_bytes: what tenants may use together (the card's memory less what the driver keeps).
        link_group: cards of one node with the same value reach each other over NVLink or HCCS; -1 for none.
        numa: NUMA node of the host the card hangs on; -1 if unknown.
        partitions: names of hardware profiles (MIG, vNPU) it can be cut into; empty for none.
        can_park: whether the memory of a program on it can be moved to the host and back.
        can_move_when_parked: whether it can come back to another card of the same model and node that says so too.
    """

    uuid: str
    model: str
    vendor: str
    index: int
    memory_bytes: int
    link_group: int = -1
    numa: int = -1
    partitions: tuple[str, ...] = ()
    can_park: bool = False
    can_move_when_parked: bool = False


@dataclass(frozen=True, slots=True)
class TopologyLevel:
    """A place in the nesting of the machine room, for example level ``rack``, name ``r7``.

    ``bandwidth_rank`` orders levels: the higher, the faster its members talk to each other.
    """

    level: str
    name: str
    bandwidth_rank: int


@dataclass(frozen=True, slots=True)
class Node:
    """One host: its cards, CPUs and memory, and where it stands (widest level first)."""

    name: str
    devices: tuple[Device, ...]
    cpu_milli: int
    ram_bytes: int
    topology: tuple[TopologyLevel, ...] = ()
