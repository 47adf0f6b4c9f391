"""The reference names every reason, and none that does not exist."""

import re
from pathlib import Path

from flexai.model import Reason


def test_every_reason_has_its_row_and_every_row_its_reason():
    page = (Path(__file__).parents[2] / "docs" / "reference" / "reasons.md").read_text()
    assert set(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)) == {reason.value for reason in Reason}
