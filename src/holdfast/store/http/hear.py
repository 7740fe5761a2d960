"""Hearing of commits over one long response (server-sent events), resumed where it broke.

Nothing rests on it (law L14). What was missed while the connection was gone comes when it is back, for the
server keeps the last few thousand; where it kept them not, or is another one by now, it says `gap`, and whoever
listens looks for itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Sequence

import aiohttp

from holdfast.errors import HoldfastError, StoreError
from holdfast.store.messages import News

from ..messages import NewsRow
from .calls import Calls
from .wire.encoding import decoder

log = logging.getLogger("holdfast.store")

_FIRST, _MOST = 0.05, 2.0
_read_rows = decoder(list[NewsRow])


class Hearing:
    """The stream of news of one client."""

    def __init__(
        self,
        calls: Calls,
        session: str,
        tell: Callable[[Sequence[News]], None],
        missed: Callable[[], Awaitable[None]],
    ) -> None:
        self._unseen = True
        self._calls = calls
        self._session = session
        self._tell = tell
        self._missed = missed
        self._every = False
        self._last = ""
        self._task: asyncio.Task[None] | None = None
        self._there: asyncio.Future[None] | None = None

    def start(self, *, every: bool) -> None:
        """Hear from now on; with `every`, also of commits that only concern who follows a log."""
        if self._task is not None and (self._every or not every):
            return
        self._every |= every
        self.stop()
        self._there = asyncio.get_running_loop().create_future()
        self._task = asyncio.get_running_loop().create_task(self._hear())

    def stop(self) -> None:
        """Hear no more."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()

    def look(self) -> bool:
        """Whether something may have changed since this was last asked."""
        unseen, self._unseen = self._unseen, False
        return unseen or self._task is None

    async def wait(self) -> None:
        """Until the stream stands, or cannot be had: what is written after that is heard of."""
        if self._there is not None and not self._there.done():
            await asyncio.wait((self._there,), timeout=5)

    async def _hear(self) -> None:
        delay = _FIRST
        while True:
            try:
                async with self._calls.stream(self._path, self._headers) as response:
                    if response.status != 200:
                        raise StoreError(f"answered {response.status}")
                    delay = _FIRST
                    await self._read(response)
            except (aiohttp.ClientError, OSError, TimeoutError, HoldfastError) as error:
                log.debug("%s: no news: %s", self._calls.url, error)
            self._unseen = True
            self._settle()
            await asyncio.sleep(delay)
            delay = min(delay * 2, _MOST)

    @property
    def _path(self) -> str:
        return f"store/news?session={self._session}&every={'true' if self._every else 'false'}"

    @property
    def _headers(self) -> dict[str, str]:
        return {"Last-Event-ID": self._last} if self._last else {}

    def _settle(self) -> None:
        if self._there is not None and not self._there.done():
            self._there.set_result(None)

    async def _read(self, response: aiohttp.ClientResponse) -> None:
        kind, id, data = "", "", b""
        async for line in response.content:
            field, _, value = line.rstrip(b"\r\n").partition(b": ")
            if field == b"event":
                kind = value.decode()
            elif field == b"id":
                id = value.decode()
            elif field == b"data":
                data = value
            elif not field:
                self._last = id or self._last
                await self._heard(kind, data)
                kind, id, data = "", "", b""

    async def _heard(self, kind: str, data: bytes) -> None:
        if kind == "":
            if data:
                self._unseen = True
                self._tell([News(*row) for row in _read_rows(data)])
            return
        if kind == "hello":
            self._settle()
        if kind in ("changed", "gap"):
            self._unseen = True
        if kind == "gap":
            with contextlib.suppress(StoreError):
                await self._missed()
