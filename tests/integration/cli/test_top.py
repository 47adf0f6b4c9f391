"""`flexai top` in a terminal: a live picture that one key ends and that outlives a restart of the pool."""

import sys
from pathlib import Path

import fake_pool
import pytest
from terminal import Terminal, until

FLEXAI = str(Path(sys.executable).with_name("flexai"))


def answer(got):
    card = {**fake_pool.CARD, "slices": [{**fake_pool.CARD["slices"][0], "got_milli_10s": got}]}
    jobs = [fake_pool.job("7", "running"), fake_pool.job("8")]
    return {"status": fake_pool.STATUS, "devices": [card], "queues": [], "jobs": jobs, "n_jobs": 2}


@pytest.fixture
def top(pool, environment):
    pool.answers["GET", "/v1/top"] = answer(301)
    words = ["/bin/sh", "-c", 'stty rows 40 cols 140; exec "$@"', "sh", FLEXAI, "top", "--every", "0.1"]
    terminal = Terminal(words, {**environment, "TERM": "xterm-256color"})
    terminal.until(b"30.1%")
    yield terminal
    terminal.type(b"q")
    assert terminal.wait() == 0
    assert b"\x1b[?1049l" in terminal.screen  # the screen that was there before is shown again


def test_it_shows_what_changed_and_q_ends_it(top, pool):
    pool.answers["GET", "/v1/top"] = answer(777)
    top.until(b"77.7%")


def test_a_pool_that_is_away_is_said_and_waited_for(top, pool):
    pool.close()
    top.until(b"the pool is away")
    pool.answers["GET", "/v1/top"] = answer(555)
    pool.open()
    top.until(b"55.5%")
    until(lambda: b"55.5%" in top.screen)
