"""What every route works with: the store, a client on it, and what is shared by all who are connected."""

from __future__ import annotations

import asyncio
from typing import Self

from starlette.requests import Request

from ..client import App
from ..ends import Ends
from ..store.base import Store
from .access import Access
from .newsroom import Newsroom
from .settings import Settings
from .tails import Tails


class Service:
    """One store as it is served, as `async with`; its app must be open. A route finds it with `of(request)`."""

    def __init__(self, app: App, settings: Settings) -> None:
        self.app = app
        self.settings = settings
        self.access = Access(app.store, settings)
        self.tails = Tails(app.store)
        self.news = Newsroom(app.store, grace=settings.grace)
        self.ends = Ends(app.store, lambda _run: False)
        self.closed = asyncio.Event()

    async def __aenter__(self) -> Self:
        self.ends.open()
        self.tails.open()
        self.news.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """End every stream that is open; their readers resume with the next server."""
        if not self.closed.is_set():
            self.closed.set()
            self.tails.close()
            await self.news.close()
            self.ends.close()

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
