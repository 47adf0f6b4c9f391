"""PyTorch tenants for the slicing benchmark: real model steps on random weights, nothing downloaded.

Each runs until told to end and counts its iterations in a small shared file, so that a benchmark can start every
tenant once, let them run alone and together by turns, and read exact rates over any window from outside:

====== ===== ==========================================================
offset type  meaning
====== ===== ==========================================================
0      u64   iterations finished (all work of an iteration is complete)
8      u32   1 = ready to run
12     u32   1 = run, 0 = idle, 2 = end (written by the benchmark)
16     u64   latency samples written (latency tenant)
24     u64   CLOCK_MONOTONIC ns of the last finished iteration
4096   f32[] ring of latencies in ms, 65,536 entries
====== ===== ==========================================================

The C workloads (``flexai-workload --control FILE``) write the same file. Run one by
``python -m flexai.apps.bench.torch_workloads NAME --control FILE``.
"""

from __future__ import annotations

import argparse
import json
import math
import mmap
import struct
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

RING = 65_536
CONTROL_BYTES = 4096 + 4 * RING
IDLE, RUN, END = 0, 1, 2


class Control:
    """The shared file of one workload: counters out, run word in."""

    def __init__(self, path: Path) -> None:
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), CONTROL_BYTES)
        self.iterations = 0
        self.n_latencies = 0

    def ready(self) -> None:
        """Say that set-up is over."""
        struct.pack_into("<I", self._map, 8, 1)

    @property
    def order(self) -> int:
        """What the benchmark wants now: ``IDLE``, ``RUN`` or ``END``."""
        return int(struct.unpack_from("<I", self._map, 12)[0])

    def finished(self, n: int = 1) -> None:
        """Count ``n`` iterations whose work is complete."""
        self.iterations += n
        struct.pack_into("<Q", self._map, 24, time.monotonic_ns())
        struct.pack_into("<Q", self._map, 0, self.iterations)

    def latency(self, ms: float) -> None:
        """Record one request's latency."""
        struct.pack_into("<f", self._map, 4096 + 4 * (self.n_latencies % RING), ms)
        self.n_latencies += 1
        struct.pack_into("<Q", self._map, 16, self.n_latencies)


def _gemm(torch: Any, size: int) -> Callable[[], None]:
    """One bf16 matrix product; about 2 * size^3 operations."""
    a = torch.randn(size, size, device="cuda", dtype=torch.bfloat16)
    b = torch.randn(size, size, device="cuda", dtype=torch.bfloat16)
    out = torch.empty_like(a)

    def step() -> None:
        torch.mm(a, b, out=out)

    return step


def _gpt(torch: Any) -> Callable[[], None]:
    """A training step of an 8-layer decoder (width 1024, 8 x 512 tokens), forward, backward and update."""
    width, heads, length, batch, vocab = 1024, 16, 512, 8, 32_000
    layer = torch.nn.TransformerEncoderLayer(width, heads, 4 * width, batch_first=True, norm_first=True, dropout=0.0)
    body = torch.nn.TransformerEncoder(layer, 8, enable_nested_tensor=False)
    model = torch.nn.Sequential(torch.nn.Embedding(vocab, width), body, torch.nn.Linear(width, vocab))
    model = model.to("cuda", torch.bfloat16)
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-4)
    tokens = torch.randint(0, vocab, (batch, length), device="cuda")
    loss_of = torch.nn.CrossEntropyLoss()

    def step() -> None:
        optimiser.zero_grad(set_to_none=True)
        logits = model(tokens)
        loss_of(logits[:, :-1].reshape(-1, vocab).float(), tokens[:, 1:].reshape(-1)).backward()
        optimiser.step()

    return step


