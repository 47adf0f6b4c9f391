"""Variables a member runs with, so that it finds its slice."""

from collections.abc import Sequence
from pathlib import Path

import flexai_native

from flexai.ports import DeviceBackend

_SHIMS = ("shim/libcuda.so.1", "shim/libnvidia-ml.so.1")


def missing_parts() -> list[str]:
    """What is missing of what members need, a sentence each."""
    notes: list[str] = []
    for name in _SHIMS:
        _library(name, notes)
    return notes


class TenantEnv:
    """Makes the environment of members.

    Attributes:
        notes: what is missing of the native part.
    """

    def __init__(self, backend: DeviceBackend, run_dir: Path, simcard: Path | None) -> None:
        self._backend, self._run_dir = backend, run_dir
        self._fixed: dict[str, str] = {"FLEXAI_SOCKET": str(run_dir / "hello.sock")}
        self.notes: list[str] = []
        shims = [path for name in _SHIMS if (path := _library(name, self.notes)) is not None]
        if shims:
            self._fixed["LD_PRELOAD"] = ":".join(map(str, shims))
            self._fixed["LD_LIBRARY_PATH"] = str(shims[0].parent)
        if simcard is not None:
            self._fixed["FLEXAI_SIMCARD"] = str(simcard)
            for variable, name in (
                ("FLEXAI_REAL_CUDA", "simcard/libcuda.so.1"),
                ("FLEXAI_REAL_NVML", "simcard/libnvidia-ml.so.1"),
            ):
                if (path := _library(name, self.notes)) is not None:
                    self._fixed[variable] = str(path)

    def of(self, directory: str, uuids: Sequence[str]) -> dict[str, str]:
        """Variables of the member whose region is at ``directory``."""
        return {**self._fixed, **self._backend.tenant_env(uuids), "FLEXAI_TENANT_DIR": directory}


def _library(name: str, notes: list[str]) -> Path | None:
    try:
        return flexai_native.library(name)
    except FileNotFoundError as error:
        notes.append(str(error))
        return None
