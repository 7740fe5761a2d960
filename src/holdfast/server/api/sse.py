"""Long responses: kept alive while nothing comes, and ended when the server stops."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator

from ..service import Service

HEARTBEAT = 15.0
"""Seconds of silence after which a line is sent that says nothing."""


async def beating(service: Service, parts: AsyncGenerator[bytes, None], beat: bytes) -> AsyncIterator[bytes]:
    """The parts as they come; `beat` where none comes for a while; an end where the server stops."""
    closing = asyncio.ensure_future(service.closed.wait())
    coming: asyncio.Future[bytes] | None = None
    try:
        while True:
            if coming is None:
                coming = asyncio.ensure_future(anext(parts))
            await asyncio.wait((coming, closing), timeout=HEARTBEAT, return_when=asyncio.FIRST_COMPLETED)
            if coming.done():
                try:
                    part, coming = coming.result(), None
                except StopAsyncIteration:
                    return
                yield part
            elif closing.done():
                return
            else:
                yield beat
    finally:
        closing.cancel()
        if coming is not None:
            coming.cancel()
            with contextlib.suppress(asyncio.CancelledError, StopAsyncIteration):
                await coming
        await parts.aclose()
