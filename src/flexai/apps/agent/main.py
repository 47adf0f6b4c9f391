"""``python -m flexai.apps.agent --run-dir R --state-dir S [--simcard SOCK]``: composes and runs the agent."""

import argparse
import asyncio
import contextlib
import ctypes
import gc
import hashlib
import logging
import os
import signal
import socket
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import flexai_native

from flexai.adapters.arbiter_client import ArbiterClient
from flexai.adapters.fake import FakeBackend
from flexai.adapters.local.card_claims import claim_cards
from flexai.adapters.local.cgroups import Cgroups, available
from flexai.adapters.local.delegated import Delegated, own_group
from flexai.adapters.local.files import take_lock
from flexai.adapters.local.starts import Starts
from flexai.adapters.local.trees import ProcessTrees
from flexai.adapters.shm import RegionFiles, UsageFile
from flexai.apps.agent.audit import Audit
from flexai.apps.agent.cards import real_cards
from flexai.apps.agent.checkpoint_file import CheckpointFile
from flexai.apps.agent.doctor import checks
from flexai.apps.agent.guardian import guardian_notes
from flexai.apps.agent.hello import HelloServer
from flexai.apps.agent.memory_look import MemoryLook
from flexai.apps.agent.news import News
from flexai.apps.agent.node import Node, Parts
from flexai.apps.agent.recovery import recover
from flexai.apps.agent.rpc import RpcServer
from flexai.apps.agent.tenant_env import TenantEnv
from flexai.model import OVER_CAP
from flexai.model import Node as NodeShape
from flexai.node import NodeMachine
from flexai.ports import Containment, DeviceBackend
from flexai.wire.arbiter import BACKEND_NAME
from flexai.wire.errors import BadInput

log = logging.getLogger("flexai.agent")

_SIMCARD_WITHIN_S = 10.0
_INSTANCE_DIGITS = 10
_BACKENDS = {"auto": 0, **{name: number for number, name in BACKEND_NAME.items() if number}}


@dataclass(frozen=True, slots=True)
class Settings:
    """The command line.

    Attributes:
        simcard: socket of the simulated card; None for real cards.
        fake_cards: cards that do not exist, for tests; empty for none.
        over_cap: of members over their cap that bring no policy of their own: one of ``OVER_CAP``.
        hostile_acts: acts against control after which a member is ended; 0 for never.
        backend: how the arbiter is to enforce shares; ``auto`` leaves it to it.
        cgroups: ``auto`` or ``off``.
    """

    run_dir: Path
    state_dir: Path
    simcard: Path | None = None
    fake_cards: str = ""
    over_cap: str = "warn"
    cgroups: str = "auto"
    backend: str = "auto"
    hostile_acts: int = 20


