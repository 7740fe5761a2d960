"""Streams: what a group writes to them, in one statement that also locks the rows of their runs.

As with appends there are two ways to judge a write. *Fast*: from what this process remembers of the run and of
its streams (`Known.streams`), which says who may write and where a stream ends; the statement writes to a stream
only if the hash of the run's log is still the remembered one, and so is that of the stream's chunks. *Slow*,
where memory does not do, where chunks have keys, and where an attempt of another run writes: inside the group's
transaction. The rows of the streams' runs, and of the runs in whose attempts' names they are written, are locked
there already, in the same look-up as the runs of the group's appends, and hold the verdicts on those. Either way
of a stream's writers one goes at a time, and no attempt's outcome slips between the look at it and its chunk.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from holdfast import faults
from holdfast.chunks import Chunk
from holdfast.clock import Clock
from holdfast.errors import HoldfastError
from holdfast.events import dump_json, load_json
from holdfast.store.messages import Append
from holdfast.store.streams import Found, StreamHead, Verdict, Write, Written, judge_write

from .clock import ServerClock
from .connect import SQL, Connection, kind_of
from .known import Known, View
from .text import escape, escape_some, unescape, unescape_some
from .writes import transposed

Request = Append | Write
"""What a group is made of."""
Place = tuple[int, int]
"""A stream, by the numbers of its run and of itself."""
Name = tuple[str, str]
"""A stream, by its run's id and its own name."""


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

    def __init__(self) -> None:
        self._keys: dict[Place, dict[str, int]] = {}
        self._batches: dict[Place, dict[str, tuple[int, int]]] = {}
        self._runs: dict[str, Known] = {}
        self._before: dict[Name, bytes] = {}
        self._chunks: list[tuple[Any, ...]] = []
        self._bodies: list[bytes] = []
        self._size = 0

    @property
    def names(self) -> set[Name]:
        """The streams to which something is to be written."""
        return set(self._before)

    async def look(self, db: Connection, writes: Sequence[Write], view: View) -> None:
        """Look up what judging these writes needs."""
        runs = {write.run: view.runs[write.run].known for write in writes if write.run in view.runs}
        for known in runs.values():
            known.streams = {}
        for row in await db.fetch(SQL["streams_of"], [known.head.row for known in runs.values()]):
            head = to_stream(row)
            streams = runs[head.run].streams
            assert streams is not None
            streams[head.name] = head
        keys, batches = [], []
        for write in writes:
            there = (runs[write.run].streams or {}).get(write.name) if write.run in runs else None
            if there is not None:
                place = (runs[write.run].head.row, there.row)
                batches.append((*place, escape(write.batch)))
                keys += [(*place, escape(part.key)) for part in write.parts if part.key is not None]
        if keys:
            for run, stream, key, position in await db.fetch(SQL["chunk_keys"], *zip(*keys, strict=True)):
                self._keys.setdefault((run, stream), {})[unescape(key)] = position
        if batches:
            found = await db.fetch(SQL["chunk_batches"], *zip(*batches, strict=True))
            for run, stream, batch, first, last in found:
                self._batches.setdefault((run, stream), {})[unescape(batch)] = (first, last)

    def judge_from_memory(self, write: Write, known: Known | None, now: int) -> Written | None:
        """Judge a write, and keep what comes of it, where what is remembered says that it is plainly accepted."""
        author = write.author
        if known is None or known.streams is None or any(part.key is not None for part in write.parts):
            return None
        if author is not None and author.run != write.run:
            return None
        found = Found(True, stream=known.streams.get(write.name))
        if author is not None:
            found.open = known.steps.get(author.step)
        verdict = judge_write(write, found, now)
        if verdict.head is None or not isinstance(verdict.answer, Written) or verdict.answer.duplicates:
            return None
        self._keep(write, verdict, known)
        return verdict.answer

    def judge(self, write: Write, view: View, now: int) -> Written | HoldfastError:
        """Judge a write on what was looked up, and keep what comes of it."""
        looked = view.runs.get(write.run)
        found = Found(looked is not None)
        if looked is not None:
            known = looked.known
            assert known.streams is not None
            found.ended = known.head.ended is not None
            head = found.stream = known.streams.get(write.name)
            if head is not None:
                place = (known.head.row, head.row)
                found.keys = self._keys.get(place, {})
                found.batch = self._batches.get(place, {}).get(write.batch)
        author = write.author
        if author is not None and author.run in view.runs:
            found.open = view.runs[author.run].known.steps.get(author.step)
        verdict = judge_write(write, found, now)
        if verdict.head is not None:
            assert looked is not None
            self._keep(write, verdict, looked.known)
        return verdict.answer

    def _keep(self, write: Write, verdict: Verdict, known: Known) -> None:
        head, chunks, run = verdict.head, verdict.chunks, known.head.row
        assert head is not None
        assert known.streams is not None
        before = known.streams.get(write.name)
        if not head.row:
            head.row = len(known.streams) + 1
        known.streams[write.name] = head
        self._runs[write.run] = known
        self._before.setdefault((write.run, write.name), b"" if before is None else before.chain)
        place = (run, head.row)
        self._keys.setdefault(place, {}).update((c.key, c.position) for c in chunks if c.key is not None)
        self._batches.setdefault(place, {})[write.batch] = (chunks[0].position, chunks[-1].position)
        for chunk in chunks:
            self._add(place, chunk)
        self._chunks[-1] = (*self._chunks[-1][:-2], escape(write.batch), chunks[0].position)

    def _add(self, place: Place, c: Chunk) -> None:
        start, size = self._size + 1, len(c.body)
        self._size += size
        self._bodies.append(c.body)
        self._chunks.append(
            (
                *place,
                c.position,
                c.kind,
                start,
                size,
                c.time,
                escape(c.step),
                c.attempt,
                escape_some(c.key),
                None,
                None,
            )
        )

    async def write(self, db: Connection, clock: ServerClock | None, now: int = 0) -> set[Name]:
        """Write what came of all writes; the streams that were those that were judged.

        `now` is the time that was judged by, where it is the estimate of a `clock`.
        """
        if not self._chunks:
            return set()
        runs = sorted((escape(run), known.head.row, known.head.chain) for run, known in self._runs.items())
        streams = []
        for (run, name), before in self._before.items():
            known = self._runs[run]
            assert known.streams is not None
            h = known.streams[name]
            streams.append((
                known.head.row, escape(name), h.row, h.position, h.size, h.time, h.ended, h.chain, escape(h.step),
                h.attempt, dump_json(h.attempts).decode(), before,
            ))  # fmt: skip
        sent = ServerClock.instant()
        rows = await db.fetch(
            SQL["write_streams"], *transposed(runs, 3)[1:], None if clock is None else now,
            *transposed(streams, 12), b"".join(self._bodies), *transposed(self._chunks, 12),
        )  # fmt: skip
        if rows and clock is not None:
            clock.learn(rows[0][2], sent, clock.instant())
        return {(unescape(run), unescape(name)) for run, name, *_ in rows}


async def write_quickly(
    db: Connection,
    group: Sequence[Request],
    remembered: dict[str, Known],
    clock: Clock,
    answers: dict[int, Any],
) -> list[Request]:
    """Write to streams what can be judged from memory; the writes that are left over."""
    streams, quick, slow = Streams(), list[tuple[Write, Written]](), list[Request]()
    slow_runs: set[str] = set()
    now = clock.now()
    for request in group:
        assert isinstance(request, Write)
        answer = None
        if request.run not in slow_runs:
            answer = streams.judge_from_memory(request, remembered.get(request.run), now)
        if answer is None:
            slow.append(request)
            slow_runs.add(request.run)
        else:
            quick.append((request, answer))
    if not quick:
        return slow
    faults.point("store.commit.before")
    try:
        accepted = await streams.write(db, clock if isinstance(clock, ServerClock) else None, now)
    except Exception as error:
        if kind_of(error) != "final":
            raise
        accepted = set()  # an index refused one of them: each gets its own answer
    for request, answer in quick:
        if (request.run, request.name) in accepted:
            answers[id(request)] = answer
        else:
            remembered.pop(request.run, None)
    return [request for request in group if id(request) not in answers]
