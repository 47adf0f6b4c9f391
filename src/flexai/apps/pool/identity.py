"""Who is calling: the kernel's word for it (SO_PEERCRED of the Unix socket), never the caller's own."""

import contextlib
import grp
import os
import pwd
import socket
import struct
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

if TYPE_CHECKING:
    import asyncio

_UCRED = struct.Struct("3i")
_MAX_HEADER_BYTES = 64 << 10
_MAX_CONNECTIONS_PER_USER = 1024
_FULL = (
    b"HTTP/1.1 %s\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: %d\r\n\r\n%s"  # one answer
)
_connections: Counter[int] = Counter()


@dataclass(frozen=True, slots=True)
class Peer:
    """A caller.

    Attributes:
        pid: of the process that connected.
        uid: its user.
        gid: its group.
        user: the user's name, or ``uid1234`` where the machine knows none.
    """

    pid: int
    uid: int
    gid: int
    user: str

    @property
    def is_operator(self) -> bool:
        """Whether it may see and change everything: root, and who runs the pool."""
        return self.uid in (0, os.geteuid())

    def can_be_served(self) -> bool:
        """Whether this pool may run and hold processes as the caller: as root everybody's, else only its own user's."""
        return os.geteuid() in (0, self.uid)

    def is_among(self, users: tuple[str, ...]) -> bool:
        """Whether a list of users, and of groups written ``@name``, has this caller."""
        if self.user in users:
            return True
        groups = {name[1:] for name in users if name.startswith("@")}
        return bool(groups) and not groups.isdisjoint(group_names(self.user, self.gid))

    def owns(self, uid: int) -> bool:
        """Whether jobs of ``uid`` are its business."""
        return self.uid == uid or self.is_operator


def peer_of(connection: socket.socket) -> Peer:
    """Who is at the other end of a Unix stream socket."""
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    pid, uid, gid = _UCRED.unpack(raw)
    return Peer(pid, uid, gid, user_name(uid))


@lru_cache(maxsize=4096)
def user_name(uid: int) -> str:
    """The name of a user."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid{uid}"


def group_names(user: str, gid: int) -> set[str]:
    """Names of the groups that a user is in now."""
    try:
        gids = os.getgrouplist(user, gid)
    except (OSError, KeyError):
        gids = [gid]
    names = set()
    for each in gids:
        with contextlib.suppress(KeyError):
            names.add(grp.getgrgid(each).gr_name)
    return names


class PeerProtocol(HttpToolsProtocol):
    """HTTP/1.1 whose requests carry their caller as ``request.state.peer``, within bounds that nobody crosses."""

    _peer: Peer | None = None
    _header_bytes = 0

    def connection_made(self, transport: "asyncio.Transport") -> None:  # type: ignore[override]
        """Learn who connected."""
        super().connection_made(transport)
        self._peer = peer_of(cast("socket.socket", transport.get_extra_info("socket")))
        self.app_state = {**self.app_state, "peer": self._peer}
        _connections[self._peer.uid] += 1
        if _connections[self._peer.uid] > _MAX_CONNECTIONS_PER_USER and not self._peer.is_operator:
            self._refuse(b"503 Service Unavailable", b"TooManyConnections", b"Close connections that are not used")

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        if self._peer is not None:
            _connections[self._peer.uid] -= 1
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        """Start counting a request's headers."""
        self._header_bytes = 0
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        """Count the request line with the headers."""
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Refuse headers without end; what one request may take is bounded before it is understood."""
        self._count(len(name) + len(value))
        super().on_header(name, value)

    def _count(self, n_bytes: int) -> None:
        before, self._header_bytes = self._header_bytes, self._header_bytes + n_bytes
        if before <= _MAX_HEADER_BYTES < self._header_bytes:
            self._refuse(b"431 Request Header Fields Too Large", b"TooLarge", b"Send smaller headers")

    def _refuse(self, status: bytes, code: bytes, remedy: bytes) -> None:
        body = b'{"code":"%s","message":"Refused.","thing":"connection","value":null,"remedy":"%s"}' % (code, remedy)
        if not self.transport.is_closing():
            self.transport.write(_FULL % (status, len(body), body))
            self.transport.close()
