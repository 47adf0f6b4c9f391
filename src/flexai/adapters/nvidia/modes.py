"""Settings of NVIDIA's driver on which sharing depends: MIG, confidential computing, memory of the host on the card."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pynvml

from flexai.ports import DeviceMode

if TYPE_CHECKING:
    from collections.abc import Iterable

HMM_SWITCH = Path("/sys/module/nvidia_uvm/parameters/uvm_disable_hmm")
_HMM, _ATS = 1, 2  # NVML_DEVICE_ADDRESSING_MODE_*

nvml: Any = pynvml  # it has no types


def modes(handles: Iterable[Any], *, simulated: bool) -> list[DeviceMode]:
    """One for each setting, for all cards together."""
    cards = list(enumerate(handles))
    version = _asked("nvmlSystemGetDriverVersion")
    known = [DeviceMode("driver version", str(version))] if version else []
    found = [*known, _mig(cards), _confidential()]
    return found if simulated else [*found, _hmm(cards)]


def _mig(cards: list[tuple[int, Any]]) -> DeviceMode:
    said = [(index, (_asked("nvmlDeviceGetMigMode", handle) or [None])[0]) for index, handle in cards]
    on = [str(index) for index, mode in said if mode == 1]
    if on:
        remedy = f"Slices of them need it off: `nvidia-smi -i {','.join(on)} -mig 0` while nothing runs there"
        return DeviceMode("MIG", f"on for card {', '.join(on)}: the log of its switches needs an instance", remedy)
    return DeviceMode("MIG", "off" if any(mode == 0 for _, mode in said) else "these cards have none")


def _confidential() -> DeviceMode:
    feature = getattr(_asked("nvmlSystemGetConfComputeState"), "ccFeature", None)
    if feature:
        return DeviceMode(
            "confidential computing", "on: the driver gives no log of who has a card, so shares are held by gates",
            "Accept that, or turn it off in the firmware of host and card",
        )  # fmt: skip
    return DeviceMode("confidential computing", "off" if feature == 0 else "this driver has none")


def _hmm(cards: list[tuple[int, Any]]) -> DeviceMode:
    """By what the driver says of each card, and by the module's switch where the driver does not know the question."""
    said = [_asked("nvmlDeviceGetAddressingMode", handle) for _, handle in cards]
    if _ATS in said:
        return DeviceMode("HMM", "host and card share one address space (ATS): host memory is not copied to the card")
    if any(mode is not None for mode in said):
        is_on = _HMM in said
    else:
        try:
            is_on = HMM_SWITCH.read_text().strip() not in {"1", "Y"}
        except OSError:
            return DeviceMode("HMM", "this driver has none")
    if is_on:
        remedy = "options nvidia_uvm uvm_disable_hmm=1 in /etc/modprobe.d, and a restart; the audit sees it meanwhile"
        return DeviceMode("HMM", "on: host memory that a kernel touches lands on a card uncounted", remedy)
    return DeviceMode("HMM", "off")


def _asked(question: str, *arguments: object) -> Any:
    """What the driver says; None where it, or its library, does not know the question."""
    try:
        return getattr(nvml, question)(*arguments)
    except (pynvml.NVMLError, AttributeError):
        return None
