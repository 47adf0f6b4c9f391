"""What a context takes: measured once for each driver, and never a reason not to start."""

import json

import pytest

from flexai.adapters.nvidia import contexts

MIB = 1 << 20


@pytest.fixture
def measured(tmp_path, monkeypatch):
    """A measuring program that counts how often it was asked."""
    count = tmp_path / "count"
    script = tmp_path / "flexai-context"

    def says(*lines: str, code: int = 0) -> None:
        printed = "".join(f"echo '{line}'\n" for line in lines)
        script.write_text(f"#!/bin/sh\necho once >> {count}\n{printed}exit {code}\n")
        script.chmod(0o755)

    monkeypatch.setattr(contexts.flexai_native, "program", lambda _: script)
    says(*(json.dumps({"uuid": uuid, "bytes": 518 * MIB}) for uuid in ("GPU-1", "GPU-2")))
    return says, lambda: len(count.read_text().split()) if count.exists() else 0


def test_it_is_measured_once_for_each_driver(tmp_path, measured):
    _, n_measured = measured
    kept = tmp_path / "contexts.json"
    both = {"GPU-1": 518 * MIB, "GPU-2": 518 * MIB}
    assert contexts.context_bytes(kept, "580.1", ["GPU-1", "GPU-2"], None) == both
    assert contexts.context_bytes(kept, "580.1", ["GPU-2"], None) == both
    assert n_measured() == 1
    assert contexts.context_bytes(kept, "595.2", ["GPU-1"], None) == both
    assert n_measured() == 2
    assert json.loads(kept.read_text())["driver"] == "595.2"


def test_a_card_that_came_is_measured(tmp_path, measured):
    says, n_measured = measured
    kept = tmp_path / "contexts.json"
    says('{"uuid": "GPU-1", "bytes": 7}')
    assert contexts.context_bytes(kept, "580.1", ["GPU-1"], None) == {"GPU-1": 7}
    says('{"uuid": "GPU-1", "bytes": 7}', '{"uuid": "GPU-2", "bytes": 8}')
    assert contexts.context_bytes(kept, "580.1", ["GPU-1", "GPU-2"], None) == {"GPU-1": 7, "GPU-2": 8}
    assert n_measured() == 2


@pytest.mark.parametrize("line", ["nonsense", '{"uuid": "GPU-1"}', "[]", '{"uuid": 3, "bytes": "x"}'])
def test_what_cannot_be_measured_is_left_to_the_jobs(tmp_path, measured, line):
    says, _ = measured
    says(line, code=1)
    assert contexts.context_bytes(tmp_path / "none" / "contexts.json", "580.1", ["GPU-1"], None) == {}


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{}",
        "[]",
        '{"driver": "580.1", "rule": 1, "bytes": {"GPU-1": 4}}',
        '{"driver": "580.1", "bytes": 3}',
        '{"driver": 1, "bytes": {}}',
    ],
)
def test_a_file_that_says_nothing_is_measured_anew(tmp_path, measured, content):
    kept = tmp_path / "contexts.json"
    kept.write_text(content)
    assert contexts.context_bytes(kept, "580.1", ["GPU-1"], None)["GPU-1"] == 518 * MIB
