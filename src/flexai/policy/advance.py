"""What a queue's large jobs had beyond its fair share and it has not made up for, or what it has saved for the next.

A job that is larger than its queue's share takes the queue beyond it for as long as it runs; were the next one started
as soon as it ends, the queue would hold a multiple of its share for ever. So the excess is summed up, in card time,
and paid back by holding less: a leaky bucket (Turner 1986) that leaks at the rate of the share. At most ``most_saved``
is saved: one job, so that a queue has its share in the mean though each of its jobs also waits for its place.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Advance:
    """Of one queue and resource; compute in thousandths of a card, ``owed`` and ``most_saved`` in those times ms."""

    share_milli: int
    at_ms: int
    held_milli: int = 0
    owed: int = 0
    most_saved: int = 0

    def settle(self, now_ms: int) -> None:
        """Bring it up to now: what was held since, against the share as it was known last."""
        self.owed = max(-self.most_saved, self.owed + (self.held_milli - self.share_milli) * (now_ms - self.at_ms))
        self.at_ms = now_ms

    def save_at_most(self, most_saved: int) -> None:
        """No more than that is saved from now on."""
        self.most_saved = most_saved
        self.owed = max(-most_saved, self.owed)

    def hold(self, milli: int, now_ms: int) -> None:
        """So much more is held from now on (negative: less)."""
        self.settle(now_ms)
        self.held_milli += milli

    @property
    def made_up_in_ms(self) -> int:
        """How long it takes until all is made up for if nothing changes; -1: not as long as its large jobs run."""
        if self.owed <= 0:
            return 0
        rate = self.share_milli - self.held_milli
        return -(-self.owed // rate) if rate > 0 else -1
