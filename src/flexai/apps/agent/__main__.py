"""Entry of ``python -m flexai.apps.agent``."""

from flexai.apps.agent.main import main

raise SystemExit(main())
