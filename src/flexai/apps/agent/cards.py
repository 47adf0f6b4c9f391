"""The machine's real cards."""

from flexai.adapters.fake import FakeBackend
from flexai.ports import DeviceBackend


def real_cards() -> tuple[DeviceBackend, str]:
    """Those that a driver shows, or none and why."""
    from flexai.adapters.nvidia import NvidiaBackend, NvmlMissing  # noqa: PLC0415 (large, and not always needed)

    try:
        return NvidiaBackend(), ""
    except NvmlMissing as error:
        return FakeBackend(""), str(error)
