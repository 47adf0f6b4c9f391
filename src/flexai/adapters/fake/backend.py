"""``ports.DeviceBackend`` without any card: the tests say what it sees."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from flexai.model import Device, DeviceHealth
from flexai.ports import DeviceMode, DeviceProcess, DeviceReading
from flexai.wire.errors import BadInput

_GIB = 1 << 30
_MODELS = {"h200": ("NVIDIA H200", 141 * _GIB), "a100": ("NVIDIA A100", 80 * _GIB), "910b": ("Ascend 910B", 64 * _GIB)}
_MAX_CARDS = 16


class FakeBackend:
    """Cards out of a text such as ``h200:2`` (empty: none); everything they show can be set.

    Attributes:
        shown: processes on the cards.
        parked: pids whose memory was moved to the host.
        cannot_park: why not; empty when it can.
        cannot_move: why what is parked cannot come back to another card; empty when it can.
    """

    name = "fake"

    def __init__(self, spec: str) -> None:
        self._devices = _devices(spec)
        self.shown: list[DeviceProcess] = []
        self.parked: set[int] = set()
        self.cannot_park = self.cannot_move = ""
        self._unhealthy: dict[str, str] = {}

    def fail(self, uuid: str, note: str) -> None:
        """Make a card unhealthy; an empty note makes it healthy."""
        self._unhealthy[uuid] = note

    def devices(self) -> Sequence[Device]:
        """See ``ports.DeviceBackend``."""
        parks, moves = self.can_park()[0], self.can_move()[0]
        return [replace(device, can_park=parks, can_move_when_parked=moves) for device in self._devices]

    def readings(self) -> Sequence[DeviceReading]:
        """See ``ports.DeviceBackend``."""
        readings = []
        for device in self._devices:
            used = sum(max(0, p.used_bytes) for p in self.shown if p.uuid == device.uuid)
            note = self._unhealthy.get(device.uuid, "")
            health = DeviceHealth.UNHEALTHY if note else DeviceHealth.HEALTHY
            readings.append(DeviceReading(device.uuid, health, used, device.memory_bytes, 0, note))
        return readings

    def processes(self) -> Sequence[DeviceProcess]:
        """See ``ports.DeviceBackend``."""
        return [replace(process) for process in self.shown if process.pid not in self.parked]

    def device_files(self, uuid: str) -> Sequence[str]:
        """See ``ports.DeviceBackend``."""
        del uuid
        return ()

    def tenant_env(self, uuids: Sequence[str]) -> dict[str, str]:
        """See ``ports.DeviceBackend``."""
        return {"CUDA_VISIBLE_DEVICES": ",".join(uuids)}

    def context_bytes(self, kept: str) -> Mapping[str, int]:
        """See ``ports.DeviceBackend``."""
        del kept
        return {}

    def can_park(self) -> tuple[bool, str]:
        """See ``ports.DeviceBackend``."""
        return not self.cannot_park, self.cannot_park

    def can_move(self) -> tuple[bool, str]:
        """See ``ports.DeviceBackend``."""
        why_not = self.cannot_park or self.cannot_move
        return not why_not, why_not

    def park(self, pid: int) -> None:
        """See ``ports.DeviceBackend``."""
        if self.cannot_park:
            raise OSError(self.cannot_park)
        self.parked.add(pid)

    def wake(self, pids: Sequence[int], to: Mapping[str, str] | None = None) -> None:
        """See ``ports.DeviceBackend``."""
        if to and not self.can_move()[0]:
            raise OSError(self.cannot_move)
        goes = self.parked.intersection(pids)
        self.shown = [
            replace(one, uuid=to.get(one.uuid, one.uuid)) if to and one.pid in goes else one for one in self.shown
        ]
        self.parked -= goes

    def modes(self) -> Sequence[DeviceMode]:
        """See ``ports.DeviceBackend``."""
        return ()

    def notes(self) -> Sequence[str]:
        """See ``ports.DeviceBackend``."""
        return ["these cards do not exist: they are for tests"] if self._devices else []

    def close(self) -> None:
        """See ``ports.DeviceBackend``."""


def _devices(spec: str) -> list[Device]:
    devices: list[Device] = []
    for part in filter(None, spec.split(",")):
        model, _, count = part.partition(":")
        if model not in _MODELS or not (count or "1").isdigit():
            raise BadInput("--fake-cards", spec, "is not MODEL:COUNT,...", f"Models: {', '.join(_MODELS)}")
        name, memory_bytes = _MODELS[model]
        for _ in range(min(int(count or "1"), _MAX_CARDS)):
            index = len(devices)
            devices.append(
                Device(f"FAKE-{model}-{index}", name, "simulated", index, memory_bytes, link_group=0, can_park=True)
            )
    return devices
