"""A port where Prometheus finds the metrics of a worker: `GET /metrics`, and nothing else.

A server of its own, because a worker needs no extra: a request is read to the end of its head, within limits of
size and time, and answered; then the connection is closed. It listens on the loopback unless told otherwise, for
nobody is asked who he is.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable

from .text import CONTENT_TYPE

log = logging.getLogger("holdfast.worker")
_PATIENCE = 10.0
"""Seconds for a request and its answer."""
_LARGEST = 16 * 1024
"""Bytes of a request."""


@contextlib.asynccontextmanager
async def listening(
    answer: Callable[[], Awaitable[str]], port: int, host: str = "127.0.0.1"
) -> AsyncIterator[int]:
    """Answer `GET /metrics` until the block is left; gives the port, of which 0 takes a free one.

    Raises OSError where it cannot listen.

    Example:
        async with listening(lambda: exposition(app.store), 9464): ...
    """

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_PATIENCE):
                head = await reader.readuntil(b"\r\n\r\n")
                writer.write(await _response(head, answer))
                await writer.drain()
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, OSError, TimeoutError):
            pass  # whoever it was asks again
        finally:
            writer.close()

    server = await asyncio.start_server(serve, host, port, limit=_LARGEST)
    try:
        yield int(server.sockets[0].getsockname()[1])
    finally:
        server.close()


async def _response(head: bytes, answer: Callable[[], Awaitable[str]]) -> bytes:
    method, _, rest = head.partition(b" ")
    path = rest.partition(b" ")[0].partition(b"?")[0]
    kind = "text/plain; charset=utf-8"
    if path != b"/metrics":
        status, body = "404 Not Found", "only /metrics is here\n"
    elif method not in (b"GET", b"HEAD"):
        status, body = "405 Method Not Allowed", "ask with GET\n"
    else:
        try:
            status, kind, body = "200 OK", CONTENT_TYPE, await answer()
        except Exception:  # whatever it is: the worker goes on
            log.exception("the metrics could not be told")
            status, body = "500 Internal Server Error", "the worker's log has the cause\n"
    raw = body.encode()
    lines = [
        f"HTTP/1.1 {status}",
        f"Content-Type: {kind}",
        f"Content-Length: {len(raw)}",
        "Connection: close",
    ]
    return "\r\n".join([*lines, "", ""]).encode() + (b"" if method == b"HEAD" else raw)
