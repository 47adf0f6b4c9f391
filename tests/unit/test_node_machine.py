from dataclasses import replace

import pytest

from flexai import node as n
from flexai.model import Grant, TenantClass

KEY = ("7", 0)
GRANT = Grant("7", 0, "node", "GPU-1", 300, 1000, 1 << 30, TenantClass.GUARANTEED)
TENANT = n.Tenant("7", 0, "7.0.1", 1000, 1000, (GRANT,))
LAUNCH = n.LaunchSpec(("true",), "/", {}, "/log")


@pytest.fixture
def machine():
    return n.NodeMachine(["GPU-1"])


def kinds(outcome):
    assert isinstance(outcome, list), outcome
    return [type(command).__name__ for command in outcome]


def prepared(machine):
    machine.step(n.PrepareAsked(TENANT))


def running(machine):
    prepared(machine)
    machine.step(n.StartAsked(KEY, "7.0.1", LAUNCH))
    machine.step(n.Began(KEY, 100, 5))


def test_prepare_is_saved_before_anything_is_made(machine):
    assert kinds(machine.step(n.PrepareAsked(TENANT))) == ["Save", "MakePlace", "AddTenant"]


def test_prepare_on_a_card_that_is_not_here_is_refused(machine):
    outcome = machine.step(n.PrepareAsked(replace(TENANT, grants=(replace(GRANT, device="GPU-9"),))))
    assert isinstance(outcome, n.Refusal)
    assert outcome.code == "NoSuchDevice"
    assert machine.tenants == {}


def test_start_is_saved_before_the_launch_and_happens_once(machine):
    prepared(machine)
    assert kinds(machine.step(n.StartAsked(KEY, "7.0.1", LAUNCH))) == ["Save", "Launch"]
    assert machine.step(n.StartAsked(KEY, "7.0.1", LAUNCH)) == []
    machine.step(n.Began(KEY, 100, 5))
    assert machine.step(n.StartAsked(KEY, "7.0.1", LAUNCH)) == []


def test_a_start_with_the_token_of_another_start_is_refused(machine):
    prepared(machine)
    assert machine.step(n.StartAsked(KEY, "7.0.2", LAUNCH)).code == "WrongToken"


def test_preparing_another_start_while_one_is_held_is_refused(machine):
    running(machine)
    assert machine.step(n.PrepareAsked(replace(TENANT, token="7.0.2"))).code == "Held"


def test_what_runs_cannot_be_unprepared_and_what_ended_can(machine):
    running(machine)
    assert machine.step(n.UnprepareAsked(KEY)).code == "StillRunning"
    assert kinds(machine.step(n.Ended(KEY, 0, 0, "exited"))) == ["Forbid", "Save", "Say"]
    assert kinds(machine.step(n.UnprepareAsked(KEY))) == ["Forbid", "DropTenant", "RemovePlace", "Save"]
    assert machine.step(n.UnprepareAsked(KEY)) == []


def test_a_pause_stops_the_card_before_the_processes_and_an_unpause_lets_them_go_first(machine):
    running(machine)
    assert kinds(machine.step(n.PauseAsked(KEY, paused=True))) == ["Save", "AddTenant", "SetFrozen"]
    assert machine.step(n.PauseAsked(KEY, paused=True)) == []
    assert kinds(machine.step(n.PauseAsked(KEY, paused=False))) == ["Save", "SetFrozen", "AddTenant"]


def test_ending_a_paused_member_thaws_it(machine):
    running(machine)
    machine.step(n.PauseAsked(KEY, paused=True))
    outcome = machine.step(n.SignalAsked(KEY, 15, 1000))
    assert kinds(outcome) == ["Save", "SetFrozen", "AddTenant", "End"]
    assert outcome[1].frozen is False


def test_resize_keeps_the_cards(machine):
    running(machine)
    other = (replace(GRANT, device="GPU-2"),)
    assert machine.step(n.ResizeAsked(KEY, other)).code == "OtherDevices"
    assert kinds(machine.step(n.ResizeAsked(KEY, (replace(GRANT, compute_milli=500),)))) == [
        "SetLimits",
        "AddTenant",
        "Save",
    ]


def test_the_cause_given_with_the_signal_is_the_cause_of_the_end(machine):
    running(machine)
    machine.step(n.SignalAsked(KEY, 15, 1000, "idle for 60 s"))
    machine.step(n.Ended(KEY, None, 15, "signal 15"))
    assert machine.tenants[KEY].cause == "idle for 60 s"


