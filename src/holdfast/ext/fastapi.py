"""Holdfast in an application of FastAPI or Starlette: a worker in its lifespan, the API and webhooks below a path.

    from fastapi import Depends, FastAPI
    from holdfast.ext.fastapi import Holdfast

    holdfast = Holdfast("sqlite:///app.db")
    api = FastAPI(lifespan=holdfast.lifespan)

    @api.post("/orders")
    async def order(order: Order, app: hf.App = Depends(holdfast)) -> str:
        return (await app.start(fulfil, order)).id

It needs Starlette alone (extra `server`). What is mounted is an application of its own, so none of the routes,
middleware and dependencies of the outer one reach into it, nor does its CORS.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator, Mapping
from typing import Any

from starlette.applications import Starlette
from starlette.routing import Mount

from ..client import App, connect
from ..errors import DefinitionError, StoreError
from ..server import Service, Settings, build
from ..webhooks import PUBLIC_URL


class Holdfast:
    """A store, a worker and the API, for as long as the application runs. An instance is a dependency: the `App`.

    url         the store, as in `hf.connect`
    prefix      below which path the API and the webhooks are: `/holdfast/v1/…`, `/holdfast/webhooks/…`
    public_url  where the application itself is reached, for the URLs of webhooks (None: $HOLDFAST_PUBLIC_URL)
    worker      options of the worker, as in `app.worker`; False: none here, for processes of their own do the work
    settings    of the server; unless they say otherwise, each call of the API needs a token, also on this machine
    connect     other options of `hf.connect`

    The page is not part of it: run `holdfast serve` beside, on the same store.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        prefix: str = "/holdfast",
        public_url: str | None = None,
        worker: Mapping[str, Any] | bool = True,
        settings: Settings | None = None,
        **connect: Any,
    ) -> None:
        if not prefix.startswith("/") or prefix.endswith("/"):
            raise DefinitionError(f"prefix: expected a path such as '/holdfast', got {prefix!r}")
        base = public_url or os.environ.get("HOLDFAST_PUBLIC_URL") or PUBLIC_URL
        self.prefix = prefix
        self.webhook_base = base.rstrip("/") + prefix
        self._url, self._connect = url, connect
        # By which names the application may be called is the application's to say, not ours.
        self._settings = settings or Settings(host="", token_needed=True)
        self._worker = None if worker is False else dict(worker if isinstance(worker, Mapping) else {})
        self._app: App | None = None

    @contextlib.asynccontextmanager
    async def lifespan(self, application: Starlette) -> AsyncIterator[None]:
        """For `FastAPI(lifespan=…)`, or inside a lifespan of your own: `async with holdfast.lifespan(api): …`.

        Leaving it lets running steps finish, and hands the rest back to the store.
        """
        if self._app is not None:
            raise StoreError("this Holdfast serves an application already: make one for each")
        async with contextlib.AsyncExitStack() as stack:
            self._app = await stack.enter_async_context(connect(self._url, **self._connect))
            stack.callback(self._leave)
            if self._worker is not None:
                options = {"public_url": self.webhook_base, **self._worker}
                await stack.enter_async_context(self._app.worker(**options))
            service = await stack.enter_async_context(Service(self._app, self._settings))
            mount = Mount(self.prefix, build(service, pages=False), name="holdfast")
            application.router.routes.insert(0, mount)  # before a mount at "/" that would take it all
            stack.callback(application.router.routes.remove, mount)
            yield

    def _leave(self) -> None:
        self._app = None

    @property
    def app(self) -> App:
        """The app, while the application runs. Raises StoreError before and after."""
        if self._app is None:
            raise StoreError("the application has not started: pass `lifespan=holdfast.lifespan` to it")
        return self._app

    async def __call__(self) -> App:
        """The app, as a dependency: `Depends(holdfast)`."""
        return self.app
