"""What a store keeps of a stream, and what it answers to a write: pure data and one pure function.

A stream is an append-only sequence of chunks beside its run's log: it uses no position of the log, fences
nobody and wakes no decider. What `judge_write` guarantees:

- *Dense.* Positions are 1, 2, 3 … within (run, stream), given inside the commit.
- *Once by key.* A chunk whose key the stream holds is *already there*: this is answered first, before the run's
  end, the end mark and the attempt are looked at, as for facts (law L3). The first one stands, whatever the
  second says: a step that is tried again may word it otherwise, and readers have seen the first.
- *Once by batch.* A write whose answer was lost is sent again under the same batch id (law L12).
- *No ghosts.* A write in the name of a step's attempt is accepted while that attempt is the one that owes the
  outcome. An attempt that was given up (lost its worker, ran into its time-out) and still writes is refused
  with `StepEnded`: so the chunks of an attempt never follow those of a later one.
- *An end is the end*: of the run, and of the stream. With one exception: an end mark that was set by an
  attempt which did not live to see its step's outcome does not bind the next attempt of that step. It writes on
  behind the mark, and a mark with something behind it ends nothing.

It rests on this: a backend looks up what `Found` names, judges and writes in one transaction.

Rejected: streams as events of the log (replay would read every token that a model ever wrote, and each chunk
would move the fence's horizon); positions given by the writer (two writers of one stream).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b

import msgspec

from holdfast.chunks import Chunk, Part
from holdfast.errors import HoldfastError, PayloadError, RunEnded, RunNotFound, StepEnded, StreamEnded

PAGE_CHUNKS, PAGE_BYTES = 1000, 1 << 20
"""What one read gives at most: so many chunks, and so many bytes, but one chunk however large."""


class Author(msgspec.Struct, frozen=True, gc=False):
    """The step attempt in whose name something is written."""

    run: str
    step: str
    attempt: int


class Write(msgspec.Struct):
    """Chunks for one stream, all or nothing. `limit` bounds the bytes that the stream may have in all."""

    run: str
    name: str
    parts: Sequence[Part]
    batch: str
    author: Author | None = None
    limit: int | None = None


class Written(msgspec.Struct, frozen=True):
    """The answer to a write: first and last position of what is new in it (0, 0 where nothing is).

    `duplicates` are the positions of the chunks whose keys were there already; for an end mark, where the
    stream had ended.
    """

    first: int
    last: int
    duplicates: list[int] = []


class StreamHead(msgspec.Struct):
    """A stream's row: what its chunks come to.

    `ended` is the position of the end mark if that is its last entry, else 0. `attempts` holds, of the steps
    that were tried again, the latest attempt that wrote here. `chain` is the hash over all entries.
    """

    run: str
    name: str
    position: int = 0
    size: int = 0
    time: int = 0
    ended: int = 0
    chain: bytes = b""
    step: str = ""
    attempt: int = 0
    attempts: dict[str, int] = {}
    row: int = 0

    def superseded(self, chunk: Chunk) -> bool:
        """Whether a later attempt of the chunk's step has written since; one with a key is every attempt's."""
        return chunk.key is None and chunk.attempt < self.attempts.get(chunk.step, 0)


class Found(msgspec.Struct):
    """What the backend looked up for one write.

    `run` is whether the stream's run exists, `ended` whether it has ended. `open` is (attempt, due) of the
    author's step, if it owes an outcome. `keys` are those of the parts' keys that the stream holds, with their
    positions; `batch` is (first, last) where this batch is there already.
    """

    run: bool
    ended: bool = False
    stream: StreamHead | None = None
    open: tuple[int, int | None] | None = None
    keys: Mapping[str, int] = {}
    batch: tuple[int, int] | None = None


class Verdict(msgspec.Struct):
    """What to write (nothing, where there are no chunks), and the answer. `head` is as it is to be."""

    answer: Written | HoldfastError
    chunks: list[Chunk] = []
    head: StreamHead | None = None


def judge_write(write: Write, found: Found, now: int) -> Verdict:
    """Say what a write comes to. `now` is the store's clock in microseconds."""
    if not found.run:
        return Verdict(RunNotFound(f"no run {write.run!r} in this store"))
    head = found.stream or StreamHead(write.run, write.name)
    new, duplicates = _sorted_out(write.parts, head, found)
    if found.batch is not None:
        first, last = found.batch
        return Verdict(Written(first, last, [p for p in duplicates if not first <= p <= last]))
    if not new:
        return Verdict(Written(0, 0, duplicates))
    refused = _refusal(write, head, found) or _too_large(write, head, new)
    if refused is not None:
        return Verdict(refused)
    time = max(now, head.time)
    step, attempt = _named(write)
    chunks = [
        Chunk(position, part.kind, part.body, time, step, attempt, part.key)
        for position, part in enumerate(new, head.position + 1)
    ]
    return Verdict(Written(chunks[0].position, chunks[-1].position, duplicates), chunks, _grown(head, chunks))


