"""Both wheels build, and work in a bare virtual environment without a compiler or a checkout."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
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


def test_the_installed_wheels_run_a_pool_outside_the_checkout(wheels, tmp_path):
    uv = Path(sys.executable).with_name("uv")
    venv = tmp_path / "bare"
    clean = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("VIRTUAL_ENV", "UV_PROJ", "FLEXAI_", "XDG_"))
    }
    subprocess.run([uv, "venv", "--python", sys.executable, venv], check=True, capture_output=True)
    subprocess.run(
        [uv, "pip", "install", "--python", venv / "bin" / "python", *wheels.values()],
        check=True, capture_output=True, cwd=tmp_path, env=clean,
    )  # fmt: skip
    short = tempfile.mkdtemp(prefix="fx")  # a Unix socket's path has 107 bytes
    clean |= {
        "PATH": f"{venv}/bin:/usr/bin:/bin", "HOME": str(tmp_path), "FLEXAI_RUN_DIR": f"{short}/r",
        "FLEXAI_STATE_DIR": f"{short}/s",
    }  # fmt: skip

    def said(*words):
        done = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path, env=clean, timeout=90, check=False)
        assert done.returncode == 0, (words, done.stdout, done.stderr)
        return done.stdout

    assert str(venv) in said("python", "-c", "import flexai_native; print(flexai_native.__file__)")
    assert "native part" in said("flexai", "--version")
    said("flexai", "up", "--simulate", "h200:1", "--detach")
    try:
        ran = said("flexai", "run", "-s", "30%", "-m", "1Gi", "--", "flexai-workload", "flood", "--seconds", "1")
        assert json.loads(ran)["iterations"] > 0
        assert "simulated" in said("flexai", "devices")
    finally:
        said("flexai", "down", "--jobs", "cancel")
        shutil.rmtree(short)
