"""Outside every slice: the memory that the driver itself says is used on card 0, until a line or the end of input.

``python -m flexai.apps.bench.pool.ledger_watch [changes] [context]``; prints ``watching``, and in the end one line of
JSON: the most bytes above those at the start, the number of looks, the longest time between two, and by ``SPAN_NS``
(when it began, CLOCK_MONOTONIC) the most bytes and the longest time between looks that ended in it. With ``changes``
also each change. The line ``now`` is answered with the bytes above those at the start, and the watch goes on.

With ``context`` it makes a plain context before it begins, and keeps it: what the driver takes once for a card's first
user is then no growth. JSON says how much that is, beyond what the driver lists as this process's.

NVML waits for the driver's locks. On a real card ``flexai-nvprobe memory`` looks beside it at the page on which the
driver keeps what is free, without any: ``page`` of JSON says the same of its looks, ``no_page`` why there are none.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from typing import Any

import flexai_native

from flexai.apps.bench.pool.alloc_tenant import Driver

SPAN_NS = 10_000_000


def _text(of_nvml: str | bytes) -> str:
    return of_nvml.decode() if isinstance(of_nvml, bytes) else of_nvml


def _is_over(above: int) -> bool:
    if not select.select([sys.stdin], [], [], 0.0005)[0]:
        return False
    if sys.stdin.readline() != "now\n":
        return True
    print(above, flush=True)
    return False


class _Page:
    """The driver's own page, looked at by another process."""

    def __init__(self, uuid: str) -> None:
        words = [str(flexai_native.program("flexai-nvprobe")), "--card", uuid, "memory"]
        self._probe = subprocess.Popen(
            words, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        assert self._probe.stdout is not None
        line = self._probe.stdout.readline()
        self._free_bytes = json.loads(line)["free_bytes"] if line else 0

    def end(self) -> dict[str, Any]:
        rest, wrong = self._probe.communicate()
        if self._probe.returncode != 0 or not rest:
            return {"no_page": wrong.strip() or "flexai-nvprobe said nothing"}
        told = json.loads(rest)
        spans = [[at, self._free_bytes - least, gap] for at, least, gap in told["spans"]]
        return {
            "page": {
                "most_bytes": max((most for _, most, _ in spans), default=0), "n_looks": told["looks"],
                "longest_ns": max((gap for _, _, gap in spans), default=0), "spans": spans,
                "last_bytes": self._free_bytes - told["free_bytes"],
            }
        }  # fmt: skip


def main() -> int:
    """Look as often as the driver answers."""
    import pynvml as untyped  # noqa: PLC0415  found by LD_LIBRARY_PATH, which the starter sets

    nvml: Any = untyped
    nvml.nvmlInit()
    card = nvml.nvmlDeviceGetHandleByIndex(0)
    told: dict[str, Any] = {"first_context_bytes": 0, "listed_bytes": 0}
    bare = nvml.nvmlDeviceGetMemoryInfo(card).used
    kept = Driver() if "context" in sys.argv else None
    if kept is not None:
        first = nvml.nvmlDeviceGetMemoryInfo(card).used - bare
        own = [one for one in nvml.nvmlDeviceGetComputeRunningProcesses(card) if one.pid == os.getpid()]
        told = {"first_context_bytes": first, "listed_bytes": sum(one.usedGpuMemory or 0 for one in own)}
    page = None if os.environ.get("FLEXAI_SIMCARD") else _Page(_text(nvml.nvmlDeviceGetUUID(card)))
    base = nvml.nvmlDeviceGetMemoryInfo(card).used
    print("watching", flush=True)
    most, n_looks, longest_ns, last_ns, above = 0, 0, 0, time.monotonic_ns(), 0
    changes, spans = [(last_ns, 0)], [[last_ns, 0, 0]]
    while not _is_over(above):
        above = nvml.nvmlDeviceGetMemoryInfo(card).used - base
        now_ns = time.monotonic_ns()
        gap_ns, last_ns, n_looks = now_ns - last_ns, now_ns, n_looks + 1
        most, longest_ns = max(most, above), max(longest_ns, gap_ns)
        if now_ns - spans[-1][0] >= SPAN_NS:
            spans.append([now_ns - now_ns % SPAN_NS, 0, 0])
        spans[-1][1:] = max(spans[-1][1], above), max(spans[-1][2], gap_ns)
        if "changes" in sys.argv and above != changes[-1][1]:
            changes.append((now_ns, above))
    told |= page.end() if page else {"no_page": "a simulated card has none"}
    told |= {
        "most_bytes": most, "n_looks": n_looks, "longest_ns": longest_ns, "spans": spans, "changes": changes,
        "last_bytes": above,
    }  # fmt: skip
    print(json.dumps(told))
    return 0


if __name__ == "__main__":
    sys.exit(main())
