"""Writes to the streams of the memory store."""

from __future__ import annotations

from holdfast.errors import HoldfastError
from holdfast.store.streams import Found, Write, Written, judge_write

from .data import Data, Stream


def put_chunks(data: Data, write: Write, now: int) -> Written | HoldfastError:
    """Judge and write chunks of a stream."""
    run = data.runs.get(write.run)
    stream = None if run is None else run.streams.get(write.name)
    found = Found(run is not None, run is not None and run.head.ended is not None)
    author = write.author
    if author is not None and author.run in data.runs:
        found.open = data.runs[author.run].steps.get(author.step)
    if stream is not None:
        found.stream, found.keys, found.batch = stream.head, stream.keys, stream.batches.get(write.batch)
    verdict = judge_write(write, found, now)
    if verdict.head is not None and run is not None:
        stream = run.streams.setdefault(write.name, Stream(verdict.head))
        stream.head = verdict.head
        stream.chunks += verdict.chunks
        stream.keys.update((c.key, c.position) for c in verdict.chunks if c.key is not None)
        stream.batches[write.batch] = (verdict.chunks[0].position, verdict.chunks[-1].position)
    return verdict.answer
