"""One pool per state directory: a lock that the kernel releases with the process."""

import fcntl
import os
from pathlib import Path

from flexai.wire.errors import BadInput


def take_lock(state_dir: Path) -> int:
    """Lock the state directory until the process ends; the descriptor of the lock file.

    Raises:
        BadInput: another pool has it.
    """
    path = state_dir / "pool.lock"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        pid = os.read(descriptor, 32).decode("ascii", "replace").strip() or "unknown"
        os.close(descriptor)
        raise BadInput(
            str(state_dir), f"pid {pid}", "is in use by another pool", "Use that pool, stop it, or give --state-dir"
        ) from None
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    return descriptor
