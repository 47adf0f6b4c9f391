"""Where the native programs and libraries of FlexAI were installed.

Nothing else lives here: the programs are started by path, the libraries are preloaded into other processes.
"""

from pathlib import Path

_ROOT = Path(__file__).parent


def program(name: str) -> Path:
    """Return the path of an installed native program, for example ``flexai-arbiter``.

    Raises:
        FileNotFoundError: the native part was built without that program.
    """
    return _existing(_ROOT / "bin" / name)


def library(name: str) -> Path:
    """Return the path of an installed library, for example ``simcard/libcuda.so.1``.

    Raises:
        FileNotFoundError: the native part was built without that library.
    """
    return _existing(_ROOT / "lib" / name)


def _existing(path: Path) -> Path:
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing: rebuild the native part with `make native`")
    return path
