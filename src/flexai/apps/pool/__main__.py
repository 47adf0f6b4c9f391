"""Entry of ``python -m flexai.apps.pool``."""

from flexai.apps.pool.main import main

raise SystemExit(main())
