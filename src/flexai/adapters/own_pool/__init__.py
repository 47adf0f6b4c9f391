"""A pool of one's own for a demo or a measurement, started by the command as a user would start it.

Lives here: starting and stopping it in folders of its own. May never: touch the pool of this machine.
"""

from flexai.adapters.own_pool.ending import end_in_order
from flexai.adapters.own_pool.stand import NotStarted, own_pool

__all__ = ["NotStarted", "end_in_order", "own_pool"]
