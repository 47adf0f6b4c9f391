"""What the shim costs a process: a launch, an allocation, a start.

On a driver that does nothing, so that only the shim counts.
"""

import mmap
import os
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import flexai_native

from flexai.apps.bench.frame import Case, Row, Run, at_most
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
        start_cpu_added_ms: processor time of a process that does so, from exec to exit, least with less least without:
            what others take of the machine delays it, but does not add to it.
        start_cpu_added_16_ms: the same of 16 at once.
        idle_start_added_ms: a process that uses no card, from fork to exit.
    """

    launch_added_ns: float
    launch_added_8_cards_ns: float
    alloc_added_ns: float
    start_added_ms: float
    start_added_16_ms: float
    start_cpu_added_ms: float
    start_cpu_added_16_ms: float
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


@dataclass(frozen=True, slots=True)
class _Started:
    """Medians over processes started at once of what they say, and the least processor time of one."""

    says_ms: float
    cpu_ms: float


def _started(env: Mapping[str, str], at_once: int) -> _Started:
    argv = [str(flexai_native.program("flexai-shim-calls")), "start", "1"]
    running = [subprocess.Popen(argv, env=env, stdout=subprocess.PIPE, text=True) for _ in range(at_once)]
    says_ms, cpu_ms = [], []
    for process in running:
        with process:
            assert process.stdout is not None
            says_ms.append(float(process.stdout.read().split()[0]) / 1e6)
            _, status, used = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise subprocess.CalledProcessError(process.returncode, argv)
        cpu_ms.append(1e3 * (used.ru_utime + used.ru_stime))
    return _Started(median(says_ms), min(cpu_ms))


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
    alone = [(_started(one[0], 1), _started(one[1], 1)) for _ in range(starts)]
    crowd = [(_started(one[0], 16), _started(one[1], 16)) for _ in range(max(1, starts // 8))]
    idle = [(_whole_ms(one[0]), _whole_ms(one[1])) for _ in range(starts)]
    return ShimCost(
        launch_added_ns=_added(one, "launch", rounds, repeats),
        launch_added_8_cards_ns=_added(eight, "launch", rounds, repeats),
        alloc_added_ns=_added(one, "alloc", rounds, repeats),
        start_added_ms=median(b.says_ms for _, b in alone) - median(a.says_ms for a, _ in alone),
        start_added_16_ms=median(b.says_ms for _, b in crowd) - median(a.says_ms for a, _ in crowd),
        start_cpu_added_ms=min(b.cpu_ms for _, b in alone) - min(a.cpu_ms for a, _ in alone),
        start_cpu_added_16_ms=min(b.cpu_ms for _, b in crowd) - min(a.cpu_ms for a, _ in crowd),
        idle_start_added_ms=median(b for _, b in idle) - median(a for a, _ in idle),
    )


def rows(run: Run) -> Iterator[Row]:
    """Over a driver that does nothing, so that only the shim counts."""
    folder = run.folder / "shim"
    folder.mkdir()
    got = shim_cost(folder, rounds=50 if run.quick else 200, repeats=3, starts=8 if run.quick else 24)
    driver = "over a driver that does nothing"
    for cards, added_ns in (("", got.launch_added_ns), (" 8 cards,", got.launch_added_8_cards_ns)):
        yield Row("shim, added per launch", f"gate open,{cards} {driver}", at_most(30.0), added_ns, "ns")
    added = "shim, added to a process start"
    note = (
        f"processor time {got.start_cpu_added_ms:.2f} ms; a process that uses no card {got.idle_start_added_ms:.2f} ms"
    )
    yield Row(added, f"one at a time, {driver}", at_most(5.0), got.start_added_ms, "ms", note)
    yield Row(
        added, f"16 at once on {os.cpu_count()} CPUs, {driver}", at_most(5.0), got.start_added_16_ms, "ms",
        f"processor time {got.start_cpu_added_16_ms:.2f} ms",
    )  # fmt: skip


SHIM = Case("shim", "what the shim adds to a launch and to a process start", rows, 6, 4)
