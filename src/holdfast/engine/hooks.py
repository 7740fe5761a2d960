"""Hooks as the engine keeps them: payloads go to the first waiter that is still there (law L10).

A waiter leaves when its await is cancelled or done and at no other time. A payload that was handed to a waiter
which is cancelled before it runs goes to the next one, so no payload is ever lost between two awaits.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import msgspec

from ..codec import PayloadType
from ..errors import HookNotFound, HookTaken, PayloadError
from ..events import Event, reader
from ..runtime import Hook

if TYPE_CHECKING:
    from .context import RunContext


class _Payload(msgspec.Struct):
    payload: msgspec.Raw = msgspec.Raw(b"null")


_read_payload = reader(_Payload)


class OpenHook(Hook[Any]):
    """The hook that workflow code holds."""

    def __init__(self, context: RunContext, key: str, token: str, type_: PayloadType) -> None:
        self.token = token
        self.key = key
        self.type = type_
        self.closed = False
        self._owner: str | None = None
        self._context = context
        self._kept: deque[tuple[int, Any]] = deque()  # with its position in the log
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

    def _taken_up(self, kept: tuple[int, Any]) -> Any:
        self._context.read += 1
        payload = kept[1]
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

    def take(self, event: Event) -> None:
        """A payload has come (a fact).

        A sender checks with the schema, which cannot say all that a type can. One that does not fit comes to the
        code that waits as the PayloadError, for to park the run would let any sender stop it.
        """
        payload: Any
        try:
            payload = self.type.decode(_read_payload(event.body).payload, f"{self.key} payload")
            if self.url:  # a request is answered in the name of the run that has read it
                payload = msgspec.structs.replace(payload, run=self._context.run_id)
        except PayloadError as error:
            payload = error
        self._hand_over((event.position, payload), first=False)

    @property
    def unread(self) -> list[int]:
        """The positions of the payloads that nobody has read."""
        return [position for position, _ in self._kept]

    def refuse(self, owner: str) -> None:
        """Another run holds the token (a fact)."""
        self._owner = owner
        for waiter in self._take_waiters():
            waiter.set_exception(self._taken())

    def _hand_over(self, payload: tuple[int, Any], *, first: bool) -> None:
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
