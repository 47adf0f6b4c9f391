"""Counts steps; saves on SIGTERM, and goes on from what was saved."""

import os
import pathlib
import signal
import sys
import time

STEPS = 60
saved = pathlib.Path("step.txt")
step = int(saved.read_text()) if saved.exists() else 0


def save_and_end(*_: object) -> None:
    saved.write_text(str(step))
    print(f"told to end: saved step {step}", flush=True)
    sys.exit(143)


signal.signal(signal.SIGTERM, save_and_end)
print(f"start {os.environ['FLEXAI_RESTARTS']}: from step {step}", flush=True)
while step < STEPS:
    time.sleep(0.1)
    step += 1
print(f"done: step {step}", flush=True)
