"""Trace files on disk and the chance drawn for experiments: the simulator's only I/O besides its reports."""

from flexai.adapters.traces.draw import draws, nodes_in_drawn_order, shuffled_arrivals
from flexai.adapters.traces.files import (
    LoadedTrace,
    between,
    is_serving,
    load_cluster,
    load_serving,
    load_trace,
    open_text,
)

__all__ = [
    "LoadedTrace",
    "between",
    "draws",
    "is_serving",
    "load_cluster",
    "load_serving",
    "load_trace",
    "nodes_in_drawn_order",
    "open_text",
    "shuffled_arrivals",
]