def _resnet(torch: Any) -> Callable[[], None]:
    """A training step of ResNet-50 at 224 x 224, batch 32 (bottleneck blocks 3-4-6-3; He et al., 2016)."""
    nn = torch.nn

    def unit(c_in: int, c_out: int, kernel: int, stride: int = 1) -> list[Any]:
        conv = nn.Conv2d(c_in, c_out, kernel, stride, kernel // 2, bias=False)
        return [conv, nn.BatchNorm2d(c_out)]

    class Bottleneck(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self, c_in: int, mid: int, stride: int) -> None:
            super().__init__()
            self.path = nn.Sequential(
                *unit(c_in, mid, 1), nn.ReLU(), *unit(mid, mid, 3, stride), nn.ReLU(), *unit(mid, 4 * mid, 1)
            )
            straight = c_in == 4 * mid and stride == 1
            self.shortcut = nn.Identity() if straight else nn.Sequential(*unit(c_in, 4 * mid, 1, stride))

        def forward(self, x: Any) -> Any:
            return torch.relu(self.path(x) + self.shortcut(x))

    layers: list[Any] = [*unit(3, 64, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    channels = 64
    for mid, count, stride in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)):
        for i in range(count):
            layers.append(Bottleneck(channels, mid, stride if i == 0 else 1))
            channels = 4 * mid
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2048, 1000))
    model = model.to("cuda", torch.bfloat16, memory_format=torch.channels_last)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    images = torch.randn(32, 3, 224, 224, device="cuda", dtype=torch.bfloat16)
    images = images.to(memory_format=torch.channels_last)
    labels = torch.randint(0, 1000, (32,), device="cuda")
    loss_of = nn.CrossEntropyLoss()

    def step() -> None:
        optimiser.zero_grad(set_to_none=True)
        loss_of(model(images).float(), labels).backward()
        optimiser.step()

    return step


def _decode(torch: Any, layers: int) -> Callable[[], None]:
    """One token of a decoder (batch 8, width 4096) captured in a CUDA graph; its length follows ``layers``."""
    width, batch = 4096, 8
    up = [torch.randn(width, 4 * width, device="cuda", dtype=torch.bfloat16) * 0.01 for _ in range(layers)]
    down = [torch.randn(4 * width, width, device="cuda", dtype=torch.bfloat16) * 0.01 for _ in range(layers)]
    x = torch.randn(batch, width, device="cuda", dtype=torch.bfloat16)

    def token() -> Any:
        y = x
        for a, b in zip(up, down, strict=True):
            y = torch.nn.functional.layer_norm(y + torch.nn.functional.gelu(y @ a) @ b, (width,))
        return y

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            token()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        token()
    return graph.replay  # type: ignore[no-any-return]


def _run_deep(torch: Any, control: Control, step: Callable[[], None], depth: int, batch: int) -> None:
    """Keep ``depth`` batches of ``batch`` steps queued, so that the card never waits for this process."""
    pending: list[Any] = []
    while control.order != END:
        if control.order == IDLE:
            for event in pending:
                event.synchronize()
                control.finished(batch)
            pending.clear()
            time.sleep(0.001)
            continue
        for _ in range(batch):
            step()
        event = torch.cuda.Event(blocking=True)
        event.record()
        pending.append(event)
        if len(pending) >= depth:
            pending.pop(0).synchronize()
            control.finished(batch)


def _run_synchronous(torch: Any, control: Control, step: Callable[[], None]) -> None:
    """Wait for the card after each step, as a training loop that reads its loss does."""
    while control.order != END:
        if control.order == IDLE:
            time.sleep(0.001)
            continue
        step()
        torch.cuda.synchronize()
        control.finished()


def _run_square(torch: Any, control: Control, step: Callable[[], None], period_s: float) -> None:
    """Full load for half of each period, nothing for the other half: a lender and an owner who comes back."""
    while control.order != END:
        on = control.order == RUN and time.monotonic() % period_s < period_s / 2
        if not on:
            time.sleep(0.0005)
            continue
        step()
        torch.cuda.synchronize()
        control.finished()


def _run_open_loop(torch: Any, control: Control, step: Callable[[], None], gap_s: float, tokens: int) -> None:
    """Requests at fixed times whether or not the last is answered; latency counts from the intended time."""
    due = time.monotonic()
    while control.order != END:
        if control.order == IDLE:
            time.sleep(0.001)
            due = time.monotonic()
            continue
        due += gap_s
        wait = due - time.monotonic()
        if wait > 0:
            time.sleep(wait)
        for _ in range(tokens):
            step()
        torch.cuda.synchronize()
        control.latency((time.monotonic() - due) * 1e3)
        control.finished()


