"""The lists of symbols against NVIDIA's own headers and bindings, as installed from PyPI; none of them is kept here."""

import importlib.metadata
import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
GEN = ROOT / "native/gen"


def listed(name: str) -> set[str]:
    lines = (GEN / name).read_text().splitlines()
    return {symbol for line in lines if line.startswith(" ") for symbol in line.split()}


@pytest.fixture(scope="module")
def headers() -> Path:
    """cuda.h and its like, from the package nvidia-cuda-runtime."""
    files = importlib.metadata.files("nvidia-cuda-runtime") or ()
    return next(Path(str(file.locate())).parent for file in files if file.name == "cuda.h")


def shim_py(*arguments: object) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, GEN / "shim.py", *map(str, arguments)]
    return subprocess.run(argv, capture_output=True, text=True, check=False)


def test_every_function_of_the_newest_driver_headers_has_its_row(headers):
    names = ("cuda.h", "cudaGL.h", "cudaEGL.h", "cudaVDPAU.h")
    done = shim_py("check", GEN / "cuda_symbols.txt", *(headers / name for name in names))
    assert done.returncode == 0, done.stderr
    assert int(re.search(r"#define CUDA_VERSION (\d+)", (headers / "cuda.h").read_text())[1]) >= 13050


def test_variants_by_version_and_per_thread_stream_are_those_of_the_headers(headers):
    done = shim_py("versions", GEN / "cuda_symbols.txt", *sorted(headers.glob("cuda*Typedefs.h")))
    assert done.stdout == (GEN / "cuda_versions.txt").read_text()


def test_each_function_that_is_handled_is_handled_in_every_variant(headers):
    """Or a program compiled for per-thread default streams, or against an older version, would pass by us."""
    kinds = {}
    for block in re.split(r"\n\n", (GEN / "cuda_symbols.txt").read_text()):
        head = next((line for line in block.splitlines() if re.match(r"\w+: ", line)), "")
        kinds |= {name: head.split(":")[0] for line in block.splitlines() if line[:1] == " " for name in line.split()}
    base = {name: re.sub(r"(_v\d+)?(_pt[sd][sz])?$", "", name) for name in kinds}
    handled = {base[name] for name, kind in kinds.items() if kind == "handled"}
    missed = {name for name, kind in kinds.items() if base[name] in handled and kind != "handled"}
    assert missed == set()


def test_every_function_of_nvidias_management_bindings_has_its_row():
    rows = listed("nvml_symbols.txt")
    pynvml = Path(importlib.util.find_spec("pynvml").origin).read_text()
    asked = set(re.findall(r'_nvmlGetFunctionPointer\("(nvml\w+)"', pynvml))
    assert len(asked) > 300
    declared = Path(importlib.util.find_spec("cuda.bindings").origin).with_name("cynvml.pxd").read_text()
    asked |= set(re.findall(r"\b(nvml[A-Z]\w+)\(", declared))
    assert asked - rows == set()
