"""The agent's line to the arbiter (``<run>/arbiter.sock``)."""

from flexai.adapters.arbiter_client.client import ArbiterClient

__all__ = ["ArbiterClient"]
