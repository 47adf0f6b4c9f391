"""A scripted pool per test, and the command as a user starts it."""

import importlib.util
import io
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest


def _beside(name):
    """A module of this folder, which is no package."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


_beside("terminal")
fake_pool = _beside("fake_pool")
FLEXAI = str(Path(sys.executable).with_name("flexai"))


@pytest.fixture
def run_dir():
    folder = tempfile.mkdtemp(prefix="fxc")  # short: a Unix socket's path has 107 bytes
    yield Path(folder)
    shutil.rmtree(folder)


@pytest.fixture
def environment(run_dir):
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("FLEXAI_", "XDG_"))}
    return clean | {"FLEXAI_RUN_DIR": str(run_dir), "FLEXAI_STATE_DIR": str(run_dir / "s"), "HOME": str(run_dir)}


@pytest.fixture
def pool(request, run_dir):
    """Grants name the cgroup that a test asks for, or none."""
    pool = fake_pool.FakePool(run_dir, getattr(request, "param", None))
    pool.answers = {
        ("POST", "/v1/jobs"): {"ids": ["7"], "items": []},
        ("POST", "/v1/jobs/7/attach"): {},
        ("POST", "/v1/jobs/7/finish"): {},
        ("POST", "/v1/jobs/7/cancel"): {"state": "cancelled"},
    }
    pool.grants = [[{"state": "granted", "env": {"FLEXAI_TENANT_DIR": "/t/7"}}]]
    pool.open()
    yield pool
    pool.close()


@pytest.fixture
def flexai(environment, tmp_path):
    def call(*words, **options):
        return subprocess.run(
            [FLEXAI, *words], env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
            **options,
        )  # fmt: skip

    return call


@pytest.fixture
def command(environment, tmp_path, monkeypatch, capsys):
    """The same within this process: much faster, for what needs no process of its own."""
    from flexai.apps.cli.entry import main

    def call(*words, input=""):  # noqa: A002  as subprocess names it
        with monkeypatch.context() as patch:
            for name in [name for name in os.environ if name.startswith(("FLEXAI_", "XDG_"))]:
                patch.delenv(name)
            for name, value in environment.items():
                patch.setenv(name, value)
            patch.chdir(tmp_path)
            patch.setattr("sys.stdin", io.StringIO(input))
            code = main(words)
        captured = capsys.readouterr()
        return subprocess.CompletedProcess(words, code, captured.out, captured.err)

    return call
