"""Entry of ``python -m flexai.apps.simulator.record``; ``flexai record`` runs this."""

import sys

from flexai.adapters.command_line import run_command
from flexai.apps.simulator.recorded import record

if __name__ == "__main__":
    sys.exit(run_command(record, "flexai record"))
