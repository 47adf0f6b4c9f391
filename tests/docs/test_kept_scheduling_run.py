"""What the README says of the scheduler is what the kept run of its benchmark says."""

import json
from pathlib import Path

ROOT = Path(__file__).parents[2]
RUN = json.loads((ROOT / "docs" / "benchmarks" / "scheduling.json").read_text())


def row(name, conditions=""):
    return next(one for one in RUN["rows"] if one["name"] == name and conditions in one["conditions"])


def test_the_readme_tells_the_kept_run():
    told = " ".join((ROOT / "README.md").read_text().split())
    judged = [one["met"] for one in RUN["rows"] if one["met"] is not None]
    whole, slices = row("whole cards -> slices, default", "by best fit")["note"].split(" %")[0].split(" -> ")
    for words in (
        f"{sum(judged)} of {len(judged)} goals",
        f"{row('openb binds')['got']:,.0f} binds a second on the 6,212 cards of Alibaba's openb traces",
        f"{row('65,000 cards binds')['got']:,.0f} on 65,002;",
        f"an event decided within {row('event to decision, p99')['got']:.1f} ms at p99 while 5,000 jobs wait",
        f"Slices fill {float(slices):.1f} % of those cards where whole cards fill {float(whole):.1f} %",
        f"wait {row('mean wait, 640', 'no preemption')['got']:.2f} h on average",
        f"of 16 cards or more {row('mean wait of jobs of >= 16 cards, 640', 'no preemption')['got']:.2f} h",
    ):
        assert words in told, words
    assert "cards 6212," in row("openb binds")["conditions"]
    assert "cards 65002," in row("65,000 cards binds")["conditions"]
