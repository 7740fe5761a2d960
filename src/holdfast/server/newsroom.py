"""Who is told of commits, and which workers hang on which connection.

One listener on the store fills a ring of the last few thousand news; every subscriber reads it with a cursor of
its own, so one that is slow holds nobody up and costs no memory: it falls out of the ring and is told `gap`. A
subscriber that comes back says how far it had got.

A worker behind HTTP holds no lock that the kernel could take from it. Its connection is the next best thing:
when the last stream of its session is gone and does not come back within a moment, its runs are freed, and the
lease, which stays behind that, need not be waited for. If it lives, it learns of it with its next sign of life.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from typing import Any

import msgspec

from ..errors import HoldfastError
from ..store.base import Store
from ..store.messages import News, news_row

log = logging.getLogger("holdfast.server")

RING = 4096
LOOK = 2.5
"""Seconds between looks whether something was committed whose notice was lost."""
_encode = msgspec.json.Encoder().encode


class Newsroom:
    """The news of one store, for its subscribers."""

    def __init__(self, store: Store, *, grace: float) -> None:
        self._store = store
        self._grace = grace
        self._boot = secrets.token_hex(4)
        self._ring: list[tuple[bytes, bool]] = []
        self._first = 0  # the number of the ring's first item
        self._changes = 0
        self._waiting: set[asyncio.Future[None]] = set()
        self._sessions: dict[str, _Session] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._unlisten: Callable[[], None] = lambda: None
        self._closing = False

    def open(self) -> None:
        """Hear from now on."""
        self._unlisten = self._store.listen(self._hear, every=True)
        self._spawn(self._look())

    async def close(self) -> None:
        """End every subscription."""
        self._closing = True
        self._unlisten()
        self._wake()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _hear(self, news: Sequence[News]) -> None:
        for item in news:
            free = item.ready and item.owner is None
            useful = bool(item.fact or item.ended or free or item.stream or item.queue is not None)
            self._ring.append((_encode(news_row(item)), useful))
        if len(self._ring) > 2 * RING:
            self._first += len(self._ring) - RING
            del self._ring[:-RING]
        self._wake()

    async def _look(self) -> None:
        """The slow poll for everybody: a notice from another process may have been lost."""
        while True:
            await asyncio.sleep(LOOK)
            with contextlib.suppress(HoldfastError):
                if await self._store.changed():
                    self._changes += 1
                    self._wake()

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, set()
        for future in waiting:
            if not future.done():
                future.set_result(None)

    # ---- subscribers

    async def subscribe(self, session: str, last: str, *, every: bool) -> AsyncIterator[bytes]:
        """Server-sent events: `hello`, then news as they come; b"" where there is nothing to say for now."""
        number, known = self._resume(last)
        changes = self._changes
        with self._present(session):
            yield self._event("hello", number)
            if not known:
                yield self._event("gap", number)
            while not self._closing:
                if number < self._first:
                    number = self._end
                    yield self._event("gap", number)
                part = self._ring[number - self._first :]
                number += len(part)
                rows = [row for row, useful in part if every or useful]
                if rows:
                    yield b"id: %s.%d\ndata: [%s]\n\n" % (self._boot.encode(), number, b",".join(rows))
                elif changes != self._changes:
                    yield self._event("changed", number)
                elif number == self._end:
                    yield b""
                changes = self._changes

    async def wait(self, timeout: float) -> bool:
        """Until there is something new to read; False where time is up."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.add(future)
        try:
            await asyncio.wait((future,), timeout=timeout)
        finally:
            self._waiting.discard(future)
        return future.done()

    @property
    def _end(self) -> int:
        return self._first + len(self._ring)

    def _resume(self, last: str) -> tuple[int, bool]:
        """From where to read on; False where what came since is not known."""
        boot, _, number = last.partition(".")
        if not last:
            return self._end, True
        if boot != self._boot or not number.isdecimal() or not self._first <= int(number) <= self._end:
            return self._end, False
        return int(number), True

    def _event(self, kind: str, number: int) -> bytes:
        return f"event: {kind}\nid: {self._boot}.{number}\ndata: \n\n".encode()

    # ---- workers and their connections

    def enlisted(self, session: str, worker: str) -> None:
        """This worker hangs on this session."""
        self._sessions.setdefault(session, _Session()).workers.add(worker)

    def discharged(self, worker: str) -> None:
        """This worker has left, or was declared dead."""
        for session in self._sessions.values():
            session.workers.discard(worker)

    @contextlib.contextmanager
    def _present(self, name: str) -> Iterator[None]:
        session = self._sessions.setdefault(name, _Session())
        session.streams += 1
        try:
            yield
        finally:
            session.streams -= 1
            if session.streams == 0 and not self._closing:
                self._spawn(self._miss(name, session))

    async def _miss(self, name: str, session: _Session) -> None:
        await asyncio.sleep(self._grace)
        if session.streams:
            return
        self._sessions.pop(name, None)
        for worker in sorted(session.workers):
            log.warning(
                "the connection of worker %s is gone: its runs are free for others",
                worker,
                extra={"gone": worker},
            )
            try:
                await self._store.discharge(worker)
            except HoldfastError as error:
                log.warning(
                    "worker %s could not be discharged, its lease runs on: %s",
                    worker,
                    error,
                    extra={"gone": worker},
                )


class _Session:
    """The streams and the workers of one client."""

    __slots__ = ("streams", "workers")

    def __init__(self) -> None:
        self.streams = 0
        self.workers: set[str] = set()
