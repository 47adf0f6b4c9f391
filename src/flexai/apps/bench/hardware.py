"""The cards of this machine, real or simulated."""

from __future__ import annotations

import importlib
import os
from typing import Any


def cards_here() -> tuple[str, str]:
    """(cards, driver) of the machine; simulated where it has none."""
    try:
        pynvml: Any = importlib.import_module("pynvml")
        pynvml.nvmlInit()
        names = [
            str(pynvml.nvmlDeviceGetName(pynvml.nvmlDeviceGetHandleByIndex(index)))
            for index in range(pynvml.nvmlDeviceGetCount())
        ]
        return "real: " + ", ".join(names), str(pynvml.nvmlSystemGetDriverVersion())
    except Exception:  # no NVML library, no driver, no card: all mean the same here
        return "simulated: h200", "simulated"


def is_real() -> bool:
    """Whether cases run on a real card."""
    return not os.environ.get("FLEXAI_BENCH_SIMULATE") and cards_here()[0].startswith("real")
