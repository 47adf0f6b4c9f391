"""Whatever is sent, the pool answers with what it did or what is wrong, and goes on."""

import http.client
import json
import socket
import subprocess
import sys
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

JOB = {"command": ["true"], "cwd": "/", "compute_milli": 500, "memory_bytes": 1 << 30, "held": True}
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(exclude_categories=()), max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
FIELDS = st.sampled_from([
    "command", "cwd", "env", "name", "queue", "compute_milli", "limit_milli", "memory_bytes", "tenant_class",
    "n_devices", "models", "cpu_milli", "ram_bytes", "time_limit_ms", "idle_timeout_ms", "priority", "preemptible",
    "after", "array", "held", "n_members", "min_member", "checkpointable", "kind", "pid", "exit_code", "yaml", "parent",
    "quota_milli", "weight", "users", "user_limit_milli",
])  # fmt: skip
PATHS = st.sampled_from([
    "/v1/jobs", "/v1/jobs/1", "/v1/jobs/1/attach", "/v1/jobs/1/finish", "/v1/jobs/1/resize", "/v1/jobs/1/hold",
    "/v1/jobs/1/pause", "/v1/jobs/1/explain", "/v1/jobs/1/history", "/v1/jobs/1/logs", "/v1/queues/q", "/v1/queues",
    "/v1/devices/0/cordon", "/v1/manifests", "/v1/usage", "/v1/history", "/v1/top", "/v1/status",
])  # fmt: skip
QUERIES = st.dictionaries(
    st.sampled_from(["limit", "cursor", "state", "user", "queue", "offset", "member", "since_ms", "by"]),
    st.text(max_size=12) | st.integers().map(str),
    max_size=2,
)


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("pool", timeout=20)
        self._path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


@pytest.fixture(scope="module")
def ask(tmp_path_factory):
    directory = tmp_path_factory.mktemp("fuzz")
    run_dir = directory / "r"
    run_dir.mkdir()
    with (directory / "log").open("wb") as log:
        command = [sys.executable, "-m", "flexai.apps.pool", "--run-dir", run_dir, "--state-dir", directory / "s"]
        process = subprocess.Popen(command, stderr=log)

    def request(method, target, body=b""):
        connection = UnixConnection(run_dir / "pool.sock")
        try:
            connection.request(method, target, body)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    deadline = time.monotonic() + 60
    while not (run_dir / "pool.sock").exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    request("POST", "/v1/jobs", json.dumps(JOB).encode())
    yield request
    assert process.poll() is None
    assert request("GET", "/v1/status")[0] == 200
    process.terminate()
    assert process.wait(timeout=20) == 0
    log = (directory / "log").read_text()
    assert "Traceback" not in log, log


def told(answer):
    status, content = answer
    assert status < 500 or (status == 503 and b"AgentAway" in content), content
    if status >= 400:
        assert set(json.loads(content)) == {"code", "message", "thing", "value", "remedy"}


FEW = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@FEW
@given(changes=st.dictionaries(FIELDS, VALUES, max_size=3), dropped=st.sets(st.sampled_from(list(JOB)), max_size=1))
def test_any_submission_is_taken_or_refused(ask, changes, dropped):
    body = {name: value for name, value in (JOB | changes).items() if name not in dropped}
    told(ask("POST", "/v1/jobs", json.dumps(body).encode()))


@FEW
@given(
    method=st.sampled_from(["GET", "POST", "PUT", "DELETE", "PATCH"]),
    path=PATHS,
    query=QUERIES,
    body=st.dictionaries(FIELDS, VALUES, max_size=4).map(lambda body: json.dumps(body).encode())
    | st.binary(max_size=40),
)
def test_any_request_is_answered(ask, method, path, query, body):
    quoted = "&".join(f"{name}=" + "".join(f"%{byte:02x}" for byte in value.encode()) for name, value in query.items())
    told(ask(method, f"{path}?{quoted}" if quoted else path, body))
