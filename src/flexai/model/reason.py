"""Why something waits or was refused: a stable code and numbers, from which the message is made."""

from dataclasses import dataclass, field
from enum import StrEnum


class Reason(StrEnum):
    """Stable codes. Scripts may depend on them; a code is never reused for something else."""

    HELD = "Held"
    WAITING_FOR_JOBS = "WaitingForJobs"
    DEPENDENCY_FAILED = "DependencyFailed"
    UNKNOWN_QUEUE = "UnknownQueue"
    QUEUE_LIMIT = "QueueLimit"
    USER_LIMIT = "UserLimit"
    FAIR_SHARE = "FairShare"
    BEHIND_EARLIER_JOBS = "BehindEarlierJobs"
    RESERVED = "Reserved"
    NO_SUCH_DEVICE = "NoSuchDevice"
    TOO_LARGE = "TooLarge"
    NOT_ENOUGH_COMPUTE = "NotEnoughCompute"
    NOT_ENOUGH_MEMORY = "NotEnoughMemory"
    NOT_ENOUGH_DEVICES = "NotEnoughDevices"
    NOT_ENOUGH_CPU = "NotEnoughCpu"
    NOT_ENOUGH_RAM = "NotEnoughRam"
    FRAGMENTED = "Fragmented"
    FILTERED = "Filtered"
    GANG_INCOMPLETE = "GangIncomplete"
    TOPOLOGY = "Topology"
    NO_DEVICES = "NoDevices"
    AGENT_AWAY = "AgentAway"
    PARKED = "Parked"


@dataclass(frozen=True, slots=True)
class PendingReason:
    """Why a job has not started, true at ``version`` of the ledger.

    Attributes:
        code: the stable code.
        message: one sentence for a person, with numbers, ending with what would help.
        numbers: the same numbers for a program.
        version: ledger version at which it was computed.
    """

    code: Reason
    message: str
    numbers: dict[str, int] = field(default_factory=dict)
    version: int = 0
