"""Entry of ``python -m flexai.apps.simulator.replay``; ``flexai replay`` runs this."""

import sys

from flexai.adapters.command_line import run_command
from flexai.apps.simulator.recorded import replay

if __name__ == "__main__":
    sys.exit(run_command(replay, "flexai replay"))
