"""As much of HTTP/1.1 as the pool speaks, over a Unix socket: one request, one answer, then the connection ends.

The standard library's client takes 25 ms to import, a sixth of what ``flexai run`` may cost before its command starts.
"""

import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO, cast

_MAX_SOCKET_PATH = 107
_MAX_LINE = 65536
_MAX_HEADERS = 200


class BrokenAnswer(ValueError):
    """What came is no answer, or not all of it."""


class Answer:
    """The status of an answer, and its body as a stream.

    Raises:
        BrokenAnswer: from every method, when the answer is malformed or ends too early.
        OSError: the connection failed.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        version, _, rest = self._line().partition(b" ")
        status = rest[:3]
        if not version.startswith(b"HTTP/1.") or not status.isdigit():
            raise BrokenAnswer("it is not HTTP")
        self.status = int(status)
        headers = self._headers()
        self._is_chunked = headers.get(b"transfer-encoding", b"").lower() == b"chunked"
        length = headers.get(b"content-length", b"")
        if length and not length.isdigit():
            raise BrokenAnswer("its length is no number")
        self._left: int | None = 0 if self._is_chunked else int(length) if length else None
        self._is_over = False
        self._kept = b""

    def close(self) -> None:
        """Forget what is left."""
        self._stream.close()

    def read(self) -> bytes:
        """All that is left of the body."""
        parts = []
        while part := self.read1(1 << 20):
            parts.append(part)
        return b"".join(parts)

    def read1(self, n_bytes: int) -> bytes:
        """What is there, at least one byte and at most ``n_bytes``; empty at the end."""
        if self._kept:
            part, self._kept = self._kept[:n_bytes], self._kept[n_bytes:]
            return part
        if self._is_chunked and self._left == 0 and not self._is_over:
            self._next_chunk()
        if self._is_over or self._left == 0:
            return b""
        part = self._some(n_bytes if self._left is None else min(n_bytes, self._left))
        if not part:
            if self._left is not None:
                raise BrokenAnswer("it ended early")
            self._is_over = True
        elif self._left is not None:
            self._left -= len(part)
            if self._is_chunked and self._left == 0 and self._line():
                raise BrokenAnswer("a chunk is longer than it says")
        return part

    def readline(self) -> bytes:
        """The next line of the body with its end; what is left where the last one has none; empty at the end."""
        line = b""
        while b"\n" not in line:
            part = self.read1(_MAX_LINE)
            if not part:
                return line
            line += part
        at = line.index(b"\n") + 1
        self._kept = line[at:] + self._kept
        return line[:at]

    def _some(self, n_bytes: int) -> bytes:
        return cast("bytes", self._stream.read1(n_bytes))  # type: ignore[attr-defined]

    def _next_chunk(self) -> None:
        size = self._line().partition(b";")[0].strip()
        try:
            self._left = int(size, 16)
        except ValueError:
            raise BrokenAnswer("a chunk has no size") from None
        if self._left < 0:
            raise BrokenAnswer("a chunk has no size")
        if self._left == 0:
            self._is_over = True
            self._headers()

    def _headers(self) -> dict[bytes, bytes]:
        found: dict[bytes, bytes] = {}
        while line := self._line():
            name, _, value = line.partition(b":")
            found[name.strip().lower()] = value.strip()
            if len(found) > _MAX_HEADERS:
                raise BrokenAnswer("it has too many headers")
        return found

    def _line(self) -> bytes:
        line = self._stream.readline(_MAX_LINE + 1)
        if not line.endswith(b"\n"):
            raise BrokenAnswer("it ended early" if len(line) <= _MAX_LINE else "a line is too long")
        return line.rstrip(b"\r\n")


def ask(
    connection: socket.socket, method: str, target: str, headers: Mapping[str, str], payload: bytes | None
) -> Answer:
    """Send a request and read the head of its answer. Raises as :class:`Answer`."""
    lines = [f"{method} {target} HTTP/1.1", "Host: pool", "Connection: close"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    if payload is not None:
        lines.append(f"Content-Length: {len(payload)}")
    connection.sendall("\r\n".join([*lines, "", ""]).encode("ascii") + (payload or b""))
    return Answer(cast("BinaryIO", connection.makefile("rb")))


def connected(path: Path, timeout_s: float | None) -> socket.socket:
    """A connection; a path longer than the kernel takes goes through a descriptor of its folder.

    Raises:
        OSError: nobody listens there.
    """
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(timeout_s)
    try:
        if len(os.fsencode(path)) <= _MAX_SOCKET_PATH:
            connection.connect(str(path))
            return connection
        folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
        try:
            connection.connect(f"/proc/self/fd/{folder}/{path.name}")
        finally:
            os.close(folder)
    except OSError:
        connection.close()
        raise
    return connection
