"""The arbiter's ring of who had which card when (``<run>/timeline``), read beside its writer."""

import mmap
import os
from pathlib import Path

from flexai.wire import timeline
from flexai.wire.errors import BadInput

_N = timeline.N_RECORDS


class TimelineFile:
    """What was written since the last look; the first look gives all that the ring still holds.

    Attributes:
        n_missed: records that were overwritten before they could be read.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._next = 0
        self.n_missed = 0
        self._map: mmap.mmap | None = None

    @property
    def exists(self) -> bool:
        """Whether an arbiter has made one here."""
        return self._path.is_file()

    def read(self) -> list[timeline.Record]:
        """New records, oldest first.

        Raises:
            BadInput: there is no ring there, or one of another version.
        """
        mapped = self._mapped()
        names = timeline.tables(mapped[: timeline.TABLES_BYTES])
        end = names.n_written
        first = max(self._next, end - _N, 0) if self._next <= end else max(0, end - _N)
        data = b"".join(_parts(mapped, first, end))
        after = timeline.tables(mapped[: timeline.TABLES_BYTES]).n_written
        whole_from = min(end, max(first, after - _N + 1))
        if self._next:
            self.n_missed += whole_from - min(self._next, whole_from)
        self._next = end
        return timeline.records(data[(whole_from - first) * timeline.RECORD_BYTES :], names)

    def _mapped(self) -> mmap.mmap:
        if self._map is None:
            try:
                descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
            except OSError as error:
                raise BadInput(
                    "timeline", str(self._path), error.strerror or str(error), "Start the pool: `flexai up`"
                ) from None
            try:
                if os.fstat(descriptor).st_size < timeline.TIMELINE_BYTES:
                    raise BadInput("timeline", str(self._path), "is too short", "Use one version of FlexAI")
                self._map = mmap.mmap(descriptor, timeline.TIMELINE_BYTES, prot=mmap.PROT_READ)
            finally:
                os.close(descriptor)
        return self._map


def _parts(mapped: mmap.mmap, first: int, end: int) -> list[bytes]:
    """Records ``first`` to ``end`` of the ring, which may wrap."""
    parts = []
    while first < end:
        n = min(end - first, _N - first % _N)
        at = timeline.TABLES_BYTES + first % _N * timeline.RECORD_BYTES
        parts.append(mapped[at : at + n * timeline.RECORD_BYTES])
        first += n
    return parts
