"""A recorded log decides the same again, byte for byte, in another process and with another hash seed."""

import json
import os
import sqlite3
import subprocess
import sys
from dataclasses import replace

import pytest
import typer
from typer.testing import CliRunner

from flexai.adapters.traces import load_trace
from flexai.apps.simulator import recorded
from flexai.apps.simulator.main import simulate
from flexai.model import Device, Grant, Job, Node, Queue, Role, SliceRequest
from flexai.scheduling import Scheduler, SchedulerSettings
from flexai.scheduling.events import GrantsFound, JobSubmitted, MemberFinished, MemberStarted, NodePut, QueuePut
from flexai.wire.errors import BadInput
from flexai.wire.retold import decode_told, encode_told
from flexai.wire.store import PoolStarted, decode_event, dumps, encode_event
from flexai.wire.trace import BadRows


@pytest.fixture
def state_dir(tmp_path):
    """A database as the pool writes it: the log, and the starts that a scheduler made of it."""
    devices = tuple(Device(f"GPU-{i}", "H200", "simulated", i, 2**37) for i in range(4))
    begun = PoolStarted(1, SchedulerSettings(), told=encode_told([QueuePut(1, Queue("default"))]))
    events = (
        [begun]
        + [QueuePut(1, Queue(name)) for name in ("a", "b", "c")]
        + [NodePut(2, Node("n", devices, 64_000, 2**38))]
    )
    for seq in range(30):
        request = SliceRequest(*((300, 600, 2**33) if seq % 3 else (1000, 1000, 0)))
        events.append(JobSubmitted(10 + seq, Job(f"{seq}", "ann", "abc"[seq % 3], request, seq=seq)))
    roles = (Role("leader", SliceRequest(100, 200, 2**30)), Role("worker", SliceRequest(600, 600, 2**33), 3, 1))
    events.append(JobSubmitted(41, Job("gang", "ann", "a", roles[0].request, 4, 2, seq=40, roles=roles)))
    events += [MemberFinished(100 + seq, f"{seq}", 0, 0, "exited") for seq in range(0, 30, 2)]
    database = sqlite3.connect(tmp_path / "pool.db")
    database.execute("CREATE TABLE log (seq INTEGER PRIMARY KEY, at_ms INTEGER, kind TEXT, body TEXT)")
    database.execute("CREATE TABLE history (id INTEGER PRIMARY KEY, job_id TEXT, kind TEXT, body TEXT)")
    database.execute("CREATE TABLE meta (key TEXT PRIMARY KEY, value INTEGER)")
    database.execute("INSERT INTO meta VALUES ('applied_seq', ?)", (len(events),))
    scheduler = Scheduler()
    scheduler.step(QueuePut(1, Queue("default")))
    for event in events:
        database.execute("INSERT INTO log (at_ms, kind, body) VALUES (?, ?, ?)", (event.at_ms, *encode_event(event)))
        commands = () if isinstance(event, PoolStarted) else scheduler.step(event)
        for line in map(recorded.decision_of, commands):
            if line is not None:
                body = json.loads(line)
                named = body.pop("decision"), body.pop("job_id")
                database.execute("INSERT INTO history (kind, job_id, body) VALUES (?, ?, ?)", (*named, dumps(body)))
    database.commit()
    database.close()
    return tmp_path


@pytest.fixture
def recording(state_dir):
    out = state_dir / "log.jsonl"
    recorded.record(out, state_dir)
    return out


def test_what_a_new_scheduler_was_told_is_read_again_with_what_changed_since_the_submission():
    job = Job("1", "ann", "a", SliceRequest(300, 600, 2**33), after=("0", "9"), seq=1)
    changed = replace(job, held=True, after=("9",), request=replace(job.request, compute_milli=400, limit_milli=400))
    grant = Grant("1", 0, "n", "GPU-0", 2**33, 400, 400, job.request.tenant_class)
    told = [
        QueuePut(5, Queue("a")), GrantsFound(5, changed, (grant,), evicted=(0,)), JobSubmitted(5, changed),
    ]  # fmt: skip
    started = PoolStarted(5, SchedulerSettings(), 3, 4, encode_told(told))
    assert decode_told(started, {"1": job}) == told
    with pytest.raises(BadInput, match="does not have"):
        decode_told(started, {})


def test_the_same_decisions_come_from_the_log_again(recording, capsys):
    recorded.replay(recording, as_json=True)
    result = json.loads(capsys.readouterr().out)
    assert result["same_as_recorded"] is True
    assert result["starts"] > 8


def test_another_process_with_another_hash_seed_decides_byte_for_byte_alike(recording):
    digests = set()
    for seed in ("0", "1", "4242"):
        done = subprocess.run(
            [sys.executable, "-m", "flexai.apps.simulator.replay", str(recording), "--json"],
            env=dict(os.environ, PYTHONHASHSEED=seed), capture_output=True, text=True, check=True,
        )  # fmt: skip
        digests.add(json.loads(done.stdout)["digest"])
    assert len(digests) == 1


