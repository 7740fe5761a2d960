"""Server-sent events for the page: what changed in the store, gathered and sent a few times a second at most."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Any, Self

from starlette.responses import StreamingResponse

from ...events import dump_json
from ...store.base import Store
from ...store.messages import News

PACE = 0.3
"""Seconds between two messages, at least: bursts of commits become one."""
LOOK = 5.0
"""Seconds after which a reader looks by itself, for news that were lost."""
MOST = 100
"""Runs that are remembered by name between two messages; with more, the reader looks at all."""


class Changes:
    """The runs that changed since the last look; use it as `with`."""

    def __init__(self, store: Store, only: str | None = None, *, pace: float = PACE) -> None:
        self._store = store
        self._only = only
        self._pace = pace
        self._runs: dict[str, None] = {}
        self._any = asyncio.Event()

    def __enter__(self) -> Self:
        self._stop = self._store.listen(self._hear)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def _hear(self, news: Sequence[News]) -> None:
        for item in news:
            if self._only in (None, item.run) and len(self._runs) <= MOST:
                self._runs[item.run] = None
                self._any.set()

    async def next(self) -> list[str] | None:
        """The runs that changed, after some have, or after a while; None for more than can be named."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LOOK):
                await self._any.wait()
                await asyncio.sleep(self._pace)
        runs = list(self._runs)
        self._runs.clear()
        self._any.clear()
        return None if len(runs) > MOST else runs


def message(kind: str, data: Any, *, id: str | None = None) -> bytes:
    """One event of the stream; a browser that was cut off says the `id` of the last one that it had."""
    marked = b"" if id is None else b"id: " + id.encode() + b"\n"
    return b"event: " + kind.encode() + b"\n" + marked + b"data: " + dump_json(data) + b"\n\n"


def stream(events: AsyncIterator[bytes]) -> StreamingResponse:
    """The answer to an EventSource; a reader that is gone ends `events`."""
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no", "X-Content-Type-Options": "nosniff"}
    return StreamingResponse(events, media_type="text/event-stream", headers=headers)
