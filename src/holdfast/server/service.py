"""What every route works with."""

from __future__ import annotations

from starlette.requests import Request

from ..client import App
from ..store.base import Store
from .settings import Settings


class Service:
    """The store that is served, and a client on it. A route finds it with `Service.of(request)`."""

    def __init__(self, app: App, settings: Settings) -> None:
        self.app = app
        self.settings = settings

    @property
    def store(self) -> Store:
        """The store that is served."""
        return self.app.store

    @staticmethod
    def of(request: Request) -> Service:
        """The service behind a request."""
        service = request.app.state.service
        assert isinstance(service, Service)
        return service
