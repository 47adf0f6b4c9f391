"""Small protocols between the node's process and the outside: what it needs, not how it is done.

Adapters implement them; ``apps/agent`` asks for them; the contract suites in ``testing`` hold every implementation to
them. No code lives here but the values that cross.
"""

from flexai.ports.channel_policy import ChannelPolicy, TenantPolicy
from flexai.ports.containment import Containment, Place
from flexai.ports.device_backend import DeviceBackend, DeviceMode, DeviceProcess, DeviceReading
from flexai.ports.regions import LedgerSlot, Regions
from flexai.ports.usage import DeviceUsage, TenantUsage, Usage, UsageReader

__all__ = [
    "ChannelPolicy",
    "Containment",
    "DeviceBackend",
    "DeviceMode",
    "DeviceProcess",
    "DeviceReading",
    "DeviceUsage",
    "LedgerSlot",
    "Place",
    "Regions",
    "TenantPolicy",
    "TenantUsage",
    "Usage",
    "UsageReader",
]
