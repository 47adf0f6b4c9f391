"""Why nothing but users sets the weight of a running slice (docs/adr/0019): its request is what it was promised."""

import pytest

BUSY = "flood:0:2000:8 flood:1:2000:8"


def put(second_milli):
    return f"put:0:500:1000:1 put:1:{second_milli}:1000:1 put:2:200:1000:1"


def test_what_one_of_three_leaves_idle_is_lent_at_once_by_requests(play):
    figures = play("hwslice", put(300), BUSY, "run:3000 mark run:5000 report")
    assert figures.tenant[0]["held"] == pytest.approx(62.5, abs=1)
    assert figures.tenant[1]["held"] == pytest.approx(37.5, abs=1)


def test_to_double_the_weight_of_one_takes_what_was_promised_to_another(play):
    figures = play("hwslice", put(600), BUSY, "run:3000 mark run:5000 report")
    assert figures.tenant[0]["held"] < 47  # of the 50 % that it asked for, while a fifth of the card is idle


def test_borrowers_have_like_parts_of_what_is_idle(play):
    borrowers = " ".join(f"put:{n}:0:1000:2 flood:{n}:2000:8" for n in (1, 2, 3, 4))
    figures = play("hwslice", "put:0:1000:1000:1", borrowers, "run:2000 mark run:4000 report")
    assert [figures.tenant[n]["held"] for n in (1, 2, 3, 4)] == pytest.approx([25, 25, 25, 25], abs=1)
