"""The streams of one store, as a process uses them: readers that follow the tail, writers that do not wait.

What a reader guarantees: each chunk beyond `after` once, in order, and only when it is durable. It rests on
reading from the store alone; news only say when to read again, and a slow look (`_LOOK_AGAIN`) stands behind
them. A store that does not answer for a while is asked again, from the same position. A reader takes a page at a
time and holds nothing else, so a slow one costs nobody anything.

What a writer guarantees: its chunks are stored in the order in which they were written, once, or `flush` says
why not. One write to the store is under way at a time, and what comes meanwhile forms the next one; so a fast
writer makes few commits, and a single chunk waits for nothing. An answer that is lost is asked for again under
the same batch id (law L12). `write` waits while more than `buffer` bytes are not acknowledged: a writer is held
back by the disk, never by its readers.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from functools import partial
from typing import Any, TypeVar

from .chunks import END, Chunk, Part, part_of
from .codec import DEFAULT_LIMIT
from .errors import KeyMissing, PayloadError, RunNotFound, SchemaUnknown, StepEnded, StoreBroken, StoreError
from .ids import BatchIds
from .store.base import Store
from .store.messages import News
from .store.streams import PAGE_BYTES, PAGE_CHUNKS, Author, StreamHead

T = TypeVar("T")
log = logging.getLogger("holdfast.worker")

BUFFER = 1 << 20
"""Bytes that one writer may have unacknowledged, unless the worker sets `stream_buffer`."""
LIMIT = 1 << 30
"""Bytes that one stream may have, unless the worker sets `stream_limit`."""

_LOOK_AGAIN = 5.0
"""Seconds after which a reader looks by itself, for a notice that was lost."""
_HOLD = 0.003
"""Seconds for which a writer that awaits nothing else gathers, before others, its own commit among them, get a
turn of the loop, unless it has more than one write takes. To commit the first 64 KiB alone cost a fifth more."""
_RETRY_FIRST, _RETRY_MOST, _GIVE_UP = 0.05, 2.0, 30.0
"""Seconds between questions that the store could not answer, and after which who asks is told."""
_ANSWERS = (StepEnded, KeyMissing, StoreBroken, SchemaUnknown)
"""Errors of the store that asking again does not change."""


class Streams:
    """Readers and writers of one store's streams."""

    def __init__(
        self,
        store: Store,
        *,
        chunk_limit: int = DEFAULT_LIMIT,
        buffer: int = BUFFER,
        limit: int = LIMIT,
    ) -> None:
        self.store = store
        self.chunk_limit, self.buffer, self.limit = chunk_limit, buffer, limit
        self.batches = BatchIds()
        self._waiting: dict[tuple[str, str | None], set[asyncio.Event]] = {}  # None: for the run's end
        self._unlisten: Callable[[], None] = lambda: None

    # ---- reading

    async def read(
        self, run_id: str, name: str, after: int = 0, *, latest: bool = False
    ) -> AsyncIterator[Chunk]:
        """The chunks beyond `after`, as they come, until the stream or its run has ended.

        With `latest`, chunks that a later attempt of their step had superseded when they were read are left
        out. Raises RunNotFound.
        """
        ended, passed = False, after > 0  # an end mark may lie before, where we have not read ourselves
        with self._told_of(run_id, name) as news:
            while True:
                news.clear()
                page = await _answered(partial(self.store.read_stream, run_id, name, after))
                if page:
                    after, last, passed = page[-1].position, page[-1].kind, False
                    # Asked before the page is handed out: who copies a stream puts his own end mark into the
                    # write of its last chunks.
                    head = await self._head(run_id, name) if latest or last == "end" else None
                    for chunk in page:
                        if chunk.kind != "end" and not (
                            latest and head is not None and head.superseded(chunk)
                        ):
                            yield chunk
                    if head is not None and head.ended == after:
                        return
                elif ended or (passed and await self._end_lies_before(run_id, name, after)):
                    return
                elif await self._run_ended(run_id):
                    ended = True  # nothing is written from here on: what was, is found by one more look
                else:
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(_LOOK_AGAIN):
                            await news.wait()

    async def _end_lies_before(self, run_id: str, name: str, after: int) -> bool:
        head = await self._head(run_id, name)
        return head is not None and 0 < head.ended <= after

    async def _head(self, run_id: str, name: str) -> StreamHead | None:
        return await _answered(lambda: self.store.stream(run_id, name))

    async def _run_ended(self, run_id: str) -> bool:
        head = await _answered(lambda: self.store.head(run_id))
        if head is None:
            raise RunNotFound(f"no run {run_id!r} in {self.store.url}")
        return head.ended is not None

    @contextlib.contextmanager
    def _told_of(self, run_id: str, name: str) -> Iterator[asyncio.Event]:
        """An event that is set when the stream has grown, or its run has ended."""
        news = asyncio.Event()
        if not self._waiting:
            self._unlisten = self.store.listen(self._hear)
        places = ((run_id, name), (run_id, None))
        for place in places:
            self._waiting.setdefault(place, set()).add(news)
        try:
            yield news
        finally:
            for place in places:
                self._waiting[place].discard(news)
                if not self._waiting[place]:
                    del self._waiting[place]
            if not self._waiting:
                self._unlisten()

    def _hear(self, news: Sequence[News]) -> None:
        for item in news:
            if item.stream is not None or item.ended:
                for event in self._waiting.get((item.run, item.stream), ()):
                    event.set()


