"""Trails for async code: the same names with await.

    folder = TrailFolder(".trajectories")
    async with folder.start("Fix the login", agent="ana") as trail:
        async with trail.chapter("Investigate", agent="ben"):
            await trail.note("It fails for names with a quote")
        await trail.complete(summary="Quoted")

Guarantee: nothing here holds up the event loop, not even a lock that another process keeps; what is awaited is
on the disk when the await returns, as in `holdfast.trail`. Which chapter an event belongs to is found at the
call, in the context of the task that calls. The writing is done by the handles of `handle`, in threads of the
folder's own, so that waiting for a lock does not take asyncio's threads away from others. What one handle is
told is written in the order in which it is awaited.

Cancellation: an await that is cancelled ends at once. The write behind it goes on in its thread and is whole: it
happens as if it had been awaited, and an error of it is logged. A trail or chapter whose opening was cancelled is
abandoned or closed as soon as it is there. A CancelledError that leaves the block of a trail abandons it, as any
exception does.

Rejected: asyncio's default pool, which a few waits for a lock would fill; a second set of rules beside those of
`handle`; waiting for the write before a cancellation goes on, which would make a time-out as long as the lock's.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from datetime import datetime
from functools import partial, update_wrapper
from pathlib import Path
from types import TracebackType
from typing import Any, Concatenate, Generic, Literal, ParamSpec, Self, TypeVar

from ..clock import Clock
from ..errors import HoldfastError
from . import around, folder, handle
from .files import Redact
from .journal import log
from .telling import Telling, TrailTelling

P = ParamSpec("P")
T = TypeVar("T")
S = TypeVar("S", bound=around.Block)

THREADS = 32
"""How many calls of one folder may wait for the disk or for a lock at the same time."""


class Turns:
    """Runs what it is given one after another, each in a thread of a pool."""

    def __init__(self, pool: ThreadPoolExecutor) -> None:
        self._pool = pool
        self._jobs: deque[tuple[Future[Any], Callable[[], Any]]] = deque()
        self._running = False
        self._lock = threading.Lock()

    def submit(self, work: Callable[[], T]) -> Future[T]:
        """Run `work` when all that was submitted before is done."""
        future: Future[T] = Future()
        with self._lock:
            self._jobs.append((future, work))
            if not self._running:
                self._pool.submit(self._run)
                self._running = True
        return future

    async def run(self, work: Callable[[], T], undo: Callable[[T], object] | None = None) -> T:
        """Run `work` in its turn. If this await is cancelled it runs all the same, and then `undo` does."""
        loop = asyncio.get_running_loop()
        arrived = loop.create_future()

        def arrive() -> None:
            if not arrived.done():
                arrived.set_result(None)

        def tell(_: Future[T]) -> None:
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(arrive)

        future = self.submit(work)
        future.add_done_callback(tell)
        try:
            await arrived
        except asyncio.CancelledError:
            self.submit(partial(_unattended, future, undo))
            raise
        try:
            return future.result()
        finally:
            del future  # the traceback of an error knows this frame: it would be a cycle

    def _run(self) -> None:
        while True:
            with self._lock:
                if not self._jobs:
                    self._running = False
                    return
                future, work = self._jobs.popleft()
            try:
                future.set_result(work())
            except BaseException as error:  # noqa: BLE001 - it belongs to whoever awaits it
                future.set_exception(error)
            del future, work  # the traceback of an error knows this frame


def _unattended(future: Future[T], undo: Callable[[T], object] | None) -> None:
    """After the work of a cancelled await."""
    try:
        result = future.result()
        if undo is not None:
            undo(result)
    except HoldfastError as error:
        log.error("after a cancelled await: %s", error)


class Block(Generic[S]):
    """What `async with` surrounds: the handle of a trail or chapter, and whose turn it is to write in it."""

    def __init__(self, sync: S, turns: Turns) -> None:
        self.sync = sync
        self._turns = turns

    def __repr__(self) -> str:
        return repr(self.sync)

    async def __aenter__(self) -> Self:
        self.sync.enter()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.sync.leave()
        await self._turns.run(partial(self.sync.settle, error))


B = TypeVar("B", bound=Block[Any])


class Opening(Generic[B]):
    """A trail or a chapter to be: `await` it for the handle, or `async with` it for a block."""

    def __init__(self, make: Callable[[], Coroutine[Any, Any, B]]) -> None:
        self._make = make
        self._block: B | None = None

    def __await__(self) -> Generator[Any, None, B]:
        return self._make().__await__()

    async def __aenter__(self) -> B:
        self._block = await self._make()
        return await self._block.__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        assert self._block is not None
        await self._block.__aexit__(kind, error, tb)


class OpenTrail(Block[handle.OpenTrail], TrailTelling[Awaitable[str], Awaitable[None]]):
    """A trail to write in, with await. Several tasks may write at once."""

    def __init__(self, trail: handle.OpenTrail, turns: Turns) -> None:
        super().__init__(trail, turns)
        trail.strand = around.strand()  # it was made in a thread, for this task
        self.id = trail.id
        self.agent = trail.agent

    def chapter(self, title: str, *, agent: str | None = None) -> Opening[OpenChapter]:
        """Open a chapter, in the one around the code if there is one; `async with` closes it.

        Example:
            async with trail.chapter("Investigate", agent="ben"):
                await trail.note("…")
        """
        return self._opening(self.sync.new_chapter(title, agent, self.sync.surrounding()))

    def _opening(self, chapter: handle.OpenChapter) -> Opening[OpenChapter]:
        async def make() -> OpenChapter:
            await self._turns.run(partial(self.sync.open_chapter, chapter), handle.OpenChapter.close)
            return OpenChapter(self, chapter, self._turns)

        return Opening(make)

    def _record(
        self, type: str, data: dict[str, Any], agent: str | None, occurred_at: datetime | None
    ) -> Awaitable[str]:
        entry = self.sync.event_entry(type, data, agent, occurred_at)
        return self._turns.run(partial(self.sync.write, entry))

    def _tell(self, type: str, data: dict[str, Any], agent: str | None = None) -> Awaitable[None]:
        return _nothing(self._turns.run(partial(self.sync.write, self.sync.entry(type, data, agent))))

    def _amend(self, data: dict[str, Any]) -> Awaitable[None]:
        return self._turns.run(partial(self.sync.amend_with, self.sync.entry("trail_amended", data)))

    def _end(self, type: str, data: dict[str, Any]) -> Awaitable[None]:
        return self._turns.run(partial(self.sync.end_with, self.sync.entry(type, data)))


class OpenChapter(Block[handle.OpenChapter], Telling[Awaitable[str]]):
    """A chapter to write in, with await; `async with` makes it the current one and closes it."""

    def __init__(self, trail: OpenTrail, chapter: handle.OpenChapter, turns: Turns) -> None:
        super().__init__(chapter, turns)
        self.trail = trail
        self.id = chapter.id
        self.title = chapter.title
        self.agent = chapter.agent

    def chapter(self, title: str, *, agent: str | None = None) -> Opening[OpenChapter]:
        """Open a chapter inside this one."""
        return self.trail._opening(self.trail.sync.new_chapter(title, agent, self.sync))

    async def close(self) -> None:
        """Say that the chapter is done. Further events of it are kept all the same."""
        await self._turns.run(self.sync.close)

    def _record(
        self, type: str, data: dict[str, Any], agent: str | None, occurred_at: datetime | None
    ) -> Awaitable[str]:
        entry = self.sync.event_entry(type, data, agent, occurred_at)
        return self._turns.run(partial(self.trail.sync.write, entry))


async def _nothing(awaited: Awaitable[object]) -> None:
    await awaited


def _awaited(
    method: Callable[Concatenate[folder.TrailFolder, P], T],
) -> Callable[Concatenate[TrailFolder, P], Coroutine[Any, Any, T]]:
    """The same method with await."""

    async def call(self: TrailFolder, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._turns().run(partial(method, self.sync, *args, **kwargs))

    update_wrapper(call, method)
    return call


def _opened(
    method: Callable[Concatenate[folder.TrailFolder, P], handle.OpenTrail],
    undo: Callable[[handle.OpenTrail], object] | None,
) -> Callable[Concatenate[TrailFolder, P], Opening[OpenTrail]]:
    """The same method, for `await` and for `async with`."""

    def call(self: TrailFolder, /, *args: P.args, **kwargs: P.kwargs) -> Opening[OpenTrail]:
        async def make() -> OpenTrail:
            turns = self._turns()
            work = partial(method, self.sync, *args, **kwargs)
            return OpenTrail(await turns.run(work, undo), turns)

        return Opening(make)

    update_wrapper(call, method)
    return call


def _unwanted(trail: handle.OpenTrail) -> None:
    trail.abandon(cause=asyncio.CancelledError("while it was started"))


class TrailFolder:
    """A folder of trails for async code; the arguments are those of `holdfast.trail.TrailFolder`.

    `sync` is that folder. Its threads end when nobody refers to it any more, or with `close`.

    Example:
        folder = TrailFolder(".trajectories")
        trail = await folder.start("Fix the login")
        await trail.note("…")
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        clock: Clock | None = None,
        redact: Redact | Literal["default"] | None = "default",
        lock_timeout: float = 30.0,
        event_limit: int = 1 << 20,
    ) -> None:
        self.sync = folder.TrailFolder(
            path, clock=clock, redact=redact, lock_timeout=lock_timeout, event_limit=event_limit
        )
        self._pool = ThreadPoolExecutor(THREADS, "holdfast-trail")

    @property
    def root(self) -> Path:
        """Where the folder is."""
        return self.sync.root

    def __repr__(self) -> str:
        return repr(self.sync)

    start = _opened(folder.TrailFolder.start, undo=_unwanted)
    open = _opened(folder.TrailFolder.open, undo=None)
    delete = _awaited(folder.TrailFolder.delete)
    absorb = _awaited(folder.TrailFolder.absorb)
    settle = _awaited(folder.TrailFolder.settle)
    load = _awaited(folder.TrailFolder.load)
    entries = _awaited(folder.TrailFolder.entries)
    list = _awaited(folder.TrailFolder.list)
    search = _awaited(folder.TrailFolder.search)
    reconcile = _awaited(folder.TrailFolder.reconcile)

    async def close(self) -> None:
        """Finish what was asked for, and end the folder's threads. Without it, they end with the folder."""
        await asyncio.to_thread(self._pool.shutdown)

    def _turns(self) -> Turns:
        return Turns(self._pool)
