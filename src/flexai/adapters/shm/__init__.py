"""Shared memory: the files through which agent, arbiter and tenant processes see each other.

What lives here: opening, creating, reading and reaping such files. What may never: the layout of their bytes
(``flexai.wire``), decisions. Called by the agent and by measuring programs.
"""
