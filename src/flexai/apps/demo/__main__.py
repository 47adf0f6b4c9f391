"""``python -m flexai.apps.demo``; ``flexai demo`` runs this."""

import sys

from flexai.apps.demo.main import main

if __name__ == "__main__":
    sys.exit(main())
