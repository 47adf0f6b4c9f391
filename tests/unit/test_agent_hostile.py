"""What the agent does about members that act against control, and for those that others stopped."""

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from flexai import node as n
from flexai.apps.agent.audit import Audit
from flexai.ports import TenantUsage, Usage


class Machine:
    """Knows one member, and writes down what it is asked and what is told."""

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.told: list[tuple[str, dict[str, Any]]] = []
        self.parts = SimpleNamespace(news=SimpleNamespace(say=lambda what, **body: self.told.append((what, body))))
        self.member = SimpleNamespace(name="job.0", key=("job", 0), job_id="job", member=0, stopping=False)

    def by_name(self, name: str | None) -> Any:
        return self.member if name == "job.0" else None

    async def feed(self, event: Any) -> None:
        self.asked.append(event)


def new_audit(machine: Machine, hostile_acts: int = 20) -> Audit:
    none: Any = None
    return Audit(cast("Any", machine), none, none, over_cap="warn", hostile_acts=hostile_acts)


def usage(hostile: int = 0, rescued: int = 0) -> Usage:
    row = TenantUsage("job.0", "card", 0, 0, 0, 0, 0, 0, 0, 1, hostile, False, rescued)
    return Usage(0, 1, 0, (), (row,))


@pytest.mark.parametrize(("hostile_acts", "ends_at"), [(20, 20), (3, 3), (0, None)])
def test_a_member_is_ended_after_as_many_acts_as_the_setting_says_and_never_by_0(hostile_acts, ends_at):
    machine = Machine()
    audit = new_audit(machine, hostile_acts)
    for acts in range(1, 30):
        audit.last = usage(hostile=acts)
        asyncio.run(audit._look_for_hostile())
        ended = any(isinstance(event, n.SignalAsked) for event in machine.asked)
        assert ended == (ends_at is not None and acts >= ends_at), acts
        machine.member.stopping = ended
    assert [body["acts"] for what, body in machine.told if what == "hostile"] == list(range(1, 30))


def test_a_member_that_somebody_else_stopped_is_told_once_for_each_time():
    machine = Machine()
    audit = new_audit(machine)
    for rescued in (0, 1, 1, 3):
        audit.last = usage(rescued=rescued)
        audit._tell_rescued()
    assert [(what, body["times"]) for what, body in machine.told] == [("rescued", 1), ("rescued", 3)]
    assert not machine.asked, "it did nothing"
