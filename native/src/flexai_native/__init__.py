"""Where the native programs and libraries of FlexAI were installed.

Nothing else lives here: the programs are started by path, or by name where people start them; the libraries are
preloaded into other processes.
"""

import os
import sys
import sysconfig
from pathlib import Path
from typing import NoReturn

# An editable install keeps this file in the sources and what was built among the installed packages.
_ROOTS = (Path(__file__).parent, Path(sysconfig.get_path("platlib")) / "flexai_native")


def program(name: str) -> Path:
    """Return the path of an installed native program, for example ``flexai-arbiter``.

    Raises:
        FileNotFoundError: the native part was built without that program.
    """
    return _existing(f"bin/{name}")


def library(name: str) -> Path:
    """Return the path of an installed library, for example ``simcard/libcuda.so.1``.

    Raises:
        FileNotFoundError: the native part was built without that library.
    """
    return _existing(f"lib/{name}")


def execute() -> NoReturn:
    """Become the program by whose name this process was started, for example ``flexai-workload``.

    Raises:
        FileNotFoundError: the native part was built without that program.
    """
    path = program(Path(sys.argv[0]).name)
    os.execv(path, sys.argv)  # noqa: S606  the same process: its place, signals and exit code are the program's


def _existing(name: str) -> Path:
    for root in _ROOTS:
        if (root / name).exists():
            return root / name
    raise FileNotFoundError(f"{_ROOTS[0] / name} is missing: build the native part with `make install`")
