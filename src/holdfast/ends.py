"""Waiting for runs to end: pushed by whoever commits the end, in this process or another.

Nothing is read for a run that this process drives: it has not ended when its wait begins, and the commit that ends
it brings the event along. Any other is looked for once at first, and once when its end is told.
"""

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

    def __init__(self, store: Store, driven: Callable[[str], bool]) -> None:
        self._store = store
        self._driven = driven
        self._waiting: dict[str, set[asyncio.Future[Event | None]]] = {}
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
        loop = asyncio.get_running_loop()
        look = not self._driven(run_id)
        while True:
            future: asyncio.Future[Event | None] = loop.create_future()
            waiting = self._waiting.setdefault(run_id, set())
            waiting.add(future)
            try:
                end = await self._store.end_of(run_id) if look else None
                if end is None:
                    if self._alarm is None:
                        self._alarm = loop.call_later(_LOOK_AGAIN, self._look)
                    end = await future
                if end is not None:
                    return end
                look = True
            finally:
                waiting.discard(future)
                if not waiting:
                    self._waiting.pop(run_id, None)

    def _look(self) -> None:
        self._alarm = None
        for run_id in list(self._waiting):
            self._wake(run_id, None)

    def _wake(self, run_id: str, end: Event | None) -> None:
        for future in self._waiting.get(run_id, ()):
            if not future.done():
                future.set_result(end)

    def _hear(self, news: Sequence[News]) -> None:
        for item in news:
            if item.ended:
                self._wake(item.run, item.end)
