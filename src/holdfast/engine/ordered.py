"""`asyncio.as_completed` in the order of its arguments.

CPython's own puts its arguments into a set, and coroutines hash by address: each run would start them in
another order. In a workflow's loop this one is used instead; everywhere else CPython's own, unchanged.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Iterable, Iterator
from typing import Any

from .loop import Loop

_original = asyncio.as_completed


class _AsCompleted:
    """Iterate plainly (coroutines, one for each argument) or, as CPython 3.13 does, with `async for`."""

    def __init__(self, arguments: Iterable[Any], timeout: float | None) -> None:
        loop = asyncio.get_running_loop()
        distinct = list({id(argument): argument for argument in arguments}.values())
        self._todo = dict.fromkeys(asyncio.ensure_future(argument) for argument in distinct)
        self._left = len(self._todo)
        self._done: asyncio.Queue[asyncio.Future[Any] | None] = asyncio.Queue()
        self._timer = loop.call_later(timeout, self._expire) if timeout is not None and self._todo else None
        for future in self._todo:
            future.add_done_callback(self._completed)

    def _completed(self, future: asyncio.Future[Any]) -> None:
        if future not in self._todo:
            return  # after the time-out
        del self._todo[future]
        self._done.put_nowait(future)
        if not self._todo and self._timer is not None:
            self._timer.cancel()

    def _expire(self) -> None:
        for future in self._todo:
            future.remove_done_callback(self._completed)
            self._done.put_nowait(None)
        self._todo.clear()

    async def _next_future(self) -> asyncio.Future[Any]:
        future = await self._done.get()
        if future is None:
            raise TimeoutError
        return future

    async def _next_result(self) -> Any:
        return (await self._next_future()).result()

    def __iter__(self) -> Iterator[Coroutine[Any, Any, Any]]:
        return self

    def __next__(self) -> Coroutine[Any, Any, Any]:
        if self._left == 0:
            raise StopIteration
        self._left -= 1
        return self._next_result()

    def __aiter__(self) -> AsyncIterator[asyncio.Future[Any]]:
        return self

    async def __anext__(self) -> asyncio.Future[Any]:
        if self._left == 0:
            raise StopAsyncIteration
        self._left -= 1
        return await self._next_future()


def as_completed(fs: Iterable[Any], *, timeout: float | None = None) -> Any:
    """`asyncio.as_completed`; deterministic in workflow code."""
    if isinstance(asyncio._get_running_loop(), Loop):
        if asyncio.isfuture(fs) or asyncio.iscoroutine(fs):
            raise TypeError(f"expect an iterable of futures, not {type(fs).__name__}")
        return _AsCompleted(fs, timeout)
    return _original(fs, timeout=timeout)


def install() -> None:
    """Put it in CPython's place; whoever imported the original by name before is refused by the guard."""
    asyncio.as_completed = asyncio.tasks.as_completed = as_completed


install()
