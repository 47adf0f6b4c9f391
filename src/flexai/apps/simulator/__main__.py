"""Entry of ``python -m flexai.apps.simulator``."""

import sys

from flexai.apps.simulator.main import main

sys.exit(main())
