"""Checks of NVIDIA's controls: which work for this driver, what takes the place of one that does not, and why not."""

import json
import subprocess
from pathlib import Path
from typing import Any

import flexai_native

_PROBE_TIMEOUT_S = 5.0
_INITIAL_USER_NS, _INITIAL_PID_NS = 4026531837, 4026531836
"""Inodes of the initial namespaces (include/linux/proc_ns.h: PROC_USER_INIT_INO, PROC_PID_INIT_INO)."""

_ALL_OR_GATES = "turns are held by gates in the programs (backend lease), which those without the preload ignore"
_PLACE = {
    "log": f"{_ALL_OR_GATES}; card time is what their gates let through",
    "preempt": "a lone program counts as busy while it holds the card, so an idle one is charged until somebody comes",
}
"""What takes the place of a control that does not work; of any other, the gates."""

_CAPABILITIES = {
    "CAP_SYS_PTRACE": (19, "finding the programs that use a card"),
    "CAP_SYS_ADMIN": (21, "exact records of who has a card"),
    "CAP_SYS_NICE": (23, "being on time on a busy machine"),
}


def check_controls(check: Any) -> None:
    """What of the controls works here, tried by ``flexai-nvprobe`` on objects of its own."""
    remedy = "See docs/explanation/nvidia-controls.md; `flexai-nvprobe` shows each control"
    try:
        done = subprocess.run(
            [flexai_native.program("flexai-nvprobe"), "check"],
            check=False, capture_output=True, text=True, timeout=_PROBE_TIMEOUT_S,
        )  # fmt: skip
        results = [json.loads(line) for line in done.stdout.splitlines()]
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        check("controls", ok=False, detail=f"flexai-nvprobe: {error}", remedy=remedy)
        return
    for uuid in dict.fromkeys(result["card"] for result in results):
        tried = [result for result in results if result["card"] == uuid and result["check"] != "capabilities"]
        failed = [result for result in tried if not result["ok"]]
        works = "work: " + (", ".join(result["check"] for result in tried if result["ok"]) or "none")
        if not failed:
            check(f"controls of {uuid}", ok=True, detail=works)
            continue
        why = "; ".join(f"{result['check']} does not: {result['note'] or 'no reason given'}" for result in failed)
        places = dict.fromkeys(_PLACE.get(result["check"], _ALL_OR_GATES) for result in failed)
        check(f"controls of {uuid}", ok=False, detail=f"{works}; {why}. Instead, {'; '.join(places)}", remedy=remedy)
    if not results:
        check("controls", ok=False, detail=done.stderr.strip() or "flexai-nvprobe said nothing", remedy=remedy)


def check_capabilities(check: Any, pid: int, name: str = "arbiter's rights", proc: Path = Path("/proc")) -> None:
    """What the arbiter's process, or one like it, may do, and whether it sees the machine's own users and processes."""
    try:
        status = (proc / str(pid) / "status").read_text()
        held = int(next(line.split()[1] for line in status.splitlines() if line.startswith("CapEff:")), 16)
        namespaces = {name: (proc / str(pid) / "ns" / name).stat().st_ino for name in ("user", "pid")}
    except (OSError, StopIteration, ValueError) as error:
        check(name, ok=False, detail=f"cannot be read: {error}", remedy="Start FlexAI as root")
        return
    lacks = [f"{name}, for {use}" for name, (bit, use) in _CAPABILITIES.items() if not held >> bit & 1]
    if namespaces["user"] != _INITIAL_USER_NS:
        lacks.append("the initial user namespace, for exact records of who has a card")
    if namespaces["pid"] != _INITIAL_PID_NS:
        lacks.append("the host's process numbers (hostPID), for knowing whose a program is")
    remedy = "Start FlexAI as root on the host; in a container give it these capabilities and hostPID, without userns"
    detail = f"lacks {'; '.join(lacks)}" if lacks else f"has {', '.join(_CAPABILITIES)} in the initial namespaces"
    check(name, ok=not lacks, detail=detail, remedy=remedy)
