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
from itertools import pairwise
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
            who, options = _holder(uuid)
            use, stop = (f" {name} {options[name]}" if name in options else "" for name in ("--run-dir", "--state-dir"))
            remedy = f"Use that pool (`flexai status{use}`), or stop it first: `flexai down{stop}`"
            raise BadInput("card", uuid, f"is managed by another pool already ({who})", remedy) from None
    return claims


def _holder(uuid: str) -> tuple[str, dict[str, str]]:
    """Who manages the card, for people, and the folders of that pool if they can be read, by option."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking, contextlib.suppress(OSError):
        asking.setblocking(False)
        asking.connect(_PREFIX + uuid)
        pid, uid, _ = _CREDENTIALS.unpack(asking.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
        who = f"pid {pid}, user {_user_name(uid)}" if pid else f"user {_user_name(uid)}, of another pid namespace"
        options = _options(pid) if pid else {}
        return f"{who}, state folder {options['--state-dir']}" if "--state-dir" in options else who, options
    return "which does not say who it is", {}


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _options(pid: int) -> dict[str, str]:
    """What the command line of an agent says."""
    try:
        words = [os.fsdecode(word) for word in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")]
    except OSError:
        return {}
    return {name: value for name, value in pairwise(words) if name in {"--run-dir", "--state-dir"}}