class StreamReader:
    """What `run.stream(name)` gives: iterate over it for its chunks, or take it whole.

    Example:
        async for chunk in run.stream("answer", after=seen):
            print(chunk.data, end="", flush=True)
            seen = chunk.position
    """

    def __init__(self, streams: Streams, run_id: str, name: str, after: int, *, latest: bool) -> None:
        self.run_id, self.name, self.after, self.latest = run_id, name, after, latest
        self._streams = streams

    def __repr__(self) -> str:
        return f"<stream {self.name} of run {self.run_id}>"

    def __aiter__(self) -> AsyncIterator[Chunk]:
        return self._streams.read(self.run_id, self.name, self.after, latest=self.latest)

    async def text(self) -> str:
        """All of it, joined, once it has ended. Raises PayloadError for a chunk that is not text."""
        return "".join([chunk.data async for chunk in self._only("text")])

    async def bytes(self) -> bytes:
        """The same for bytes."""
        return b"".join([chunk.body async for chunk in self._only("bytes")])

    async def _only(self, kind: str) -> AsyncIterator[Chunk]:
        async for chunk in self:
            if chunk.kind != kind:
                raise PayloadError(f"{self!r}: expected {kind}, chunk {chunk.position} is {chunk.kind}")
            yield chunk


class Writer:
    """One attempt's writer of one stream."""

    def __init__(self, streams: Streams, run_id: str, name: str, author: Author | None) -> None:
        self._streams = streams
        self._run_id, self._name, self._author = run_id, name, author
        self._where = f"a chunk of stream {name!r}"
        self._parts: deque[Part] = deque()
        self._unsent = self._unacknowledged = 0
        self._loop = asyncio.get_running_loop()
        self._began = 0.0
        self._failed: BaseException | None = None
        self._task: asyncio.Task[None] | None = None
        self._settled: asyncio.Event = asyncio.Event()

    async def write(self, data: object, key: str | None) -> None:
        """Append a chunk; waits while too much is unacknowledged. Raises what an earlier write came to."""
        part = part_of(data, key, self._streams.chunk_limit, self._where)
        await self._put(part, len(part.body))

    async def end(self) -> None:
        """Set the end mark; it and all before it are durable when this returns."""
        await self._put(END, 0)
        await self.flush()

    async def flush(self) -> None:
        """Wait until everything written is durable. Raises what went wrong."""
        while self._task is not None:
            await self._progress()
        self._check()

    async def _put(self, part: Part, size: int) -> None:
        while self._unacknowledged and self._unacknowledged + size > self._streams.buffer:
            await self._progress()
        self._check()
        now = self._loop.time()
        if not self._parts:
            self._began = now
        self._parts.append(part)
        self._unsent += size
        self._unacknowledged += size
        if self._task is None:
            self._task = self._loop.create_task(self._send())
        if self._unsent > PAGE_BYTES or now - self._began > _HOLD:
            await asyncio.sleep(0)

    async def _progress(self) -> None:
        self._settled.clear()
        await self._settled.wait()

    def _check(self) -> None:
        if self._failed is not None:
            raise self._failed

    async def _send(self) -> None:
        """Send what has gathered, until nothing is left; a failure ends the writer."""
        try:
            while self._parts:
                parts, size = self._gathered()
                await self._sent(parts)
                self._unacknowledged -= size
                self._settled.set()
        except BaseException as error:
            self._failed = error
            self._parts.clear()
            self._unsent = self._unacknowledged = 0
            if not isinstance(error, Exception):
                raise
        finally:
            self._task = None
            self._settled.set()

    def _gathered(self) -> tuple[list[Part], int]:
        parts: list[Part] = []
        size = 0
        while self._parts and len(parts) < PAGE_CHUNKS:
            following = len(self._parts[0].body)
            if parts and size + following > PAGE_BYTES:
                break
            parts.append(self._parts.popleft())
            size += following
        self._unsent -= size
        return parts, size

    async def _sent(self, parts: Sequence[Part]) -> None:
        """One write, sent under one batch id until it is answered."""
        streams, run_id, name = self._streams, self._run_id, self._name
        options: dict[str, Any] = {
            "author": self._author,
            "batch": streams.batches.next(),
            "limit": streams.limit,
        }
        await _answered(lambda: streams.store.write_stream(run_id, name, parts, **options))


async def _answered(ask: Callable[[], Awaitable[T]]) -> T:
    """Ask the store until it answers, or has not for half a minute: its errors that mean *try again* are tried."""
    delay, waited = _RETRY_FIRST, 0.0
    while True:
        try:
            return await ask()
        except StoreError as error:
            if isinstance(error, _ANSWERS) or waited >= _GIVE_UP:
                raise
            log.warning("a stream: the store did not answer, trying again: %s", error)
        await asyncio.sleep(delay)
        waited += delay
        delay = min(delay * 2, _RETRY_MOST)