def main(argv: Sequence[str] | None = None) -> int:
    """Run the agent until it is told to end; 2 if it cannot start."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        return asyncio.run(serve(settings_of(argv)))
    except BadInput as error:
        print(f"flexai agent: {error}", file=sys.stderr)
        return 2


def settings_of(argv: Sequence[str] | None) -> Settings:
    """Settings out of the command line."""
    parser = argparse.ArgumentParser(prog="python -m flexai.apps.agent", description="The FlexAI agent process.")
    parser.add_argument("--run-dir", type=Path, required=True, help="directory of sockets and shared memory")
    parser.add_argument("--state-dir", type=Path, required=True, help="directory of what must survive")
    parser.add_argument("--simcard", type=Path, help="socket of the simulated card")
    parser.add_argument("--fake-cards", default="", help="cards without any driver, for tests: h200:2")
    parser.add_argument("--over-cap", choices=OVER_CAP, default="warn", help="of a job over its memory cap")
    parser.add_argument("--hostile-acts", type=int, default=20, help="of a job, until it is ended; 0 for never")
    parser.add_argument("--cgroups", choices=("auto", "off"), default="auto", help="off: hold jobs by process trees")
    parser.add_argument("--backend", choices=tuple(_BACKENDS), default="auto", help="how shares are enforced")
    given = parser.parse_args(argv)
    return Settings(
        given.run_dir.absolute(), given.state_dir.absolute(), given.simcard and given.simcard.absolute(),
        given.fake_cards, given.over_cap, given.cgroups, given.backend, given.hostile_acts,
    )  # fmt: skip


async def serve(settings: Settings) -> int:
    """Hold the node's members to their slices until a signal ends the agent; they go on.

    Raises:
        BadInput: the directories, the cards or the sockets cannot be used.
    """
    for path in (settings.run_dir, settings.state_dir):
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise BadInput(str(path), str(error), "cannot be made", "Choose a directory that can be written") from None
    lock = take_lock(settings.state_dir / "agent.lock")
    backend, missing = await _backend(settings)
    is_real = settings.simcard is None and not settings.fake_cards
    claims = claim_cards(device.uuid for device in backend.devices()) if is_real else []
    containment = _containment(settings)
    arbiter = ArbiterClient(settings.run_dir / "arbiter.sock")
    env = TenantEnv(backend, settings.run_dir, settings.simcard)
    regions = RegionFiles(settings.run_dir / "tenants")
    news = News()
    parts = Parts(backend, containment, regions, arbiter, Starts(settings.state_dir / "jobs"), env, news)
    machine = NodeMachine(device.uuid for device in backend.devices())
    checkpoint = CheckpointFile(settings.state_dir / "agent.json", lambda: list(machine.tenants.values()))
    node = Node(parts, machine, checkpoint)
    for device in backend.devices():
        arbiter.manage(device.uuid, _BACKENDS[settings.backend])
    memory = MemoryLook()
    node.know_cards(settings.state_dir / "contexts.json", memory)
    notes = await recover(node)

    hello = HelloServer(node)
    hello.open(settings.run_dir / "hello.sock")
    usage_file = UsageFile(settings.run_dir / "usage")
    audit = Audit(
        node,
        hello,
        usage_file,
        over_cap=settings.over_cap,
        hostile_acts=settings.hostile_acts,
        memory=memory,
    )
    shape = _shape(backend)

    def show_hello() -> dict[str, Any]:
        found = {device.uuid: device for device in (audit.last.devices if audit.last else ())}
        backends = {
            device.uuid: {"backend": found[device.uuid].backend, "note": found[device.uuid].note}
            if device.uuid in found
            else {"backend": None, "note": "no arbiter"}
            for device in backend.devices()
        }
        told = [
            *([missing] if missing else []), *notes, *env.notes, *backend.notes(), *containment.notes(),
            *guardian_notes(settings.run_dir, usage_file),
        ]  # fmt: skip
        return {
            "node": shape, "privileged": os.geteuid() == 0, "backends": backends, "notes": told,
            "hostile_frozen_by": containment.hostile_frozen_by,
        }  # fmt: skip

    rpc = RpcServer(
        node,
        {
            "hello": show_hello,
            "usage": audit.measured,
            "doctor": lambda: {"checks": checks(node, audit, settings.run_dir, settings.state_dir, missing)},
        },
    )
    background = [asyncio.create_task(work) for work in (arbiter.run(), audit.run(), audit.publish())]
    await rpc.open(settings.run_dir / "agent.sock")
    log.info("%d cards, %s", len(backend.devices()), "; ".join(show_hello()["notes"]) or "nothing to note")
    _slim()

    quit_asked = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, quit_asked.set)
    waiting = asyncio.create_task(quit_asked.wait())
    await asyncio.wait([waiting, *background], return_when=asyncio.FIRST_COMPLETED)
    for task in background:
        if task.done() and not task.cancelled():
            task.result()  # none of them ends by itself: say why this one did
        task.cancel()
    await rpc.close()
    hello.close()
    containment.close()
    backend.close()
    with contextlib.suppress(OSError):
        (settings.run_dir / "agent.sock").unlink()
    for held in (lock, *(claim.detach() for claim in claims)):
        os.close(held)
    return 0


async def _backend(settings: Settings) -> tuple[DeviceBackend, str]:
    """The node's cards, and why there are none."""
    if settings.fake_cards:
        return FakeBackend(settings.fake_cards), ""
    if settings.simcard is None:
        return real_cards()
    from flexai.adapters.nvidia import NvidiaBackend, NvmlMissing  # noqa: PLC0415 (large, and not always needed)

    until = asyncio.get_running_loop().time() + _SIMCARD_WITHIN_S
    while True:  # the simulated card is started at the same time as we are
        try:
            library = flexai_native.library("simcard/libnvidia-ml.so.1")
            return NvidiaBackend(library, settings.simcard), ""
        except (NvmlMissing, FileNotFoundError) as error:
            if asyncio.get_running_loop().time() > until or isinstance(error, FileNotFoundError):
                remedy = "Start flexai-simcard, or leave --simcard out"
                raise BadInput("--simcard", str(settings.simcard), f"does not answer ({error})", remedy) from None
        await asyncio.sleep(0.1)


def _containment(settings: Settings) -> Containment:
    tenants_dir = settings.run_dir / "tenants"
    if settings.cgroups == "off":
        return ProcessTrees(tenants_dir, "by --cgroups off")
    instance = hashlib.sha256(os.fsencode(settings.state_dir)).hexdigest()[:_INSTANCE_DIGITS]
    why_not = available()
    if not why_not:
        return Cgroups(instance)
    group = own_group()
    if isinstance(group, str):
        return ProcessTrees(tenants_dir, f"{why_not}; {group}")
    return Delegated(tenants_dir, instance, group, settings.state_dir / "cgroups")


def _shape(backend: DeviceBackend) -> dict[str, Any]:
    ram_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    n_cpus = len(os.sched_getaffinity(0))
    return asdict(NodeShape(socket.gethostname(), tuple(backend.devices()), n_cpus * 1000, ram_bytes))


def _slim() -> None:
    """Start-up leaves much that is never needed again: give it back, and stop looking at the rest."""
    gc.collect()
    gc.freeze()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
