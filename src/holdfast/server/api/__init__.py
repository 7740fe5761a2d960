"""The HTTP API: operations on runs, hooks, streams and trails for everybody, and the store's contract for workers.

operation    what an operation is: its types, its scope, its errors
runs         start, list, look at, follow, cancel, terminate, wake, verify; the fenced append
hooks        hooks, timers, and sending payloads
trails       the read side of a folder of trails
store        the contract of the store
appends      one append for a caller: its scope, its way, its outcome
openapi      the document made from all of these
"""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from ..refusal import Refused, answer_to
from ..service import Service
from . import hooks, runs, store, streams, trails
from .openapi import document
from .operation import OPERATIONS, route_of

MODULES = (runs, hooks, streams, trails, store)
"""The modules of operations; importing them fills `OPERATIONS`."""


def routes() -> list[BaseRoute]:
    """Every route of the API."""
    return [Route("/openapi.json", _openapi, methods=["GET"]), *map(route_of, OPERATIONS)]


async def _openapi(request: Request) -> Response:
    try:
        await Service.of(request).access.admit(request, "read")
    except Refused as refused:
        return answer_to(refused)
    return Response(document(), media_type="application/json")
