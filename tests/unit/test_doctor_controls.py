"""Doctor's account of NVIDIA's controls, from what flexai-nvprobe prints."""

from pathlib import Path

import flexai_native
import pytest

from flexai.adapters.nvidia import modes
from flexai.apps.agent import doctor_controls


@pytest.fixture
def probed(tmp_path, monkeypatch):
    """Answers a function: what doctor says when the probe prints this."""

    def run(script):
        path = tmp_path / "flexai-nvprobe"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        monkeypatch.setattr(flexai_native, "program", lambda _name: path)
        found = []
        doctor_controls.check_controls(lambda name, ok, detail, remedy="": found.append((name, ok, detail, remedy)))
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
    assert "work: stop" in detail
    assert "log does not: needs CAP_SYS_ADMIN" in detail
    assert "gates" in detail  # what takes its place
    assert remedy


@pytest.mark.parametrize("script", ["exit 1", "echo 'no card' >&2; exit 1", "echo nonsense", "kill -9 $$"])
def test_a_probe_that_says_nothing_useful_is_a_failed_check(probed, script):
    [(name, ok, detail, _)] = probed(script)
    assert name == "controls"
    assert not ok
    assert detail


def test_a_lack_of_preemption_leaves_the_other_controls_in_use(probed):
    [(_, _, detail, _)] = probed("\n".join([line("stop", ok=True), line("preempt", ok=False, note="no preemption")]))
    assert "gates" not in detail
    assert "idle" in detail


@pytest.fixture
def rights(tmp_path):
    """Answers a function: what doctor says of a process with these effective capabilities, in these namespaces."""

    def run(capabilities, user="initial", pid="initial"):
        folder = tmp_path / "77"
        (folder / "ns").mkdir(parents=True, exist_ok=True)
        (folder / "status").write_text(f"Name:\tx\nCapEff:\t{capabilities:016x}\n")
        for name, kind in (("user", user), ("pid", pid)):
            link = folder / "ns" / name
            link.unlink(missing_ok=True)
            link.symlink_to(f"/proc/self/ns/{name}") if kind == "initial" else link.write_text("another")
        found = []
        doctor_controls.check_capabilities(
            lambda name, ok, detail, remedy="": found.append((name, ok, detail, remedy)), 77, proc=tmp_path
        )
        return found

    return run


@pytest.fixture
def initial(monkeypatch):
    """Namespaces of this process are taken for the initial ones, wherever the test runs."""
    for name, constant in (("user", "_INITIAL_USER_NS"), ("pid", "_INITIAL_PID_NS")):
        monkeypatch.setattr(doctor_controls, constant, Path(f"/proc/self/ns/{name}").stat().st_ino)


def test_an_arbiter_with_all_rights_is_well(rights, initial):
    [(_, ok, detail, _)] = rights(1 << 19 | 1 << 21 | 1 << 23)
    assert ok
    assert "CAP_SYS_PTRACE" in detail


@pytest.mark.parametrize(
    ("terms", "lacks"),
    [({"capabilities": 1 << 19 | 1 << 23}, "CAP_SYS_ADMIN"), ({"capabilities": 1 << 21 | 1 << 23}, "CAP_SYS_PTRACE"),
     ({"capabilities": -1 & (1 << 40) - 1, "user": "own"}, "user namespace"),
     ({"capabilities": -1 & (1 << 40) - 1, "pid": "own"}, "hostPID")],
)  # fmt: skip
def test_a_right_that_is_missing_is_named_with_its_use_and_what_to_do(rights, initial, terms, lacks):
    [(_, ok, detail, remedy)] = rights(**terms)
    assert not ok
    assert lacks in detail
    assert remedy


def test_an_arbiter_that_is_gone_is_a_failed_check(tmp_path):
    found = []
    doctor_controls.check_capabilities(lambda name, **said: found.append((name, said)), 78, proc=tmp_path)
    assert not found[0][1]["ok"]


class Driver:
    """NVML that answers as told; what it was not told it does not know."""

    NVMLError = modes.pynvml.NVMLError

    def __init__(self, **answers):
        self.answers = answers

    def __getattr__(self, name):
        if name not in self.answers:
            raise AttributeError(name)
        return lambda *_: self.answers[name]


def of(driver, monkeypatch, simulated=False):
    monkeypatch.setattr(modes, "nvml", driver)
    return {mode.name: mode for mode in modes.modes(["handle"], simulated=simulated)}


class Confidential:
    ccFeature = 1  # noqa: N815  the library's name


def test_modes_that_hinder_sharing_come_with_what_to_do(monkeypatch):
    driver = Driver(
        nvmlDeviceGetMigMode=[1, 1], nvmlSystemGetConfComputeState=Confidential(), nvmlDeviceGetAddressingMode=1
    )
    found = of(driver, monkeypatch)
    assert set(found) == {"MIG", "confidential computing", "HMM"}
    assert all(mode.remedy for mode in found.values())
    assert "-i 0 -mig 0" in found["MIG"].remedy


def test_modes_that_are_off_are_said_and_are_well(monkeypatch):
    driver = Driver(nvmlDeviceGetMigMode=[0, 0], nvmlDeviceGetAddressingMode=0, nvmlSystemGetDriverVersion="580.1")
    found = of(driver, monkeypatch)
    assert {name: mode.detail for name, mode in found.items()} == {
        "driver version": "580.1", "MIG": "off", "confidential computing": "this driver has none", "HMM": "off",
    }  # fmt: skip
    assert not any(mode.remedy for mode in found.values())


@pytest.mark.parametrize(("switch", "is_on"), [("N", True), ("Y", False)])
def test_an_older_driver_is_judged_by_its_modules_switch(monkeypatch, tmp_path, switch, is_on):
    monkeypatch.setattr(modes, "HMM_SWITCH", tmp_path / "switch")
    assert of(Driver(), monkeypatch)["HMM"].detail == "this driver has none"
    (tmp_path / "switch").write_text(switch + "\n")
    assert bool(of(Driver(), monkeypatch)["HMM"].remedy) is is_on
