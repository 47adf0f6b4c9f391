"""The agent moves all programs of a member off the card, or none, and only what the host has room for."""

import asyncio
from dataclasses import replace
from types import SimpleNamespace

import pytest

from flexai import node as n
from flexai.adapters.fake import FakeBackend
from flexai.apps.agent import node as agent_node
from flexai.apps.agent.node import Node, Parts, Refused
from flexai.model import Grant, TenantClass
from flexai.ports import DeviceProcess, Place

GIB = 1 << 30
CARD = "FAKE-h200-0"
KEY = ("7", 0)
GRANT = Grant("7", 0, "node", CARD, 500, 1000, 8 * GIB, TenantClass.GUARANTEED)
TENANT = n.Tenant("7", 0, "7.0.1", 1000, 1000, (GRANT,), ram_bytes=GIB, phase=n.Phase.RUNNING, pid=50)


class Box:
    """A containment of processes that need not exist."""

    def __init__(self, pids):
        self.inside, self.frozen, self.ram_bytes = pids, [], []

    def pids(self, _name):
        return self.inside

    def freeze(self, _name, frozen):
        self.frozen.append(frozen)

    def make(self, _name, _cpu_milli, ram_bytes, _allowed, _denied):
        self.ram_bytes.append(ram_bytes)
        return Place(None, ())


async def saved():
    """Nothing is kept here."""


def feed(rig, event):
    asyncio.run(rig.node.feed(event))


@pytest.fixture
def rig(monkeypatch):
    backend, box = FakeBackend("h200:1"), Box([51, 52])
    backend.shown = [DeviceProcess(CARD, 51, 3 * GIB), DeviceProcess(CARD, 52, GIB), DeviceProcess(CARD, 99, GIB)]
    nothing = SimpleNamespace(put=lambda *_: None)
    machine = n.NodeMachine([CARD])
    machine.tenants[KEY] = TENANT
    parts = Parts(backend, box, nothing, nothing, nothing, nothing, nothing)
    node = Node(parts, machine, SimpleNamespace(save=saved))
    monkeypatch.setattr(agent_node, "free_ram_bytes", lambda: 16 * GIB)
    return SimpleNamespace(node=node, backend=backend, box=box, monkeypatch=monkeypatch)


def test_its_programs_leave_the_card_and_are_frozen_and_come_back(rig):
    feed(rig, n.ParkAsked(KEY, parked=True))
    assert rig.backend.parked == {51, 52}, "and nobody else's"
    assert rig.box.frozen[-1] is True
    assert rig.node.tenant(KEY).parked
    feed(rig, n.ParkAsked(KEY, parked=False))
    assert rig.backend.parked == set()
    assert rig.box.frozen[-1] is False


def test_its_place_has_room_for_its_device_memory_as_long_as_that_is_there(rig):
    feed(rig, n.ParkAsked(KEY, parked=True))
    assert rig.box.ram_bytes == [9 * GIB, 9 * GIB]
    feed(rig, n.ParkAsked(KEY, parked=False))
    assert rig.box.ram_bytes[2:] == [9 * GIB, GIB]


