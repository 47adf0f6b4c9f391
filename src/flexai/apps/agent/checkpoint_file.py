"""The checkpoint on disk: many saves at once become one write, and a second copy stands by.

The copy is for a file that something else has spoilt: running members would be ended without it. It is not synced,
since what ran is gone with a machine that goes down, and it is taken only where the file is there and cannot be read:
who moves the file away means it.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from pathlib import Path

from flexai.adapters.local.files import replace_file
from flexai.node import Tenant
from flexai.wire import checkpoint
from flexai.wire.errors import BadInput

log = logging.getLogger("flexai.agent")


class CheckpointFile:
    """Durable copy of the machine's tenants.

    Args:
        path: of the file.
        tenants: gives what to save, at the moment of writing.
    """

    def __init__(self, path: Path, tenants: Callable[[], list[Tenant]]) -> None:
        self._path, self._tenants = path, tenants
        self._copy = path.with_suffix(".copy.json")
        self._writing: asyncio.Task[None] | None = None
        self._next: asyncio.Task[None] | None = None

    def load(self) -> tuple[list[Tenant], str]:
        """What was saved last, and a note when that could not be read (it is then moved aside)."""
        try:
            data = self._path.read_bytes()
        except FileNotFoundError:
            return [], ""
        try:
            return checkpoint.decode(data), ""
        except BadInput as error:
            aside = self._path.with_suffix(".unreadable")
            self._path.replace(aside)
            note = f"the checkpoint was moved to {aside}: {error}"
        try:
            return checkpoint.decode(self._copy.read_bytes()), f"{note}. Its copy was read instead"
        except (OSError, BadInput):
            return [], note

    async def save(self) -> None:
        """Return when what is true now is on the disk.

        Raises:
            OSError: it is not.
        """
        if self._next is None:
            self._next = asyncio.create_task(self._write_after(self._writing))
        await asyncio.shield(self._next)

    async def _write_after(self, before: asyncio.Task[None] | None) -> None:
        # Whoever asks while a write is under way waits for the next one, together with all who ask meanwhile.
        if before is not None:
            await asyncio.wait([before])
        self._writing, self._next = self._next, None
        data = checkpoint.encode(self._tenants(), int(time.time() * 1000))
        await asyncio.to_thread(self._write, data)

    def _write(self, data: bytes) -> None:
        replace_file(self._path, data)
        replace_file(self._copy, data, durable=False)
