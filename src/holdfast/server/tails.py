"""Logs as they grow, for many readers at once.

Readers of one run share its tail: a commit is read from the store once and encoded once, however many wait for
it. Each reader has its own position; one that is slow, or comes late, reads what it lacks from the store in
pages, and holds nobody up. A tail without readers is forgotten.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence

from ..events import ENDS, Event
from ..store.base import Store
from ..store.messages import News

KEPT = 512
"""Events that a tail holds for readers that are not quite there."""
PAGE = 500
LOOK_AGAIN = 5.0
"""Seconds after which a quiet reader looks by itself, for a notice that was lost."""


class Line:
    """An event, and its JSON, which is made once."""

    __slots__ = ("_event", "ends", "json", "position")

    def __init__(self, event: Event) -> None:
        self.position = event.position
        self.json = event.to_json()
        self.ends = event.type in ENDS
        self._event = event

    @property
    def bare(self) -> bytes:
        """Its JSON without the payload."""
        return self._event.to_json(data=False)


class _Tail:
    """The end of one log."""

    __slots__ = ("lines", "news", "pulling", "readers", "stale", "waiting")

    def __init__(self) -> None:
        self.lines: list[Line] = []
        self.readers = 0
        self.stale = True
        self.news = 0
        self.pulling: asyncio.Task[None] | None = None
        self.waiting: set[asyncio.Future[None]] = set()

    def wake(self) -> None:
        """There may be something to read."""
        self.stale = True
        self.news += 1
        waiting, self.waiting = self.waiting, set()
        for future in waiting:
            if not future.done():
                future.set_result(None)


class Tails:
    """The tails of one store's logs."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._tails: dict[str, _Tail] = {}
        self._unlisten: Callable[[], None] = lambda: None
        self.closing = False

    def open(self) -> None:
        """Hear of commits from now on."""
        self._unlisten = self._store.listen(self._hear, every=True)

    def close(self) -> None:
        """End every reader's stream; it resumes with the next server."""
        self.closing = True
        self._unlisten()
        for tail in self._tails.values():
            tail.wake()

    def _hear(self, news: Sequence[News]) -> None:
        for item in news:
            tail = self._tails.get(item.run)
            if tail is not None and item.stream is None:
                tail.wake()

    async def follow(self, run: str, after: int = 0) -> AsyncIterator[list[Line]]:
        """Pages of a run's events beyond `after` as they are committed, until the run has ended.

        An empty page says that nothing came for a while. Raises StoreError.
        """
        tail = self._tails.setdefault(run, _Tail())
        tail.readers += 1
        try:
            ended = after > 0 and await self._ended_before(run, after)
            while not self.closing:
                news = tail.news
                page = await self._beyond(run, tail, after)
                if page:
                    after = page[-1].position
                    ended = ended or any(line.ends for line in page)
                elif ended:
                    return
                elif news != tail.news or await self._told(tail):
                    continue
                yield page
        finally:
            tail.readers -= 1
            if tail.readers == 0:
                self._tails.pop(run, None)

    async def _beyond(self, run: str, tail: _Tail, after: int) -> list[Line]:
        """What the tail holds beyond a position; for a reader that is further back, a page from the store."""
        while True:
            lines = tail.lines
            if lines and after < lines[0].position - 1:
                return [Line(event) for event in await self._store.read(run, after, PAGE)]
            if lines and after < lines[-1].position:
                return lines[after + 1 - lines[0].position :]
            if not tail.stale:
                return []
            # Once for all readers: whoever comes while it is under way waits for it.
            if tail.pulling is None:
                tail.pulling = asyncio.get_running_loop().create_task(self._pull(run, tail))
            await asyncio.shield(tail.pulling)

    async def _pull(self, run: str, tail: _Tail) -> None:
        tail.stale = False
        try:
            if tail.lines:
                begin = tail.lines[-1].position
            else:
                head = await self._store.head(run)
                begin = 0 if head is None else max(0, head.position - KEPT // 8)
            lines = [Line(event) for event in await self._store.read(run, begin, KEPT)]
            tail.stale = tail.stale or len(lines) == KEPT
            tail.lines = (tail.lines + lines)[-KEPT:]
        except BaseException:
            tail.stale = True
            raise
        finally:
            tail.pulling = None

    async def _ended_before(self, run: str, after: int) -> bool:
        """Whether the run's end may stand before the position from which is read."""
        head = await self._store.head(run)
        return head is not None and head.ended is not None

    async def _told(self, tail: _Tail) -> bool:
        """Wait for news of the run; False where none came for a while, and the reader looks by itself."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        tail.waiting.add(future)
        try:
            await asyncio.wait((future,), timeout=LOOK_AGAIN)
        finally:
            tail.waiting.discard(future)
        if future.done():
            return True
        tail.stale = True
        return False
