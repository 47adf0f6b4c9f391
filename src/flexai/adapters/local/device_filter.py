"""Which device nodes a cgroup of version 2 may open: a program of a few instructions that the kernel asks each time.

Version 2 has no ``devices`` controller; a program of type ``BPF_PROG_TYPE_CGROUP_DEVICE`` takes its place
(Documentation/admin-guide/cgroup-v2.rst, "Device controller"; structures of include/uapi/linux/bpf.h). Programs of one
group and of those above it all have to agree, so that what a container or systemd has forbidden stays forbidden.
"""

import ctypes
import os
import platform
import struct
from collections.abc import Iterable
from pathlib import Path

Node = tuple[int, int]
"""(major, minor) of a character device."""

_SYSCALL = {"x86_64": 321, "aarch64": 280}
_PROG_LOAD, _PROG_ATTACH, _PROG_DETACH, _PROG_GET_FD_BY_ID, _PROG_QUERY = 5, 8, 9, 13, 16
_TYPE_CGROUP_DEVICE, _ATTACH_CGROUP_DEVICE, _ALLOW_MULTI = 15, 6, 2
_CHARACTER = 2  # BPF_DEVCG_DEV_CHAR
_MAX_PROGRAMS = 64
_LICENSE = b"Apache-2.0"


def deny(group: Path, nodes: Iterable[Node]) -> None:
    """Let processes of a group open every device node but these; replaces what was said of the group before.

    Raises:
        OSError: the kernel knows no such programs, or we may not load them.
    """
    directory = os.open(group, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        before = _attached(directory)
        program = _load(instructions(nodes))
        try:
            # The new one first: at no moment is more open than before and after.
            _bpf(_PROG_ATTACH, struct.pack("<4I", directory, program, _ATTACH_CGROUP_DEVICE, _ALLOW_MULTI))
        finally:
            os.close(program)
        for number in before:
            _detach(directory, number)
    finally:
        os.close(directory)


def character_nodes(files: Iterable[str]) -> list[Node]:
    """The numbers of those files that are there."""
    nodes = []
    for file in files:
        try:
            number = os.stat(file).st_rdev  # noqa: PTH116 (the device's number is what is asked)
        except OSError:
            continue
        nodes.append((os.major(number), os.minor(number)))
    return nodes


def instructions(nodes: Iterable[Node]) -> bytes:
    """The program: 0 (refused) for a character device among ``nodes``, else 1."""
    code = [
        _one(0x61, 2, 1, offset=0),  # r2 = access_type; its low half is the type of the device
        _one(0x57, 2, value=0xFFFF),
        _one(0x61, 3, 1, offset=4),  # r3 = major
        _one(0x61, 4, 1, offset=8),  # r4 = minor
        _one(0x15, 2, offset=2, value=_CHARACTER),
        _one(0xB7, 0, value=1),
        _one(0x95),
    ]
    for major, minor in nodes:
        code += [
            _one(0x55, 3, offset=3, value=major),  # another major: to the next node
            _one(0x55, 4, offset=2, value=minor),
            _one(0xB7, 0, value=0),
            _one(0x95),
        ]
    return b"".join([*code, _one(0xB7, 0, value=1), _one(0x95)])


def _one(code: int, to: int = 0, of: int = 0, offset: int = 0, value: int = 0) -> bytes:
    return struct.pack("<BBhi", code, to | of << 4, offset, value)


def _load(code: bytes) -> int:
    text, license_text = ctypes.create_string_buffer(code, len(code)), ctypes.create_string_buffer(_LICENSE)
    places = ctypes.addressof(text), ctypes.addressof(license_text)
    return _bpf(_PROG_LOAD, struct.pack("<IIQQIIQII", _TYPE_CGROUP_DEVICE, len(code) // 8, *places, 0, 0, 0, 0, 0))


def _attached(directory: int) -> list[int]:
    ids = (ctypes.c_uint32 * _MAX_PROGRAMS)()
    given = struct.pack("<4IQI4x", directory, _ATTACH_CGROUP_DEVICE, 0, 0, ctypes.addressof(ids), _MAX_PROGRAMS)
    answer = ctypes.create_string_buffer(given, len(given))
    _call(_PROG_QUERY, answer)
    (count,) = struct.unpack_from("<I", answer.raw, 24)
    return list(ids[:count])


def _detach(directory: int, number: int) -> None:
    program = _bpf(_PROG_GET_FD_BY_ID, struct.pack("<3I", number, 0, 0))
    try:
        _bpf(_PROG_DETACH, struct.pack("<4I", directory, program, _ATTACH_CGROUP_DEVICE, 0))
    finally:
        os.close(program)


def _bpf(command: int, given: bytes) -> int:
    return _call(command, ctypes.create_string_buffer(given, len(given)))


def _call(command: int, given: "ctypes.Array[ctypes.c_char]") -> int:
    number = _SYSCALL.get(platform.machine())
    if number is None:
        raise OSError(f"no bpf call known for {platform.machine()}")
    libc = ctypes.CDLL(None, use_errno=True)
    answer = int(libc.syscall(number, command, given, len(given)))
    if answer < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return answer
