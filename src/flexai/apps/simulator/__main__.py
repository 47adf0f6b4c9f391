"""Entry of ``python -m flexai.apps.simulator``."""

from flexai.apps.simulator.main import main

main()
