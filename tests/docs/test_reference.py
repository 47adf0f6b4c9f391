"""The reference is what the code says: API, events, layouts, frame."""

import ast
import re
from pathlib import Path

import pytest

from flexai.apps.bench.frame import Row, header
from flexai.apps.pool.reference import pages

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "docs/reference"


@pytest.mark.parametrize("name", ["openapi.json", "api.md"])
def test_the_api_s_page_is_the_one_the_routes_make(name):
    remedy = "run: python -m flexai.apps.pool.reference docs/reference"
    assert (REFERENCE / name).read_text() == pages()[name], remedy


def kinds_written():
    """Every constant that is given as the kind of a line of history."""
    for file in (ROOT / "src/flexai/apps/pool").glob("*.py"):
        for call in ast.walk(ast.parse(file.read_text())):
            place = {"_line": 2, "note": 1}.get(getattr(getattr(call, "func", None), "attr", ""))
            if isinstance(call, ast.Call) and place is not None and len(call.args) > place:
                kind = call.args[place]
                parts = [kind.body, kind.orelse] if isinstance(kind, ast.IfExp) else [kind]
                yield from (part.value for part in parts if isinstance(part, ast.Constant))


def test_every_kind_of_event_has_its_row():
    kinds = set(kinds_written())
    assert {"Submitted", "Paused", "Unpaused", "OverCap", "Device"} <= kinds
    rows = re.findall(r"^\| (`[^|]*) \|", (REFERENCE / "events.md").read_text(), re.MULTILINE)
    told = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert kinds - told == set()
    # Named after the event or command itself: the rest of what transitions.py writes.
    assert told - kinds == {"Held", "Released", "CancelAsked", "ResizeAsked", "Park", "Wake"}


def test_sizes_of_structures_are_those_of_the_headers():
    headers = "".join(file.read_text() for file in sorted((ROOT / "api").glob("*.h")))
    asserted = dict(re.findall(r"sizeof\(struct (\w+)\) == (\d+),", headers))
    told = dict(re.findall(r"^\| `(\w+)` \| (\d+) \|", (REFERENCE / "memory-layouts.md").read_text(), re.MULTILINE))
    assert told == asserted


def test_every_field_of_the_benchmark_frame_has_its_row():
    page = (REFERENCE / "benchmark-frame.md").read_text()
    told = set(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE))
    fields = set(header("x", "", "", 0)) | set(Row("", "", None, 0.0, "").as_json())
    assert told == fields | {"quick", "rows"}