def test_what_the_host_has_no_room_for_stays_and_what_had_left_comes_back(rig):
    left = iter([16 * GIB, GIB // 2])
    rig.monkeypatch.setattr(agent_node, "free_ram_bytes", lambda: next(left))
    with pytest.raises(Refused, match=r"process 52 holds 1 GiB, and 0.5 GiB of host memory are free"):
        feed(rig, n.ParkAsked(KEY, parked=True))
    assert rig.backend.parked == set()
    assert rig.box.frozen[-1] is False
    assert (rig.node.tenant(KEY).parked, rig.node.tenant(KEY).moving) == (False, False)
    assert rig.box.ram_bytes[-1] == GIB


def test_what_holds_more_than_is_booked_for_it_on_the_host_stays(rig):
    with pytest.raises(Refused, match=r"it holds 4 GiB by now, and 3.5 GiB of host memory are booked for it"):
        feed(rig, n.ParkAsked(KEY, parked=True, host_bytes=7 * GIB // 2))
    assert (rig.backend.parked, rig.box.frozen[-1], rig.node.tenant(KEY).parked) == (set(), False, False)
    feed(rig, n.ParkAsked(KEY, parked=True, host_bytes=4 * GIB))
    assert rig.backend.parked == {51, 52}


def test_a_member_without_a_card_is_frozen_and_goes_on(rig):
    rig.node.machine.tenants[KEY] = replace(TENANT, grants=())
    rig.backend.shown.clear()
    rig.monkeypatch.setattr(rig.backend, "wake", None)
    feed(rig, n.ParkAsked(KEY, parked=True, host_bytes=0))
    assert (rig.box.frozen[-1], rig.node.tenant(KEY).parked) == (True, True)
    feed(rig, n.ParkAsked(KEY, parked=False))
    assert (rig.box.frozen[-1], rig.node.tenant(KEY).parked) == (False, False)


def test_a_program_that_comes_to_the_card_meanwhile_is_moved_too(rig):
    park = rig.backend.park

    def parks_while_another_comes(pid):
        park(pid)
        if 53 not in rig.box.inside:
            rig.box.inside.append(53)
            rig.backend.shown.append(DeviceProcess(CARD, 53, GIB))

    rig.monkeypatch.setattr(rig.backend, "park", parks_while_another_comes)
    feed(rig, n.ParkAsked(KEY, parked=True))
    assert rig.backend.parked == {51, 52, 53}
    assert rig.box.frozen == [False, True, False, True]


def test_what_cannot_be_woken_stays_parked_and_frozen(rig):
    feed(rig, n.ParkAsked(KEY, parked=True))
    rig.monkeypatch.setattr(rig.backend, "wake", lambda *_: None)  # and it does not come back
    with pytest.raises(Refused, match="cannot be woken"):
        feed(rig, n.ParkAsked(KEY, parked=False))
    assert rig.node.tenant(KEY).parked
    assert rig.box.frozen[-1] is True


@pytest.fixture
def two_cards(rig):
    """The same on a machine of two cards, with a device node each; ``did`` is what was done, in order."""
    did = []
    backend = FakeBackend("h200:2")
    backend.shown = rig.backend.shown
    backend.device_files = lambda uuid: (f"/dev/{uuid}",)
    wake = backend.wake

    def woken(pids, to=None):
        did.append(("wake", to))
        wake(pids, to)

    backend.wake = woken
    rig.backend = rig.node.parts.backend = backend
    rig.node.machine.devices = frozenset({CARD, OTHER})
    make = rig.box.make

    def made(name, cpu_milli, ram_bytes, allowed, denied):
        did.append(("may open", *allowed, "but not", *denied))
        return make(name, cpu_milli, ram_bytes, allowed, denied)

    rig.box.make = made
    rig.node.parts.regions = SimpleNamespace(
        put=lambda _name, _uid, _gid, grants: did.append(("region", *(grant.device for grant in grants))),
        directory=lambda name: name,
    )
    rig.node.parts.arbiter = SimpleNamespace(
        put=lambda policy: did.append(("turns", *(grant.device for grant in policy.grants)))
    )
    rig.did = did
    return rig


OTHER = "FAKE-h200-1"
THERE = replace(GRANT, device=OTHER)


def cards(rig):
    return {one.pid: one.uuid for one in rig.backend.shown if one.pid in rig.box.inside}


def test_all_is_ready_on_another_card_before_a_program_is_there_and_its_own_is_closed_to_it(two_cards):
    rig = two_cards
    feed(rig, n.ParkAsked(KEY, parked=True))
    rig.did.clear()
    feed(rig, n.ParkAsked(KEY, parked=False, grants=(THERE,)))
    ready = [
        ("region", OTHER), ("may open", f"/dev/{OTHER}", "but not", f"/dev/{CARD}"), ("turns", OTHER),
    ]  # fmt: skip
    assert rig.did == [*ready, ("wake", {CARD: OTHER}), *ready]
    assert cards(rig) == {51: OTHER, 52: OTHER}
    assert rig.node.tenant(KEY).grants == (THERE,)


def test_what_cannot_be_moved_stays_parked_and_its_own_card_is_open_to_it_again(two_cards):
    rig = two_cards
    feed(rig, n.ParkAsked(KEY, parked=True))
    rig.backend.cannot_move = "this driver brings a parked program back to its own card only"
    with pytest.raises(Refused, match="its own card only"):
        feed(rig, n.ParkAsked(KEY, parked=False, grants=(THERE,)))
    assert rig.backend.parked == {51, 52}
    assert rig.did[-3:] == [
        ("region", CARD), ("may open", f"/dev/{CARD}", "but not", f"/dev/{OTHER}"), ("turns", CARD),
    ]  # fmt: skip
    assert (rig.node.tenant(KEY).grants, rig.node.tenant(KEY).bound_for) == ((GRANT,), ())
    feed(rig, n.ParkAsked(KEY, parked=False))
    assert cards(rig) == {51: CARD, 52: CARD}


def test_of_programs_of_which_one_could_not_follow_none_stays_and_each_comes_home_from_where_it_was(two_cards):
    rig = two_cards
    feed(rig, n.ParkAsked(KEY, parked=True))
    wake = rig.backend.wake

    def only_the_first(pids, to=None):
        wake(pids[:1], to)
        raise OSError("out of memory")

    rig.backend.wake = only_the_first
    with pytest.raises(Refused, match="out of memory"):
        feed(rig, n.ParkAsked(KEY, parked=False, grants=(THERE,)))
    assert rig.backend.parked == {51, 52}
    assert cards(rig) == {51: OTHER, 52: CARD}, "as the driver has them"
    rig.backend.wake = wake
    rig.did.clear()
    feed(rig, n.ParkAsked(KEY, parked=False))
    assert [to for what, *to in rig.did if what == "wake"] == [[{OTHER: CARD}], [None]]
    assert cards(rig) == {51: CARD, 52: CARD}
    assert rig.backend.parked == set()
