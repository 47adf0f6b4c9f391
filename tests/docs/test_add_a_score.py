"""The how-to for scores runs as it stands."""

import re
from pathlib import Path

from flexai.policy.scores import SCORERS

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "add-a-score.md"


def test_the_score_of_the_how_to_decides_as_the_page_says():
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert len(blocks) == 2
    try:
        exec(compile("\n".join(blocks), str(PAGE), "exec"), {})  # noqa: S102 -- our own page
        assert "level" in SCORERS
    finally:
        SCORERS.pop("level", None)