def _sorted_out(parts: Sequence[Part], head: StreamHead, found: Found) -> tuple[list[Part], list[int]]:
    """The parts that are not there yet, and the positions of the others."""
    new: list[Part] = []
    duplicates: list[int] = []
    keys = dict(found.keys)
    for part in parts:
        if part.key is not None and part.key in keys:
            duplicates.append(keys[part.key])
            continue
        if part.kind == "end" and head.ended and not new:
            duplicates.append(head.ended)
            continue
        new.append(part)
        if part.key is not None:
            keys[part.key] = head.position + len(new)
    return new, duplicates


def _refusal(write: Write, head: StreamHead, found: Found) -> HoldfastError | None:
    author = write.author
    if found.ended:
        return RunEnded(f"run {write.run!r} has ended: its stream {write.name!r} takes no more chunks")
    if author is not None and (found.open is None or found.open != (author.attempt, None)):
        return StepEnded(
            f"{author.run}: attempt {author.attempt} of {author.step} is over, it cannot write to "
            f"stream {write.name!r} any more"
        )
    if any(part.kind == "end" for part in write.parts[:-1]):
        return StreamEnded(f"stream {write.name!r} of run {write.run!r}: nothing can follow the end mark")
    if head.ended:
        step, attempt = _named(write)
        if not (step and step == head.step and attempt > head.attempt):
            return StreamEnded(
                f"stream {write.name!r} of run {write.run!r} was ended"
                + (f" by {head.step}" if head.step else "")
                + ": write before its end, or to another stream"
            )
    return None


def _too_large(write: Write, head: StreamHead, new: Sequence[Part]) -> PayloadError | None:
    size = head.size + sum(len(part.body) for part in new)
    if write.limit is None or size <= write.limit:
        return None
    return PayloadError(
        f"stream {write.name!r} of run {write.run!r} would have {size:,} bytes, over the limit of "
        f"{write.limit:,}: begin another stream, or raise stream_limit"
    )


def _named(write: Write) -> tuple[str, int]:
    author = write.author
    if author is None:
        return "", 0
    return (author.step if author.run == write.run else f"{author.run}/{author.step}"), author.attempt


def _grown(head: StreamHead, chunks: Sequence[Chunk]) -> StreamHead:
    last = chunks[-1]
    attempts = head.attempts
    if last.attempt > max(1, attempts.get(last.step, 0)):
        attempts = {**attempts, last.step: last.attempt}
    return StreamHead(
        head.run,
        head.name,
        last.position,
        head.size + sum(len(chunk.body) for chunk in chunks),
        last.time,
        last.position if last.kind == "end" else 0,
        extend_chain(head.chain, chunks),
        last.step,
        last.attempt,
        attempts,
        head.row,
    )


def extend_chain(chain: bytes, chunks: Iterable[Chunk]) -> bytes:
    """The hash over a stream up to and with these chunks: each one's over the one before (as law L13)."""
    for c in chunks:
        digest = blake2b(chain, digest_size=16)
        digest.update(f"{c.position}\0{c.kind}\0{c.time}\0{c.step}\0{c.attempt}\0{c.key}\0".encode())
        digest.update(c.body)
        chain = digest.digest()
    return chain


def first_page(chunks: Iterable[Chunk]) -> list[Chunk]:
    """As many of these chunks as one read gives."""
    page: list[Chunk] = []
    size = 0
    for chunk in chunks:
        size += len(chunk.body)
        if page and size > PAGE_BYTES:
            break
        page.append(chunk)
    return page
