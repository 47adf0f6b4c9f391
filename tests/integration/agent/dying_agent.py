"""An agent that is killed (SIGKILL, by itself) at one exact place: ``dying_agent.py PLACE NTH [agent's arguments]``.

PLACE is ``before:Command``, ``after:Command`` (of the node's commands), or ``forked`` (the supervisor was forked and
nothing is known of it yet). Nothing in the product knows of this.
"""

import os
import signal
import sys

from flexai.adapters.local import starts
from flexai.apps.agent import main, node

place, nth = sys.argv[1], int(sys.argv[2])
seen = 0


def die_at(here):
    global seen  # noqa: PLW0603
    if here == place:
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


node.Node._carry_out, starts._spawn = dying, forking
raise SystemExit(main.main(sys.argv[3:]))
