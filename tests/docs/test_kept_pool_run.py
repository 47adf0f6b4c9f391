"""What the README says of the pool is what the kept run of its benchmark says."""

import json
from pathlib import Path

ROOT = Path(__file__).parents[2]
RUN = json.loads((ROOT / "docs" / "benchmarks" / "pool.json").read_text())
README = " ".join((ROOT / "README.md").read_text().split())


def got(name, conditions=""):
    (row,) = [row for row in RUN["rows"] if row["name"] == name and row["conditions"].startswith(conditions)]
    return row["got"]


def test_the_readme_tells_the_kept_run():
    judged = [row["met"] for row in RUN["rows"] if row["met"] is not None]
    assert f"all but its case `make`): {sum(judged)} of {len(judged)} goals." in README
    assert "make" not in RUN["took_s"]
    assert f"{got('run overhead before the command'):.0f} ms pass until the command" in README
    one, many = (got("submissions acknowledged", clients) for clients in ("1 client", "16 clients"))
    assert f"{one:.0f} submissions a second are acknowledged, and durable, to one client, {many:,.0f} to 16;" in README
    assert f"the first page of 10,000 queued jobs takes {got('jobs, first page'):.0f} ms" in README
    memory, cpu = got("agent + arbiter, resident"), got("agent + arbiter, CPU")
    assert f"agent and arbiter of eight idle cards hold {memory:.0f} MiB and take {cpu:.1f} % of a core" in README
