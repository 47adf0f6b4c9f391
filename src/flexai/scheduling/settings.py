"""What an operator may choose about decisions."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SchedulerSettings:
    """Settings of the scheduler; the defaults are the product's.

    Attributes:
        scorer: name in ``policy.scores.SCORERS``.
        filters: names in ``policy.filters.FILTERS``: cards that they refuse take no new member, though it would fit.
        order: ``expected`` (least expected card time first inside a priority) or ``fifo``.
        reserve_cards: jobs of so many cards, or of a quarter of a small pool, get a reservation as soon as they wait.
        reserve_after_ms: any job that has waited so long gets one too.
        backfill_quantile: a job passes a reservation if this quantile of its class ends before it.
        preempt: evict for higher priority in a queue, and for a queue's entitlement across queues.
        reclaim: what a queue is entitled to: its ``quota``, or its ``fair_share`` where that is larger.
        grace_ms: between SIGTERM and SIGKILL of an evicted member whose job says nothing else.
        preempt_delay_ms: a job waits so long before anyone is evicted for it.
        fair_k_milli: k of ``policy.fair_share``, in thousandths; 0 is the classic rule.
        half_life_ms: of past use; matters only with ``fair_k_milli``.
        lend: start best-effort work on compute that is granted but measured idle.
        consolidate_moves: moves allowed per tick to gather free cards for a waiting job; 0 for none.
        move_cost_ms: what a move costs a job beside the time that it is seen to stop and to start in (before any was
            seen: its grace): to read its checkpoint, and what it does over.
        park: ``if_cheaper``: a victim is moved to host memory instead of being stopped where that costs it less;
            ``never``: it is stopped.
        park_least_ms: a parked job stays so long in host memory at least.
        checkpoint_every_ms: how often checkpointable jobs save their work; 0: when they are asked to end.
    """

    scorer: str = "fragmentation"
    filters: tuple[str, ...] = ()
    order: str = "expected"
    reserve_cards: int = 16
    reserve_after_ms: int = 604_800_000
    backfill_quantile: float = 0.9
    preempt: bool = True
    reclaim: str = "quota"
    grace_ms: int = 30_000
    preempt_delay_ms: int = 0
    fair_k_milli: int = 0
    half_life_ms: int = 0
    lend: bool = True
    consolidate_moves: int = 0
    move_cost_ms: int = 60_000
    park: str = "never"
    park_least_ms: int = 10_000
    checkpoint_every_ms: int = 0
