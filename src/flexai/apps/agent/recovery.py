"""What an agent does first: find what an earlier one left, and bring it to the truth."""

import logging
import signal

from flexai import node as n
from flexai.adapters.local import processes
from flexai.apps.agent.node import Node
from flexai.node import Phase, Tenant
from flexai.wire.errors import BadInput

log = logging.getLogger("flexai.agent")


async def recover(node: Node) -> list[str]:
    """Find the members of the checkpoint again, and end what is in none of them; notes for people."""
    tenants, note = node.checkpoint.load()
    notes = [note] if note else []
    for tenant in tenants:
        try:
            await _find(node, tenant)
        except (OSError, BadInput) as error:
            notes.append(f"{tenant.name} could not be found again: {error}")
            log.exception("%s", tenant.name)
    known = {tenant.name for tenant in node.machine.tenants.values()}
    containment, regions = node.parts.containment, node.parts.regions
    for name in set(containment.names()) - known:
        log.warning("%s is in no checkpoint: its processes are ended", name)
        containment.signal(name, signal.SIGKILL)
        containment.remove(name)
    for name in set(regions.names()) - known:
        regions.remove(name)
    if tenants:
        counts = {phase: sum(t.phase is phase for t in node.machine.tenants.values()) for phase in Phase}
        log.info("found again: %s", ", ".join(f"{count} {phase}" for phase, count in counts.items() if count))
    return notes


async def _find(node: Node, tenant: Tenant) -> None:
    starts, containment = node.parts.starts, node.parts.containment
    if tenant.attached and tenant.pid is not None and processes.is_alive(tenant.pid, tenant.start_ticks):
        containment.admit(tenant.name, tenant.pid)
    is_alive = bool(containment.pids(tenant.name)) or starts.is_running(tenant)
    await node.feed(n.Recovered(tenant, starts.began(tenant), is_alive, starts.ended(tenant)))
    found = node.tenant(tenant.key)
    if found is not None and found.phase is Phase.RUNNING:
        node.watch.begin(found)
