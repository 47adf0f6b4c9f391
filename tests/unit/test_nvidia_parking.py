"""Which cards are named when a parked program is woken on others, and what if the driver does not take that."""

# ruff: noqa: N802 (names of the driver's functions)

import ctypes
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flexai.adapters.nvidia import parking

CARDS = [f"GPU-{uuid.UUID(int=n + 1)}" for n in range(4)]
RUNNING, LOCKED, CHECKPOINTED = 0, 1, 2


class Driver:
    """A driver of four cards, with one process in some state that had ``known`` of them at its start."""

    def __init__(self, known, state=CHECKPOINTED, error=1):
        self.known, self.state, self.error, self.asked = known, state, error, []

    def cuInit(self, _flags):
        return 0

    def cuDeviceGetCount(self, count):
        count._obj.value = len(CARDS)
        return 0

    def cuDeviceGet(self, device, ordinal):
        device._obj.value = ordinal
        return 0

    def cuDeviceGetUuid_v2(self, raw, device):
        raw._obj[:] = uuid.UUID(CARDS[device.value].removeprefix("GPU-")).bytes
        return 0

    def cuCheckpointProcessGetState(self, _pid, state):
        state._obj.value = self.state
        return 0

    def cuCheckpointProcessRestore(self, _pid, arguments):
        assert ctypes.sizeof(arguments._obj) >= 64, "the driver reads so much"
        named = ctypes.cast(ctypes.byref(arguments._obj), ctypes.POINTER(parking._RestoreArguments)).contents
        pairs = {
            f"GPU-{uuid.UUID(bytes=bytes(pair.left))}": f"GPU-{uuid.UUID(bytes=bytes(pair.comes))}"
            for pair in named.pairs[: named.n_pairs]
        }
        self.asked.append(pairs)
        if pairs and (pairs.keys() != set(self.known) or len({*pairs.values()}) != len(pairs)):
            return self.error
        self.state = LOCKED
        return 0

    def cuCheckpointProcessUnlock(self, _pid, _arguments):
        assert self.state == LOCKED
        self.state = RUNNING
        return 0

    def cuGetErrorName(self, status, text):
        text._obj.value = b"CUDA_ERROR_" + str(status).encode()
        return 0


@given(st.permutations(CARDS), st.permutations(CARDS), st.integers(1, 4))
def test_of_a_whole_map_every_card_is_named_once_on_each_side_and_who_is_not_in_the_way_stays(left, comes, n):
    to = dict(zip(left[:n], comes[:n], strict=True))
    cards = parking.whole_map(CARDS, to)
    assert sorted(cards) == sorted(cards.values()) == sorted(CARDS)
    assert cards.items() >= to.items()
    assert all(cards[card] == card for card in CARDS if card not in to and card not in to.values())


@pytest.mark.parametrize("known", [CARDS, CARDS[1:2]], ids=["could open all cards", "could open its own"])
def test_all_cards_of_the_machine_are_named_and_if_that_is_not_taken_those_that_it_had(known):
    driver = Driver(known)
    parking._wake(driver, 7, {CARDS[1]: CARDS[3]})
    assert driver.state == RUNNING
    assert driver.asked[-1][CARDS[1]] == CARDS[3]
    assert driver.asked[-1].keys() == set(known)


def test_what_the_driver_does_not_take_stays_parked_and_other_errors_are_not_tried_again():
    for known, error, n_asked in ((CARDS[:2], 1, 2), (CARDS[:2], 2, 1)):
        driver = Driver(known, error=error)
        with pytest.raises(OSError, match=f"cuCheckpointProcessRestore: CUDA_ERROR_{error}"):
            parking._wake(driver, 7, {CARDS[1]: CARDS[3]})
        assert (driver.state, len(driver.asked)) == (CHECKPOINTED, n_asked)


def test_who_runs_is_left_alone_and_who_was_brought_back_is_let_go_on():
    for state in (RUNNING, LOCKED):
        driver = Driver(CARDS, state)
        parking._wake(driver, 7, {CARDS[1]: CARDS[3]})
        assert (driver.state, driver.asked) == (RUNNING, [])
    driver = Driver(CARDS)
    parking._wake(driver, 7, {})
    assert (driver.state, driver.asked) == (RUNNING, [{}])
