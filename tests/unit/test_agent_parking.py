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
