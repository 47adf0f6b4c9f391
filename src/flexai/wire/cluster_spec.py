"""A cluster in a few characters: ``72x8:H200`` is 72 nodes of 8 cards; groups are joined by commas.

Grammar of a group: ``[NODESx]CARDS[:MODEL[:MEMORY[:CPUS]]]``, memory per card as a quantity (``141Gi``), CPUs per node.
What is left out is not scarce: 80 GiB a card, CPUs and RAM without end.
"""

from __future__ import annotations

import re

from flexai.model import Device, Node
from flexai.wire.errors import BadInput
from flexai.wire.quantity import parse_size
from flexai.wire.trace import OPENB_DEVICE_MEMORY_BYTES, TraceNode

PLENTY_CPU_MILLI = 10**9
PLENTY_RAM_BYTES = 2**50
MAX_DEVICES = 1_000_000
_GROUP = re.compile(r"(?:(\d{1,7})x)?(\d{1,7})(?::([\w.-]{1,40}))?(?::(\w{1,20}))?(?::(\d{1,6}))?\Z")
DEFAULT_MEMORY_BYTES = 80 * 2**30


def parse_cluster(text: str) -> tuple[Node, ...]:
    """Read ``--cluster``.

    Raises:
        BadInput: not of the grammar, no cards, or more than a million of them.
    """
    nodes: list[Node] = []
    n_devices = 0
    for group in text.split(","):
        match = _GROUP.match(group.strip())
        if match is None:
            raise BadInput(
                "--cluster", group, "is not NODESxCARDS[:MODEL[:MEMORY[:CPUS]]]", "Give for example 72x8:H200"
            )
        n_nodes, cards, model, memory, cpus = match.groups()
        n_devices += int(n_nodes or 1) * int(cards)
        if not 0 < n_devices <= MAX_DEVICES:
            raise BadInput("--cluster", text, f"has no cards, or more than {MAX_DEVICES}", "Give for example 72x8:H200")
        memory_bytes = parse_size(memory, "--cluster") if memory else DEFAULT_MEMORY_BYTES
        cpu_milli = int(cpus) * 1000 if cpus else PLENTY_CPU_MILLI
        for _ in range(int(n_nodes or 1)):
            nodes.append(_node(f"n{len(nodes)}", int(cards), model or "any", memory_bytes, cpu_milli, PLENTY_RAM_BYTES))
    return tuple(nodes)


def nodes_of_trace(rows: list[TraceNode]) -> tuple[Node, ...]:
    """Hosts of a trace as nodes."""
    return tuple(
        _node(
            row.name, row.n_devices, row.model, OPENB_DEVICE_MEMORY_BYTES.get(row.model, DEFAULT_MEMORY_BYTES),
            row.cpu_milli, row.ram_bytes,
        )
        for row in rows
    )  # fmt: skip


def _node(name: str, n_devices: int, model: str, memory_bytes: int, cpu_milli: int, ram_bytes: int) -> Node:
    devices = tuple(Device(f"{name}/{i}", model, "simulated", i, memory_bytes) for i in range(n_devices))
    return Node(name, devices, cpu_milli, ram_bytes)
