"""Checks of this machine: what works, what does not, and what to do.

The agent answers them; ``python -m flexai.apps.agent.doctor`` prints as JSON what can be told while none runs.
"""

import json
import os
import time
from pathlib import Path
from typing import Any

from flexai.adapters.local.cgroups import available
from flexai.adapters.local.delegated import own_group
from flexai.apps.agent.audit import Audit
from flexai.apps.agent.cards import real_cards
from flexai.apps.agent.doctor_controls import check_capabilities, check_controls
from flexai.apps.agent.guardian import guardian
from flexai.apps.agent.node import Node
from flexai.apps.agent.tenant_env import missing_parts
from flexai.ports import DeviceBackend
from flexai.wire.quantity import format_size

_CONTROL_DEVICE = Path("/dev/nvidiactl")
_FROZEN = {
    "group": "is frozen by the freezer of its cgroup, with all that it forks",
    "signal": "is frozen by SIGSTOP, which any process of its user undoes until the next turn",
}
_STALE_NS = 1_000_000_000
_LEAST_FREE_BYTES = 64 << 20


class Found:
    """Checks made so far; it is called with each.

    Attributes:
        entries: name, ok, detail and remedy of each; ``limited`` where what is not ok follows from who runs it.
    """

    def __init__(self) -> None:
        self.entries: list[dict[str, Any]] = []

    def __call__(self, name: str, ok: bool, detail: str, remedy: str = "", *, limited: bool = False) -> None:
        """Add one."""
        entry = {"name": name, "ok": ok, "detail": detail, "remedy": "" if ok else remedy}
        self.entries.append(entry | ({"limited": True} if limited and not ok else {}))


def checks(node: Node, audit: Audit, run_dir: Path, state_dir: Path, missing: str) -> list[dict[str, Any]]:
    """One entry for each check: name, ok, detail, remedy."""
    check, parts = Found(), node.parts
    check_machine(check, parts.backend, missing, list(parts.containment.notes()), parts.env.notes)
    check("who undoes stops", True, _FROZEN[parts.containment.hostile_frozen_by])
    _check_arbiter(node, audit, check)
    if audit.last is not None:
        check_guardian(check, run_dir, audit.last.arbiter_pid)
    if _CONTROL_DEVICE.exists():
        check_controls(check)
        if audit.last is not None:
            check_capabilities(check, audit.last.arbiter_pid)
    check_modes(check, parts.backend)
    for name, directory in (("run directory", run_dir), ("state directory", state_dir)):
        free_bytes = os.statvfs(directory).f_bavail * os.statvfs(directory).f_frsize
        detail = f"{directory}: {format_size(free_bytes)} free"
        check(name, free_bytes > _LEAST_FREE_BYTES, detail, "Make room there")
    return check.entries


def checks_without_a_pool() -> list[dict[str, Any]]:
    """What can be told of this machine and of who asks, while no agent runs."""
    check = Found()
    backend, missing = real_cards()
    why_not, own = available(), own_group()
    if why_not and not isinstance(own, str):
        why_not = f"jobs are held in {own.directory}; cards not granted can be opened"
    check_machine(check, backend, missing, [why_not] if why_not else [], missing_parts())
    if _CONTROL_DEVICE.exists():
        check_controls(check)
        check_capabilities(check, os.getpid(), "rights of an arbiter that you start")
    check_modes(check, backend)
    backend.close()
    return check.entries


def check_machine(
    check: Found, backend: DeviceBackend, missing: str, cgroup_notes: list[str], shim_notes: list[str]
) -> None:
    """Cards, rights and what is installed."""
    devices = backend.devices()
    names = ", ".join(f"{device.index}: {device.model}, {device.uuid}" for device in devices)
    check("cards", bool(devices), names or missing or "none found", "Install the driver, or use `flexai up --simulate`")
    for reading in backend.readings():
        check(_card(backend, reading.uuid), not reading.note, reading.note or "healthy", "Cordon it: `flexai cordon`")
    for note in backend.notes():
        check("driver", ok=False, detail=note, remedy="Jobs run; this part is missing")
    is_root = os.geteuid() == 0
    remedy = "Start FlexAI as root to hold jobs to their CPU, memory and cards"
    check("root", is_root, "root" if is_root else "not root: this pool serves its own user", remedy, limited=True)
    held = "CPU, memory, freezing and cards are held by cgroups"
    check("cgroups", not cgroup_notes, "; ".join(cgroup_notes) or held, remedy, limited=not is_root)
    check("shim", not shim_notes, "; ".join(shim_notes) or "installed", "Build the native part: `make install`")


def check_modes(check: Found, backend: DeviceBackend) -> None:
    """What driver and cards are set to."""
    if not backend.devices():
        return
    # What a card cannot do is no fault of this machine: it is said, and all is well.
    _, why_not = backend.can_park()
    check("parking", True, why_not or "device memory can be moved to the host", "")
    _, why_not = backend.can_move()
    check("waking elsewhere", True, why_not or "what is parked can come back to other cards of its model", "")
    for mode in backend.modes():
        check(mode.name, not mode.remedy, mode.detail, mode.remedy)


def check_guardian(check: Found, run_dir: Path, arbiter_pid: int) -> None:
    """Who resumes what a dead arbiter had stopped, and whether what kills the one kills the other."""
    found = guardian(run_dir, arbiter_pid)
    if found is None:
        detail = "not running: what an arbiter that dies had stopped waits for the next one"
        check("guardian", ok=False, detail=detail, remedy="Start it: `flexai up`")
        return
    detail = f"in a control group of its own ({found.group})"
    if found.shares:
        detail = f"in the arbiter's control group ({found.shares}): what kills that whole group kills both"
    remedy = "Start FlexAI as root where cgroup v2 is mounted and may be written"
    check("guardian", not found.shares, detail, remedy, limited=True)


def _check_arbiter(node: Node, audit: Audit, check: Found) -> None:
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
            name = f"control of {_card(node.parts.backend, device.uuid)}"
            check(name, device.backend != "none", detail, "See `flexai devices`")


def _card(backend: DeviceBackend, uuid: str) -> str:
    """``card 0``, as commands take it; the uuid of one that is no longer there."""
    index = next((device.index for device in backend.devices() if device.uuid == uuid), uuid)
    return f"card {index}"


if __name__ == "__main__":
    print(json.dumps({"checks": checks_without_a_pool()}))
