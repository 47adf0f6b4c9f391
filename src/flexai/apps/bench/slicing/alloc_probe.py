"""Outside every slice: how long the driver takes for ``cuMemAlloc`` while others work.

``python -m flexai.apps.bench.slicing.alloc_probe SECONDS``; prints ``ready`` when it has its context and begins at a
line on standard input; then one line of JSON, a list of times in us.
"""

from __future__ import annotations

import json
import sys
import time

from flexai.apps.bench.pool.alloc_tenant import Driver

_BYTES = 2 << 20
_PAUSE_S = 0.002


def main(seconds: float) -> int:
    """Allocate and free, and note how long each allocation took."""
    driver = Driver()
    print("ready", flush=True)
    sys.stdin.readline()
    times_us = []
    until = time.monotonic() + seconds
    while (began := time.monotonic()) < until:
        at = driver.alloc(_BYTES)
        times_us.append((time.monotonic() - began) * 1e6)
        if at is not None:
            driver.free(at)
        time.sleep(_PAUSE_S)
    print(json.dumps(times_us))
    return 0


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1])))
