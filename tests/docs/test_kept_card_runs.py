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


def worst(name):
    return max(one["got"] for one in RUN["rows"] if one["name"] == name and not one["void"])


def test_the_readme_shows_shares_limits_latency_and_memory_as_they_were_measured():
    told = read("README.md")
    for group in ("3 floods 50/30/20, 10 s", "3 floods 50/30/20, no preload", "3 gemm 50/30/20, 10 s"):
        held = row("residency error, mean", group)["data"]["held"]
        assert " / ".join(f"{part:.2f}" for part in held) in told
    for group in ("3 floods 50/30/20, 10 s", "3 gemm 50/30/20, 10 s"):
        assert f"{row('sum of work', group)['got']:.1f} %" in told
    second = row("residency error, worst 1 s", "3 floods 50/30/20, 10 s")["got"]
    assert f"off by at most {second:.2f} points in any second" in told
    assert "limited to 30 % had 29.99 % of 5 s" in told
    assert "held 29.99 %" in row("hard limit, error by card time", "30 %, flood, lone")["note"]
    latency = row("latency tenant p99", "4 ms every 25 ms beside 1 deep batch")
    assert f"took {latency['got']:.2f} ms at p99, 4.15 ms alone" in told
    assert "alone p50 3.86 p99 4.15" in latency["note"]
    one, five = (row("take-back by a guaranteed tenant, p99", f"{n} borrower")["got"] for n in (1, 5))
    assert f"within {one:.1f} ms at p99 beside one borrower, {five:.1f} ms beside five" in told
    assert worst("memory over the cap") == 0
    assert "25 s of 464,560 calls" in told
    assert "464560 calls" in row("memory over the cap", "0.417 minutes")["note"]
    assert worst("memory looked at") <= 1.9


def test_how_many_goals_were_met_and_which_were_missed_is_said():
    judged = [one for one in RUN["rows"] if one["met"] is not None and not one["void"]]
    met = sum(one["met"] for one in judged)
    for page in ("README.md", "docs/benchmarks/README.md", "docs/explanation/known-flaws.md", "CHANGELOG.md"):
        assert f"{met} of {len(judged)} goals" in read(page)
    assert len(judged) - met == 10
    assert f"{sum(bool(one['void']) for one in RUN['rows'])} rows are void" in read("docs/benchmarks/README.md")
    void = max(one["got"] for one in RUN["rows"] if one["name"] == "residency error, mean" and one["void"])
    assert f"off by {void:.2f} points at most" in read("docs/benchmarks/README.md")
    lock = row("driver lock time", "10 busy tenants")["got"]
    wake = row("wake", "8 GiB")["got"]
    limit, split = worst("hard limit, error by card time"), worst("split of the batch, worst")
    for page in ("README.md", "docs/explanation/known-flaws.md"):
        told = read(page)
        assert f"{lock:.1f} %" in told
        assert f"{wake:.1f} s (goal 2)" in told
        assert f"{limit:.2f} points" in told
        assert f"{split:.1f} points (goal 2)" in told
    told = read("docs/explanation/known-flaws.md")
    step = row("spin pair in one tenant: longest step", "beside a flood")["got"]
    assert f"{step:.0f} ms, a whole turn of the neighbour (goal 100)" in told
    assert f"{row('error by work, worst tenant', 'decode 40')['got']:.1f} points less work" in told


def test_what_was_learned_is_held_by_the_run():
    told = read("docs/explanation/nvidia-controls.md")
    mean, second = worst("residency error, mean"), worst("residency error, worst 1 s")
    n = sum(one["name"] == "residency error, mean" and not one["void"] for one in RUN["rows"])
    assert n == 13
    assert (
        f"thirteen groups of programs were off by {mean:.2f} points at most over 10 s and {second:.2f} in any" in told
    )


def kept(folder):
    run = json.loads((ROOT / "docs" / "benchmarks" / folder / "slicing.json").read_text())
    judged = [one for one in run["rows"] if one["met"] is not None and not one["void"]]
    return run, f"commit {run['commit']}, {sum(one['met'] for one in judged)} of {len(judged)}"


def test_what_the_later_runs_say_of_limits_latency_and_shares_is_what_they_measured():
    told = read("docs/benchmarks/README.md")
    run, of_all = kept("h200-again")
    assert f"{of_all} goals, {sum(bool(one['void']) for one in run['rows'])} rows void" in told
    limits = [one for one in run["rows"] if one["name"].startswith("hard limit")]
    assert len(limits) == 20
    assert max(one["got"] for one in limits) <= 0.01, "those that are void as well"
    missed = {one["name"]: one["got"] for one in run["rows"] if one["met"] is False}
    assert set(missed) == {"wake", "take-back by a guaranteed tenant, p99"}
    [lock] = [one["got"] for one in run["rows"] if one["name"] == "driver lock time"]
    [wake] = [one["got"] for one in run["rows"] if one["name"] == "wake"]
    assert f"driver locks to {lock:.2f} % by ten busy tenants" in told
    assert f"a wake of 8 GiB took {wake:.3f} s" in told
    assert f"the wake, {wake:.3f} s;" in read("README.md")
    for page in ("README.md", "docs/explanation/known-flaws.md", "docs/benchmarks/README.md"):
        assert f"up to {missed['take-back by a guaranteed tenant, p99']:.0f} ms" in read(page)
    run, of_all = kept("h200-shares")
    assert of_all in told
    shares = [one for one in run["rows"] if one["name"].startswith("residency error")]
    assert len(shares) == 15
    [steps] = [one["samples"] for one in run["rows"] if one["name"] == "spin pair in one tenant: longest step"]
    longest = sorted(steps)
    assert (
        f"spin pair, {longest[-1]:.0f} ms (goal 100; of its other steps none took more than {longest[-3]:.0f} ms)"
        in told
    )
    assert all(one["met"] and not one["void"] for one in shares)


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