def test_recovery_without_a_token_goes_back_to_prepared_and_starts_again(machine):
    starting = replace(TENANT, phase=n.Phase.STARTING)
    machine.step(n.Recovered(starting, None, alive=False, ended=None))
    assert machine.tenants[KEY].phase is n.Phase.PREPARED
    assert kinds(machine.step(n.StartAsked(KEY, "7.0.1", LAUNCH))) == ["Save", "Launch"]


def test_recovery_with_a_token_finds_the_member_running(machine):
    starting = replace(TENANT, phase=n.Phase.STARTING)
    outcome = machine.step(n.Recovered(starting, (100, 5), alive=True, ended=None))
    assert kinds(outcome) == ["MakePlace", "AddTenant", "Save", "AddTenant", "Say"]
    assert machine.tenants[KEY].phase is n.Phase.RUNNING
    assert machine.step(n.StartAsked(KEY, "7.0.1", LAUNCH)) == []


@pytest.mark.parametrize("paused", [True, False])
def test_recovery_makes_a_running_member_as_frozen_as_it_was_written_down(machine, paused):
    was = replace(TENANT, phase=n.Phase.RUNNING, pid=100, start_ticks=5, paused=paused)
    *_, last = machine.step(n.Recovered(was, (100, 5), alive=True, ended=None))
    assert last == n.SetFrozen(was, frozen=paused)


def test_recovery_with_an_exit_record_says_what_happened_while_away(machine):
    was = replace(TENANT, phase=n.Phase.RUNNING, pid=100, start_ticks=5)
    outcome = machine.step(n.Recovered(was, (100, 5), alive=False, ended=n.Ended(KEY, 3, 0, "exited")))
    assert kinds(outcome) == ["Forbid", "Save", "Say"]
    assert (machine.tenants[KEY].exit_code, machine.tenants[KEY].phase) == (3, n.Phase.FINISHED)


def test_a_running_member_whose_supervisor_and_record_are_gone_is_lost(machine):
    was = replace(TENANT, phase=n.Phase.RUNNING, pid=100, start_ticks=5)
    machine.step(n.Recovered(was, (100, 5), alive=False, ended=None))
    assert machine.tenants[KEY].cause.startswith("lost")


def parked(machine):
    running(machine)
    machine.step(n.ParkAsked(KEY, parked=True))
    machine.step(n.Parked(KEY, parked=True))


def test_a_park_is_written_down_and_has_its_room_before_anything_moves(machine):
    running(machine)
    assert kinds(machine.step(n.ParkAsked(KEY, parked=True))) == ["Save", "MakePlace", "Park"]
    assert machine.tenants[KEY].moving
    assert kinds(machine.step(n.Parked(KEY, parked=True))) == ["Save", "MakePlace"]
    assert (machine.tenants[KEY].parked, machine.tenants[KEY].moving) == (True, False)
    assert machine.step(n.ParkAsked(KEY, parked=True)) == []


def test_a_park_that_did_not_succeed_leaves_it_running_and_may_be_asked_again(machine):
    running(machine)
    machine.step(n.ParkAsked(KEY, parked=True))
    machine.step(n.Parked(KEY, parked=False))
    assert not machine.tenants[KEY].moving
    assert kinds(machine.step(n.ParkAsked(KEY, parked=True))) == ["Save", "MakePlace", "Park"]


def test_an_agent_that_ended_while_something_moved_is_told_to_move_it_again(machine):
    running(machine)
    machine.step(n.ParkAsked(KEY, parked=True))
    again = n.NodeMachine(["GPU-1"])
    began = (100, 5)
    commands = again.step(n.Recovered(machine.tenants[KEY], began=began, ended=None, alive=True))
    assert commands[-1].frozen is False, "what is half on its way must run to be moved"
    assert kinds(again.step(n.ParkAsked(KEY, parked=True))) == ["Save", "MakePlace", "Park"]
    assert kinds(again.step(n.ParkAsked(KEY, parked=False))) == ["Save", "MakePlace", "Wake"]


def test_a_parked_member_stays_frozen_over_a_restart_and_an_unpause_and_is_thawed_to_be_ended(machine):
    parked(machine)
    again = n.NodeMachine(["GPU-1"])
    commands = again.step(n.Recovered(machine.tenants[KEY], began=(100, 5), ended=None, alive=True))
    assert commands[-1].frozen is True
    machine.step(n.PauseAsked(KEY, paused=True))
    frozen = [each.frozen for each in machine.step(n.PauseAsked(KEY, paused=False)) if isinstance(each, n.SetFrozen)]
    assert frozen == [True]
    assert kinds(machine.step(n.SignalAsked(KEY, 15, 1000))) == ["SetFrozen", "End"]
