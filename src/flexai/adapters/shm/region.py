"""The two files of a tenant's region, as the agent handles them.

The ledger is never mapped here: a tenant may cut its file at any time, and a mapped page that is gone would kill the
reader; its bytes are read. What must change atomically in it (the charge of a dead process) is done by the program
``flexai-reap``, which may die of it alone.
"""

import mmap
import os
import struct
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Self

from flexai.wire import region
from flexai.wire.region import Ledger, Limits, Slot


class PolicyFile:
    """The agent's hand on ``<dir>/policy``."""

    def __init__(self, path: Path) -> None:
        """Map an existing policy file.

        Raises:
            BadInput: another magic, version or size.
            OSError: it cannot be opened.
        """
        with path.open("r+b") as file:
            head = file.read(region.HEAD.size)
            region.check_policy(head, os.fstat(file.fileno()).st_size, str(path))
            self._map = mmap.mmap(file.fileno(), region.POLICY_BYTES)

    @classmethod
    def create(cls, path: Path, tenant: str, cards: list[Limits]) -> Self:
        """Make the file complete under another name, then move it in place.

        Raises:
            BadInput: a value does not fit.
            OSError: it cannot be written.
        """
        image = bytearray(region.policy_image(tenant))
        region.write_limits(image, cards)
        _replace(path, bytes(image), 0o644)
        return cls(path)

    def write(self, cards: list[Limits]) -> None:
        """Change the limits; a reader sees all of the change or nothing.

        Raises:
            BadInput: a value does not fit.
        """
        region.write_limits(self._map, cards)

    def read(self) -> tuple[str, list[Limits]]:
        """The tenant and its limits."""
        return region.read_limits(self._map)

    def close(self) -> None:
        """Let go of the mapping."""
        self._map.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _replace(path: Path, image: bytes, mode: int, owner: tuple[int, int] | None = None) -> None:
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    part.unlink(missing_ok=True)
    fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        os.fchmod(fd, mode)
        if owner is not None:
            os.fchown(fd, *owner)
        written = 0
        while written < len(image):
            written += os.write(fd, image[written:])
    finally:
        os.close(fd)
    part.rename(path)


def create_ledger(path: Path, owner: tuple[int, int] | None = None) -> None:
    """Make an empty ledger.

    Args:
        path: ``<dir>/ledger``.
        owner: uid and gid whose processes charge themselves in it; None leaves it ours.

    Raises:
        OSError: it cannot be written.
    """
    _replace(path, region.ledger_image(), 0o600, owner)


def read_ledger(path: Path) -> Ledger:
    """Read ``<dir>/ledger``.

    Raises:
        BadInput: another magic, version or size.
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        return region.decode_ledger(file.read(region.LEDGER_BYTES + 1), str(path))


def set_host_pid(path: Path, slot: int, host_pid: int) -> None:
    """Write into a slot which pid its process has on the host; the arbiter reads it.

    Raises:
        BadInput: no such slot.
        OSError: it cannot be written.
    """
    at = region.host_pid_at(slot)
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.pwrite(fd, struct.pack("<I", host_pid), at)
    finally:
        os.close(fd)


def own_pid_ns() -> int:
    """Inode of our pid namespace; 0 where it cannot be read."""
    try:
        return int(str(Path("/proc/self/ns/pid").readlink()).removeprefix("pid:[").removesuffix("]"))
    except (OSError, ValueError):
        return 0


def dead_slots(ledger: Ledger, pid_ns: int) -> list[Slot]:
    """Slots whose process is gone: by pid where it shares the namespace `pid_ns` (ours), by host pid elsewhere."""
    return [slot for slot in ledger.slots if _gone(slot, pid_ns)]


def _gone(slot: Slot, pid_ns: int) -> bool:
    same = slot.pid_ns == pid_ns and pid_ns != 0
    pid = slot.pid if same else slot.host_pid
    if pid == 0:
        return False  # nobody knows yet who that is
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(") ")[2].split()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    state, n_threads, start_ticks = fields[0], int(fields[17]), int(fields[19])
    if same and slot.start_ticks and slot.start_ticks != start_ticks:
        return True
    return state in "ZX" and n_threads <= 1  # a leader may end before its threads do


def reap(directory: Path, slots: list[Slot], program: Path, timeout_s: float = 5.0) -> int:
    """Take back what dead processes charged.

    Args:
        directory: the tenant's.
        slots: from `dead_slots`.
        program: path of ``flexai-reap``.
        timeout_s: for the program.

    Returns:
        How many were released.
    """
    if not slots:
        return 0
    wanted = [f"{slot.index}:{slot.pid}:{slot.start_ticks}" for slot in slots]
    try:
        done = subprocess.run(
            [program, directory, *wanted], capture_output=True, text=True, timeout=timeout_s, check=False
        )
    except subprocess.TimeoutExpired:
        return 0
    return int(done.stdout or 0) if done.returncode == 0 else 0
