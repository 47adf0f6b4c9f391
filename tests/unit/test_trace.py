import gzip
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flexai.wire.errors import BadInput
from flexai.wire.own_trace import read_own, read_own_yaml
from flexai.wire.trace import (
    BadRows,
    read_openb_nodes,
    read_openb_pods,
    read_philly,
    read_sacct,
    read_serving,
)

POD_HEADER = "name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec\n"
READERS = [read_openb_nodes, read_openb_pods, read_philly, read_own, read_own_yaml, read_sacct, read_serving]


def test_an_openb_pod_is_cards_at_a_share_with_allowed_models():
    (job,) = read_openb_pods([POD_HEADER, "p,6000,12288,1,460,V100M16|V100M32\n"], "pods.csv", BadRows())
    assert (job.n_devices, job.compute_milli, job.cpu_milli) == (1, 460, 6000)
    assert job.models == ("V100M16", "V100M32")


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("p,6000,12288,1,abc,\n", "pods.csv:2: gpu_milli"),
        ("p,6000,12288,1,1001,\n", "pods.csv:2: gpu_milli"),
        ("p,6000,12288,1,0,\n", "pods.csv:2: gpu_milli"),
        ("p,6000\n", "pods.csv:2"),
        ("p,-1,12288,1,460,\n", "pods.csv:2: cpu_milli"),
    ],
)
def test_a_row_that_does_not_parse_is_named_by_file_line_and_field(line, named):
    with pytest.raises(BadInput) as caught:
        read_openb_pods([POD_HEADER, line], "pods.csv", BadRows())
    assert caught.value.thing == named


def test_bad_rows_can_be_skipped_and_are_counted():
    bad = BadRows(skip=True)
    jobs = read_openb_pods([POD_HEADER, "a,1,1,1,x,\n", "b,1,1,1,500,\n", "c,1\n"], "pods.csv", bad)
    assert [job.name for job in jobs] == ["b"]
    assert bad.n == 2
    assert "pods.csv:2: gpu_milli" in bad.first[0]


def test_a_clock_that_runs_back_is_an_error():
    lines = ["submit_s,duration_s,devices\n", "10,5,1\n", "9,5,1\n"]
    with pytest.raises(BadInput, match="runs back from 10 s"):
        read_own(lines, "own.csv", BadRows())


def test_yaml_says_the_same_as_csv():
    csv = [
        "submit_s,duration_s,devices,share,queue,checkpointable,name\n",
        "1,60,1,0.25,a,true,x\n",
        "2,5,4,1,b,no,y\n",
    ]
    text = "# two\njobs:\n- {submit_s: 1, duration_s: 60, devices: 1, share: 0.25, queue: a, checkpointable: yes,"
    text += " name: x}\n"
    text += "- submit_s: 2\n  duration_s: 5\n  devices: 4\n  queue: b\n  name: y\n"
    assert read_own_yaml(text.splitlines(keepends=True), "t.yaml", BadRows()) == read_own(csv, "t.csv", BadRows())
    listed = text.partition("jobs:\n")[2]
    assert len(read_own_yaml([listed], "t.yaml", BadRows())) == 2


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("- {submit_s: 1, duration_s: soon, devices: 1}\n", "t.yaml:2: duration_s"),
        ("- {submit_s: 1, devices: 1}\n", "t.yaml:2: duration_s"),
        ("- {submit_s: 1, duration_s: 1, devices: 1, menbers: 2}\n", "t.yaml: menbers"),
        ("- {submit_s: 1, duration_s: 1, devices: 1, share: 1.5}\n", "t.yaml:2: share"),
        ("- {submit_s: 1, duration_s: 1, devices: 1, preemptible: perhaps}\n", "t.yaml:2: preemptible"),
        ("- {submit_s: 1, duration_s: [1], devices: 1}\n", "t.yaml:2"),
        ("- job\n", "t.yaml:2"),
        ("- {submit_s: 1\n", "t.yaml:3"),
        ("jobs: 5\n", "t.yaml"),
        ("5: 5\n", "t.yaml"),
    ],
)
def test_a_yaml_job_that_does_not_parse_is_named_by_file_line_and_field(line, named):
    with pytest.raises(BadInput) as caught:
        read_own_yaml(["# jobs\n", line], "t.yaml", BadRows())
    assert caught.value.thing == named


