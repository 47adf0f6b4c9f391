"""The card on which tenants are measured: simulated, so that figures compare between machines, or a real one."""

from __future__ import annotations

import os

SIMULATED = "h200:1"
REAL = os.environ.get("FLEXAI_BENCH_CARDS") == "real"
"""Asked for the machine's own card, as ``make card-rest`` does; cases that are about tenants heed it."""

CARD = "" if REAL else SIMULATED
"""For ``own_pool``."""
WORDS = "real card" if REAL else "simulated card"
