"""``python -m flexai.apps.bench``; ``flexai bench`` runs this."""

import sys

from flexai.apps.bench.main import main

if __name__ == "__main__":
    sys.exit(main())
