"""One ``up`` per state folder. The kernel's lock dies with its holder, so it is never stale."""

from __future__ import annotations

import fcntl
import os
from typing import TYPE_CHECKING

from flexai.wire.errors import BadInput

if TYPE_CHECKING:
    from pathlib import Path

_NAME = "up.lock"


class AlreadyUp(BadInput):
    """Another ``up`` holds this state."""


def take_lock(state_dir: Path, run_dir: Path) -> int:
    """Take the lock and write pid and run folder into it; returns the descriptor, which holds it while open.

    Raises:
        AlreadyUp: another one holds it.
    """
    handle = os.open(state_dir / _NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.read(handle, 100).decode().split("\n")[0]
        os.close(handle)
        remedy = "Use it (`flexai status`), stop it (`flexai down`), or give another --state-dir"
        raise AlreadyUp("--state-dir", str(state_dir), f"has a pool running already (pid {holder})", remedy) from None
    write_holder(handle, run_dir)
    return handle


def write_holder(handle: int, run_dir: Path) -> None:
    """Say who holds the lock (again after a fork)."""
    os.ftruncate(handle, 0)
    os.pwrite(handle, f"{os.getpid()}\n{run_dir}\n".encode(), 0)


def lock_holder(state_dir: Path) -> int | None:
    """Pid of the ``up`` that holds this state; None when none does."""
    try:
        handle = os.open(state_dir / _NAME, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        text = os.read(handle, 100).decode().split("\n")[0]
        return int(text) if text.isdigit() else None
    finally:
        os.close(handle)
    return None
