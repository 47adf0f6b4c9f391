"""``python -m flexai.adapters.nvidia.parking park PID``, ``... wake PID...``: device memory to the host, and back.

The driver's checkpoint interface (570 and later), from outside the process; 4 MiB stay on the card, and NVML lists the
process no more (H200, 580.159.04), so who is woken is asked of every process that might be parked.
"""

import ctypes
import sys
from collections.abc import Callable, Sequence

_LOCK_WITHIN_MS = 30_000
_RUNNING, _LOCKED, _CHECKPOINTED = 0, 1, 2


class _Arguments(ctypes.Structure):
    """Any of the interface's argument structures: zero but for the lock's timeout, and larger than each of them."""

    _fields_ = (("timeout_ms", ctypes.c_uint), ("reserved", ctypes.c_uint * 31))


def main(argv: Sequence[str]) -> int:
    """0 when it was moved; 1, with a sentence on standard error, when not."""
    what, pids = argv[0], [int(word) for word in argv[1:]]
    try:
        driver = ctypes.CDLL("libcuda.so.1")
        _call(driver, "cuInit", 0)
        for pid in pids:
            (_park if what == "park" else _wake)(driver, pid)
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


def _wake(driver: ctypes.CDLL, pid: int) -> None:
    try:
        state = _state(driver, pid)
    except OSError:  # it never used a card
        return
    if state == _CHECKPOINTED:
        _call(driver, "cuCheckpointProcessRestore", pid, ctypes.byref(_Arguments()))
    if state in {_CHECKPOINTED, _LOCKED}:
        _call(driver, "cuCheckpointProcessUnlock", pid, ctypes.byref(_Arguments()))


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
        raise OSError(f"{name}: {(text.value or b'error').decode()} ({status})")


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
