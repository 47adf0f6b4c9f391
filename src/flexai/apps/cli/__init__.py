"""The command ``flexai``: what people touch.

Lives here: options, tables, live views, the client side of ``run``, and the process that ``up`` keeps alive. May never:
decide anything about jobs or cards (the pool does), or let ``run`` import rich, typer, httpx, pydantic or fastapi: a
command that waits for it pays for each import.
"""
