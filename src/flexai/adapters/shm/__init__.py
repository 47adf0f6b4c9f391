"""Shared memory of the node: the tenants' regions and the arbiter's figures, as files under the run directory."""

from flexai.adapters.shm.region import RegionFiles
from flexai.adapters.shm.usage import UsageFile

__all__ = ["RegionFiles", "UsageFile"]