def test_a_changed_log_is_found_out(recording):
    lines = recording.read_text().splitlines()
    recording.write_text("\n".join(line for line in lines if '"GPU-2"' not in line or "event" in line) + "\n")
    with pytest.raises(typer.Exit) as end:
        recorded.replay(recording)
    assert end.value.exit_code == 1


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", "empty"),
        ("{}\n", "version"),
        ('{"flexai_recording":9}\n', "9"),
        ('{"flexai_recording":3,"complete":false}\n', "dropped"),
        ('{"flexai_recording":3,"complete":true,"applied_seq":1}\n[]\n', ":2"),
        (
            '{"flexai_recording":3,"complete":true,"applied_seq":1}\n{"event":"Nothing","seq":1,"body":"{}"}\n',
            "Nothing",
        ),
        ('{"flexai_recording":3,"complete":true,"applied_seq":1}\n{"event":"Tick","seq":1,"body":"{}"}\n', "Tick"),
    ],
)
def test_bad_recordings_are_named(tmp_path, text, named):
    path = tmp_path / "r"
    path.write_text(text)
    app = typer.Typer()
    app.command()(recorded.replay)
    done = CliRunner().invoke(app, [str(path)])
    assert done.exit_code == 2
    assert named in done.stderr


def test_a_state_directory_without_a_pool_is_named(tmp_path):
    with pytest.raises(typer.Exit):
        recorded.record(tmp_path / "x", tmp_path)


def test_a_job_written_before_there_were_roles_is_one_without_and_roles_come_back_as_they_were():
    request = SliceRequest(100, 200, 2**30)
    old = json.loads(encode_event(JobSubmitted(1, Job("1", "ann", "a", request)))[1])
    assert old["job"].pop("roles") == []
    assert decode_event("JobSubmitted", json.dumps(old)) == JobSubmitted(1, Job("1", "ann", "a", request))
    roles = (Role("leader", request), Role("worker", request, 3, 1, required_level="rack"))
    new = JobSubmitted(1, Job("1", "ann", "a", request, 4, 2, roles=roles))
    assert decode_event(*encode_event(new)) == new


def test_what_was_recorded_of_a_pool_is_a_trace_to_simulate_with_run_times_as_they_were(tmp_path):
    roles = (Role("lead", SliceRequest(100, 200, 2**30)), Role("work", SliceRequest(600, 600, 2**33), 2, 1))
    events = [
        JobSubmitted(1000, Job("1", "ann", "a", SliceRequest(500, 500, 2**33), 2, 1, priority=3, submitted_at_ms=1000)),
        MemberStarted(2000, "1", 0),
        MemberFinished(3000, "1", 0, 143, "evicted"),
        MemberStarted(9000, "1", 0), MemberStarted(9500, "1", 1), MemberFinished(14_000, "1", 0, 0),
        JobSubmitted(15_000, Job("2", "bob", "b", roles[0].request, 3, 2, submitted_at_ms=15_000, roles=roles)),
        MemberFinished(16_000, "1", 1, 0),
        *(MemberStarted(17_000, "2", n) for n in range(3)), *(MemberFinished(18_000 + n, "2", n, 0) for n in range(3)),
        JobSubmitted(20_000, Job("3", "bob", "b", roles[0].request, submitted_at_ms=20_000)),
    ]  # fmt: skip
    log = tmp_path / "log.jsonl"
    lines = [dumps({"event": kind, "seq": n, "body": body}) for n, (kind, body) in enumerate(map(encode_event, events))]
    log.write_text("\n".join([dumps({"flexai_recording": 3, "complete": True, "applied_seq": 9}), *lines]) + "\n")
    with pytest.raises(BadInput, match="had not started"):
        load_trace(str(log), BadRows())
    bad = BadRows(skip=True)
    trace = load_trace(str(log), bad)
    one, gang = trace.works
    assert (trace.kind, bad.n, trace.has_times) == ("recording", 1, True)
    assert (one.submit_ms, one.duration_ms, one.n_members, one.min_member, one.priority) == (1000, 7000, 2, 1, 3)
    assert (gang.duration_ms, gang.n_members, gang.least, gang.asked_milli) == (1002, 3, 2, 1300)
    simulator = typer.Typer()
    simulator.command()(simulate)
    done = CliRunner().invoke(simulator, [str(log), "--cluster", "1x2", "--skip-bad", "--json", "-"])
    assert done.exit_code == 0, done.output
    log.write_text(log.read_text() + '{"event":"MemberStarted","seq":99,"body":"{}"}\n')
    with pytest.raises(BadInput, match="stored MemberStarted"):
        load_trace(str(log), BadRows())
