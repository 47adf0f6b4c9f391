"""The FastAPI application over a pool."""

from fastapi import FastAPI

from flexai.apps.pool import routes_actions, routes_jobs, routes_past, routes_pool, routes_queues
from flexai.apps.pool.http import install_errors
from flexai.apps.pool.service import Pool


def make_app(pool: Pool) -> FastAPI:
    """All routes of the API."""
    app = FastAPI(title="FlexAI pool", version="1", docs_url=None, redoc_url=None)
    install_errors(app)
    app.include_router(routes_jobs.router(pool))
    app.include_router(routes_actions.router(pool))
    app.include_router(routes_past.router(pool))
    app.include_router(routes_queues.router(pool))
    app.include_router(routes_pool.router(pool))
    return app
