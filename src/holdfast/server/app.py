"""The ASGI application: the routes of the API and of the page, behind one door.

Each operation of the API asks `access` for the scope that it needs. What is not of the API (the page) is let in
here: to look needs `read`, everything else `write`. Webhooks let in whoever knows their token.
"""

from __future__ import annotations

import logging

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from ..store.http.wire.problems import Problem
from . import api, page, prometheus, webhooks
from .refusal import OWN, Refused, answer_to, problem_response
from .service import Service

log = logging.getLogger("holdfast.server")


def build(service: Service, *, pages: bool = True) -> Starlette:
    """The application that serves `service`, which must be open while requests come.

    Without `pages` it may be mounted in another one, below any path: the API, webhooks and nothing that links.

    Example:
        async with hf.connect("sqlite:///app.db") as app, Service(app, Settings()) as service:
            await uvicorn.Server(uvicorn.Config(build(service), port=8470)).serve()
    """
    middleware = [Middleware(_Door, service=service)]
    if service.settings.origins:
        cors = Middleware(
            CORSMiddleware,
            allow_origins=list(service.settings.origins),
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["Authorization", "Content-Type", "Idempotency-Key", "Last-Event-ID"],
        )
        middleware.insert(0, cors)
    application = Starlette(
        routes=[*api.routes(), *webhooks.routes(), *prometheus.routes(), *(page.routes() if pages else ())],
        middleware=middleware,
        exception_handlers={HTTPException: _refuse, Exception: _break},
    )
    application.state.service = service
    return application


class _Door:
    """Lets callers in to what is not of the API; gives the API its paths as they were sent."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app = app
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            path = scope["path"].removeprefix(scope.get("root_path", ""))
            if path.startswith("/v1/"):
                # As sent, for a run's id may hold a slash, percent-encoded; operations decode their parameters.
                scope["path"] = scope.get("raw_path", b"").decode("ascii", "replace") or scope["path"]
            elif path != "/openapi.json" and not path.startswith(webhooks.PREFIX):
                needed = "read" if scope["method"] in ("GET", "HEAD") else "write"
                try:
                    await self._service.access.admit(Request(scope, receive), needed)
                except Refused as refused:
                    await answer_to(refused)(scope, receive, send)
                    return
        await self._app(scope, receive, send)


async def _refuse(_request: Request, error: Exception) -> Response:
    """What the router itself refuses: no such path, no such method."""
    assert isinstance(error, HTTPException)
    code = OWN.get(error.status_code, "http")
    response = problem_response(error.status_code, Problem(code, error.detail))
    response.headers.update(error.headers or {})
    return response


async def _break(request: Request, error: Exception) -> Response:
    """A defect: logged with its traceback, and told without."""
    log.error(
        "%s %s: %s", request.method, request.url.path, error, exc_info=error, extra={"path": request.url.path}
    )
    return problem_response(500, Problem("internal", "the server itself failed; its log has the cause"))
