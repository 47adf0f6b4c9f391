"""Shared memory of the node: the tenants' regions and what the arbiter publishes, as files under the run directory."""

from flexai.adapters.shm.region import RegionFiles
from flexai.adapters.shm.timeline import TimelineFile
from flexai.adapters.shm.usage import UsageFile

__all__ = ["RegionFiles", "TimelineFile", "UsageFile"]
