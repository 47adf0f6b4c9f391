"""Checks of this machine: what works, what does not, and what to do."""

import os
import time
from pathlib import Path
from typing import Any

from flexai.apps.agent.audit import Audit
from flexai.apps.agent.doctor_controls import check_capabilities, check_controls
from flexai.apps.agent.node import Node

_CONTROL_DEVICE = Path("/dev/nvidiactl")
_STALE_NS = 1_000_000_000
_LEAST_FREE_BYTES = 64 << 20


def checks(node: Node, audit: Audit, run_dir: Path, state_dir: Path, missing: str) -> list[dict[str, Any]]:
    """One entry for each check: name, ok, detail, remedy."""
    found: list[dict[str, Any]] = []

    def check(name: str, ok: bool, detail: str, remedy: str = "") -> None:
        found.append({"name": name, "ok": ok, "detail": detail, "remedy": "" if ok else remedy})

    parts = node.parts
    devices = parts.backend.devices()
    names = ", ".join(f"{device.index}: {device.model}, {device.uuid}" for device in devices)
    check("cards", bool(devices), names or missing or "none found", "Install the driver, or use `flexai up --simulate`")
    for reading in parts.backend.readings():
        check(_card(node, reading.uuid), not reading.note, reading.note or "healthy", "Cordon it: `flexai cordon`")
    for note in parts.backend.notes():
        check("driver", ok=False, detail=note, remedy="Jobs run; this part is missing")
    is_root = os.geteuid() == 0
    remedy = "Start FlexAI as root to hold jobs to their CPU, memory and cards"
    check("root", is_root, "the agent is root" if is_root else "the agent is not root", remedy)
    notes = list(parts.containment.notes())
    check("cgroups", not notes, "; ".join(notes) or "CPU, memory, freezing and cards are held by cgroups", remedy)
    check(
        "shim", not parts.env.notes, "; ".join(parts.env.notes) or "installed", "Build the native part: `make install`"
    )
    _check_arbiter(node, audit, check)
    if _CONTROL_DEVICE.exists():
        check_controls(check)
        if audit.last is not None:
            check_capabilities(check, audit.last.arbiter_pid)
    _, why_not = parts.backend.can_park()
    # What a card cannot do is no fault of this machine: it is said, and all is well.
    check("parking", True, why_not or "device memory can be moved to the host", "")
    for mode in parts.backend.modes():
        check(mode.name, not mode.remedy, mode.detail, mode.remedy)
    for name, directory in (("run directory", run_dir), ("state directory", state_dir)):
        free_bytes = os.statvfs(directory).f_bavail * os.statvfs(directory).f_frsize
        detail = f"{directory}: {free_bytes >> 20} MiB free"
        check(name, free_bytes > _LEAST_FREE_BYTES, detail, "Make room there")
    return found


def _check_arbiter(node: Node, audit: Audit, check: Any) -> None:
    arbiter = node.parts.arbiter
    detail = "connected" if arbiter.is_connected else "not connected: shares of compute are not held"
    check("arbiter", arbiter.is_connected, detail, "Start it: `flexai up`")
    for tenant, words in arbiter.refusals().items():
        check(f"arbiter, {tenant}", ok=False, detail=words, remedy="The job runs without a share of compute")
    usage = audit.last
    if usage is not None:
        age_ns = time.monotonic_ns() - usage.heartbeat_ns
        check("arbiter's pulse", age_ns < _STALE_NS, f"{age_ns // 1_000_000} ms ago", "It hangs: restart it")
        for device in usage.devices:
            detail = f"backend {device.backend}, accounting by {device.source}"
            detail += f": {device.note}" if device.note else ""
            check(f"control of {_card(node, device.uuid)}", device.backend != "none", detail, "See `flexai devices`")


def _card(node: Node, uuid: str) -> str:
    """``card 0``, as commands take it; the uuid of one that is no longer there."""
    index = next((device.index for device in node.parts.backend.devices() if device.uuid == uuid), uuid)
    return f"card {index}"
