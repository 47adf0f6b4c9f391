"""Pictures of simulated runs: drawn for the simulator and for benchmarks. Only files are written here."""

from flexai.adapters.pictures.packed import plot_packed
from flexai.adapters.pictures.timed import plot_timed

__all__ = ["plot_packed", "plot_timed"]
