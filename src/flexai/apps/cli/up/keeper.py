"""Keeping processes alive: start, notice an end at once, start again after a growing pause.

A process is known by pid and start time, written to ``<state>/up.json`` as it starts, and watched through a pidfd. So
an ``up`` that was killed can be followed by one that takes over what still runs, without stopping a single job.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from flexai.apps.cli.up.plan import Process

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 10.0
STEADY_AFTER_S = 1.0  # who works for so long and is then killed, again and again, is back at once each time
STOP_GRACE_S = 10.0
ENDED_WELL = "exit code 0"
CANNOT_START = "exit code 2"  # of all our processes: what they were given is wrong, which trying again does not cure


@dataclass(slots=True)
class _Kept:
    process: Process
    pid: int = 0
    pidfd: int = -1
    started_at: float = 0.0
    pause_s: float = FIRST_PAUSE_S
    start_at: float | None = None
    adopted: bool = False
    was_ready: bool = False
    log_from: int = 0


@dataclass(slots=True)
class Keeper:
    """Keeps ``processes`` alive until told to stop.

    Attributes:
        say: told every start, end and restart, as one line.
        wake: readable when a signal came, so that :meth:`wait` returns at once; -1 for none.
    """

    processes: tuple[Process, ...]
    state_dir: Path
    say: Callable[[str], None]
    wake: int = -1
    _kept: dict[str, _Kept] = field(default_factory=dict)
    _selector: selectors.BaseSelector = field(default_factory=selectors.DefaultSelector)

    def __post_init__(self) -> None:
        if self.wake >= 0:
            self._selector.register(self.wake, selectors.EVENT_READ, "")

    def adopt(self) -> list[str]:
        """Take over what an earlier ``up`` left running with the same command; returns the names."""
        adopted, recorded = [], self._recorded()  # once: what is taken over is written down as it is found
        for process in self.processes:
            kept = self._kept[process.name] = _Kept(process)
            entry = recorded.get(process.name, {})
            pid = entry.get("pid")
            if isinstance(pid, int) and entry.get("start_ticks") == start_ticks(pid):
                if entry.get("argv") != list(process.argv):
                    self.say(f"{process.name} (pid {pid}) was started otherwise; it is replaced")
                    stop_process(pid, STOP_GRACE_S)
                    continue
                kept.adopted = kept.was_ready = True
                self._watch(kept, pid)
                adopted.append(process.name)
        for name, entry in recorded.items():
            ticks = start_ticks(entry.get("pid"))
            if name not in self._kept and ticks is not None and entry.get("start_ticks") == ticks:
                self.say(f"{name} (pid {entry.get('pid')}) is no part of this pool; it is stopped")
                stop_process(entry.get("pid"), STOP_GRACE_S)
        return adopted

    def start(self, process: Process) -> None:
        """Start it unless it runs."""
        kept = self._kept[process.name]
        if kept.pid:
            return
        if process.socket is not None:
            process.socket.unlink(missing_ok=True)  # its owner is dead: we hold the lock and know every process
        logs = self.state_dir / "logs"
        logs.mkdir(parents=True, exist_ok=True)
        with (logs / f"{process.name}.log").open("ab") as log:
            kept.log_from = log.tell()
            child = subprocess.Popen(
                process.argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, cwd="/"
            )
        kept.started_at, kept.start_at, kept.adopted = time.monotonic(), None, False
        self._watch(kept, child.pid)
        child.returncode = 0  # reaped below through the pidfd, not by the Popen object

    def wait(self, timeout_s: float) -> dict[str, str]:
        """Wait for an end or until a restart is due; returns which processes ended, and how."""
        now = time.monotonic()
        due = [kept.start_at - now for kept in self._kept.values() if kept.start_at is not None]
        ended = {}
        for key, _ in self._selector.select(max(0.0, min([timeout_s, *due]))):
            if not key.data:
                os.read(self.wake, 4096)
                continue
            ended[str(key.data)] = self._ended(self._kept[key.data])
        for kept in self._kept.values():
            if kept.start_at is not None and kept.start_at <= time.monotonic():
                self.say(f"{kept.process.name}: starting again")
                self.start(kept.process)
        return ended

    def ready(self, name: str) -> None:
        """It answers: from now on it is started again whatever it ends with."""
        self._kept[name].was_ready = True

    def last_words(self, name: str) -> list[str]:
        """The last ten lines that it wrote since it was started last."""
        try:
            with (self.state_dir / "logs" / f"{name}.log").open("rb") as log:
                log.seek(self._kept[name].log_from)
                return log.read().decode(errors="replace").splitlines()[-10:]
        except OSError:
            return []

    def alive(self, name: str) -> bool:
        """Whether it runs now."""
        return self._kept[name].pid != 0

    def stop(self, *, leave_holders: bool) -> None:
        """Stop everything, last started first; with ``leave_holders`` what holds running jobs stays."""
        for process in reversed(self.processes):
            kept = self._kept[process.name]
            kept.start_at = None
            if not kept.pid or (leave_holders and process.holds_jobs):
                continue
            stop_process(kept.pid, STOP_GRACE_S)
            self._forget(kept)
            if process.socket is not None:
                process.socket.unlink(missing_ok=True)
        self._record()

    def _watch(self, kept: _Kept, pid: int) -> None:
        kept.pid, kept.pidfd = pid, os.pidfd_open(pid)
        self._selector.register(kept.pidfd, selectors.EVENT_READ, kept.process.name)
        self._record()

    def _ended(self, kept: _Kept) -> str:
        how = _reap(kept.pid)
        lived_s = time.monotonic() - kept.started_at
        self._forget(kept)
        if kept.process.may_end and how == ENDED_WELL:
            return how
        if how == CANNOT_START and not kept.was_ready:
            return how
        kept.pause_s = FIRST_PAUSE_S if lived_s > STEADY_AFTER_S else min(2 * kept.pause_s, LONGEST_PAUSE_S)
        kept.start_at = time.monotonic() + kept.pause_s
        log = self.state_dir / "logs" / f"{kept.process.name}.log"
        self.say(f"{kept.process.name} ended ({how}); starting it again in {kept.pause_s:g} s (log: {log})")
        return how

    def _forget(self, kept: _Kept) -> None:
        self._selector.unregister(kept.pidfd)
        os.close(kept.pidfd)
        _reap(kept.pid)
        kept.pid, kept.pidfd = 0, -1

    def _record(self) -> None:
        running = {
            name: {"pid": kept.pid, "start_ticks": start_ticks(kept.pid), "argv": list(kept.process.argv)}
            for name, kept in self._kept.items()
            if kept.pid
        }
        target = self.state_dir / "up.json"
        draft = target.with_suffix(".new")
        draft.write_text(json.dumps(running))
        draft.replace(target)

    def _recorded(self) -> dict[str, dict[str, object]]:
        try:
            recorded = json.loads((self.state_dir / "up.json").read_text())
        except (OSError, ValueError):
            return {}
        return recorded if isinstance(recorded, dict) else {}


def start_ticks(pid: object) -> int | None:
    """When the process started, in clock ticks since boot; None when there is none (a zombie is none)."""
    if not isinstance(pid, int) or pid <= 0:
        return None
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in {"Z", "X"} else int(fields[19])


def stop_process(pid: object, grace_s: float) -> None:
    """SIGTERM, and SIGKILL after ``grace_s``; returns when it is gone."""
    if not isinstance(pid, int):
        return
    with contextlib.suppress(ProcessLookupError):
        handle = os.pidfd_open(pid)
        try:
            signal.pidfd_send_signal(handle, signal.SIGTERM)
            if not _gone(handle, grace_s):
                signal.pidfd_send_signal(handle, signal.SIGKILL)
                _gone(handle, grace_s)
        finally:
            os.close(handle)


def _gone(pidfd: int, timeout_s: float) -> bool:
    with selectors.DefaultSelector() as selector:
        selector.register(pidfd, selectors.EVENT_READ)
        return bool(selector.select(timeout_s))


def _reap(pid: int) -> str:
    try:
        done, status = os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return "of an earlier `up`"
    if not done:
        return "still ending"
    if os.WIFSIGNALED(status):
        return f"by {signal.Signals(os.WTERMSIG(status)).name}"
    return f"exit code {os.WEXITSTATUS(status)}"
