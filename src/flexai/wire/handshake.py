"""Shim and agent, bytes of ``api/flexai_handshake.h``."""

import struct
from dataclasses import dataclass

from flexai.wire.errors import BadInput

MAGIC = 0x4F4C4846
VERSION = 1
_HELLO = struct.Struct("<IIII32sI12x")
_REPLY = struct.Struct("<IIIII108s")
HELLO_BYTES = _HELLO.size
REPLY_BYTES = _REPLY.size
_MAX_SLOT = 255
assert (HELLO_BYTES, REPLY_BYTES) == (64, 128)


@dataclass(frozen=True, slots=True)
class Hello:
    """What a shim says of itself.

    Attributes:
        slot: its place in the tenant's ledger.
        build: version text of the shim.
        n_unknown: driver symbols it was asked for and does not know.
    """

    slot: int
    build: str
    n_unknown: int


def hello(data: bytes) -> Hello:
    """Decode a greeting.

    Raises:
        BadInput: not one of this version.
    """
    if len(data) != HELLO_BYTES:
        raise BadInput("hello", len(data), f"is not {HELLO_BYTES} bytes long", "Use the shim of this FlexAI")
    magic, version, size, slot, build, n_unknown = _HELLO.unpack(data)
    if (magic, version, size) != (MAGIC, VERSION, HELLO_BYTES) or slot > _MAX_SLOT:
        raise BadInput("hello", f"version {version}", f"is not version {VERSION}", "Use the shim of this FlexAI")
    return Hello(slot, build.split(b"\0", 1)[0].decode("ascii", "replace"), n_unknown)


def reply(accepted: bool, host_pid: int, reason: str = "") -> bytes:
    """The agent's answer."""
    return _REPLY.pack(MAGIC, VERSION, REPLY_BYTES, int(accepted), host_pid, reason.encode()[:107])
