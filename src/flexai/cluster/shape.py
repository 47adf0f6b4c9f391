"""What a member asks for, reduced to what decides where it fits: the class that scores and verdicts are cached for."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flexai.model import PartitionProfile


@dataclass(frozen=True, slots=True)
class Shape:
    """Members with equal shapes fit the same places.

    Attributes:
        cpu_milli: host CPU.
        ram_bytes: host memory.
        n_devices: cards of one node; 0 for none.
        compute_milli: of each card.
        memory_bytes: of each card; 0 with ``whole``.
        whole: takes its cards for itself, all of their memory.
        models: bit mask of the models allowed, -1 for any.
        profile: hardware partition of each card; None for none.
    """

    cpu_milli: int
    ram_bytes: int
    n_devices: int
    compute_milli: int
    memory_bytes: int
    whole: bool
    models: int = -1
    profile: PartitionProfile | None = None
    _hash: int = field(init=False, repr=False, compare=False, default=0)

    def __post_init__(self) -> None:
        """Shapes are keys everywhere: hash once."""
        key = (
            self.cpu_milli, self.ram_bytes, self.n_devices, self.compute_milli, self.memory_bytes, self.whole,
            self.models, self.profile,
        )  # fmt: skip
        object.__setattr__(self, "_hash", hash(key))

    def __hash__(self) -> int:
        return self._hash

    @property
    def partition(self) -> str:
        """Name of the hardware profile; empty for none."""
        return "" if self.profile is None else self.profile.name

    @property
    def asked_milli(self) -> int:
        """Compute over all its cards."""
        return self.n_devices * self.compute_milli
