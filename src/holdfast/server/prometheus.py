"""`/metrics`: what this process counts about itself, as Prometheus reads it. To look needs the scope `read`."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from ..metrics.text import CONTENT_TYPE
from ..store.exposition import exposition
from .service import Service


def routes() -> list[BaseRoute]:
    """The one route."""
    return [Route("/metrics", _metrics, methods=["GET"])]


async def _metrics(request: Request) -> Response:
    text = await exposition(Service.of(request).store)
    return Response(text, media_type=CONTENT_TYPE)
