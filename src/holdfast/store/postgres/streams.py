"""Streams: the writes of a group to them, together, inside the group's transaction.

The rows of their runs, and of the runs in whose attempts' names they are written, are locked already, in the
same look-up as the runs of the group's appends, and hold the verdicts on those. So of a stream's writers one
goes at a time, and no attempt's outcome slips between the look at it and its chunk.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from holdfast.chunks import Chunk
from holdfast.errors import HoldfastError
from holdfast.events import dump_json, load_json
from holdfast.store.streams import Found, StreamHead, Verdict, Write, Written, judge_write

from .connect import SQL, Connection
from .known import View
from .text import escape, escape_some, unescape, unescape_some

Place = tuple[int, int]
"""A stream, by the numbers of its run and of itself."""


def to_stream(row: Sequence[Any]) -> StreamHead:
    """A row of `streams`, in the order of the queries."""
    head = StreamHead(*row)
    head.run, head.name, head.step = unescape(head.run), unescape(head.name), unescape(head.step)
    head.attempts = load_json(row[9].encode())
    return head


def to_chunk(row: Sequence[Any]) -> Chunk:
    """A row of `chunks`, in the order of the queries."""
    position, kind, body, time, step, attempt, key = row
    return Chunk(position, kind, body, time, unescape(step), attempt, unescape_some(key))


class Streams:
    """The streams that a group writes to."""

    def __init__(self, view: View) -> None:
        self._view = view
        self._heads: dict[tuple[str, str], StreamHead] = {}
        self._count: dict[str, int] = {}
        self._keys: dict[Place, dict[str, int]] = {}
        self._batches: dict[Place, dict[str, tuple[int, int]]] = {}
        self._chunks: list[tuple[Any, ...]] = []
        self._grown: dict[tuple[str, str], StreamHead] = {}

    async def look(self, db: Connection, writes: Sequence[Write]) -> None:
        """Look up what judging these writes needs."""
        ids = {self._id(write.run) for write in writes if write.run in self._view.runs}
        for row in await db.fetch(SQL["streams_of"], list(ids)):
            head = to_stream(row)
            self._heads[head.run, head.name] = head
            self._count[head.run] = max(self._count.get(head.run, 0), head.row)
        keys, batches = [], []
        for write in writes:
            there = self._heads.get((write.run, write.name))
            if there is not None:
                place = (self._id(write.run), there.row)
                batches.append((*place, escape(write.batch)))
                keys += [(*place, escape(part.key)) for part in write.parts if part.key is not None]
        if keys:
            for run, stream, key, position in await db.fetch(SQL["chunk_keys"], *zip(*keys, strict=True)):
                self._keys.setdefault((run, stream), {})[unescape(key)] = position
        if batches:
            found = await db.fetch(SQL["chunk_batches"], *zip(*batches, strict=True))
            for run, stream, batch, first, last in found:
                self._batches.setdefault((run, stream), {})[unescape(batch)] = (first, last)

    def judge(self, write: Write, now: int) -> Written | HoldfastError:
        """Judge a write, and keep what comes of it."""
        looked = self._view.runs.get(write.run)
        found = Found(looked is not None)
        if looked is not None:
            found.ended = looked.known.head.ended is not None
            head = found.stream = self._heads.get((write.run, write.name))
            if head is not None:
                place = (looked.known.head.row, head.row)
                found.keys = self._keys.get(place, {})
                found.batch = self._batches.get(place, {}).get(write.batch)
        author = write.author
        if author is not None and author.run in self._view.runs:
            found.open = self._view.runs[author.run].known.steps.get(author.step)
        verdict = judge_write(write, found, now)
        if verdict.head is not None:
            self._keep(write, verdict)
        return verdict.answer

    def _keep(self, write: Write, verdict: Verdict) -> None:
        head, chunks, run = verdict.head, verdict.chunks, self._id(write.run)
        assert head is not None
        if not head.row:
            head.row = self._count[write.run] = self._count.get(write.run, 0) + 1
        self._heads[write.run, write.name] = self._grown[write.run, write.name] = head
        place = (run, head.row)
        self._keys.setdefault(place, {}).update((c.key, c.position) for c in chunks if c.key is not None)
        self._batches.setdefault(place, {})[write.batch] = (chunks[0].position, chunks[-1].position)
        rows: list[tuple[Any, ...]] = [
            (
                *place,
                c.position,
                c.kind,
                c.body,
                c.time,
                escape(c.step),
                c.attempt,
                escape_some(c.key),
                None,
                None,
            )
            for c in chunks
        ]
        rows[-1] = (*rows[-1][:-2], escape(write.batch), chunks[0].position)
        self._chunks += rows

    async def write(self, db: Connection) -> None:
        """Write what came of all writes."""
        if not self._grown:
            return
        heads = [
            (
                self._id(run), escape(name), h.row, h.position, h.size, h.time, h.ended, h.chain, escape(h.step),
                h.attempt, dump_json(h.attempts).decode(),
            )
            for (run, name), h in self._grown.items()
        ]  # fmt: skip
        names = [(escape(run), escape(name)) for run, name in self._grown]
        await db.fetch(SQL["put_streams"], *zip(*heads, strict=True))
        await db.fetch(SQL["add_chunks"], *zip(*self._chunks, strict=True), *zip(*names, strict=True))

    def _id(self, run: str) -> int:
        return self._view.runs[run].known.head.row
