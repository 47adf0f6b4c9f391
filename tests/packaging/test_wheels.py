"""Both wheels build, and work in a bare virtual environment without a compiler or a checkout."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def wheels(tmp_path_factory):
    out = tmp_path_factory.mktemp("wheels")
    uv = Path(sys.executable).with_name("uv")
    for source in (ROOT, ROOT / "native"):
        subprocess.run([uv, "build", "--wheel", "--out-dir", out, source], check=True, capture_output=True)
    return {path.name.split("-")[0]: path for path in out.glob("*.whl")}


def test_the_native_wheel_fits_any_python_of_its_platform_and_carries_every_part(wheels):
    assert "-py3-none-" in wheels["flexai_native"].name
    names = zipfile.ZipFile(wheels["flexai_native"]).namelist()
    parts = [entry.name for entry in (ROOT / "native").iterdir() if (entry / "CMakeLists.txt").exists()]
    assert parts
    for program in ("bin/flexai-simcard", "bin/flexai-arbiter", "bin/flexai-supervisor", "lib/shim/libcuda.so.1"):
        if program.split("-")[-1] in parts or program.split("/")[1] in parts:
            assert f"flexai_native/{program}" in names


def test_the_pure_wheel_holds_python_only(wheels):
    names = zipfile.ZipFile(wheels["flexai"]).namelist()
    assert "-py3-none-any" in wheels["flexai"].name
    assert not [name for name in names if name.endswith((".so", ".c", ".h"))]


def test_the_installed_wheels_import_and_run_outside_the_checkout(wheels, tmp_path):
    uv = Path(sys.executable).with_name("uv")
    venv = tmp_path / "bare"
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("VIRTUAL_ENV", "UV_PROJ"))}
    subprocess.run([uv, "venv", "--python", sys.executable, venv], check=True, capture_output=True)
    subprocess.run(
        [uv, "pip", "install", "--python", venv / "bin" / "python", *wheels.values()],
        check=True, capture_output=True, cwd=tmp_path, env=environment,
    )  # fmt: skip
    code = "import flexai.model, flexai_native, flexai.simulation.kernel; print(flexai_native.__file__)"
    done = subprocess.run(
        [venv / "bin" / "python", "-c", code], check=True, capture_output=True, text=True, cwd=tmp_path
    )
    assert str(venv) in done.stdout
