"""Words and quantities of FlexAI, frozen.

Here live the nouns that every other package speaks: devices, slices, jobs, queues, reasons. No behaviour beyond
what a value can say of itself, no I/O, no numpy. Everyone may import this package; it imports nothing of ours.
Compute is counted in thousandths of one card (``*_milli``), memory in bytes, time in milliseconds.
"""

from flexai.model.device import Device, DeviceHealth, Node, TopologyLevel
from flexai.model.job import Grant, Job, JobState, MemberState, Residence, Role, SliceRequest, TenantClass
from flexai.model.partition import PartitionProfile, best_start, partition_profile
from flexai.model.queue import OVER_CAP, ROOT_QUEUE, ClassTerms, Queue
from flexai.model.reason import PendingReason, Reason

MILLI_PER_DEVICE = 1000
"""A whole card's compute, in the unit of every share."""

__all__ = [
    "MILLI_PER_DEVICE",
    "OVER_CAP",
    "ROOT_QUEUE",
    "ClassTerms",
    "Device",
    "DeviceHealth",
    "Grant",
    "Job",
    "JobState",
    "MemberState",
    "Node",
    "PartitionProfile",
    "PendingReason",
    "Queue",
    "Reason",
    "Residence",
    "Role",
    "SliceRequest",
    "TenantClass",
    "TopologyLevel",
    "best_start",
    "partition_profile",
]
