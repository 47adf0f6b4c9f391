"""The state machine: one event in, an ordered list of commands (or a refusal) out."""

from collections.abc import Iterable
from dataclasses import replace
from typing import assert_never

from flexai.model import Grant
from flexai.node.commands import (
    AddTenant,
    Admit,
    Command,
    DropTenant,
    End,
    Forbid,
    Launch,
    MakePlace,
    Park,
    Refusal,
    RemovePlace,
    Save,
    Say,
    SetFrozen,
    SetLimits,
    Wake,
)
from flexai.node.events import (
    AttachAsked,
    Attached,
    Began,
    Ended,
    Event,
    LaunchFailed,
    ParkAsked,
    Parked,
    PauseAsked,
    PrepareAsked,
    ProgramLeaves,
    Recovered,
    ResizeAsked,
    SignalAsked,
    StartAsked,
    UnprepareAsked,
)
from flexai.node.tenant import Key, Phase, Tenant

_SIGTERM = 15
_SIGKILL = 9
_NO_ESCALATION = -1
_LEFTOVER_GRACE_MS = 0

Outcome = list[Command] | Refusal


class NodeMachine:
    """Members that hold slices on this node.

    Attributes:
        tenants: by ``(job_id, member)``; what the checkpoint holds.
    """

    def __init__(self, devices: Iterable[str] = ()) -> None:
        self.tenants: dict[Key, Tenant] = {}
        self.devices = frozenset(devices)

    def step(self, event: Event) -> Outcome:
        """What must be done about ``event``; a refusal changes nothing."""
        match event:
            case PrepareAsked():
                return self._prepare(event.tenant)
            case Recovered():
                return self._recover(event)
            case UnprepareAsked():
                return self._unprepare(event.key)
            case LaunchFailed():
                return self._launch_failed(event)
            case _:
                tenant = self.tenants.get(event.key)
                if tenant is None:
                    return _unknown(event.key)
                return self._of_tenant(tenant, event)

    def _of_tenant(
        self,
        tenant: Tenant,
        event: StartAsked
        | AttachAsked
        | Attached
        | Began
        | Ended
        | SignalAsked
        | PauseAsked
        | ParkAsked
        | Parked
        | ProgramLeaves
        | ResizeAsked,
    ) -> Outcome:
        match event:
            case StartAsked():
                return self._start(tenant, event)
            case AttachAsked():
                return self._attach(tenant, event)
            case Attached():
                return self._attached(tenant, event)
            case Began():
                return self._began(tenant, event.pid, event.start_ticks)
            case Ended():
                return self._ended(tenant, event)
            case SignalAsked():
                return self._signal(tenant, event)
            case PauseAsked():
                return self._pause(tenant, event)
            case ParkAsked():
                return self._park(tenant, event)
            case Parked():
                return self._parked(tenant, event.parked)
            case ProgramLeaves():
                others = tuple(each for each in tenant.away if each[0] != event.pid)
                return self._put(replace(tenant, away=(*others, (event.pid, event.cards))))
            case ResizeAsked():
                return self._resize(tenant, event)
            case _:
                assert_never(event)

    def _put(self, tenant: Tenant) -> list[Command]:
        self.tenants[tenant.key] = tenant
        return [Save()]

    def _prepare(self, wanted: Tenant) -> Outcome:
        held = self.tenants.get(wanted.key)
        for grant in wanted.grants:
            if grant.device not in self.devices:
                return Refusal(
                    "NoSuchDevice", f"There is no card {grant.device} on this node.", "Look at `flexai devices`"
                )
        if held is not None and held.token != wanted.token:
            return Refusal(
                "Held", f"{held.name} is still held for start {held.token}.", "Unprepare it first, when it has ended"
            )
        if held is not None and held.phase is not Phase.PREPARED:
            return []
        # Saved first: what was made for a member that the checkpoint does not know would never be removed.
        return [*self._put(wanted), MakePlace(wanted), AddTenant(wanted)]

    def _start(self, tenant: Tenant, event: StartAsked) -> Outcome:
        if tenant.token != event.token:
            return Refusal("WrongToken", f"{tenant.name} is prepared for start {tenant.token}, not {event.token}.")
        if tenant.phase is not Phase.PREPARED:
            return []
        starting = replace(tenant, phase=Phase.STARTING, idle_timeout_ms=event.launch.idle_timeout_ms)
        return [*self._put(starting), Launch(starting, event.launch)]

    def _attach(self, tenant: Tenant, event: AttachAsked) -> Outcome:
        if tenant.phase is Phase.PREPARED or (tenant.phase is Phase.RUNNING and tenant.attached):
            return [Admit(tenant, event.pid)]
        return Refusal("NotPrepared", f"{tenant.name} is {tenant.phase.value}; nothing can be attached to it.")

    def _attached(self, tenant: Tenant, event: Attached) -> Outcome:
        if tenant.phase is not Phase.PREPARED:
            return []
        running = replace(tenant, phase=Phase.RUNNING, pid=event.pid, start_ticks=event.start_ticks, attached=True)
        return [*self._put(running), AddTenant(running), Say("started", running)]

    def _began(self, tenant: Tenant, pid: int, start_ticks: int) -> Outcome:
        if tenant.phase not in {Phase.STARTING, Phase.PREPARED}:
            return []
        running = replace(tenant, phase=Phase.RUNNING, pid=pid, start_ticks=start_ticks)
        commands = [*self._put(running), AddTenant(running), Say("started", running)]
        if running.stopping:
            commands.append(End(running, _SIGTERM, _LEFTOVER_GRACE_MS))
        return commands

    def _launch_failed(self, event: LaunchFailed) -> Outcome:
        tenant = self.tenants.get(event.key)
        if tenant is None or tenant.phase is not Phase.STARTING:
            return []
        return self._put(replace(tenant, phase=Phase.PREPARED))

    def _ended(self, tenant: Tenant, event: Ended) -> Outcome:
        if tenant.phase is Phase.FINISHED:
            return []
        cause = tenant.stopping or event.cause
        ended = replace(
            tenant, phase=Phase.FINISHED, exit_code=event.exit_code, signal=event.signal, cause=cause, paused=False,
            paused_for="", parked=False, moving=False,
        )  # fmt: skip
        # Forbid: an end can be seen while a supervisor of this very token is still on its way.
        return [Forbid(ended), *self._put(ended), Say("finished", ended)]

    def _signal(self, tenant: Tenant, event: SignalAsked) -> Outcome:
        if tenant.phase is Phase.FINISHED:
            return []
        if tenant.phase is Phase.PREPARED:
            return Refusal("NotRunning", f"{tenant.name} does not run.", "")
        commands: list[Command] = []
        if event.cause and not tenant.stopping:
            tenant = replace(tenant, stopping=event.cause)
            commands += self._put(tenant)
        if tenant.paused and (event.grace_ms > 0 or event.signal == _SIGKILL):
            # What is frozen can neither end itself nor be ended.
            tenant = replace(tenant, paused=False, paused_for="")
            commands += [*self._put(tenant), SetFrozen(tenant, frozen=False), AddTenant(tenant)]
        elif tenant.parked and (event.grace_ms > 0 or event.signal == _SIGKILL):
            commands.append(SetFrozen(tenant, frozen=False))
        grace_ms = event.grace_ms if event.grace_ms > 0 else _NO_ESCALATION
        return [*commands, End(tenant, event.signal, grace_ms)]

    def _pause(self, tenant: Tenant, event: PauseAsked) -> Outcome:
        if tenant.phase is not Phase.RUNNING:
            return Refusal("NotRunning", f"{tenant.name} does not run.", "")
        if tenant.paused == event.paused:
            return []
        tenant = replace(tenant, paused=event.paused, paused_for=event.cause if event.paused else "")
        saved = self._put(tenant)
        # The card first: what the processes queued goes on running there when only they are frozen.
        if event.paused:
            return [*saved, AddTenant(tenant), SetFrozen(tenant, frozen=True)]
        return [*saved, SetFrozen(tenant, frozen=tenant.parked), AddTenant(tenant)]

    def _park(self, tenant: Tenant, event: ParkAsked) -> Outcome:
        if tenant.phase is not Phase.RUNNING:
            return Refusal("NotRunning", f"{tenant.name} does not run.", "")
        elsewhere = event.grants if event.grants and _cards(event.grants) != _cards(tenant.grants) else ()
        if tenant.parked == event.parked and not tenant.moving and not elsewhere:
            return []
        cards = {*_cards(elsewhere)}
        if elsewhere and (event.parked or not (tenant.parked or tenant.moving)):
            return _other_devices(tenant, "Only one that is parked comes back to other cards")
        if elsewhere and (not cards <= self.devices or not len(cards) == len(elsewhere) == len(tenant.grants)):
            return Refusal("NoSuchDevice", f"{tenant.name} needs a card of this node for each of its own.", "")
        tenant = replace(tenant, moving=True, bound_for=tenant.bound_for if event.parked else elsewhere)
        # Its place gets room for the device memory first, and is known to need it: an agent that ends meanwhile too.
        # Where it comes back to other cards it may open those, and its turns are held there, before it is on them.
        held: list[Command] = [AddTenant(tenant)] if elsewhere else []
        return [
            *self._put(tenant),
            MakePlace(tenant),
            *held,
            Park(tenant, event.host_bytes) if event.parked else Wake(tenant),
        ]

    def _parked(self, tenant: Tenant, parked: bool) -> list[Command]:
        if tenant.parked == parked and not tenant.moving:
            return []
        moved, was_bound = tenant.seat if not parked else tenant.grants, bool(tenant.bound_for)
        away = tenant.away if parked else ()
        tenant = replace(tenant, parked=parked, moving=False, grants=moved, bound_for=(), away=away)
        held: list[Command] = [AddTenant(tenant)] if was_bound else []
        return [*self._put(tenant), MakePlace(tenant), *held]

    def _resize(self, tenant: Tenant, event: ResizeAsked) -> Outcome:
        if _cards(tenant.grants) != _cards(event.grants):
            return _other_devices(tenant, "Resize keeps the cards and changes the numbers")
        if tenant.grants == event.grants:
            return []
        resized = replace(tenant, grants=event.grants)
        if tenant.phase is Phase.FINISHED:
            return self._put(resized)
        return [SetLimits(resized), AddTenant(resized), *self._put(resized)]

    def _unprepare(self, key: Key) -> Outcome:
        tenant = self.tenants.get(key)
        if tenant is None:
            return []
        if tenant.phase in {Phase.RUNNING, Phase.STARTING}:
            return Refusal("StillRunning", f"{tenant.name} still runs.", "Signal it and wait for its end")
        del self.tenants[key]
        # The checkpoint forgets it last: a kill in between leaves a member that is unprepared again, by the pool.
        return [Forbid(tenant), DropTenant(key), RemovePlace(tenant), Save()]

    def _recover(self, event: Recovered) -> Outcome:
        tenant = event.tenant
        self.tenants[tenant.key] = tenant
        if tenant.phase is Phase.FINISHED:
            return []
        placed: list[Command] = [MakePlace(tenant), AddTenant(tenant)]
        # As it was written down, which is not yet as it is when the kill came in between.
        going_on = [*placed, SetFrozen(tenant, frozen=tenant.paused or (tenant.parked and not tenant.moving))]
        if event.ended is not None and not event.alive:
            if tenant.phase is Phase.PREPARED and event.began is None:
                return placed
            return [*self._as_outcome(self._ended(tenant, event.ended))]
        if tenant.phase is Phase.RUNNING and tenant.attached:
            if event.alive:
                return going_on
            return [*self._as_outcome(self._ended(tenant, Ended(tenant.key, None, 0, "lost: ended unseen")))]
        if event.began is None:
            # Nobody holds the token. A supervisor may still be on its way; the pool's next start competes with it for
            # the token, and one of the two wins.
            return [*placed, *self._put(replace(tenant, phase=Phase.PREPARED))]
        if tenant.phase is not Phase.RUNNING:
            return [*placed, *self._as_outcome(self._began(tenant, *event.began))]
        if event.alive:
            return going_on
        return [
            *self._as_outcome(self._ended(tenant, Ended(tenant.key, None, _SIGKILL, "lost: its supervisor was killed")))
        ]

    @staticmethod
    def _as_outcome(outcome: Outcome) -> list[Command]:
        assert not isinstance(outcome, Refusal), outcome
        return outcome


def _unknown(key: Key) -> Refusal:
    return Refusal("NotPrepared", f"{key[0]}.{key[1]} is not prepared on this node.", "Prepare it first")


def _cards(grants: Iterable[Grant]) -> list[str]:
    return [grant.device for grant in grants]


def _other_devices(tenant: Tenant, remedy: str) -> Refusal:
    message = f"{tenant.name} holds other cards; a running member cannot change cards."
    return Refusal("OtherDevices", message, remedy)
