"""The arbiter's figures (``<run>/usage``), read under their seqlock."""

import mmap
import os
import time
from pathlib import Path

from flexai.ports import DeviceUsage, TenantUsage, Usage
from flexai.wire import arbiter
from flexai.wire.errors import BadInput

_TRIES = 100


class UsageFile:
    """``ports.UsageReader`` over the file; finds it again when an arbiter made a new one."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._map: mmap.mmap | None = None
        self._inode = 0

    def read(self) -> Usage | None:
        """See ``ports.UsageReader``."""
        mapped = self._mapped()
        if mapped is None:
            return None
        table = None
        for _ in range(_TRIES):
            copy = mapped[: arbiter.USAGE_BYTES]
            after = mapped[arbiter.USAGE_SEQ_AT : arbiter.USAGE_SEQ_AT + 4]
            before = copy[arbiter.USAGE_SEQ_AT : arbiter.USAGE_SEQ_AT + 4]
            if before == after and not before[0] & 1:
                try:
                    table = arbiter.usage(copy)
                except BadInput:
                    return None
                break
        if table is None:
            return None
        return Usage(
            time.monotonic_ns(), table.arbiter_pid, table.heartbeat_ns,
            tuple(
                DeviceUsage(
                    d.uuid, d.backend, d.source, d.busy_ns, d.control_ns, d.n_control, d.log_dropped, d.note,
                    d.round_ns, d.known_ns,
                )
                for d in table.devices
            ),
            tuple(
                TenantUsage(
                    e.tenant, e.uuid, e.held_ns, e.stopped_ns, e.borrowed_ns, e.wanted_ns, e.n_turns, e.n_stops,
                    e.state, e.n_processes, e.hostile, arbiter.FROZEN_BY.get(e.frozen, "signal"), e.rescued,
                )
                for e in table.entries
            ),
        )  # fmt: skip

    def _mapped(self) -> mmap.mmap | None:
        try:
            status = self._path.stat()
        except OSError:
            return None
        if status.st_size < arbiter.USAGE_BYTES:
            return None
        if self._map is None or status.st_ino != self._inode:
            descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                self._map = mmap.mmap(descriptor, arbiter.USAGE_BYTES, prot=mmap.PROT_READ)
            finally:
                os.close(descriptor)
            self._inode = status.st_ino
        return self._map
