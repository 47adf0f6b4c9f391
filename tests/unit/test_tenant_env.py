"""What members find: libraries that whoever submits can load, wherever the pool is installed."""

import os
import tempfile
from pathlib import Path

import flexai_native
import pytest

from flexai.adapters.fake.backend import FakeBackend
from flexai.apps.agent.tenant_env import TenantEnv

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="without root a pool has one user")


@pytest.fixture
def installed(monkeypatch):
    """A pool's folder that everybody may look into, and the native part in one whose mode is to be chosen."""
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="fxe") as folder:  # pytest's own are private
        Path(folder).chmod(0o755)
        yield _installed(Path(folder), monkeypatch)


def _installed(folder, monkeypatch):
    package = folder / "package"

    def library(name):
        if not (path := package / name).is_file():
            raise FileNotFoundError(f"{name} is missing")
        return path

    for name in ("shim/libcuda.so.1", "shim/libnvidia-ml.so.1", "shim/libcuda.so"):
        path = package / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"code")
    monkeypatch.setattr(flexai_native, "library", library)
    (folder / "run").mkdir()
    return package, folder / "run"


def preloaded(run_dir):
    return TenantEnv(FakeBackend(""), run_dir, None).of("/t", [])["LD_PRELOAD"].split(":")


@as_root
def test_of_a_pool_installed_where_only_root_may_look_members_load_copies_beside_its_sockets(installed):
    package, run_dir = installed
    package.chmod(0o700)
    for _ in range(2):  # an agent that is started again
        shims = preloaded(run_dir)
        assert shims == [str(run_dir / "lib/shim/libcuda.so.1"), str(run_dir / "lib/shim/libnvidia-ml.so.1")]
    for path in (run_dir / "lib", run_dir / "lib/shim", *(run_dir / "lib/shim").iterdir()):
        assert path.stat().st_mode & 0o7777 == 0o755
    assert {path.read_bytes() for path in (run_dir / "lib/shim").iterdir()} == {b"code"}
    assert len(list((run_dir / "lib/shim").iterdir())) == 3, "libcuda.so, too"


@as_root
def test_where_everybody_may_look_they_are_loaded_from_where_they_are_installed(installed):
    package, run_dir = installed
    assert preloaded(run_dir)[0] == str(package / "shim/libcuda.so.1")
    assert not (run_dir / "lib").exists()
