"""The ring of who had which card: C's bytes are Python's, and spans are what the records tell."""

import itertools
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flexai.adapters.shm import TimelineFile
from flexai.wire import timeline
from flexai.wire.chrome_trace import NOBODY, chrome_trace
from flexai.wire.errors import BadInput
from flexai.wire.timeline import Kind, Record, Span, spans

API = Path(__file__).parents[2] / "api"
WRITER = """
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "flexai_timeline.h"
static struct fx_timeline t = {.magic = FX_TIMELINE_MAGIC, .version = FX_TIMELINE_VERSION, .size = sizeof t,
                               .arbiter_pid = 7};
int main(int argc, char **argv) {
    t.n_written = argc > 1 ? strtoull(argv[1], NULL, 10) : 0;
    strcpy(t.device[1], "GPU-b");
    t.tenant[3] = (struct fx_timeline_tenant){.use = 2, .n_uses = 2, .name = "job.0"};
    for (uint64_t i = t.n_written > FX_TIMELINE_RECORDS ? t.n_written - FX_TIMELINE_RECORDS : 0; i < t.n_written; i++)
        t.record[i % FX_TIMELINE_RECORDS] = (struct fx_timeline_record){
            .at_ns = i, .card_ns = 2, .pid = 3, .context = 4, .tenant_use = i % 2 ? 1 : 2, .tenant = 3, .device = 1,
            .kind = FX_TIMELINE_STOPPED};
    return fwrite(&t, 1, sizeof t, stdout) != sizeof t;
}
"""


@pytest.fixture(scope="module")
def ring(tmp_path_factory):
    """Answers a function: the file of a ring with so many records, as C writes it."""
    folder = tmp_path_factory.mktemp("timeline")
    (folder / "writer.c").write_text(WRITER)
    subprocess.run(
        ["gcc", "-std=c11", f"-I{API}", "-o", folder / "writer", folder / "writer.c"], check=True, capture_output=True
    )

    def write(n, path=folder / "timeline"):
        image = subprocess.run([folder / "writer", str(n)], capture_output=True, check=True).stdout
        if path.exists():
            with path.open("r+b") as file:  # the same file: a reader has it mapped
                file.write(image)
        else:
            path.write_bytes(image)
        return path

    return write


def test_python_reads_what_c_writes(ring):
    first, second = TimelineFile(ring(2)).read()
    assert first == Record(0, 2, 3, 4, "GPU-b", "job.0", Kind.STOPPED)
    assert second.tenant == "gone-3.1"  # its place belongs to another by now


def test_a_reader_gets_each_record_once_and_knows_how_many_it_missed(ring, tmp_path):
    path = ring(10, tmp_path / "timeline")
    file = TimelineFile(path)
    assert [record.at_ns for record in file.read()] == list(range(10))
    assert file.read() == []
    ring(12, path)
    assert [record.at_ns for record in file.read()] == [10, 11]
    ring(12 + timeline.N_RECORDS + 100, path)
    # The oldest place may be written at this moment, so it is not believed.
    assert len(file.read()) == timeline.N_RECORDS - 1
    assert file.n_missed == 101


def test_what_the_ring_held_before_is_not_missed(ring, tmp_path):
    file = TimelineFile(ring(timeline.N_RECORDS + 500, tmp_path / "timeline"))
    assert file.read()[-1].at_ns == timeline.N_RECORDS + 499
    assert file.n_missed == 0


@pytest.mark.parametrize("content", [None, b"", b"x" * timeline.TIMELINE_BYTES])
def test_no_ring_is_said_with_what_to_do(tmp_path, content):
    path = tmp_path / "timeline"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BadInput) as refused:
        TimelineFile(path).read()
    assert refused.value.remedy


