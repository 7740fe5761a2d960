"""The HTTP API."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import BaseRoute, Route


def routes() -> list[BaseRoute]:
    """Every route of the API."""
    return [Route("/openapi.json", _openapi, methods=["GET"])]


async def _openapi(request: Request) -> JSONResponse:
    return JSONResponse({"openapi": "3.1.0", "info": {"title": "Holdfast", "version": "0.1"}, "paths": {}})
