"""C and Python agree on every byte of the region, and the bytes do not change unseen."""

import subprocess
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flexai.wire import region
from flexai.wire.errors import BadInput
from flexai.wire.region import Limits

ROOT = Path(__file__).parents[3]
FIELDS = {
    "fx_policy_device": (
        region.DEVICE,
        """uuid memory_bytes compute_milli limit_milli tenant_class backend gate gate_owner_epoch window_us reserved0
        context_bytes reserved""",
    ),
    "fx_slot": (
        region.SLOT,
        """pid host_pid start_ticks heartbeat_ns last_submit_ns waiting flags charged_bytes inflight drained_gen
        n_launches busy_until_ns waiting_on pid_ns n_begun n_done n_imports exported_mib""",
    ),
}
HEADS = {
    "fx_policy": (region.HEAD, "magic version size seq n_devices tenant heartbeat_ns reserved device"),
    "fx_ledger": (
        region.LEDGER_HEAD,
        "magic version size charged_bytes peak_bytes n_refused demand context_mib reserved slot",
    ),
}


def offsets_in_python(layout) -> list[int]:
    """Offset of each field: what is before it, packed. Runs of one number count as one array."""
    import re
    import struct

    tokens = re.findall(r"(\d*)([a-zA-Z])", layout.format.removeprefix("<"))
    found, so_far = [], "<"
    for count, code in tokens:
        n = int(count or 1)
        arrays = (
            [count + code] if code == "s" else [f"{region.MAX_DEVICES}{code}"] * (n // 16) if n >= 16 else [code] * n
        )
        for one in arrays:
            found.append(struct.calcsize(so_far))
            so_far += one
    return [*found, struct.calcsize(so_far)]


def test_offsets_are_those_of_the_header(tmp_path):
    lines = ["#include <stdio.h>", "#include <stddef.h>", '#include "flexai_region.h"', "int main(void) {"]
    for name, (_, fields) in {**FIELDS, **HEADS}.items():
        lines += [f'printf("{name}.{field} %zu\\n", offsetof(struct {name}, {field}));' for field in fields.split()]
        lines.append(f'printf("{name} %zu\\n", sizeof(struct {name}));')
    lines.append("}")
    source, program = tmp_path / "offsets.c", tmp_path / "offsets"
    source.write_text("\n".join(lines))
    subprocess.run(["gcc", f"-I{ROOT / 'api'}", "-o", program, source], check=True)
    said = dict(line.split() for line in subprocess.check_output([program], text=True).splitlines())
    for name, (layout, fields) in {**FIELDS, **HEADS}.items():
        ours = offsets_in_python(layout)
        assert [int(said[f"{name}.{field}"]) for field in fields.split()] == ours[: len(fields.split())], name
    assert int(said["fx_policy"]) == region.POLICY_BYTES
    assert int(said["fx_ledger"]) == region.LEDGER_BYTES


def test_the_golden_file_still_reads_and_is_still_written():
    image = bytearray(region.policy_image("job-17.0"))
    region.write_limits(
        image,
        [
            Limits("GPU-00112233-4455-6677-8899-aabbccddeeff", 20 << 30, 300, 500, "latency", 512 << 20),
            Limits("GPU-ffffffff-0000-0000-0000-000000000001", 0, 1000, 1000, "best_effort"),
        ],
    )
    golden = (Path(__file__).parent / "golden_policy.hex").read_text()
    rows = {i: image[i : i + 32].hex() for i in range(0, len(image), 32) if any(image[i : i + 32])}
    assert golden == "".join(f"{at:06x} {row}\n" for at, row in rows.items())
    again = bytearray(len(image))
    for line in golden.splitlines():
        at, row = line.split()
        again[int(at, 16) : int(at, 16) + 32] = bytes.fromhex(row)
    tenant, cards = region.read_limits(again)
    assert tenant == "job-17.0"
    assert [card.memory_bytes for card in cards] == [20 << 30, 0]
    assert sha256(region.ledger_image()[:512]).hexdigest()[:16] == "38118c56915fc34e"


limits = st.builds(
    Limits,
    uuid=st.text(st.characters(codec="ascii", exclude_characters="\0"), max_size=63),
    memory_bytes=st.integers(0, 2**64 - 1),
    compute_milli=st.integers(0, 1000),
    limit_milli=st.integers(0, 1000),
    tenant_class=st.sampled_from(sorted(region.CLASSES)),
    context_bytes=st.integers(0, 2**64 - 1),
)


@given(st.lists(limits, max_size=16), st.lists(limits, max_size=16))
def test_what_was_written_last_is_read_and_the_arbiters_words_are_kept(first, second):
    image = bytearray(region.policy_image("t"))
    arbiter = slice(region.HEAD.size + 84, region.HEAD.size + 100)  # backend, gate, epoch, window of card 0
    image[arbiter] = bytes(range(16))
    region.write_limits(image, first)
    region.write_limits(image, second)
    assert region.read_limits(image) == ("t", second)
    assert image[arbiter] == bytes(range(16))
    assert image[16] % 2 == 0


@given(st.binary(max_size=200), st.booleans())
def test_a_foreign_ledger_is_refused_with_what_is_wrong(data, full_length):
    with pytest.raises(BadInput):
        region.decode_ledger(data + bytes(region.LEDGER_BYTES - len(data)) if full_length else data)


@given(st.integers(0, region.LEDGER_BYTES), st.binary(min_size=1, max_size=64))
def test_a_scribbled_ledger_never_raises_anything_but_bad_input(at, noise):
    data = bytearray(region.ledger_image())
    data[at : at + len(noise)] = noise
    try:
        ledger = region.decode_ledger(bytes(data[: region.LEDGER_BYTES]))
    except BadInput:
        assert at < 16
    else:
        assert len(ledger.charged_bytes) == region.MAX_DEVICES


def test_another_version_is_named_with_ours():
    data = bytearray(region.ledger_image())
    data[8] = 9
    with pytest.raises(BadInput, match="version 9") as caught:
        region.decode_ledger(bytes(data), "/run/x/ledger")
    assert "version 1" in str(caught.value)
    assert caught.value.thing == "/run/x/ledger"