def test_our_own_trace_has_sensible_defaults():
    lines = ["submit_s,duration_s,devices,share\n", "0.5,60,2,0.25\n"]
    (job,) = read_own(lines, "own.csv", BadRows())
    assert (job.submit_ms, job.duration_ms, job.n_devices, job.compute_milli) == (500, 60_000, 2, 250)
    assert (job.queue, job.n_members) == ("default", 1)


GANG = """- {submit_s: 0, duration_s: 60, devices: 0, cpus: 8, gang: train, role: leader}
- {submit_s: 0, duration_s: 60, devices: 2, members: 3, min_members: 1, gang: train, role: worker}
- {submit_s: 5, duration_s: 60, devices: 1, name: after}
"""


def test_rows_of_one_gang_are_the_roles_of_one_job():
    gang, after = read_own_yaml([GANG], "t.yaml", BadRows())
    assert (gang.name, gang.n_members, after.name) == ("train", 4, "after")
    assert [(role.role, role.n_devices, role.cpu_milli) for role in gang.roles] == [
        ("leader", 0, 8000),
        ("worker", 2, 0),
    ]
    assert [role.min_member for role in gang.roles] == [-1, 1]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (("role: worker", "role: leader"), "two or more roles with names of their own"),
        (("duration_s: 60, devices: 2", "duration_s: 61, devices: 2"), "duration_ms.*differs between its roles"),
        (("name: after", "gang: train, role: late"), "differs between its roles"),
        (("gang: train, role: worker", "gang: train"), "without the other of gang and role"),
        (("min_members: 1", "min_members: 4"), "is not within 1 to its 3 members"),
    ],
)
def test_roles_of_a_trace_that_cannot_be_are_named(change, problem):
    with pytest.raises(BadInput, match=problem):
        read_own_yaml([GANG.replace(*change)], "t.yaml", BadRows())


def test_slurm_accounting_is_read_and_jobs_without_cards_are_left_out():
    lines = [
        "JobID|User|Partition|Submit|ElapsedRaw|AllocTRES|NNodes\n",
        "1|ann|gpu|2026-01-05T10:00:00|3600|billing=8,cpu=16,gres/gpu=8,node=2|2\n",
        "2|bob|cpu|2026-01-05T10:00:01|60|cpu=4|1\n",
    ]
    (job,) = read_sacct(lines, "sacct.txt", BadRows())
    assert (job.n_members, job.n_devices, job.cpu_milli, job.queue) == (2, 4, 8000, "gpu")


@pytest.mark.parametrize("read", READERS)
def test_an_empty_or_foreign_file_is_refused_by_name(read):
    for lines in ([], ["a,b\n", "1,2\n"]):
        with pytest.raises(BadInput, match=r"file\.csv"):
            read(lines, "file.csv", BadRows())


@given(st.sampled_from(READERS), st.lists(st.text(max_size=60), max_size=5), st.booleans())
def test_no_text_crashes_a_reader(read, rows, with_header):
    header = {
        read_openb_nodes: "sn,cpu_milli,memory_mib,gpu,model",
        read_openb_pods: "name,cpu_milli,memory_mib,num_gpu,gpu_milli",
        read_philly: "timestamp,duration,num_gpus,cluster",
        read_own: "submit_s,duration_s,devices",
        read_own_yaml: "jobs:",
        read_sacct: "JobID|User|Partition|Submit|ElapsedRaw|AllocTRES|NNodes",
        read_serving: "timestamp,pod,value",
    }[read]
    try:
        read([header, *rows] if with_header else rows, "fuzz", BadRows(skip=True))
    except BadInput as error:
        assert error.remedy


TRACES = Path(os.environ.get("FLEXAI_TRACES", "/nonexistent"))


@pytest.mark.skipif(not TRACES.exists(), reason="set FLEXAI_TRACES to a folder with the public traces")
def test_the_public_traces_are_read_whole():
    with (TRACES / "openb/nodes.csv").open() as lines:
        nodes = read_openb_nodes(lines, "nodes.csv", BadRows())
    assert (len(nodes), sum(node.n_devices for node in nodes)) == (1213, 6212)
    with gzip.open(TRACES / "philly/jobs_to_2017-11-14.csv.gz", "rt") as lines:
        jobs = read_philly(lines, "philly", BadRows())
    first, end = 1_506_902_400_000, 1_510_617_600_000
    assert sum(first <= job.submit_ms < end for job in jobs) == 57_983
