"""Doctor's account of NVIDIA's controls, from what flexai-nvprobe prints."""

import flexai_native
import pytest

from flexai.apps.agent import doctor


@pytest.fixture
def probed(tmp_path, monkeypatch):
    """Answers a function: what doctor says when the probe prints this."""

    def run(script):
        path = tmp_path / "flexai-nvprobe"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        monkeypatch.setattr(flexai_native, "program", lambda _name: path)
        found = []
        doctor.check_controls(lambda name, ok, detail, remedy="": found.append((name, ok, detail, remedy)))
        return found

    return run


def line(check, ok, note=""):
    return f"""echo '{{"card":"GPU-1","check":"{check}","ok":{"true" if ok else "false"},"note":"{note}"}}'"""


def test_controls_that_work_are_named(probed):
    [(name, ok, detail, _)] = probed(
        "\n".join([line("stop", ok=True), line("log", ok=True), line("capabilities", ok=True)])
    )
    assert (name, ok, detail) == ("controls of GPU-1", True, "work: stop, log")


def test_a_control_that_fails_is_named_with_its_reason(probed):
    [(_, ok, detail, remedy)] = probed(
        "\n".join([line("stop", ok=True), line("log", ok=False, note="needs CAP_SYS_ADMIN"), "exit 1"])
    )
    assert not ok
    assert detail == "log: needs CAP_SYS_ADMIN"
    assert remedy


@pytest.mark.parametrize("script", ["exit 1", "echo 'no card' >&2; exit 1", "echo nonsense", "kill -9 $$"])
def test_a_probe_that_says_nothing_useful_is_a_failed_check(probed, script):
    [(name, ok, detail, _)] = probed(script)
    assert name == "controls"
    assert not ok
    assert detail
