"""Files that are whole or not there: written beside, synced, and renamed."""

import fcntl
import os
from pathlib import Path

from flexai.wire.errors import BadInput


def replace_file(path: Path, data: bytes, mode: int = 0o600, *, durable: bool = True) -> None:
    """Put ``data`` at ``path``, durably unless told otherwise; whoever reads sees the old bytes or the new.

    Raises:
        OSError: it cannot be written; the old bytes stay.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            if durable:
                os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    if durable:
        sync_directory(path.parent)


def create_file(path: Path, data: bytes) -> bool:
    """Make the file with these bytes, whole, unless it is there; whether it was made here."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_bytes(data)
    try:
        os.link(temporary, path)
    except FileExistsError:
        return False
    finally:
        temporary.unlink(missing_ok=True)
    sync_directory(path.parent)
    return True


def sync_directory(path: Path) -> None:
    """Make renames in a directory durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def take_lock(path: Path) -> int:
    """Lock a file until the process ends; its descriptor.

    Raises:
        BadInput: another process has it.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise BadInput(
            str(path.parent), "its lock", "is in use by another agent", "Use that agent, stop it, or give --state-dir"
        ) from None
    return descriptor
