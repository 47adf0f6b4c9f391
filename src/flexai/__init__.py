"""FlexAI pools GPUs and NPUs, cuts each card into exact slices and schedules AI work on them."""

__version__ = "0.1.0"
