"""For all tests: the examples of a law have no deadline each.

How long one takes is the machine's affair, which others may use too; what must be fast has a benchmark, and every test
has its own timeout.
"""

from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("flexai", deadline=None)
settings.load_profile("flexai")


@pytest.fixture(scope="session")
def cgroup2():
    """Where cgroup v2 is mounted; None where it is not."""
    rows = (line.split() for line in Path("/proc/mounts").read_text().splitlines())
    return next((Path(row[1]) for row in rows if row[2] == "cgroup2"), None)
