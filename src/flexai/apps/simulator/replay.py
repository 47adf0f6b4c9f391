"""Entry of ``python -m flexai.apps.simulator.replay``; ``flexai replay`` runs this."""

import typer

from flexai.apps.simulator.recorded import replay

if __name__ == "__main__":
    typer.run(replay)
