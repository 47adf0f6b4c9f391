"""The bytes between agent and arbiter: what Python writes is what C reads, and nothing malformed passes."""

import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flexai.model import Grant, TenantClass
from flexai.wire import arbiter
from flexai.wire.errors import BadInput

API = Path(__file__).parents[2] / "api"
READER = """
#include <stdio.h>
#include <string.h>
#include "flexai_arbiter.h"
int main(void) {
    struct fx_arb_message m;
    if (fread(&m, 1, sizeof m, stdin) != sizeof m || m.magic != FX_ARB_MAGIC || m.version != FX_ARB_VERSION) return 1;
    printf("%u %llu %s %s %s %s %u", m.op, (unsigned long long)m.seq, m.tenant, m.job, m.dir, m.cgroup, m.root_pid);
    for (unsigned i = 0; i < m.n_grants; i++)
        printf(" | %s %llu %u %u %u %u %u", m.grant[i].uuid, (unsigned long long)m.grant[i].memory_bytes,
               m.grant[i].compute_milli, m.grant[i].limit_milli, m.grant[i].tenant_class, m.grant[i].backend,
               m.grant[i].borrow_weight);
    return 0;
}
"""
WRITER = """
#include <stdio.h>
#include <string.h>
#include "flexai_arbiter.h"
int main(void) {
    static struct fx_usage u = {.magic = FX_ARB_MAGIC, .version = FX_ARB_VERSION,
        .size = sizeof(struct fx_usage), .seq = 6, .arbiter_pid = 7, .heartbeat_ns = 8, .n_devices = 1, .n_entries = 2};
    u.device[0] = (struct fx_usage_device){.uuid = "GPU-1", .backend = FX_BACKEND_HWSLICE, .source = 2, .busy_ns = 11,
        .control_ns = 12, .n_control = 13, .log_dropped = 14, .note = "why", .round_ns = 15, .known_ns = 16};
    u.entry[0] = (struct fx_usage_entry){.tenant = "outside", .uuid = "GPU-1", .held_ns = 21};
    u.entry[1] = (struct fx_usage_entry){.tenant = "job.0", .uuid = "GPU-1", .held_ns = 31,
        .stopped_ns = 32, .borrowed_ns = 33,
        .wanted_ns = 34, .n_turns = 35, .n_stops = 36, .compute_milli = 37, .limit_milli = 38, .tenant_class = 1,
        .state = FX_TENANT_WAITING, .n_processes = 39, .n_groups = 40, .hostile = 41, .borrow_weight = 42};
    return fwrite(&u, 1, sizeof u, stdout) != sizeof u;
}
"""


def grant(device="GPU-a"):
    return Grant(
        job_id="j", member=0, node="n", device=device, compute_milli=300, limit_milli=400, memory_bytes=5,
        tenant_class=TenantClass.LATENCY, borrow_weight=7,
    )  # fmt: skip


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wire")

    def build(name, source):
        (folder / f"{name}.c").write_text(source)
        subprocess.run(["gcc", "-std=c11", f"-I{API}", "-o", folder / name, folder / f"{name}.c"], check=True)
        return folder / name

    return {"reader": build("reader", READER), "writer": build("writer", WRITER)}


def test_c_reads_what_python_writes(compiled):
    def read(message):
        return subprocess.run([compiled["reader"]], input=message, capture_output=True, check=True).stdout.decode()

    put = arbiter.message(
        arbiter.Op.TENANT_PUT,
        9,
        tenant="job.0",
        directory="/d",
        cgroup="/c",
        root_pid=5,
        grants=(grant(), grant("GPU-b")),
    )
    assert read(put) == "2 9 job.0 j /d /c 5 | GPU-a 5 300 400 0 0 7 | GPU-b 5 300 400 0 0 7"
    assert read(arbiter.message(arbiter.Op.DEVICE_PUT, 1, device=("GPU-x", 2))) == "7 1     0 | GPU-x 0 0 0 0 2 0"


def test_python_reads_what_c_writes(compiled):
    image = subprocess.run([compiled["writer"]], capture_output=True, check=True).stdout
    table = arbiter.usage(image)
    assert (table.seq, table.arbiter_pid, table.heartbeat_ns) == (6, 7, 8)
    assert table.devices == (arbiter.UsageDevice("GPU-1", "hwslice", "log", 11, 12, 13, 14, "why", 15, 16),)
    assert [entry.tenant for entry in table.entries] == ["outside", "job.0"]
    last = arbiter.UsageEntry("job.0", "GPU-1", 31, 32, 33, 34, 35, 36, 37, 38, 1, 2, 39, 40, 41, 0, 0, 42)
    assert table.entries[1] == last


@given(st.binary(max_size=300), st.sampled_from([0, arbiter.REPLY_BYTES]))
def test_no_answer_breaks_the_decoder(data, size):
    data = data.ljust(size, b"\0")[: size or None]
    try:
        arbiter.reply(data)
    except BadInput as error:
        assert error.remedy


@given(st.binary(max_size=200), st.integers(0, arbiter.USAGE_BYTES - 200))
def test_no_figures_break_the_decoder(data, at):
    image = bytearray(arbiter.USAGE_BYTES)
    image[0:16] = b"".join(
        n.to_bytes(k, "little") for n, k in ((arbiter.MAGIC, 8), (arbiter.VERSION, 4), (arbiter.USAGE_BYTES, 4))
    )
    image[at : at + len(data)] = data
    try:
        arbiter.usage(bytes(image))
    except BadInput as error:
        assert error.remedy


def test_names_that_do_not_fit_are_refused():
    with pytest.raises(BadInput):
        arbiter.message(arbiter.Op.TENANT_GONE, 1, tenant="x" * 64)
    with pytest.raises(BadInput):
        arbiter.message(arbiter.Op.TENANT_PUT, 1, tenant="x", directory="d" * 256)
