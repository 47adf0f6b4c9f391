"""Outside every slice: the memory that the driver itself says is used on card 0, until a line or the end of input.

``python -m flexai.apps.bench.pool.ledger_watch [changes]``; prints ``watching``, then the most bytes above those at the
start, the number of looks and the longest time between two in ms; with ``changes`` also one line of JSON, of each
change: when (CLOCK_MONOTONIC, ns) and how many bytes above those at the start. The line ``now`` is answered with the
bytes above those at the start, and the watch goes on.
"""

from __future__ import annotations

import json
import select
import sys
import time
from typing import Any


def _is_over(above: int) -> bool:
    if not select.select([sys.stdin], [], [], 0.0005)[0]:
        return False
    if sys.stdin.readline() != "now\n":
        return True
    print(above, flush=True)
    return False


def main() -> int:
    """Look as often as the driver answers."""
    import pynvml as untyped  # noqa: PLC0415  found by LD_LIBRARY_PATH, which the starter sets

    nvml: Any = untyped
    nvml.nvmlInit()
    card = nvml.nvmlDeviceGetHandleByIndex(0)
    base = nvml.nvmlDeviceGetMemoryInfo(card).used
    print("watching", flush=True)
    most, n_looks, longest_ns, last_ns = 0, 0, 0, time.monotonic_ns()
    changes = [(last_ns, 0)]
    while not _is_over(changes[-1][1]):
        above = nvml.nvmlDeviceGetMemoryInfo(card).used - base
        now_ns = time.monotonic_ns()
        most, n_looks, longest_ns, last_ns = max(most, above), n_looks + 1, max(longest_ns, now_ns - last_ns), now_ns
        if above != changes[-1][1]:
            changes.append((now_ns, above))
    print(most, n_looks, f"{longest_ns / 1e6:.3f}")
    if "changes" in sys.argv:
        print(json.dumps(changes))
    return 0


if __name__ == "__main__":
    sys.exit(main())
