"""What README and pages say of the runs on a real card is what these runs' files say."""

import json
from pathlib import Path

ROOT = Path(__file__).parents[2]
KEPT = ROOT / "docs" / "benchmarks" / "h200"
RUN = json.loads((KEPT / "slicing.json").read_text())


def row(name, conditions):
    [found] = [one for one in RUN["rows"] if one["name"] == name and conditions in one["conditions"]]
    return found


def read(name):
    return " ".join((ROOT / name).read_text().split())


def test_the_readme_shows_shares_limits_and_latency_as_they_were_measured():
    told = read("README.md")
    for group in ("3 floods 50/30/20, 3 s", "3 floods 50/30/20, no preload", "3 gemm 50/30/20, 3 s"):
        held = row("residency error, mean", group)["data"]["held"]
        assert " / ".join(f"{part:.2f}" for part in held) in told
    for group in ("3 floods 50/30/20, 3 s", "3 gemm 50/30/20, 3 s"):
        assert f"{row('sum of work', group)['got']:.1f} %" in told
    assert "had 30.3 % of 2 s" in told
    assert "held 30.31 %" in row("hard limit, error by card time", "30 %, flood, lone")["note"]
    latency = row("latency tenant p99", "beside 1 deep batch")
    assert f"took {latency['got']:.2f} ms at p99, 4.17 ms alone" in told
    assert "alone p50 3.87 p99 4.17" in latency["note"]


def test_how_many_goals_were_met_and_which_were_missed_is_said():
    judged = [one for one in RUN["rows"] if one["met"] is not None and not one["void"]]
    met = sum(one["met"] for one in judged)
    for page in ("README.md", "docs/benchmarks/README.md"):
        assert f"{met} of {len(judged)} goals" in read(page)
    lock = row("driver lock time", "10 busy tenants")["got"]
    back = row("take-back by a guaranteed tenant, p99", "5 borrowers")["got"]
    over_mib = row("memory over the cap", "stream-ordered alone")["got"] / 2**20
    for page in ("README.md", "docs/explanation/known-flaws.md"):
        told = read(page)
        assert f"{lock:.1f} %" in told
        assert f"{back:.0f} ms" in told
        assert f"{over_mib:.0f} MiB" in told


def test_the_demo_is_told_as_it_was():
    demo, told = json.loads((KEPT / "demo.json").read_text()), read("docs/benchmarks/README.md")
    assert (
        f"card-time in use {100 * demo['whole']['utilisation']:.0f} to {100 * demo['sliced']['utilisation']:.0f} %"
        in told
    )
    waits = [demo[phase]["mean_wait_s"] for phase in ("whole", "sliced")]
    assert f"mean wait {waits[0]:.0f} to {waits[1]:.0f} s" in told
    assert sum(one["name"].endswith("-torch") for one in demo["tenants"]) == 4
    assert demo["over_cap_bytes"] == 0


def test_the_long_form_is_told_as_it_was():
    rows = json.loads((KEPT.parent / "h200-long" / "slicing.json").read_text())["rows"]
    judged = [one for one in rows if one["met"] is not None and not one["void"]]
    shares = sorted(one["got"] for one in rows if one["name"] == "residency error, worst 1 s")
    [memory] = [one for one in rows if one["name"] == "memory over the cap" and "0.417 minutes" in one["conditions"]]
    told = read("README.md")
    assert f"met {sum(one['met'] for one in judged)} of {len(judged)}:" in told
    assert max(one["got"] for one in rows if one["name"] == "memory over the cap") == 0
    assert "467,638 calls" in told
    assert "467638 calls" in memory["note"]
    assert max(one["got"] for one in rows if one["name"] == "memory looked at") < 0.8
    assert all(one["met"] for one in rows if "limit" in one["name"] or one["name"] == "latency tenant p99")
    assert f"up to {shares[-2]:.0f} points in one second there ({shares[-1]:.0f} once)" in told
