"""The node's state machine: what was prepared for whom, and what must be done about it.

Pure: events in, commands out, no I/O and no clock. It imports only ``model``; the agent's process feeds it and carries
out its commands. A command list is ordered: ``Save`` comes before whatever may not happen twice, so that a kill between
any two commands leaves a checkpoint from which the node comes back to the truth.
"""

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
    Recovered,
    ResizeAsked,
    SignalAsked,
    StartAsked,
    UnprepareAsked,
)
from flexai.node.machine import NodeMachine
from flexai.node.tenant import Key, LaunchSpec, Phase, Tenant

__all__ = [
    "AddTenant",
    "Admit",
    "AttachAsked",
    "Attached",
    "Began",
    "Command",
    "DropTenant",
    "End",
    "Ended",
    "Event",
    "Forbid",
    "Key",
    "Launch",
    "LaunchFailed",
    "LaunchSpec",
    "MakePlace",
    "NodeMachine",
    "Park",
    "ParkAsked",
    "Parked",
    "PauseAsked",
    "Phase",
    "PrepareAsked",
    "Recovered",
    "Refusal",
    "RemovePlace",
    "ResizeAsked",
    "Save",
    "Say",
    "SetFrozen",
    "SetLimits",
    "SignalAsked",
    "StartAsked",
    "Tenant",
    "UnprepareAsked",
    "Wake",
]
