"""Which accelerators this machine has, as far as ``up`` must know: none, usable, or present but unusable."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from flexai.wire.errors import BadInput

_PCI = Path("/sys/bus/pci/devices")
_NVIDIA, _HUAWEI = "0x10de", "0x19e5"


def accelerators(pci: Path = _PCI, dev: Path = Path("/dev")) -> dict[str, int]:
    """Number of cards by vendor, from the bus; device files count where the bus is hidden (containers)."""
    found: dict[str, int] = {}
    for device in pci.glob("*"):
        vendor, kind = _word(device / "vendor"), _word(device / "class")
        if vendor == _NVIDIA and kind.startswith("0x03"):
            found["nvidia"] = found.get("nvidia", 0) + 1
        if vendor == _HUAWEI and kind.startswith("0x12"):
            found["ascend"] = found.get("ascend", 0) + 1
    for vendor, pattern in (("nvidia", "nvidia[0-9]*"), ("ascend", "davinci[0-9]*")):
        if vendor not in found and (n_files := len(list(dev.glob(pattern)))):
            found[vendor] = n_files
    return found


def usable_nvidia_cards() -> int:
    """Cards that the driver lists.

    Raises:
        BadInput: the driver does not answer; never simulated silently, because somebody paid for these cards.
    """
    import pynvml as _pynvml  # noqa: PLC0415  only a machine with such hardware loads it

    pynvml: Any = _pynvml  # its functions carry no types
    remedy = "Repair the driver (`nvidia-smi` must list the cards), or ask for simulated cards with --simulate h200:2"
    try:
        pynvml.nvmlInit()
        count = int(pynvml.nvmlDeviceGetCount())
        pynvml.nvmlShutdown()
    except pynvml.NVMLError as error:
        raise BadInput("NVIDIA card", str(error), "is present but unusable", remedy) from None
    if count == 0:
        raise BadInput("NVIDIA card", "0 listed", "is present but the driver lists none", remedy)
    return count


def _word(file: Path) -> str:
    try:
        return file.read_text().strip()
    except OSError:
        return ""
