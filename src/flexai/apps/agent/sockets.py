"""Unix sockets of the agent, and who is on the other end."""

import os
import socket
import struct
from dataclasses import dataclass
from pathlib import Path

from flexai.wire.errors import BadInput

_MAX_PATH = 107
_BACKLOG = 512


@dataclass(frozen=True, slots=True)
class Peer:
    """Who connected, by the kernel's word (pid of our namespace)."""

    pid: int
    uid: int
    gid: int


def listen(path: Path, kind: socket.SocketKind, mode: int) -> socket.socket:
    """A listening socket at ``path``; the caller holds the directory's lock, so what lies there is left over.

    Raises:
        BadInput: it cannot be made.
    """
    if len(os.fsencode(path)) > _MAX_PATH:
        raise BadInput("--run-dir", str(path.parent), "makes a socket path too long", "Choose a shorter directory")
    listener = socket.socket(socket.AF_UNIX, kind)
    try:
        path.unlink(missing_ok=True)
        listener.bind(str(path))
        path.chmod(mode)
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise BadInput(str(path), str(error), "cannot be listened on", "Choose another --run-dir") from None
    listener.setblocking(False)
    return listener


def peer(connection: socket.socket) -> Peer:
    """Who is on the other end."""
    size = struct.calcsize("3i")
    return Peer(*struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)))
