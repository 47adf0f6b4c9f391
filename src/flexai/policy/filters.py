"""Filters with a name: where a pool puts nothing though it would fit.

A new one is a function of the states of cards and the shape asked for, with a name in ``FILTERS``
(docs/how-to/add-a-filter.md); ``SchedulerSettings.filters`` names those in use. A pool uses none by itself, so none is
here: what fits (``Books``) is not a matter of taste.
"""

from __future__ import annotations

from flexai.cluster.card_filter import Cards, Filter

__all__ = ["FILTERS", "Cards", "Filter"]

FILTERS: dict[str, Filter] = {}