def _run_once(torch: Any, step: Callable[[], None], kernel_us: float, n_kernels: int, period_us: float) -> None:
    """The work of so many kernels of that length, back to back or as its input comes; says what it did, as JSON.

    How long a step takes is the shortest of some: that is its time alone, whoever else is on the card.
    """
    alone_s = math.inf
    for _ in range(40):
        began_s = time.monotonic()
        step()
        torch.cuda.synchronize()
        alone_s = min(alone_s, time.monotonic() - began_s)
    n_steps = max(1, round(kernel_us / 1e6 / alone_s))  # of a kernel's work
    began_s = time.monotonic()
    for number in range(n_kernels):
        if period_us:
            time.sleep(max(0.0, began_s + number * period_us / 1e6 - time.monotonic()))
        for _ in range(n_steps):
            step()
        if period_us or number % 8 == 7:
            torch.cuda.synchronize()
    torch.cuda.synchronize()
    n_done = round(n_kernels * n_steps * alone_s * 1e6 / kernel_us)
    print(json.dumps({"iterations": n_done, "seconds": time.monotonic() - began_s, "step_us": alone_s * 1e6}))


WORKLOADS = ("gemm", "gemm-sync", "gpt", "resnet", "decode", "decode-sync", "square", "latency")


def main(arguments: list[str] | None = None) -> int:
    """Run one workload until its control word says end."""
    parser = argparse.ArgumentParser(description="PyTorch tenants of the slicing benchmark")
    parser.add_argument("name", choices=WORKLOADS)
    parser.add_argument("--control", type=Path, help="shared counter file, made by the benchmark")
    parser.add_argument("--iterations", type=int, default=0, help="without --control: work of so many kernels")
    parser.add_argument("--kernel-us", type=float, default=1000.0, help="length of such a kernel")
    parser.add_argument("--period-us", type=float, default=0.0, help="between two of them; 0: back to back")
    parser.add_argument("--memory", type=int, default=0, help="bytes of the card to hold besides")
    parser.add_argument("--size", type=int, default=4096, help="matrix size, or layers of the decoder")
    parser.add_argument("--gap-ms", type=float, default=20.0, help="latency: time between requests; square: period")
    parser.add_argument("--tokens", type=int, default=1, help="latency: of a request, some 1 ms each")
    options = parser.parse_args(arguments)
    if options.control is None and options.iterations < 1:
        parser.error("--control or --iterations is needed: how much there is to do")
    try:
        import torch  # noqa: PLC0415 -- only these tenants need it, and it takes seconds
    except ImportError:
        print("PyTorch is not installed here: use the C workloads (flexai-workload)", file=sys.stderr)
        return 1
    torch.manual_seed(0)
    held = torch.empty(options.memory, dtype=torch.uint8, device="cuda") if options.memory else None
    builders: dict[str, Callable[[], Callable[[], None]]] = {
        "gpt": lambda: _gpt(torch),
        "resnet": lambda: _resnet(torch),
        "decode": lambda: _decode(torch, 12),
        "decode-sync": lambda: _decode(torch, 12),
        "latency": lambda: _decode(torch, options.size if options.size < 1000 else 12),
    }
    step = builders.get(options.name, lambda: _gemm(torch, options.size))()
    for _ in range(5):
        step()
    torch.cuda.synchronize()
    if options.control is None:
        _run_once(torch, step, options.kernel_us, options.iterations, options.period_us)
        del held
        return 0
    control = Control(options.control)
    control.ready()
    match options.name:
        case "gemm" | "decode" | "resnet":
            _run_deep(torch, control, step, depth=8, batch=4)
        case "square":
            _run_square(torch, control, step, options.gap_ms / 1e3)
        case "latency":
            _run_open_loop(torch, control, step, options.gap_ms / 1e3, options.tokens)
        case _:
            _run_synchronous(torch, control, step)
    torch.cuda.synchronize()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
