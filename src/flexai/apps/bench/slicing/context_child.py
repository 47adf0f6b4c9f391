"""Outside every slice: a process that does what it is told, one word a line, and answers each line when it is done.

``context`` makes its context, ``hold BYTES`` allocates, ``leave`` ends it at once with all it holds.
"""

from __future__ import annotations

import os
import sys
import time

from flexai.apps.bench.pool.alloc_tenant import Driver


def main() -> int:
    """Until the end of input."""
    driver: Driver | None = None
    print("ready", flush=True)
    for line in sys.stdin:
        word, *rest = line.split()
        began_ns = time.monotonic_ns()
        if word == "context":
            driver = Driver()
        elif word == "hold" and driver is not None:
            driver.alloc(int(rest[0]))
        elif word == "leave":
            os._exit(0)
        print(began_ns, time.monotonic_ns(), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
