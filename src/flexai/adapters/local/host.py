"""What the machine itself has left."""

from pathlib import Path

_MEMINFO = Path("/proc/meminfo")


def free_ram_bytes() -> int:
    """Host memory that can be taken without swapping, as the kernel estimates it (``MemAvailable``)."""
    for line in _MEMINFO.read_text().splitlines():
        name, _, value = line.partition(":")
        if name == "MemAvailable":
            return int(value.split()[0]) << 10
    return 0
