"""The output of jobs: files that their own processes write, so nothing about them is trusted."""

import asyncio
import os
import stat
from collections.abc import AsyncIterator, Callable
from pathlib import Path

_CHUNK_BYTES = 64 << 10
_POLL_S = 0.2


async def read_output(
    path: Path, offset: int, *, follow: bool, is_over: Callable[[], bool], max_bytes: int | None = None
) -> AsyncIterator[bytes]:
    """What the file holds from ``offset`` on; with ``follow`` also what comes, until ``is_over`` and all is read.

    A negative offset counts from the end. A file that does not exist (yet) is an empty one.
    """
    loop = asyncio.get_running_loop()
    descriptor: int | None = None
    left = max_bytes
    try:
        while left is None or left > 0:
            # Asked before reading: what was written before the end is then read before we stop.
            over = is_over()
            if descriptor is None and (descriptor := await loop.run_in_executor(None, open_regular, path)) is not None:
                size = os.fstat(descriptor).st_size
                offset = max(0, size + offset) if offset < 0 else offset
            chunk = b""
            if descriptor is not None:
                size = _CHUNK_BYTES if left is None else min(_CHUNK_BYTES, left)
                chunk = await loop.run_in_executor(None, os.pread, descriptor, size, offset)
            if chunk:
                offset += len(chunk)
                left = None if left is None else left - len(chunk)
                yield chunk
            elif over or not follow:
                return
            else:
                await asyncio.sleep(_POLL_S)
    finally:
        if descriptor is not None:
            os.close(descriptor)


def open_regular(path: Path) -> int | None:
    """A descriptor of a regular file; None if there is none, or something else stands in its place."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        return None
    return descriptor
