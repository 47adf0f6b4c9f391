"""One pool to a card: whoever manages a real card holds a name that the kernel gives to one process at a time.

The name is an abstract Unix socket, so root and users see the same ones, nothing lies on a disk, and it is free again
the moment its holder is gone, however it ended. Nobody answers there: the kernel tells whoever connects who listens.
Processes in another network namespace (a container that has its own) have names of their own.
"""

import contextlib
import errno
import os
import pwd
import socket
import struct
from collections.abc import Iterable
from pathlib import Path

from flexai.wire.errors import BadInput

_PREFIX = "\0flexai/card/"
_CREDENTIALS = struct.Struct("3i")


def claim_cards(uuids: Iterable[str]) -> list[socket.socket]:
    """Claim these cards for as long as the sockets answered live.

    Raises:
        BadInput: another pool manages one of them; which, as far as this user may know it.
    """
    claims: list[socket.socket] = []
    for uuid in uuids:
        claim = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        claims.append(claim)
        try:
            claim.bind(_PREFIX + uuid)
            claim.listen()
        except OSError as error:
            for each in claims:
                each.close()
            if error.errno != errno.EADDRINUSE:
                raise
            who, state_dir = _holder(uuid)
            remedy = f"Use that pool, or stop it first: `flexai down{f' --state-dir {state_dir}' if state_dir else ''}`"
            raise BadInput("card", uuid, f"is managed by another pool already ({who})", remedy) from None
    return claims


def _holder(uuid: str) -> tuple[str, str]:
    """Who manages the card, for people, and the state folder of that pool if it can be read."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking, contextlib.suppress(OSError):
        asking.setblocking(False)
        asking.connect(_PREFIX + uuid)
        pid, uid, _ = _CREDENTIALS.unpack(asking.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
        who = f"pid {pid}, user {_user_name(uid)}" if pid else f"user {_user_name(uid)}, of another pid namespace"
        state_dir = _state_dir(pid) if pid else ""
        return (f"{who}, state folder {state_dir}" if state_dir else who), state_dir
    return "which does not say who it is", ""


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _state_dir(pid: int) -> str:
    """What the command line of an agent says."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        return os.fsdecode(words[words.index(b"--state-dir") + 1])
    except (OSError, ValueError, IndexError):
        return ""
