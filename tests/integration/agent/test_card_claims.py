"""A real card is managed by one pool of the machine, whoever started it and however the last one ended."""

import os
import pwd
import subprocess
import sys

import pytest

from flexai.adapters.fake import FakeBackend
from flexai.adapters.local.card_claims import claim_cards
from flexai.wire.errors import BadInput

HOLD = """
import os, sys, time
from flexai.adapters.local.card_claims import claim_cards
if "--uid" in sys.argv:
    os.setuid(int(sys.argv[-1]))
claims = claim_cards(sys.argv[1].split(","))
print("claimed", flush=True)
time.sleep(60)
"""


@pytest.fixture
def pool_of():
    holders = []

    def start(uuids, state_dir, *more):
        argv = [sys.executable, "-c", HOLD, uuids, "--run-dir", "/run/first", "--state-dir", state_dir, *more]
        holder = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
        holders.append(holder)
        assert holder.stdout.readline() == "claimed\n"
        return holder

    yield start
    for holder in holders:
        holder.kill()
        holder.wait()
        holder.stdout.close()


def test_a_second_pool_is_refused_and_told_which_is_the_first(pool_of):
    uuid = f"GPU-{os.getpid()}-a"
    first = pool_of(f"GPU-{os.getpid()}-b,{uuid}", "/srv/first")
    me = pwd.getpwuid(os.geteuid()).pw_name
    with pytest.raises(BadInput) as refused:
        claim_cards([f"GPU-{os.getpid()}-c", uuid])
    said = str(refused.value)
    assert uuid in said
    assert f"pid {first.pid}, user {me}, state folder /srv/first" in said
    assert "flexai status --run-dir /run/first" in said
    assert "flexai down --state-dir /srv/first" in said
    for claim in claim_cards([f"GPU-{os.getpid()}-c"]):  # what it had claimed until then, it let go
        claim.close()


def test_a_card_is_free_as_soon_as_its_pool_is_killed(pool_of):
    uuid = f"GPU-{os.getpid()}-killed"
    first = pool_of(uuid, "/srv/first")
    first.kill()
    first.wait()
    (claim,) = claim_cards([uuid])
    claim.close()


AGENT = """
import sys
from flexai.adapters.fake import FakeBackend
from flexai.apps.agent import main
main.real_cards = lambda: (FakeBackend("h200:1"), "")
sys.exit(main.main(sys.argv[1:]))
"""


def test_an_agent_whose_card_another_pool_has_does_not_start_and_says_so(tmp_path, pool_of):
    (card,) = FakeBackend("h200:1").devices()
    first = pool_of(card.uuid, "/srv/first")
    where = ["--run-dir", str(tmp_path / "r"), "--state-dir", str(tmp_path / "s"), "--cgroups", "off"]
    argv = [sys.executable, "-c", AGENT, *where]
    second = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False)
    assert second.returncode == 2
    assert f"is managed by another pool already (pid {first.pid}, " in second.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="root only can be two users")
def test_a_pool_of_another_user_is_seen(pool_of):
    uuid = f"GPU-{os.getpid()}-other"
    pool_of(uuid, "/home/x", "--uid", "65534")
    with pytest.raises(BadInput, match="user nobody, state folder /home/x"):
        claim_cards([uuid])
