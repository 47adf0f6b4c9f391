"""``ports.DeviceBackend`` over NVML; the simulated card speaks the same library."""

import contextlib
import ctypes
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pynvml

from flexai.adapters.nvidia import contexts, parking
from flexai.adapters.nvidia.modes import modes
from flexai.model import Device, DeviceHealth
from flexai.ports import DeviceMode, DeviceProcess, DeviceReading

_PARK_WITHIN_S = 120.0
_FIRST_PARKING_DRIVER = 570
_FIRST_MOVING_DRIVER = 580
_UNKNOWN_BYTES = -1
_N_LINKS = 4

nvml: Any = pynvml  # it has no types


class NvmlMissing(Exception):
    """No NVIDIA driver answers here; the message says what was tried."""


class NvidiaBackend:
    """Cards that NVML shows.

    Args:
        library: this NVML instead of the system's.
        simcard: socket of the simulated card that ``library`` talks to.

    Raises:
        NvmlMissing: the library is not there or does not start.
    """

    name = "nvidia"

    def __init__(self, library: Path | None = None, simcard: Path | None = None) -> None:
        self._simcard = simcard
        self._outside: dict[str, str] | None = None  # environment of a program that calls the cards' driver
        if simcard is not None:
            os.environ["FLEXAI_SIMCARD"] = str(simcard)
            if library is not None:
                self._outside = {**os.environ, "LD_LIBRARY_PATH": str(library.parent)}
        try:
            if library is not None:
                # NVML is opened by its name: what has the name already is what is found then.
                ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)
            nvml.nvmlInit()
        except (OSError, pynvml.NVMLError) as error:
            raise NvmlMissing(f"NVML does not answer: {error}") from None
        self._notes: list[str] = []
        self._handles: dict[str, Any] = {}
        self._driver = str(_said(nvml.nvmlSystemGetDriverVersion, "0"))
        self._devices = [self._device(i) for i in range(nvml.nvmlDeviceGetCount())]

    def _device(self, index: int) -> Device:
        handle = nvml.nvmlDeviceGetHandleByIndex(index)
        uuid = _text(nvml.nvmlDeviceGetUUID(handle))
        self._handles[uuid] = handle
        memory = nvml.nvmlDeviceGetMemoryInfo(handle)
        detail = _said(nvml.nvmlDeviceGetMemoryInfo, None, handle, nvml.nvmlMemory_v2)
        reserved_bytes = int(detail.reserved) if detail is not None else 0
        mode = _said(nvml.nvmlDeviceGetComputeMode, nvml.NVML_COMPUTEMODE_DEFAULT, handle)
        if mode != nvml.NVML_COMPUTEMODE_DEFAULT:
            self._notes.append(f"card {index} is in exclusive compute mode and cannot be shared: nvidia-smi -c 0")
        return Device(
            uuid=uuid,
            model=_text(nvml.nvmlDeviceGetName(handle)),
            vendor="nvidia" if self._simcard is None else "simulated",
            index=index,
            memory_bytes=int(memory.total) - reserved_bytes,
            link_group=_link_group(handle),
            numa=int(_said(nvml.nvmlDeviceGetNumaNodeId, -1, handle)),
            can_park=self.can_park()[0],
            can_move_when_parked=self.can_move()[0],
        )

    def devices(self) -> Sequence[Device]:
        """See ``ports.DeviceBackend``."""
        return self._devices

    def readings(self) -> Sequence[DeviceReading]:
        """See ``ports.DeviceBackend``."""
        return [self._reading(device) for device in self._devices]

    def _reading(self, device: Device) -> DeviceReading:
        handle = self._handles[device.uuid]
        try:
            memory = nvml.nvmlDeviceGetMemoryInfo(handle)
        except pynvml.NVMLError as error:
            return DeviceReading(device.uuid, DeviceHealth.UNHEALTHY, 0, device.memory_bytes, -1, f"NVML: {error}")
        rates = _said(nvml.nvmlDeviceGetUtilizationRates, None, handle)
        busy_milli = -1 if rates is None else int(rates.gpu) * 10
        needs_reset = bool(_said(nvml.nvmlDeviceGetRetiredPagesPendingStatus, 0, handle))
        note = "memory pages wait for a reset of the card" if needs_reset else ""
        health = DeviceHealth.UNHEALTHY if needs_reset else DeviceHealth.HEALTHY
        return DeviceReading(device.uuid, health, int(memory.used), int(memory.total), busy_milli, note)

    def processes(self) -> Sequence[DeviceProcess]:
        """See ``ports.DeviceBackend``."""
        found: list[DeviceProcess] = []
        for uuid, handle in self._handles.items():
            seen: dict[int, int] = {}
            rows = _said(nvml.nvmlDeviceGetComputeRunningProcesses, [], handle)
            rows = [*rows, *_said(nvml.nvmlDeviceGetGraphicsRunningProcesses, [], handle)]
            for row in rows:
                used = row.usedGpuMemory
                used_bytes = _UNKNOWN_BYTES if used is None or used >= 1 << 63 else int(used)
                seen[row.pid] = max(seen.get(row.pid, _UNKNOWN_BYTES), used_bytes)
            found += [DeviceProcess(uuid, pid, used_bytes) for pid, used_bytes in seen.items()]
        return found

    def device_files(self, uuid: str) -> Sequence[str]:
        """See ``ports.DeviceBackend``."""
        if self._simcard is not None:
            return ()
        minor = _said(nvml.nvmlDeviceGetMinorNumber, None, self._handles[uuid])
        path = f"/dev/nvidia{minor}"
        return (path,) if minor is not None and Path(path).exists() else ()

    def tenant_env(self, uuids: Sequence[str]) -> dict[str, str]:
        """See ``ports.DeviceBackend``."""
        # The simulated driver reads it as the real one does; without it every tenant computes on the first card.
        return {"CUDA_VISIBLE_DEVICES": ",".join(uuids)}

    def context_bytes(self, kept: str) -> Mapping[str, int]:
        """See ``ports.DeviceBackend``."""
        uuids = [device.uuid for device in self._devices]
        return contexts.context_bytes(Path(kept), self._driver, uuids, self._outside)

    def can_park(self) -> tuple[bool, str]:
        """See ``ports.DeviceBackend``."""
        if self._simcard is not None:  # its driver has the calls, for processes of the same user
            return True, ""
        if self._major() < _FIRST_PARKING_DRIVER:
            return False, f"driver {self._driver} cannot move memory to the host; {_FIRST_PARKING_DRIVER} and later can"
        if os.geteuid() != 0:
            return False, "only root may move the memory of others"
        return True, ""

    def can_move(self) -> tuple[bool, str]:
        """See ``ports.DeviceBackend``."""
        can, why_not = self.can_park()
        if can and self._simcard is None and self._major() < _FIRST_MOVING_DRIVER:
            why_not = (
                f"driver {self._driver} brings a parked program back to its own card only; {_FIRST_MOVING_DRIVER} and "
                "later can to others"
            )
        return not why_not, why_not

    def _major(self) -> int:
        major = self._driver.split(".", 1)[0]
        return int(major) if major.isdigit() else 0

    def park(self, pid: int) -> None:
        """See ``ports.DeviceBackend``."""
        self._checkpoint("park", pid)

    def wake(self, pids: Sequence[int], to: Mapping[str, str] | None = None) -> None:
        """See ``ports.DeviceBackend``."""
        self._checkpoint("wake", *pids, to=to)

    def _checkpoint(self, what: str, *pids: int, to: Mapping[str, str] | None = None) -> None:
        can, why_not = self.can_move() if to else self.can_park()
        if not can:
            raise OSError(why_not)
        # In a process of its own: the driver library takes 100 MiB and must not stay in the agent. As a bare script: to
        # import this package takes longer than to begin.
        argv = [sys.executable, "-I", "-S", parking.__file__, what, *map(str, pids)]
        argv += [f"{left}={comes}" for left, comes in (to or {}).items()]
        named = ", ".join(map(str, pids))
        try:
            done = subprocess.run(
                argv, env=self._outside, capture_output=True, text=True, timeout=_PARK_WITHIN_S, check=False
            )
        except subprocess.TimeoutExpired:
            raise OSError(f"the driver did not {what} process {named} within {_PARK_WITHIN_S:.0f} s") from None
        if done.returncode:
            raise OSError(done.stderr.strip().rpartition("\n")[2] or f"the driver did not {what} process {named}")

    def modes(self) -> Sequence[DeviceMode]:
        """See ``ports.DeviceBackend``."""
        return modes(self._handles.values(), simulated=self._simcard is not None)

    def notes(self) -> Sequence[str]:
        """See ``ports.DeviceBackend``."""
        return list(self._notes)

    def close(self) -> None:
        """See ``ports.DeviceBackend``."""
        with contextlib.suppress(pynvml.NVMLError):
            nvml.nvmlShutdown()


def _link_group(handle: Any) -> int:
    """0 when the card has a link that is up, -1 otherwise: cards of one node are joined by one fabric or by none."""
    links = (_said(nvml.nvmlDeviceGetNvLinkState, 0, handle, n) for n in range(_N_LINKS))
    return 0 if any(links) else -1


def _said(ask: Callable[..., Any], default: Any, *arguments: Any) -> Any:
    """What the driver says, or ``default`` where it does not know the question."""
    try:
        answer = ask(*arguments)
    except (pynvml.NVMLError, AttributeError):
        return default
    return _text(answer) if isinstance(answer, bytes) else answer


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value
