"""The only I/O of FlexAI: cards, sockets, databases, shared memory. One folder per outside thing.

Adapters know the core, the wire and the ports, never each other and never an app; ``apps/*/main.py`` composes them.
"""
