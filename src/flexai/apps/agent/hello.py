"""The handshake with shims: each process of a member that loaded its shim keeps a line open here.

Who it is, the kernel says (``SO_PEERCRED``, then its box); the message says only which slot of the ledger it took.
"""

import asyncio
import logging
import resource
import socket
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from flexai.adapters.local import processes
from flexai.apps.agent.node import Node
from flexai.apps.agent.sockets import listen, peer
from flexai.node import Key
from flexai.ports import LedgerSlot
from flexai.wire import handshake
from flexai.wire.errors import BadInput

log = logging.getLogger("flexai.agent.hello")

_MAX_LINES = 4096
_MAX_WORDS = 256  # on one line: a shim speaks as it begins, and when it meets a function that it does not know
_MOST_ACCEPTED = 256  # before the others are served again
_DEAF_S = 1.0  # to a member one of whose processes said nonsense
_REAP_AFTER_S = 0.05


@dataclass(slots=True)
class Shim:
    """A process whose shim is alive."""

    key: Key
    pid: int
    build: str
    n_unknown: int


@dataclass(slots=True)
class _Line:
    """An open line.

    Attributes:
        holder: name of the member whose its process is; None: of none when it connected.
        n_words: messages that came by it.
    """

    pid: int
    holder: str | None
    n_words: int = 0


@dataclass(slots=True)
class _Lines:
    """The open lines, never so many that the agent is short of descriptors, and half of them for one holder at most.

    Attributes:
        deaf_until: to whom nobody listens, until when (monotonic, s).
    """

    most: int
    open: dict[socket.socket, _Line] = field(default_factory=dict)
    of: Counter[str | None] = field(default_factory=Counter)
    deaf_until: dict[str | None, float] = field(default_factory=dict)

    def room_for(self, holder: str | None) -> bool:
        """Whether one more may be opened."""
        if time.monotonic() < self.deaf_until.get(holder, 0.0):
            return False
        return len(self.open) < self.most and self.of[holder] < self.most // 2

    def add(self, line: socket.socket, of: _Line) -> None:
        """It was opened."""
        self.open[line] = of
        self.of[of.holder] += 1

    def remove(self, line: socket.socket) -> None:
        """It is closed."""
        holder = self.open.pop(line).holder
        self.of[holder] -= 1
        if not self.of[holder]:
            del self.of[holder]
            self.deaf_until = {name: until for name, until in self.deaf_until.items() if until > time.monotonic()}


class HelloServer:
    """Listens to shims.

    Attributes:
        shims: processes whose shim is alive, by pid.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self._listener: socket.socket | None = None
        self._lines = _Lines(min(_MAX_LINES, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2))
        self._own_ns = processes.pid_namespace()
        self._reaping: set[asyncio.Task[None]] = set()
        self.shims: dict[int, Shim] = {}

    def open(self, path: Path) -> None:
        """Listen at ``path``; every user may connect.

        Raises:
            BadInput: the socket cannot be made.
        """
        self._listener = listen(path, socket.SOCK_SEQPACKET, 0o666)
        asyncio.get_running_loop().add_reader(self._listener, self._accept)

    def close(self) -> None:
        """Listen no more."""
        loop = asyncio.get_running_loop()
        for line in [*self._lines.open, *([self._listener] if self._listener else [])]:
            loop.remove_reader(line)
            line.close()
        self._lines = _Lines(self._lines.most)

    def _accept(self) -> None:
        assert self._listener is not None
        for _ in range(_MOST_ACCEPTED):
            try:
                line, _ = self._listener.accept()
            except OSError:
                return
            self._admit(line)

    def _admit(self, line: socket.socket) -> None:
        pid = peer(line).pid
        holder = self._node.parts.containment.holder(pid)
        if not self._lines.room_for(holder):
            line.close()  # the shim tries again later
            return
        line.setblocking(False)
        self._lines.add(line, _Line(pid, holder))
        asyncio.get_running_loop().add_reader(line, self._hear, line, self._lines.open[line])

    def _hear(self, line: socket.socket, of: _Line) -> None:
        try:
            data = line.recv(handshake.HELLO_BYTES + 1)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        try:
            if not data:
                raise ConnectionResetError
            line.send(self._answer(of, data))
        except (BadInput, OSError) as error:
            now_s = time.monotonic()
            if isinstance(error, BadInput) and now_s >= self._lines.deaf_until.get(of.holder, 0.0):
                log.warning("pid %d: %s", of.pid, error)
                self._lines.deaf_until[of.holder] = now_s + _DEAF_S
            self._end(line, of.pid)

    def _answer(self, of: _Line, data: bytes) -> bytes:
        """Raises BadInput where it says nonsense, or talks without end."""
        of.n_words += 1
        if of.n_words > _MAX_WORDS:
            raise BadInput("shim", of.pid, f"says more than {_MAX_WORDS} things", "Ask its owner why")
        return self._greet(of, handshake.hello(data))

    def _greet(self, of: _Line, hello: handshake.Hello) -> bytes:
        pid = of.pid
        tenant = self._node.by_name(of.holder or self._node.parts.containment.holder(pid))
        if tenant is None:
            return handshake.reply(False, pid, "this process is in no job of this agent")
        known = self.shims.get(pid)
        self.shims[pid] = Shim(tenant.key, pid, hello.build, hello.n_unknown)
        self._node.parts.regions.introduce(tenant.name, hello.slot, pid)
        if known is None or known.n_unknown != hello.n_unknown:
            self._say(self.shims[pid], "alive")
        return handshake.reply(True, pid)

    def _end(self, line: socket.socket, pid: int) -> None:
        asyncio.get_running_loop().remove_reader(line)
        self._lines.remove(line)
        line.close()
        shim = self.shims.pop(pid, None)
        if shim is not None:
            task = asyncio.create_task(self._lost(shim))
            self._reaping.add(task)
            task.add_done_callback(self._reaping.discard)

    async def _lost(self, shim: Shim) -> None:
        await asyncio.sleep(_REAP_AFTER_S)  # a process that ends closes its line a moment before it is gone
        if shim.pid in self.shims:
            return  # it connected again
        if processes.is_alive(shim.pid):
            self._say(shim, "lost")
        else:
            await self.reap(shim.key)

    def _say(self, shim: Shim, state: str) -> None:
        job_id, member = shim.key
        self._node.parts.news.say(
            "shim", job_id=job_id, member=member, pid=shim.pid, state=state, build=shim.build, n_unknown=shim.n_unknown
        )

    async def reap(self, key: Key) -> int:
        """Take back what the member's dead processes charged; how many slots were released."""
        tenant = self._node.tenant(key)
        if tenant is None:
            return 0
        regions = self._node.parts.regions
        dead = [slot for slot in regions.slots(tenant.name) if self._is_dead(slot)]
        released = await asyncio.to_thread(regions.reap, tenant.name, dead) if dead else 0
        if released:
            log.info("%s: %d processes ended; what they held was taken back", tenant.name, released)
        return released

    def _is_dead(self, slot: LedgerSlot) -> bool:
        """Whether its process is gone; one of a namespace we cannot see is left to its own."""
        if slot.host_pid:
            return not processes.is_alive(slot.host_pid)
        if slot.pid_ns in {0, self._own_ns}:
            return not processes.is_alive(slot.pid, slot.start_ticks)
        return False
