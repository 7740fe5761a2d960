"""Check mode of `holdfast dev`: each run that ends is replayed in another process, with another hash seed.

Guarantee: a run that ends while this is on is replayed once, also where the news of its end are lost, and is
blamed for no code but that under which it ended. (Where many end at once, `_BACKLOG` of them wait; the others are
left out.) That rests on looks at the store behind the news, and on `dev`, which has this on while a worker runs
with the code as it is: when the code changes, the runs that wait are let go, and so is the one that is being
replayed. They may not fit the new code, and need not.

Rejected: to go by times (ended before the change, or after it). A store's clock need not be that of the files.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from typing import TYPE_CHECKING, Self

from ..errors import HoldfastError
from ..store.rows import RunFilter
from . import output

if TYPE_CHECKING:
    from ..store.base import Store
    from ..store.messages import News

_BACKLOG = 50
"""Runs that wait to be replayed; those that end beyond it are not."""
_PAGE = 200
"""Runs that a look asks for at once."""
_BEAT = 5.0
"""Seconds between two looks for runs whose end was not heard of."""
_NOTICE = 0.5
"""Seconds within which a change of the code is noticed. It may have come between a run's end and its replay."""


@contextlib.asynccontextmanager
async def checking(store: Store, modules: Sequence[str], url: str) -> AsyncIterator[None]:
    """Replay each run that ends while the block runs, one after the other, as `holdfast replay` does."""
    async with EndedRuns(store) as ended:
        task = asyncio.create_task(_check(ended, modules, url))
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def _check(ended: EndedRuns, modules: Sequence[str], url: str) -> None:
    while True:
        run = await ended.next()
        words = ("replay", *modules, "--run", run, "--store", url)
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "holdfast", *words,
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
            process_group=0,
        )  # fmt: skip
        try:
            said, _ = await process.communicate()
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
        if process.returncode == 1:
            await asyncio.sleep(_NOTICE)
            output.note(f"run {run} does not replay to itself:\n{said.decode(errors='replace').rstrip()}")


class EndedRuns:
    """The runs that end from when this is entered on, each once.

    A look behind the news asks for a page of the runs that go on and one of the newest, whatever the store holds.
    It finds those that went on at the look before, and those that have both begun and ended since.
    """

    def __init__(self, store: Store, beat: float = _BEAT) -> None:
        self._store = store
        self._beat = beat
        self._ended: asyncio.Queue[str] = asyncio.Queue(_BACKLOG)
        self._going_on: set[str] = set()
        self._newest: set[str] = set()
        self._told: set[str] = set()  # since the last look
        self._told_before: set[str] = set()
        self._unlisten: Callable[[], None] = lambda: None
        self._looking: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        await self._look()  # what it finds has ended before
        self._unlisten = self._store.listen(self._hear)
        self._looking = asyncio.create_task(self._look_again())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._unlisten()
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)

    async def next(self) -> str:
        """The next one, as soon as there is one."""
        return await self._ended.get()

    def _hear(self, news: Sequence[News]) -> None:
        for item in news:
            if item.ended:
                self._tell(item.run)

    def _tell(self, run: str) -> None:
        if run not in self._told and run not in self._told_before:
            self._told.add(run)
            with contextlib.suppress(asyncio.QueueFull):
                self._ended.put_nowait(run)

    async def _look_again(self) -> None:
        while True:
            await asyncio.sleep(self._beat)
            with contextlib.suppress(HoldfastError):  # the store does not answer: the next look finds them
                for run in await self._look():
                    self._tell(run)
                self._told_before, self._told = self._told, set()

    async def _look(self) -> list[str]:
        """The runs that have ended since the look before."""
        going_on: set[str] = set()
        for status in ("pending", "running"):  # in this order: no run slips from the one page to the other
            page = await self._store.runs(RunFilter(status), limit=_PAGE)
            going_on.update(head.run for head in page)
        newest = await self._store.runs(limit=_PAGE)
        ended = [head.run for head in newest if head.ended is not None and head.run not in self._newest]
        for run in sorted(self._going_on - going_on - set(ended)):
            head = await self._store.head(run)
            if head is not None and head.ended is not None:  # or it is beyond the page now
                ended.append(run)
        self._going_on, self._newest = going_on, {head.run for head in newest}
        return ended
