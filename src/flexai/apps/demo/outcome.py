"""What a phase of the morning came to: pure, from what the pool and the workloads themselves said."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from flexai.apps.demo.morning import WHOLE_MILLI

UTILISATION_MEANS = (
    "card-time in use over the span: kernels that the jobs themselves counted x their length, "
    "over cards x (last end - first submission)"
)
OWED_MEANS = "the smaller of the share a job asked for and the share it has work for"
DELIVERED_MEANS = "the kernels that the job itself counted x their length, over the time it ran"
SHARE_ERROR_MEANS = "points of a card by which a job got less than it was owed, or more than its limit"


@dataclass(frozen=True, slots=True)
class JobOutcome:
    """One job of one phase.

    Attributes:
        asked_milli: share it was submitted with; ``owed_milli`` is the part of it that it had work for.
        got_milli: card time by its own count of kernels over the time it ran.
        told: reasons it was given while it waited, in order, each once.
        over_cap_bytes: most memory it was ever seen to hold beyond its cap.
        device: the card it ran on; empty when it never started.
        started_s: since the first submission of its phase.
    """

    name: str
    queue: str
    asked_milli: int
    owed_milli: int
    limit_milli: int
    waited_s: float
    ran_s: float
    work_s: float
    told: tuple[str, ...] = ()
    over_cap_bytes: int = 0
    failed: str = ""
    device: str = ""
    started_s: float = 0.0

    @property
    def is_card_bound(self) -> bool:
        """Whether it could use a whole card all the time: slicing cannot help it."""
        return self.owed_milli == WHOLE_MILLI

    @property
    def ended_s(self) -> float:
        """When it ended, on the clock of ``started_s``."""
        return self.started_s + self.ran_s

    @property
    def got_milli(self) -> int:
        """Delivered share in thousandths."""
        return round(1000 * self.work_s / self.ran_s) if self.ran_s > 0 else 0

    @property
    def share_error_points(self) -> float:
        """See :data:`SHARE_ERROR_MEANS`."""
        return max(0.0, self.owed_milli - self.got_milli, self.got_milli - self.limit_milli) / 10

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "name": self.name, "queue": self.queue, "asked_milli": self.asked_milli, "owed_milli": self.owed_milli,
            "got_milli": self.got_milli, "limit_milli": self.limit_milli,
            "share_error_points": round(self.share_error_points, 2), "waited_s": round(self.waited_s, 3),
            "ran_s": round(self.ran_s, 3), "work_s": round(self.work_s, 3), "over_cap_bytes": self.over_cap_bytes,
            "device": self.device, "told": list(self.told), "failed": self.failed,
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class PhaseOutcome:
    """One phase: whole cards, or slices."""

    name: str
    n_cards: int
    makespan_s: float
    jobs: tuple[JobOutcome, ...] = field(default_factory=tuple)

    @property
    def mean_wait_s(self) -> float:
        """Mean time from submission to start."""
        return sum(job.waited_s for job in self.jobs) / max(1, len(self.jobs))

    @property
    def utilisation(self) -> float:
        """See :data:`UTILISATION_MEANS`; 0..1."""
        span_s = self.n_cards * self.makespan_s
        return sum(job.work_s for job in self.jobs) / span_s if span_s > 0 else 0.0

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "makespan_s": round(self.makespan_s, 3),
            "mean_wait_s": round(self.mean_wait_s, 3),
            "utilisation": round(self.utilisation, 4),
            "n_failed": sum(bool(job.failed) for job in self.jobs),
            "jobs": [job.as_json() for job in self.jobs],
        }
