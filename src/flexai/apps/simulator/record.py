"""Entry of ``python -m flexai.apps.simulator.record``; ``flexai record`` runs this."""

import typer

from flexai.apps.simulator.recorded import record

if __name__ == "__main__":
    typer.run(record)
