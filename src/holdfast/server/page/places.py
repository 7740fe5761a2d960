"""What runs wait for, and who works: open hooks, pending timers, workers."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from ..service import Service
from . import shell

PAGE = 100


async def waiting(request: Request) -> Response:
    """Open hooks by token, and timers by when they are due."""
    store = Service.of(request).store
    token, _, run = request.query_params.get("after", "").partition("~")
    hooks = await store.hooks(after=(token, run) if token else None, limit=PAGE)
    timers = await store.timers(limit=PAGE)
    return shell.page(request, "waiting.html", hooks=hooks, timers=timers, most=PAGE)


async def workers(request: Request) -> Response:
    """Workers, how many runs each has, and whether it still gives signs of life."""
    store = Service.of(request).store
    rows = [(row, await store.owned(row.id)) for row in await store.workers()]
    return shell.page(request, "workers.html", rows=rows)
