"""A tenant that floods the socket of the shims: the agent goes on, has descriptors left, and others are heard."""

import signal
import struct
import sys
import time
from pathlib import Path

import pytest

from flexai.wire.handshake import HELLO_BYTES, MAGIC, VERSION

from .conftest import grant, wait_for

FLOOD = """
import socket, sys, time
path, lines, n = sys.argv[1], [], 0
def connect():
    line = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    line.connect(path)
    line.setblocking(False)
    return line
print("begins", flush=True)
hello = bytes.fromhex(sys.argv[2])
while True:
    try:
        while len(lines) < 900:
            lines.append(connect())
    except OSError:
        time.sleep(0.001)
    for at, line in enumerate(lines):
        try:
            line.send(hello if at % 2 else b"noise")
            n += 1
        except BlockingIOError:
            pass
        except OSError:
            line.close()
            lines[at] = None
    lines = [line for line in lines if line]
"""


HELLO = struct.pack("<IIII32sI12x", MAGIC, VERSION, HELLO_BYTES, 0, b"flood", 0).hex()
SAY = """
import socket, sys, time
while True:  # as a shim does, more rarely
    try:
        line = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        line.settimeout(5)
        line.connect(sys.argv[1])
        line.send(bytes.fromhex(sys.argv[2]))
        if answer := line.recv(4096):
            break
    except OSError:
        time.sleep(0.05)
print("heard", len(answer))
"""


@pytest.mark.slow
def test_a_tenant_that_floods_the_shims_socket_takes_it_from_nobody(rig):
    def n_open():
        return len(list(Path(f"/proc/{rig.process.pid}/fd").iterdir()))

    rig.submit("flood", sys.executable, "-c", FLOOD, str(rig.run / "hello.sock"), HELLO)
    wait_for(lambda: "begins" in rig.log("flood"))
    longest_s, most, until = 0.0, 0, time.monotonic() + 2.0
    while time.monotonic() < until:
        began = time.monotonic()
        rig.client.call("usage")
        longest_s, most = max(longest_s, time.monotonic() - began), max(most, n_open())
    print(f"longest answer {longest_s:.3f} s, {most} descriptors")
    assert longest_s < 1, "it answers meanwhile"
    limit = int(Path(f"/proc/{rig.process.pid}/limits").read_text().split("Max open files")[1].split()[0])
    assert most < limit // 2 + 100, "it has descriptors left"
    rig.submit("2", sys.executable, "-c", SAY, str(rig.run / "hello.sock"), HELLO, prepare={"grants": [grant("2")]})
    wait_for(lambda: "heard" in rig.log("2"), 20)
    rig.client.call("signal", job_id="flood", member=0, signal=signal.SIGKILL, grace_ms=1)
    rig.in_state("flood", "finished")
    wait_for(lambda: n_open() < 100)
