"""Outside every slice: the most memory that the driver itself says is used on card 0, until standard input closes.

``python -m flexai.apps.bench.pool.ledger_watch``; prints ``watching``, then the number of bytes and of looks.
"""

from __future__ import annotations

import select
import sys
from typing import Any


def main() -> int:
    """Look as often as the driver answers."""
    import pynvml as untyped  # noqa: PLC0415  found by LD_LIBRARY_PATH, which the starter sets

    nvml: Any = untyped
    nvml.nvmlInit()
    card = nvml.nvmlDeviceGetHandleByIndex(0)
    base = nvml.nvmlDeviceGetMemoryInfo(card).used
    print("watching", flush=True)
    most, n_looks = 0, 0
    while not select.select([sys.stdin], [], [], 0.0005)[0]:
        most = max(most, nvml.nvmlDeviceGetMemoryInfo(card).used - base)
        n_looks += 1
    print(most, n_looks)
    return 0


if __name__ == "__main__":
    sys.exit(main())
