"""Tenants' regions: ``<run>/tenants/<member>/{policy,ledger}``.

The policy belongs to us and is mapped; the ledger belongs to the tenant, who may cut it at any moment, so it is read
and written by calls, never through a mapping, and reaped by a program of its own (``flexai-reap``).
"""

import contextlib
import mmap
import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import flexai_native

from flexai.model import Grant
from flexai.ports import LedgerSlot
from flexai.wire import region
from flexai.wire.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Mapping

_REAP_WITHIN_S = 5.0


class RegionFiles:
    """``ports.Regions`` over files in shared memory."""

    def __init__(self, tenants_dir: Path) -> None:
        self._dir = tenants_dir
        self.context_bytes: Mapping[str, int] = {}
        self._dir.mkdir(parents=True, exist_ok=True, mode=0o755)

    def directory(self, name: str) -> str:
        """See ``ports.Regions``."""
        return str(self._dir / name)

    def put(self, name: str, uid: int, gid: int, grants: tuple[Grant, ...]) -> str:
        """See ``ports.Regions``.

        Raises:
            BadInput: the grants do not fit a region.
        """
        directory = self._dir / name
        directory.mkdir(exist_ok=True, mode=0o755)
        if not self._is_policy(directory / "policy", name):
            _create(directory / "policy", region.policy_image(name), 0o644, None)
        if not self._is_ledger(directory / "ledger"):
            _create(directory / "ledger", region.ledger_image(), 0o600, (uid, gid))
        limits = [
            region.Limits(
                g.device,
                g.memory_bytes,
                g.compute_milli,
                g.limit_milli,
                g.tenant_class.value,
                self.context_bytes.get(g.device, 0),
            )
            for g in grants
        ]
        with (directory / "policy").open("r+b") as file, mmap.mmap(file.fileno(), region.POLICY_BYTES) as policy:
            region.write_limits(policy, limits)
        return str(directory)

    @staticmethod
    def _is_policy(path: Path, name: str) -> bool:
        try:
            return region.read_limits(bytearray(path.read_bytes()))[0] == name
        except (OSError, BadInput):
            return False

    @staticmethod
    def _is_ledger(path: Path) -> bool:
        try:
            region.decode_ledger(path.read_bytes())
        except (OSError, BadInput):
            return False
        return True

    def slots(self, name: str) -> list[LedgerSlot]:
        """See ``ports.Regions``; a ledger that its tenant spoilt has none."""
        try:
            ledger = region.decode_ledger((self._dir / name / "ledger").read_bytes())
        except (OSError, BadInput):
            return []
        return [
            LedgerSlot(s.index, s.pid, s.host_pid, s.start_ticks, s.pid_ns, s.heartbeat_ns, s.charged_bytes)
            for s in ledger.slots
        ]

    def charged(self, name: str) -> tuple[int, ...]:
        """See ``ports.Regions``."""
        try:
            with (self._dir / name / "ledger").open("rb", buffering=0) as file:
                return region.charged(file.read(region.LEDGER_HEAD.size))
        except (OSError, BadInput):
            return (0,) * region.MAX_DEVICES

    def introduce(self, name: str, slot: int, host_pid: int) -> None:
        """See ``ports.Regions``."""
        with contextlib.suppress(OSError):
            descriptor = os.open(self._dir / name / "ledger", os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                if os.fstat(descriptor).st_size == region.LEDGER_BYTES:
                    os.pwrite(descriptor, host_pid.to_bytes(4, "little"), region.host_pid_at(slot))
            finally:
                os.close(descriptor)

    def reap(self, name: str, dead: list[LedgerSlot]) -> int:
        """See ``ports.Regions``."""
        if not dead:
            return 0
        argv = [str(flexai_native.program("flexai-reap")), self.directory(name)]
        argv += [f"{slot.index}:{slot.pid}:{slot.start_ticks}" for slot in dead]
        try:
            done = subprocess.run(argv, capture_output=True, timeout=_REAP_WITHIN_S, check=False)
            return int(done.stdout)
        except (OSError, ValueError, subprocess.TimeoutExpired):
            return 0

    def remove(self, name: str) -> None:
        """See ``ports.Regions``."""
        shutil.rmtree(self._dir / name, ignore_errors=True)

    def names(self) -> list[str]:
        """See ``ports.Regions``."""
        try:
            return sorted(entry.name for entry in self._dir.iterdir() if entry.is_dir())
        except OSError:
            return []


def _create(path: Path, image: bytes, mode: int, owner: tuple[int, int] | None) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with contextlib.suppress(FileNotFoundError):
        temporary.unlink()
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(image)
        os.fchmod(file.fileno(), mode)
        if owner is not None and os.geteuid() == 0:
            os.fchown(file.fileno(), *owner)
    temporary.replace(path)
