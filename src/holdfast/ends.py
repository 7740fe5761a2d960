"""Waiting for runs to end: pushed by whoever commits the end, in this process or another."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from .events import Event
from .store.base import Store
from .store.messages import News

_LOOK_AGAIN = 5.0
"""Seconds after which a waiter looks by itself, for a notice that was lost."""


class Ends:
    """Those who wait for runs of one store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._waiting: dict[str, set[asyncio.Future[None]]] = {}
        self._unlisten: Callable[[], None] = lambda: None
        self._alarm: asyncio.TimerHandle | None = None  # one for all: most waits are short

    def open(self) -> None:
        """Listen from now on."""
        self._unlisten = self._store.listen(self._hear)

    def close(self) -> None:
        """Listen no more."""
        self._unlisten()
        if self._alarm is not None:
            self._alarm.cancel()
            self._look()  # who still waits is told by the store that it is closed

    async def of(self, run_id: str) -> Event:
        """The event that ended the run, as soon as there is one. Raises RunNotFound."""
        while True:
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            waiting = self._waiting.setdefault(run_id, set())
            waiting.add(future)
            try:
                end = await self._store.end_of(run_id)
                if end is not None:
                    return end
                if self._alarm is None:
                    self._alarm = asyncio.get_running_loop().call_later(_LOOK_AGAIN, self._look)
                await future
            finally:
                waiting.discard(future)
                if not waiting:
                    self._waiting.pop(run_id, None)

    def _look(self) -> None:
        self._alarm = None
        for run_id in list(self._waiting):
            self._wake(run_id)

    def _wake(self, run_id: str) -> None:
        for future in self._waiting.get(run_id, ()):
            if not future.done():
                future.set_result(None)

    def _hear(self, news: Sequence[News]) -> None:
        for item in news:
            if item.ended:
                self._wake(item.run)
