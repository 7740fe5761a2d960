"""The ASGI application: middleware, and the routes of the API and of the page."""

from __future__ import annotations

from starlette.applications import Starlette

from . import api, page
from .service import Service


def build(service: Service) -> Starlette:
    """The application that serves `service`; its app must be open while requests come.

    Example:
        async with hf.connect("sqlite:///app.db") as app:
            await uvicorn.Server(uvicorn.Config(build(Service(app, Settings())))).serve()
    """
    application = Starlette(routes=[*api.routes(), *page.routes()])
    application.state.service = service
    return application
