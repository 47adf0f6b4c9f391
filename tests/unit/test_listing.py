"""Tables fit the screen: what matters least goes first, a flexible column takes what is left, nothing is one letter."""

import pytest
from rich.console import Console

from flexai.apps.cli.commands.cards import devices_table
from flexai.apps.cli.commands.jobs import jobs_table
from flexai.apps.cli.commands.listing import table_of

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


def test_a_wide_screen_shows_all_and_a_narrow_one_what_matters():
    wide, narrow = (lines(devices_table([CARD]), width) for width in (1000, 80))
    assert "GPU-51a00000-084a-4000-8000-000000000000" in wide[2]
    assert "UUID" not in narrow[0]
    assert "healthy" in narrow[2]
    assert "NVIDIA H200 (simulated)" in narrow[2]


def test_a_broken_column_keeps_every_word():
    shown = lines(table_of(("A", "WHY~"), [("1", WHY)]), 40)
    assert " ".join(" ".join(line[4:].split()) for line in shown[2:]) == WHY


def test_two_flexible_columns_share_the_room():
    shown = lines(table_of(("A<", "B<"), [("a" * 100, "b" * 100)]), 80)
    assert shown[2].count("a") >= 20
    assert shown[2].count("b") >= 20
