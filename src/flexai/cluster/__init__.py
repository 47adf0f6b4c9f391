"""The books: who holds what, as arrays, with undoable plans.

Struct-of-arrays over nodes and their cards (``Books``), what members ask for (``Shape``), the tree of queues with what
each holds (``QueueTree``). Only bookkeeping: what to prefer is ``policy``'s business, when to act ``scheduling``'s.
Units: thousandths of a card, thousandths of a core, bytes.
"""

from flexai.cluster.books import Books, Hold
from flexai.cluster.evictable import Evictable
from flexai.cluster.plan import Plan
from flexai.cluster.queue_tree import ALL_CARDS, QueueTree
from flexai.cluster.shape import Shape
from flexai.cluster.topology import Topology, group_sums

__all__ = ["ALL_CARDS", "Books", "Evictable", "Hold", "Plan", "QueueTree", "Shape", "Topology", "group_sums"]
