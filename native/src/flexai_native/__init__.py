"""Where the native programs and libraries of FlexAI were installed.

Nothing else lives here: the programs are started by path, the libraries are preloaded into other processes.
"""

import sysconfig
from pathlib import Path

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


def _existing(name: str) -> Path:
    for root in _ROOTS:
        if (root / name).exists():
            return root / name
    raise FileNotFoundError(f"{_ROOTS[0] / name} is missing: build the native part with `make install`")
