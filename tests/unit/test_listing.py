"""Tables fit the screen: what matters least goes first, a flexible column takes what is left, nothing is one letter."""

import pytest
from rich.console import Console

from flexai.apps.cli.commands.cards import devices_table
from flexai.apps.cli.commands.jobs import jobs_table
from flexai.apps.cli.commands.listing import table_of
from flexai.apps.cli.commands.top import picture

WHY = "0 of 2 cards have 40 % left, none has 40 GiB; card 1 comes nearest, lacking 20 % and 3 GiB."
JOB = {
    "id": "1234_17", "name": "trainer-large", "user": "annabelle", "queue": "research", "state": "queued",
    "request": {"compute_milli": 300, "n_devices": 2, "memory_bytes": 16 << 30}, "submitted_at_ms": 1,
    "exit_code": None, "reason": {"code": "NotEnoughCompute", "message": WHY},
}  # fmt: skip
CARD = {
    "index": 0, "model": "NVIDIA H200 (simulated)", "uuid": "GPU-51a00000-084a-4000-8000-000000000000",
    "health": "healthy", "backend": "hwslice", "memory_bytes": 141 << 30, "source": "simulated",
}  # fmt: skip


def lines(table, width):
    console = Console(width=width, color_system=None)
    with console.capture() as captured:
        console.print(table)
    return captured.get().splitlines()


@pytest.mark.parametrize("width", [80, 100, 120, 160, 1000])
def test_whatever_is_shown_of_a_job_can_be_read(width):
    head, _, row, *rest = lines(jobs_table([JOB]), width)
    assert not rest
    assert "…" not in head
    for text in ("1234_17", "trainer-large", "queued", "2 x 30%", WHY[:20]):
        assert text in row
    assert len(row) <= width


def test_a_job_that_is_paused_says_so():
    members = [{"state": "running", "paused": True}, {"state": "finished", "paused": False}]
    assert "paused" in lines(jobs_table([JOB | {"state": "running", "members": members}]), 100)[2]
    members[1]["state"] = "running"
    assert "running" in lines(jobs_table([JOB | {"state": "running", "members": members}]), 100)[2]


def test_a_wide_screen_shows_all_and_a_narrow_one_what_matters():
    wide, narrow = (lines(devices_table([CARD]), width) for width in (1000, 80))
    assert "GPU-51a00000-084a-4000-8000-000000000000" in wide[2]
    assert "UUID" not in narrow[0]
    assert "healthy" in narrow[2]
    assert "NVIDIA H200 (simulated)" in narrow[2]


@pytest.mark.parametrize("width", [80, 100, 200])
def test_a_long_name_is_cut_before_the_reason_is(width):
    _, _, row = lines(
        jobs_table([JOB | {"id": "8_0", "name": "a-name-that-says-all-of-its-parameters-and-more"}]), width
    )
    assert WHY[:20] in row
    assert row.startswith("8_0")
    assert "a-name-th" in row
    assert len(row) <= width


def test_top_keeps_job_ids_and_numbers_on_eighty_columns():
    entry = {"job_id": "8_0", "name": "sweep-long-name-of-something", "asked_milli": 400, "got_milli_1s": 498,
             "got_milli_10s": 493, "used_bytes": 64 << 20, "memory_bytes": 30 << 30}  # fmt: skip
    waits = JOB | {"name": "sweep-long-name-of-something"}
    shown = lines(picture({"devices": [CARD | {"slices": [entry]}], "jobs": [waits], "n_jobs": 1}, 80), 80)
    text = "\n".join(shown)
    assert max(map(len, shown)) <= 80
    for word in ("8_0", "49.8%", "49.3%", "64 MiB / 30 GiB", "1234_17", WHY[:20]):
        assert word in text


def test_a_broken_column_keeps_every_word():
    shown = lines(table_of(("A", "WHY~"), [("1", WHY)]), 40)
    assert " ".join(" ".join(line[4:].split()) for line in shown[2:]) == WHY


def test_two_flexible_columns_share_the_room():
    shown = lines(table_of(("A<", "B<"), [("a" * 100, "b" * 100)]), 80)
    assert shown[2].count("a") >= 20
    assert shown[2].count("b") >= 20
