"""What the shim costs a process: a launch, an allocation, a start.

On a driver that does nothing, so that only the shim counts.
"""

import mmap
import os
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import flexai_native

from flexai.wire import region

_NULL_UUID = "GPU-00000000-0000-0000-0000-000000000000"


@dataclass(frozen=True, slots=True)
class ShimCost:
    """Figures; the added ones are with the shim less without, run in turns.

    Attributes:
        launch_added_ns: per launch, gate open, one card.
        launch_added_8_cards_ns: the same where the tenant has eight cards.
        alloc_added_ns: per allocation and its free.
        start_added_ms: opening the driver and initialising it, median over processes one after the other.
        start_added_16_ms: the same in each of 16 processes at once, median.
        idle_start_added_ms: a process that uses no card, from fork to exit.
    """

    launch_added_ns: float
    launch_added_8_cards_ns: float
    alloc_added_ns: float
    start_added_ms: float
    start_added_16_ms: float
    idle_start_added_ms: float


def _tenant(directory: Path, n_cards: int) -> None:
    directory.mkdir()
    others = [f"GPU-00000000-0000-0000-0000-{n:012x}" for n in range(1, n_cards)]
    policy = directory / "policy"
    policy.write_bytes(region.policy_image("bench"))
    with policy.open("r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
        region.write_limits(mapped, [region.Limits(uuid, 1 << 40, 1000, 1000) for uuid in [_NULL_UUID, *others]])
    (directory / "ledger").write_bytes(region.ledger_image())


def _environments(work: Path, n_cards: int) -> tuple[dict[str, str], dict[str, str]]:
    directory = work / f"tenant{n_cards}"
    _tenant(directory, n_cards)
    null = flexai_native.library("null/libcuda.so.1")
    plain = {k: v for k, v in os.environ.items() if not k.startswith(("FLEXAI_", "LD_"))}
    without = {**plain, "LD_LIBRARY_PATH": str(null.parent)}
    within = {
        **plain,
        "LD_PRELOAD": str(flexai_native.library("shim/libcuda.so.1")),
        "FLEXAI_REAL_CUDA": str(null),
        "FLEXAI_TENANT_DIR": str(directory),
    }
    return without, within


def _calls(env: Mapping[str, str], what: str, rounds: int) -> float:
    argv = [str(flexai_native.program("flexai-shim-calls")), what, str(rounds)]
    return float(subprocess.check_output(argv, env=env, text=True).split()[0])


def _added(environments: tuple[dict[str, str], dict[str, str]], what: str, rounds: int, repeats: int) -> float:
    """Least with the shim less least without: interruptions only ever add."""
    without, within = environments
    pairs = [(_calls(without, what, rounds), _calls(within, what, rounds)) for _ in range(repeats)]
    return min(b for _, b in pairs) - min(a for a, _ in pairs)


def _started_ms(env: Mapping[str, str], at_once: int) -> list[float]:
    argv = [str(flexai_native.program("flexai-shim-calls")), "start", "1"]
    running = [subprocess.Popen(argv, env=env, stdout=subprocess.PIPE, text=True) for _ in range(at_once)]
    return [float(process.communicate()[0].split()[0]) / 1e6 for process in running]


def _whole_ms(env: Mapping[str, str]) -> float:
    before = time.perf_counter()
    subprocess.run(["/bin/true"], env=env, check=True)
    return (time.perf_counter() - before) * 1e3


def shim_cost(work: Path, *, rounds: int = 200, repeats: int = 3, starts: int = 20) -> ShimCost:
    """Measure.

    Args:
        work: an empty directory for the tenants' regions.
        rounds: batches of 2,000 calls per process.
        repeats: processes with and without, in turns.
        starts: processes for the start figures.

    Raises:
        subprocess.CalledProcessError: a measuring program failed.
        FileNotFoundError: the native part lacks it.
    """
    one, eight = _environments(work, 1), _environments(work, 8)
    alone = [(_started_ms(one[0], 1)[0], _started_ms(one[1], 1)[0]) for _ in range(starts)]
    crowd = [(median(_started_ms(one[0], 16)), median(_started_ms(one[1], 16))) for _ in range(max(1, starts // 8))]
    idle = [(_whole_ms(one[0]), _whole_ms(one[1])) for _ in range(starts)]
    return ShimCost(
        launch_added_ns=_added(one, "launch", rounds, repeats),
        launch_added_8_cards_ns=_added(eight, "launch", rounds, repeats),
        alloc_added_ns=_added(one, "alloc", rounds, repeats),
        start_added_ms=median(b for _, b in alone) - median(a for a, _ in alone),
        start_added_16_ms=median(b for _, b in crowd) - median(a for a, _ in crowd),
        idle_start_added_ms=median(b for _, b in idle) - median(a for a, _ in idle),
    )
