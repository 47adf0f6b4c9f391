"""``python -m flexai.apps.cli``."""

import sys

from flexai.apps.cli.entry import main

if __name__ == "__main__":
    sys.exit(main())
