"""The pool's line to the agent: JSON lines on a Unix socket, reconnecting by itself.

What the operations mean is in ``flexai.wire.agent_rpc``; what to do with an answer is the pool's business. Only
``apps.pool`` calls it.
"""

from flexai.adapters.agent_client.connection import AgentAway, AgentClient, AgentRefused

__all__ = ["AgentAway", "AgentClient", "AgentRefused"]
