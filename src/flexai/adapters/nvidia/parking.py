"""``python -I -S parking.py park PID``, ``... wake PID... [UUID=UUID...]``: a script of the standard library alone.

Device memory to the host, and back, by the driver's checkpoint interface (570 and later), from outside the process. 4
MiB stay on the card, and NVML lists it no more (H200, 580.159.04), so who is woken is asked of all that may be.

Back to other cards since CUDA 13.0 (driver 580): ``cuCheckpointProcessRestore`` takes pairs of UUIDs, one for *every*
card that the process had at its ``cuInit``, used or not, each onto a card of the same chip (CUDA driver API, 6.37;
NVIDIA's cuda-checkpoint, issue 35). Which these are depends on what device nodes it may open, and nobody tells it of a
parked process; so all cards of the machine are named first, and then those that it was granted. What the driver does
not take leaves it parked.
"""

import ctypes
import os
import sys
import uuid
from collections.abc import Callable, Sequence

_LOCK_WITHIN_MS = 30_000
_RUNNING, _LOCKED, _CHECKPOINTED = 0, 1, 2
_INVALID_VALUE = 1
_UUID_BYTES = 16

Cards = dict[str, str]
"""By card that a process left, the one that it comes back to."""


class _Arguments(ctypes.Structure):
    """Any of the interface's argument structures: zero but for the lock's timeout, and larger than each of them."""

    _fields_ = (("timeout_ms", ctypes.c_uint), ("reserved", ctypes.c_uint * 31))


class _Pair(ctypes.Structure):
    """``CUcheckpointGpuPair``."""

    _fields_ = (("left", ctypes.c_ubyte * _UUID_BYTES), ("comes", ctypes.c_ubyte * _UUID_BYTES))


class _RestoreArguments(ctypes.Structure):
    """``CUcheckpointRestoreArgs``: zero behind the pairs, and larger than the driver's 64 bytes."""

    _fields_ = (("pairs", ctypes.POINTER(_Pair)), ("n_pairs", ctypes.c_uint), ("reserved", ctypes.c_uint * 29))


class _DriverRefused(OSError):
    """The driver answered with an error; ``status`` is its number."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


def main(argv: Sequence[str]) -> int:
    """0 when it was moved; 1, with a sentence on standard error, when not."""
    what, pids = argv[0], [int(word) for word in argv[1:] if "=" not in word]
    to = dict(word.split("=", 1) for word in argv[1:] if "=" in word)
    os.environ.pop("CUDA_VISIBLE_DEVICES", None)  # of all cards of the machine is spoken here
    try:
        driver = ctypes.CDLL("libcuda.so.1")
        _call(driver, "cuInit", 0)
        for pid in pids:
            if what == "park":
                _park(driver, pid)
            else:
                _wake(driver, pid, to)
    except OSError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _park(driver: ctypes.CDLL, pid: int) -> None:
    state = _state(driver, pid)
    if state == _RUNNING:
        _call(driver, "cuCheckpointProcessLock", pid, ctypes.byref(_Arguments(timeout_ms=_LOCK_WITHIN_MS)))
    if state in {_RUNNING, _LOCKED}:
        try:
            _call(driver, "cuCheckpointProcessCheckpoint", pid, ctypes.byref(_Arguments()))
        except OSError:
            _call(driver, "cuCheckpointProcessUnlock", pid, ctypes.byref(_Arguments()))
            raise


def _wake(driver: ctypes.CDLL, pid: int, to: Cards) -> None:
    try:
        state = _state(driver, pid)
    except OSError:  # it never used a card
        return
    if state == _CHECKPOINTED and to:
        _restore_elsewhere(driver, pid, to)
    elif state == _CHECKPOINTED:
        _call(driver, "cuCheckpointProcessRestore", pid, ctypes.byref(_Arguments()))
    if state in {_CHECKPOINTED, _LOCKED}:
        _call(driver, "cuCheckpointProcessUnlock", pid, ctypes.byref(_Arguments()))


def _restore_elsewhere(driver: ctypes.CDLL, pid: int, to: Cards) -> None:
    machine = _cards(driver)
    maps = [whole_map(machine, to), to] if {*to, *to.values()} <= {*machine} else [to]
    for cards in maps:
        pairs = (_Pair * len(cards))()
        for pair, (left, comes) in zip(pairs, cards.items(), strict=True):
            pair.left[:], pair.comes[:] = _bytes_of(left), _bytes_of(comes)
        arguments = _RestoreArguments(pairs, len(cards))
        try:
            _call(driver, "cuCheckpointProcessRestore", pid, ctypes.byref(arguments))
        except _DriverRefused as error:
            if error.status != _INVALID_VALUE or cards is maps[-1]:
                raise
        else:
            return


def whole_map(machine: Sequence[str], to: Cards) -> Cards:
    """The map with every card of the machine in it once on each side: who has to make room swaps, others stay."""
    comes = {*to.values()}
    put_out = [card for card in machine if card in comes and card not in to]
    left = [card for card in machine if card in to and card not in comes]
    stay = {card: card for card in machine if card not in to and card not in comes}
    return {**to, **dict(zip(put_out, left, strict=True)), **stay}


def _cards(driver: ctypes.CDLL) -> list[str]:
    count, device, raw = ctypes.c_int(), ctypes.c_int(), (ctypes.c_ubyte * _UUID_BYTES)()
    _call(driver, "cuDeviceGetCount", ctypes.byref(count))
    found = []
    for ordinal in range(count.value):
        _call(driver, "cuDeviceGet", ctypes.byref(device), ordinal)
        _call(driver, "cuDeviceGetUuid_v2", ctypes.byref(raw), device)
        found.append(f"GPU-{uuid.UUID(bytes=bytes(raw))}")
    return found


def _bytes_of(card: str) -> bytes:
    return uuid.UUID(card.removeprefix("GPU-")).bytes


def _state(driver: ctypes.CDLL, pid: int) -> int:
    state = ctypes.c_int()
    _call(driver, "cuCheckpointProcessGetState", pid, ctypes.byref(state))
    return state.value


def _call(driver: ctypes.CDLL, name: str, *arguments: object) -> None:
    try:
        function: Callable[..., int] = getattr(driver, name)
    except AttributeError:
        raise OSError(f"this driver has no {name}; 570 and later have it") from None
    status = function(*arguments)
    if status:
        text = ctypes.c_char_p()
        driver.cuGetErrorName(status, ctypes.byref(text))
        raise _DriverRefused(f"{name}: {(text.value or b'error').decode()} ({status})", status)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
