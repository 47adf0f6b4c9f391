"""Variables a member runs with, so that it finds its slice."""

import os
import shutil
import stat
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
        self._copied: set[Path] = set()
        shims = [path for name in _SHIMS if (path := self._readable(name)) is not None]
        if shims:
            self._fixed["LD_PRELOAD"] = ":".join(map(str, shims))
            self._fixed["LD_LIBRARY_PATH"] = str(shims[0].parent)
        if simcard is not None:
            self._fixed["FLEXAI_SIMCARD"] = str(simcard)
            for variable, name in (
                ("FLEXAI_REAL_CUDA", "simcard/libcuda.so.1"),
                ("FLEXAI_REAL_NVML", "simcard/libnvidia-ml.so.1"),
            ):
                if (path := self._readable(name)) is not None:
                    self._fixed[variable] = str(path)

    def _readable(self, name: str) -> Path | None:
        """Where every user of the pool can load a library: a loader that cannot read one goes on without it.

        Beside the pool's sockets if we are installed where others may not look, as in a home.
        """
        path = _library(name, self.notes)
        if path is None or os.geteuid() != 0 or _is_open(path):
            return path
        folder = self._run_dir / "lib" / path.parent.name
        if folder not in self._copied:
            self._copied.add(folder)
            _copy(path.parent, folder)
        return folder / path.name

    def of(self, directory: str, uuids: Sequence[str]) -> dict[str, str]:
        """Variables of the member whose region is at ``directory``."""
        own = {"FLEXAI_TENANT_DIR": directory, "FLEXAI_CARDS": ",".join(uuids)}
        return {**self._fixed, **self._backend.tenant_env(uuids), **own}


def _copy(source: Path, folder: Path) -> None:
    for each in (folder.parent, folder):
        each.mkdir(mode=0o755, exist_ok=True)
        each.chmod(0o755)
    for one in source.iterdir():  # what it is found by under other names, too
        fresh = folder / f".{one.name}.{os.getpid()}"
        shutil.copyfile(one, fresh)
        fresh.chmod(0o755)
        fresh.replace(folder / one.name)  # who has the one of an earlier agent loaded keeps it


def _is_open(path: Path) -> bool:
    searched = all(folder.stat().st_mode & stat.S_IXOTH for folder in path.resolve().parents)
    return searched and bool(path.stat().st_mode & stat.S_IROTH)


def _library(name: str, notes: list[str]) -> Path | None:
    try:
        return flexai_native.library(name)
    except FileNotFoundError as error:
        notes.append(str(error))
        return None
