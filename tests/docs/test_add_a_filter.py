"""The how-to for filters runs as it stands."""

import re
from pathlib import Path

from flexai.policy.filters import FILTERS

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "add-a-filter.md"


def test_the_filter_of_the_how_to_keeps_work_away_as_the_page_says():
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert len(blocks) == 2
    try:
        exec(compile("\n".join(blocks), str(PAGE), "exec"), {})  # noqa: S102 -- our own page
        assert "headroom" in FILTERS
    finally:
        FILTERS.pop("headroom", None)
