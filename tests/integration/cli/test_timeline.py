"""`flexai timeline`: a ring as an arbiter leaves it becomes a trace file and a table."""

import json
import struct
import time
from pathlib import Path

import fake_pool
import pytest

from flexai.wire import timeline
from flexai.wire.timeline import Kind

UUID = b"GPU-00000000-0000-0000-0000-00000000000a"


def write_ring(path, records):
    """A ring with one card and the tenants 7.0 and 8.0; records: (kind, place of the tenant, ns from now)."""
    image = bytearray(timeline.TIMELINE_BYTES)
    struct.pack_into("<IIQQI", image, 0, timeline.MAGIC, timeline.VERSION, timeline.TIMELINE_BYTES, len(records), 1)
    struct.pack_into("64s", image, 64, UUID)
    for place, name in enumerate((b"7.0", b"8.0")):
        struct.pack_into("<II64s", image, 64 + 64 * 16 + 72 * place, 1, 1, name)
    now_ns = time.monotonic_ns()
    for number, (kind, place, from_now_ns) in enumerate(records):
        at_ns = now_ns + from_now_ns
        row = struct.pack("<QQIIIHBB", at_ns, at_ns, 100 + place, 0, 1, place, 0, kind)
        struct.pack_into("32s", image, timeline.TABLES_BYTES + 32 * number, row)
    path.write_bytes(image)


@pytest.fixture
def ring(environment, pool):
    pool.answers["GET", "/v1/devices"] = {"items": [fake_pool.CARD]}
    pool.answers["GET", "/v1/jobs"] = {"items": [fake_pool.job("7", "running", members=[{"member": 0}])]}
    path = Path(environment["FLEXAI_RUN_DIR"]) / "timeline"
    write_ring(path, [(Kind.RUNS, 0, -2_000_000_000), (Kind.STOPPED, 1, -2_000_000_000)])
    return path


def test_the_trace_and_the_table_say_who_had_the_card(flexai, ring, tmp_path):
    done = flexai("timeline", "0.2", "-o", "trace.json")
    assert done.returncode == 0, done.stderr
    assert "100.00%" in done.stdout
    assert "trace.json" in done.stdout
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    had = [event for event in events if event["ph"] == "X" and event["cat"] == "runs"]
    assert {round(event["dur"] / 1e5) for event in had} == {2}


def test_for_programs_there_is_a_summary(flexai, ring):
    answer = json.loads(flexai("timeline", "0.1", "--json").stdout)
    tenants = {row["tenant"].split()[0]: row for row in answer["tenants"]}
    assert tenants["7"]["had_milli"] == 1000  # its job's number and name
    assert tenants["8.0"]["stopped_milli"] == 1000  # of a job that the pool does not show
    assert answer["n_missed"] == 0


def test_without_an_arbiter_it_says_how_to_start_one(flexai):
    done = flexai("timeline", "0.1")
    assert done.returncode == 3
    assert "flexai up" in done.stderr


def test_a_file_that_cannot_be_written_is_refused_before_recording(flexai, ring):
    done = flexai("timeline", "60", "-o", "/proc/no/such")
    assert done.returncode == 2
    assert "/proc/no/such" in done.stderr
