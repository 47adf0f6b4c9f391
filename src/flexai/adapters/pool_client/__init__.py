"""The pool as seen by a client: HTTP over its Unix socket, by the standard library alone.

Lives here: one connection per request, JSON in and out, streams of lines. May never: import an HTTP framework (the
start of ``flexai run`` pays for every import), or know what a command does with an answer.
"""

from flexai.adapters.pool_client.client import PoolClient, PoolRefused, PoolUnreachable

__all__ = ["PoolClient", "PoolRefused", "PoolUnreachable"]
