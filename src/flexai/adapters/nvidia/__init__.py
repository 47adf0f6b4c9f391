"""NVIDIA cards, real or simulated, through NVML (the management library of the driver)."""

from flexai.adapters.nvidia.backend import NvidiaBackend, NvmlMissing

__all__ = ["NvidiaBackend", "NvmlMissing"]
