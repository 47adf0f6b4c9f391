"""An agent that is killed (SIGKILL, by itself) at one exact place: ``dying_agent.py PLACE NTH [agent's arguments]``.

PLACE is ``before:Command``, ``after:Command`` (of the node's commands), ``before:park``, ``after:wake`` and the like,
of what the driver is asked, ``forked`` (the supervisor was forked and nothing is known of it yet), or ``any``:
before each command, each request to the driver, each call that changes what is on the disk, ``forked``. Nothing in
the product knows of this.
"""

import os
import signal
import sys

from flexai.adapters.local import starts
from flexai.adapters.nvidia import backend
from flexai.apps.agent import main, node

place, nth = sys.argv[1], int(sys.argv[2])
seen = 0


def die_at(here):
    global seen  # noqa: PLW0603
    if here == place or (place == "any" and not here.startswith("after:")):
        seen += 1
        if seen == nth:
            os.kill(os.getpid(), signal.SIGKILL)


carry_out, spawn = node.Node._carry_out, starts._spawn


async def dying(self, command):
    die_at(f"before:{type(command).__name__}")
    await carry_out(self, command)
    die_at(f"after:{type(command).__name__}")


def forking(argv, output):
    pid = spawn(argv, output)
    die_at("forked")
    return pid


def changing(call):
    def dying_call(*arguments, **options):
        die_at(call.__name__)
        return call(*arguments, **options)

    return dying_call


def asking(self, what, *pids, **options):
    die_at(f"before:{what}")
    ask(self, what, *pids, **options)
    die_at(f"after:{what}")


node.Node._carry_out, starts._spawn = dying, forking
ask, backend.NvidiaBackend._checkpoint = backend.NvidiaBackend._checkpoint, asking
for name in ("fsync", "link", "mkdir", "replace", "rmdir", "unlink"):
    setattr(os, name, changing(getattr(os, name)))
raise SystemExit(main.main(sys.argv[3:]))