@given(st.binary(max_size=10 * timeline.RECORD_BYTES))
def test_no_record_breaks_the_decoder(data):
    names = timeline.Tables(0, 1, ("",) * 16, ((0, ""),) * timeline.MAX_TENANTS)
    timeline.records(data[: len(data) // timeline.RECORD_BYTES * timeline.RECORD_BYTES], names)


def log(at_ns, kind, tenant="a.0", pid=1, skew=0):
    return Record(at_ns + skew, at_ns + 1000, pid, 0, "GPU-1", tenant, kind)


def of(found, what):
    return [(span.tenant, span.begin_ns, span.end_ns) for span in found if span.what == what]


def test_who_has_the_card_ends_where_the_next_begins_or_nobody_does():
    told = [log(10, Kind.RUNS), log(30, Kind.LEFT), log(40, Kind.RUNS, "b.0"), log(60, Kind.RUNS)]
    found = spans(told, 0, 100)
    assert of(found, "runs") == [("a.0", 10, 30), ("b.0", 40, 60), ("a.0", 60, 100)]
    assert of(found, "idle") == [("", 0, 10), ("", 30, 40)]


def test_spans_begin_before_the_window_and_are_cut_to_it():
    told = [log(10, Kind.RUNS), log(90, Kind.LEFT), log(5, Kind.STOPPED, "b.0", pid=2)]
    found = spans(told, 50, 100)
    assert of(found, "runs") == [("a.0", 50, 90)]
    assert of(found, "stopped") == [("b.0", 50, 100)]


def test_the_cards_own_clock_decides_not_when_we_came_to_know():
    told = [
        log(10, Kind.RUNS, skew=3),
        log(20, Kind.LEFT),
        log(30, Kind.RUNS),
        log(40, Kind.LEFT, skew=-2),
        log(50, Kind.RUNS),
    ]
    assert of(spans(told, 0, 60), "runs") == [("a.0", 10, 20), ("a.0", 30, 40), ("a.0", 50, 60)]


def test_after_lost_records_nobody_is_said_to_have_the_card():
    told = [log(10, Kind.RUNS), log(50, Kind.LOST), log(70, Kind.RUNS, "b.0"), log(80, Kind.LEFT)]
    found = spans(told, 0, 100)
    assert of(found, "runs") == [("b.0", 70, 80)]


def test_a_tenant_is_stopped_while_any_of_its_processes_is_and_no_longer_than_its_arbiter_lives():
    told = [
        log(10, Kind.STOPPED, pid=1), log(11, Kind.STOPPED, pid=2), log(20, Kind.RESUMED, pid=1),
        log(30, Kind.RESUMED, pid=2), log(40, Kind.STOPPED, pid=1), Record(50, 0, 0, 0, "", "outside", Kind.BEGAN),
    ]  # fmt: skip
    assert of(spans(told, 0, 100), "stopped") == [("a.0", 10, 30), ("a.0", 40, 50)]


def test_without_a_log_of_the_card_it_is_whose_turn_it_is():
    told = [log(10, Kind.TURN), log(30, Kind.TURN, "b.0"), log(40, Kind.TURN, "outside")]
    assert of(spans(told, 0, 50), "runs") == [("a.0", 10, 30), ("b.0", 30, 40)]


kinds = st.sampled_from([Kind.RUNS, Kind.LEFT, Kind.STOPPED, Kind.RESUMED, Kind.TURN, Kind.LOST, Kind.BEGAN])
told_in_order = st.lists(
    st.tuples(st.integers(0, 1000), kinds, st.sampled_from(["a.0", "b.0", "outside"]), st.integers(1, 2)), max_size=40
).map(lambda rows: [log(at, kind, tenant, pid) for at, kind, tenant, pid in sorted(rows, key=lambda row: row[0])])


@given(told_in_order, st.integers(0, 500), st.integers(501, 1500))
def test_a_card_has_one_holder_at_a_time_and_the_window_is_accounted_for(told, begin_ns, end_ns):
    found = spans(told, begin_ns, end_ns)
    for device in {span.device for span in found}:
        line = sorted(
            (s.begin_ns, s.end_ns) for s in found if s.device == device and s.what in {"runs", "idle"}
            and s.end_ns > s.begin_ns
        )  # fmt: skip
        assert all(a[1] == b[0] for a, b in itertools.pairwise(line))
        assert (line[0][0], line[-1][1]) == (begin_ns, end_ns)


def test_a_trace_names_its_tracks_and_has_no_slice_on_another():
    found = [
        Span("GPU-1", "runs", "1.0", 1_000, 3_000), Span("GPU-1", "turn", "1.0", 1_000, 9_000),
        Span("GPU-1", "stopped", "2.0", 2_000, 9_000), Span("GPU-1", "idle", "", 3_000, 9_000),
    ]  # fmt: skip
    document = chrome_trace(found, 1_000, [("GPU-1", "card 0: H200")], {"1.0": "1 train"})
    events = document["traceEvents"]
    tracks = {(e["pid"], e["tid"]): e["args"]["name"] for e in events if e["ph"] == "M" and e["name"] == "thread_name"}
    placed = {(tracks[e["pid"], e["tid"]], e["name"], e["ts"], e["dur"]) for e in events if e["ph"] == "X"}
    assert placed == {
        ("who has the card", "1 train", 0.0, 2.0), ("1 train: runs", "runs", 0.0, 2.0),
        ("whose turn", "1 train", 0.0, 8.0), ("2.0: stopped", "stopped", 1.0, 7.0),
        ("who has the card", NOBODY, 2.0, 6.0),
    }  # fmt: skip
    assert "card 0: H200" in {e["args"].get("name") for e in events if e["ph"] == "M"}
