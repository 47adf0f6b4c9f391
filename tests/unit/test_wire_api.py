"""What the pool API refuses, and how it says so."""

import json

import pytest

from flexai.wire import api
from flexai.wire.errors import BadInput
from flexai.wire.queue import decode_queue

GOOD = {"command": ["python", "train.py"], "cwd": "/home/ada", "compute_milli": 300, "memory_bytes": 16 << 30}


def test_a_small_submission_gets_the_defaults():
    submission = api.decode_submission(GOOD)
    assert submission.kind == "submit"
    assert submission.queue == "default"
    assert submission.request.limit_milli == 1000
    assert submission.min_member == submission.n_members == 1


def test_a_whole_card_needs_no_memory():
    assert api.decode_submission({"command": ["x"], "cwd": "/", "compute_milli": 1000}).request.is_whole


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("compute_milli", 0, "0.1% to 100%"),
        ("compute_milli", 1001, "0.1% to 100%"),
        ("compute_milli", True, "whole number"),
        ("compute_milli", None, "missing"),
        ("limit_milli", 200, "between the share and 100%"),
        ("memory_bytes", 0, "--memory"),
        ("memory_bytes", -1, "not within"),
        ("tenant_class", "gold", "latency, guaranteed, best_effort"),
        ("queue", "a b", "not a name"),
        ("command", [], "after --"),
        ("command", "ls", "list of words"),
        ("command", ["a\0b"], "NUL"),
        ("cwd", "here", "absolute"),
        ("env", {"A=B": "c"}, "environment variable"),
        ("after", ["seventeen"], "job id"),
        ("array", "9-0", "smaller number first"),
        ("array", "0-10000", "10000 elements"),
        ("array", "x", "0-9"),
        ("min_member", 2, "as many as there are members"),
        ("colour", "red", "not a field"),
    ],
)
def test_each_wrong_field_is_named_with_its_value_and_a_remedy(field, value, says):
    with pytest.raises(BadInput) as caught:
        api.decode_submission(GOOD | {field: value})
    assert field in caught.value.thing
    assert says in str(caught.value)


def test_a_run_has_one_process():
    with pytest.raises(BadInput, match="flexai submit"):
        api.decode_submission(GOOD | {"kind": "run", "array": "0-3"})


def test_a_huge_body_is_refused_before_it_is_parsed():
    with pytest.raises(BadInput, match="too large"):
        api.decode_json(b" " * (api.MAX_BODY_BYTES + 1))


def test_a_body_nested_beyond_reason_is_refused():
    with pytest.raises(BadInput, match="not JSON"):
        api.decode_json(b"[" * 100_000)


def test_ranges_of_an_array_may_step():
    assert api.parse_array("0-20:5,3") == (0, 3, 5, 10, 15, 20)


def test_a_queue_limit_under_its_quota_is_refused():
    with pytest.raises(BadInput, match="under the queue's quota"):
        decode_queue("a", {"quota_milli": 2000, "limit_milli": 1000})


def test_a_submission_with_any_file_name_is_stored_as_ascii():
    submission = api.decode_submission(GOOD | {"command": ["\udcff"]})
    assert json.dumps(api.encode_submission(submission)).isascii()


WORKER = {"name": "worker", "n_members": 3, "min_member": 2, "compute_milli": 500, "memory_bytes": 8 << 30}
WITH_ROLES = {
    "command": ["run"], "cwd": "/tmp", "env": {"A": "b"},
    "roles": [{"name": "leader", "compute_milli": 100, "memory_bytes": 1 << 30, "command": ["lead"]}, WORKER],
}  # fmt: skip


def test_a_job_of_roles_is_read_and_written_back():
    job = api.decode_submission(WITH_ROLES)
    leader, worker = job.roles
    assert (job.n_members, job.min_member, job.request) == (4, 3, leader.role.request)
    assert (leader.command, worker.command, worker.cwd, worker.env) == (("lead",), ("run",), "/tmp", {"A": "b"})
    assert api.decode_submission(api.encode_submission(job)) == job


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"roles": [WORKER]}, "is not a number of roles"),
        ({"roles": [WORKER, WORKER]}, "is there twice"),
        ({"n_members": 7}, "is not the sum over its roles, 4"),
        ({"cpu_milli": 1000}, "is asked for beside its roles"),
        ({"roles": [WORKER, {**WORKER, "name": ""}]}, r"roles\[1\]\.name"),
        ({"roles": [WORKER, {**WORKER, "name": "x", "colour": 1}]}, r"roles\[1\]\.colour"),
        ({"roles": [{**WORKER, "min_member": 0}, {**WORKER, "name": "x", "min_member": 0}]}, "at least one member"),
        ({"roles": "leader"}, "is not a list of roles"),
        ({"kind": "run"}, "needs a job that the pool starts"),
    ],
)
def test_roles_that_cannot_be_are_refused(change, problem):
    with pytest.raises(BadInput, match=problem):
        api.decode_submission(WITH_ROLES | change)
