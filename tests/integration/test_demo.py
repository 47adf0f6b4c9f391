"""The demo, short, on a live pool: every key of its document, and what the document says is so."""

import json
import os
import subprocess
import sys

import pytest


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_the_demo_plays_the_morning_twice_and_reports_what_was_measured(tmp_path):
    words = ["--jobs", "6", "--scale", "0.4", "--simulate", "h200:2", "--json", "d.json", "--plot", "d.png"]
    clean = {name: value for name, value in os.environ.items() if not name.startswith("FLEXAI_")}
    result = subprocess.run(
        [sys.executable, "-m", "flexai.apps.demo", *words], cwd=tmp_path, env=clean, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stdout + result.stderr
    document = json.loads((tmp_path / "d.json").read_text())
    assert document["whole"]["makespan_s"] > 0
    assert 0 < document["whole"]["utilisation"] <= 1
    assert 0 < document["sliced"]["utilisation"] <= 1
    assert document["over_cap_bytes"] == 0
    assert document["max_share_error_points"] < 25  # of a loaded machine; `flexai bench pool` measures shares
    assert len(document["tenants"]) == 6
    for tenant in document["tenants"]:
        assert tenant["asked_milli"] >= tenant["owed_milli"]
        assert tenant["got_milli"] > 0
        assert tenant["failed"] == ""
    assert (tmp_path / "d.png").read_bytes().startswith(b"\x89PNG")
    for text in ("simulated", "cluster-trace-gpu-v2023", "card-time in use over the span", "slicing does not help"):
        assert text in result.stdout
