"""The shim tells the agent that it is there, and what it does not know."""

import socket
import struct
import tempfile
from pathlib import Path

import pytest

HELLO = struct.Struct("<IIII32sI12s")
REPLY = struct.Struct("<IIIII108s")
MAGIC = 0x4F4C4846


@pytest.fixture
def agent(tenant):
    """A listening agent; the tenant knows where."""
    with tempfile.TemporaryDirectory(prefix="fx") as folder, socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as at:
        path = Path(folder) / "hello.sock"
        at.bind(str(path))
        at.listen()
        at.settimeout(10)
        tenant.env["FLEXAI_SOCKET"] = str(path)
        yield at


def hear(line) -> tuple:
    return HELLO.unpack(line.recv(4096))


def test_it_says_which_slot_it_took_and_how_many_symbols_it_does_not_know(tenant, agent):
    one = tenant.start("check(cuda.cuInit(0)); print('up', flush=True); input(); proc('cuFutureThing'); input()")
    line, _ = agent.accept()
    with line:
        line.settimeout(10)
        magic, version, size, slot, build, n_unknown, _ = hear(line)
        assert (magic, version, size, n_unknown) == (MAGIC, 1, HELLO.size, 0)
        assert [found.index for found in tenant.ledger().slots] == [slot]
        assert build.rstrip(b"\0")
        line.send(REPLY.pack(MAGIC, 1, REPLY.size, 1, 4242, b""))
        one.stdin.write("\n")
        one.stdin.flush()
        assert hear(line)[5] == 1  # told again when there is one
        one.kill()
        one.wait()
        assert line.recv(1) == b""  # its end is seen at once


def test_it_finds_an_agent_that_came_again(tenant, agent):
    one = tenant.start("check(cuda.cuInit(0)); input()")
    line, _ = agent.accept()
    line.settimeout(10)
    first = hear(line)
    line.close()
    line, _ = agent.accept()
    with line:
        line.settimeout(10)
        assert hear(line) == first
    assert one.poll() is None


def test_a_reply_that_is_noise_ends_the_line_and_not_the_program(tenant, agent):
    one = tenant.start("check(cuda.cuInit(0)); input(); print(alloc(2 * MIB) is not None)")
    line, _ = agent.accept()
    with line:
        line.settimeout(10)
        hear(line)
        line.send(b"noise")
        assert line.recv(1) == b""
    assert one.communicate("\n", timeout=10)[0] == "True\n"


def test_a_program_that_closes_every_descriptor_goes_on(tenant, agent):
    one = tenant.start(
        "import os\ncheck(cuda.cuInit(0)); input(); os.closerange(3, 256)\n"
        "r, w = os.pipe(); import time; time.sleep(1.5); os.write(w, b'x')\n"
        "print(os.read(r, 1), alloc(2 * MIB) is not None)"
    )
    line, _ = agent.accept()
    with line:
        hear(line)
        assert one.communicate("\n", timeout=20)[0] == "b'x' True\n"
