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


def test_a_slice_shows_what_it_got_borrowed_and_lent_and_how_long_it_was_stopped(flexai, pool):
    mine = fake_pool.CARD["slices"][0] | {
        "got_milli_1s": 456, "got_milli_10s": 389, "borrowed_milli": 156, "stopped_milli": 71, "wanted_milli": 1000,
    }  # fmt: skip
    idle = mine | {"job_id": "9", "got_milli_1s": 0, "got_milli_10s": 0, "borrowed_milli": 0, "wanted_milli": 500}
    pool.answers["GET", "/v1/top"] = answer(0) | {"devices": [fake_pool.CARD | {"slices": [mine, idle]}]}
    shown = flexai("top", "--once").stdout
    header = next(line for line in shown.splitlines() if "BORROWED" in line)
    assert header.index("GOT 1 s") < header.index("GOT 10 s") < header.index("LENT") < header.index("STOPPED")
    first, second = (next(line for line in shown.splitlines() if line.split()[1:2] == [job]) for job in "79")
    assert all(text in first for text in ("45.6%", "38.9%", "15.6%", "7.1%", "5 GiB / 16 GiB"))
    assert "15%" in second  # it had no work half of the time: half of its 30 % went to the other


@pytest.mark.parametrize("columns", [80, 100, 110, 125, 140, 160])
def test_nothing_is_cut_short_on_a_terminal_of_any_width(columns, pool, environment):
    pool.answers["GET", "/v1/top"] = answer(301)
    words = ["/bin/sh", "-c", f'stty rows 40 cols {columns}; exec "$@"', "sh", FLEXAI, "top", "--every", "0.1"]
    terminal = Terminal(words, {**environment, "TERM": "xterm-256color"})
    terminal.until(b"30.1%")
    terminal.type(b"q")
    assert terminal.wait() == 0
    assert "…".encode() not in terminal.screen.partition(b"WAITS")[0]  # what waits may have long reasons
