"""Hooks as the engine keeps them: payloads go to the first waiter that is still there (law L10).

A waiter leaves when its await is cancelled or done and at no other time. A payload that was handed to a waiter
which is cancelled before it runs goes to the next one, so no payload is ever lost between two awaits.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from ..codec import PayloadType
from ..errors import HookNotFound, HookTaken, PayloadError
from ..workflow import Hook

if TYPE_CHECKING:
    from .context import RunContext


class OpenHook(Hook[Any]):
    """The hook that workflow code holds."""

    def __init__(self, context: RunContext, key: str, token: str, type_: PayloadType) -> None:
        self.token = token
        self.key = key
        self.type = type_
        self.closed = False
        self._owner: str | None = None
        self._context = context
        self._kept: deque[Any] = deque()
        self._waiters: deque[asyncio.Future[Any]] = deque()

    @property
    def open(self) -> bool:
        """Whether payloads can still come: neither closed nor refused."""
        return not self.closed and self._owner is None

    @property
    def awaited(self) -> bool:
        """Whether somebody waits for the next payload."""
        return any(not waiter.done() for waiter in self._waiters)

    async def next(self) -> Any:
        """The next payload."""
        if self._context.loop.dead:
            self._context.loop.tell()
            await self._context.loop.create_future()
        if self._kept:
            return self._taken_up(self._kept.popleft())
        if self._owner is not None:
            raise self._taken()
        if self.closed:
            raise self._gone()
        waiter = self._context.loop.create_future()
        self._waiters.append(waiter)
        try:
            payload = await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                self._hand_over(waiter.result(), first=True)
            raise
        return self._taken_up(payload)

    def _taken_up(self, payload: Any) -> Any:
        self._context.read += 1
        if isinstance(payload, PayloadError):
            raise payload
        return payload

    def close(self) -> None:
        """Take no more payloads."""
        if self.closed or self._owner is not None:
            return
        self._context.close_hook(self)
        self.closed = True
        for waiter in self._take_waiters():
            waiter.set_exception(self._gone())

    def receive(self, payload: Any) -> None:
        """A payload has come (a fact); one that does not fit the hook's type comes as the PayloadError."""
        self._hand_over(payload, first=False)

    def refuse(self, owner: str) -> None:
        """Another run holds the token (a fact)."""
        self._owner = owner
        for waiter in self._take_waiters():
            waiter.set_exception(self._taken())

    def _hand_over(self, payload: Any, *, first: bool) -> None:
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(payload)
                return
        if first:
            self._kept.appendleft(payload)
        else:
            self._kept.append(payload)

    def _take_waiters(self) -> list[asyncio.Future[Any]]:
        waiting = [waiter for waiter in self._waiters if not waiter.done()]
        self._waiters.clear()
        return waiting

    def _taken(self) -> HookTaken:
        return HookTaken(
            f"hook {self.token!r} is held by run {self._owner}: it is free when that run closes it or ends",
            owner=self._owner or "",
        )

    def _gone(self) -> HookNotFound:
        return HookNotFound(f"hook {self.token!r} was closed by this run", reason="closed")

    def _iterate(self) -> AsyncIterator[Any]:
        return _Payloads(self)


class _Payloads:
    """`async for` over a hook: every payload until it is closed."""

    def __init__(self, hook: OpenHook) -> None:
        self._hook = hook

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Any:
        try:
            return await self._hook.next()
        except HookNotFound:
            raise StopAsyncIteration from None
