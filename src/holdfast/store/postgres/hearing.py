"""News of other processes: LISTEN, on the connection that also reads, made again as soon as it is lost.

The statement that writes a group carries its news, so they are told when it commits, all of a group together
(in parts, for PostgreSQL takes 8,000 bytes at once). What concerns a worker's own runs alone it keeps to itself,
unless somebody listens who wants every news: he says so on the same channel, when he begins, when a new listener
asks, and every ten seconds.

Nothing rests on news: each worker also looks for work slowly (law L14: what is ready is derived from the log).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Sequence

import msgspec

from holdfast.errors import HoldfastError
from holdfast.store.messages import SOME_QUEUE, News

from .connect import Connection, Line
from .text import escape, escape_some, unescape, unescape_some

log = logging.getLogger("holdfast.store")
CHANNEL = "holdfast"
EVERY, WHO, HERE = '"every"', '"who"', '"here"'
"""What listeners say: that they want every news, the question who does, and that a worker has come."""
_SAY_AGAIN = 10.0
"""Seconds after which a listener says again that it wants every news; not heard three times, it is gone."""
_PAUSE = 1.0
"""Seconds before a connection is tried again that could not be made."""


class _Row(msgspec.Struct, array_like=True):
    """News as they travel; what is not said of streams and queues is not there."""

    run: str
    owner: str | None
    fact: bool
    ended: bool
    ready: bool
    stream: str | None = None
    queue: str | None = None


_decode = msgspec.json.Decoder(list[_Row]).decode


def read_news(payload: str) -> list[News]:
    """The news of a notification; what is none (another version's, say) is left out."""
    try:
        items = _decode(payload)
    except msgspec.DecodeError:
        return []
    return [
        News(
            unescape(item.run),
            unescape_some(item.owner),
            item.fact,
            item.ended,
            item.ready,
            unescape_some(item.stream),
            unescape_some(item.queue),
        )
        for item in items
    ]


def as_payload(news: Sequence[News]) -> str:
    """A notification with these news."""
    rows = [
        _Row(
            escape(n.run),
            escape_some(n.owner),
            n.fact,
            n.ended,
            n.ready,
            escape_some(n.stream),
            escape_some(n.queue),
        )
        for n in news
    ]
    return msgspec.json.encode(rows).decode()


class Hearing:
    """What one store hears. `ours` says whether news come from its own writer: those are told already."""

    def __init__(self, tell: Callable[[Sequence[News]], None], ours: Callable[[int], bool]) -> None:
        self._tell = tell
        self._ours = ours
        self.joined: Callable[[], None] = lambda: None
        """Called when a worker has come."""
        self._every = False
        self._wanted_until = 0.0
        self._lost = asyncio.Event()
        self._speak = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @property
    def every_wanted(self) -> bool:
        """Whether somebody listens who wants every news."""
        return time.monotonic() < self._wanted_until

    def want_every(self) -> None:
        """Ask the others for every news from now on."""
        self._every = True
        self._speak.set()

    async def prepare(self, connection: Connection) -> None:
        """Listen on a connection that was just made."""
        connection.add_termination_listener(lambda _: self._lost.set())
        await connection.add_listener(CHANNEL, self._heard)

    def stay(self, line: Line) -> None:
        """See that this line is made again when it is lost, though nobody uses it."""
        self._task = asyncio.get_running_loop().create_task(self._stay(line))

    async def close(self) -> None:
        """Listen no more."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def _stay(self, line: Line) -> None:
        await self._say(line, WHO)
        while True:
            if self._lost.is_set():
                self._lost.clear()
                await self._connect(line)
            if self._every:
                await self._say(line, EVERY)
            self._speak.clear()
            waiting = [asyncio.ensure_future(event.wait()) for event in (self._lost, self._speak)]
            pause = _SAY_AGAIN if self._every else None
            try:
                await asyncio.wait(waiting, timeout=pause, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in waiting:
                    task.cancel()

    async def _connect(self, line: Line) -> None:
        while True:
            try:
                await line.connect()
            except HoldfastError as error:
                log.warning("%s; until then workers hear of each other's work by their slow poll", error)
                await asyncio.sleep(_PAUSE)
            else:
                break
        self._tell([News("", None, False, False, True), SOME_QUEUE])  # whatever was told meanwhile: look
        await self._say(line, WHO)

    async def _say(self, line: Line, word: str) -> None:
        with contextlib.suppress(HoldfastError):
            await line.fetch("say", word)

    def _heard(self, connection: Connection, pid: int, _channel: str, payload: str) -> None:
        if payload == EVERY:
            if pid != connection.get_server_pid():
                self._wanted_until = time.monotonic() + 3 * _SAY_AGAIN
        elif payload == WHO:
            if self._every:
                self._speak.set()
        elif payload == HERE:
            if pid != connection.get_server_pid():
                self.joined()
        elif not self._ours(pid):
            news = read_news(payload)
            if news:
                self._tell(news)
