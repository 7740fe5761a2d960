"""Listening: uvicorn with our own way to stop, which ends the long streams first."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator

import uvicorn

from ..client import App
from ..errors import StoreError
from .app import build
from .service import Service
from .settings import Settings

_GOODBYE = 5
"""Seconds for requests under way when the server stops."""


class _Server(uvicorn.Server):
    """Signals are the command line's business, not the library's."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield


@contextlib.asynccontextmanager
async def serving(app: App, settings: Settings) -> AsyncIterator[str]:
    """Serve an app until the block is left; gives the address. Raises StoreError where it cannot listen.

    Example:
        async with hf.connect("sqlite:///app.db") as app, serving(app, Settings()) as url:
            await asyncio.Event().wait()
    """
    with bound(settings) as sock:
        async with Service(app, settings) as service:
            config = uvicorn.Config(
                build(service),
                log_config=None,
                access_log=False,
                lifespan="off",
                proxy_headers=False,
                server_header=False,
                timeout_graceful_shutdown=_GOODBYE,
            )
            server = _Server(config)
            task = asyncio.get_running_loop().create_task(server.serve(sockets=[sock]))
            try:
                yield _url(sock)
            finally:
                await service.close()
                server.should_exit = True
                await task


@contextlib.contextmanager
def bound(settings: Settings) -> Iterator[socket.socket]:
    """A socket that listens where the settings say. Raises StoreError."""
    try:
        family, kind, _, _, address = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM
        )[0]
        # The protocol by its number: asyncio sends small answers at once only on a socket that says TCP.
        sock = socket.socket(family, kind, socket.IPPROTO_TCP)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(address)
            sock.listen(2048)
        except BaseException:
            sock.close()
            raise
    except OSError as error:
        reason = error.strerror or str(error)
        raise StoreError(
            f"cannot listen on {settings.host}:{settings.port}: {reason}: choose another --host or --port"
        ) from error
    with sock:
        yield sock


def _url(sock: socket.socket) -> str:
    host, port = sock.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
