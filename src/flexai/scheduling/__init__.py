"""Hi Scheduler: the cluster state machine. Events in, commands out.

``Scheduler.step(event) -> list[Command]`` is the whole interface; time and chance are fields of events. Pure: no
clock, no I/O, no logging. The embedded pool, the simulator, replay and the cluster all call this and nothing else.
"""

from flexai.scheduling.scheduler import Scheduler
from flexai.scheduling.settings import SchedulerSettings
from flexai.scheduling.why_not import Blocker

__all__ = ["Blocker", "Scheduler", "SchedulerSettings"]
