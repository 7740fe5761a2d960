"""Waiting for runs to end: pushed by whoever commits the end, in this process or another."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence

from .errors import RunNotFound, StoreBroken
from .events import ENDS, Event
from .store.base import News, Store

_LOOK_AGAIN = 5.0
"""Seconds after which a waiter looks by itself, for a notice that was lost."""


class Ends:
    """Those who wait for runs of one store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._waiting: dict[str, set[asyncio.Future[None]]] = {}
        self._unlisten: Callable[[], None] = lambda: None

    def open(self) -> None:
        """Listen from now on."""
        self._unlisten = self._store.listen(self._hear)

    def close(self) -> None:
        """Listen no more."""
        self._unlisten()

    async def of(self, run_id: str) -> Event:
        """The event that ended the run, as soon as there is one. Raises RunNotFound."""
        while True:
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            waiting = self._waiting.setdefault(run_id, set())
            waiting.add(future)
            try:
                end = await self._end(run_id)
                if end is not None:
                    return end
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(future, _LOOK_AGAIN)
            finally:
                waiting.discard(future)
                if not waiting:
                    self._waiting.pop(run_id, None)

    async def _end(self, run_id: str) -> Event | None:
        head = await self._store.head(run_id)
        if head is None:
            raise RunNotFound(f"no run {run_id!r} in {self._store.url}")
        if head.ended is None:
            return None
        # The end is last but for late outcomes: look at the tail first, at the whole log if need be.
        for after in (max(0, head.position - 4), 0):
            for event in await self._store.read(run_id, after):
                if event.type in ENDS:
                    return event
        raise StoreBroken(f"run {run_id!r} has ended, but its log holds no end: see `holdfast verify`")

    def _hear(self, news: Sequence[News]) -> None:
        for item in news:
            if item.ended:
                for future in self._waiting.get(item.run, ()):
                    if not future.done():
                        future.set_result(None)
