"""`make card-install` from a Python that is a virtual environment itself: its packages are seen all the same."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

MAKEFILE = Path(__file__).parents[2] / "Makefile"
pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]


def empty_wheel(folder, name):
    about = f"{name}-0.dist-info"
    with zipfile.ZipFile(folder / f"{name}-0-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{about}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 0\n")
        wheel.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{about}/RECORD", "")


def test_what_the_given_python_has_is_seen_in_what_is_installed(tmp_path):
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    (wheels / "requirements.txt").touch()
    for name in ("flexai", "flexai_native"):
        empty_wheel(wheels, name)
    outer = tmp_path / "outer"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", outer], check=True)
    site = next((outer / "lib").iterdir()) / "site-packages"
    (site / "torch.py").touch()
    (site / "more.pth").write_text(f"{tmp_path / 'more'}\n")
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "plugin_of_torch.py").touch()
    words = ["make", "-f", MAKEFILE, "card-install", f"WHEELS={wheels}", f"PYTHON={outer / 'bin' / 'python'}"]
    subprocess.run(words, cwd=tmp_path, check=True, capture_output=True)
    words = [tmp_path / ".card" / "bin" / "python", "-c", "import torch, plugin_of_torch; print(torch.__file__)"]
    found = subprocess.run(words, capture_output=True, text=True, check=False)
    assert found.stdout.strip() == str(site / "torch.py"), found.stderr
