"""Streams in SQLite: one write inside a group's transaction, and the reads.

Judged on what is looked up in that transaction; there is nothing to remember from one write to the next.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import apsw

from holdfast.chunks import Chunk
from holdfast.errors import HoldfastError
from holdfast.events import dump_json, load_json
from holdfast.store.streams import Found, StreamHead, Verdict, Write, Written, first_page, judge_write

from .connect import SQL


def put_chunks(db: apsw.Connection, write: Write, now: int) -> Written | HoldfastError:
    """Look up, judge, write."""
    run, found = _find(db, write)
    verdict = judge_write(write, found, now)
    if verdict.head is not None:
        _write(db, run, write, verdict)
    return verdict.answer


def _find(db: apsw.Connection, write: Write) -> tuple[int, Found]:
    row = _first(db, "stream_run", write.run)
    if row is None:
        return 0, Found(False)
    run, ended = row
    found = Found(True, bool(ended), read_head(db, write.run, write.name))
    if write.author is not None:
        found.open = _first(db, "author", write.author.run, write.author.step)
    if found.stream is not None:
        stream = found.stream.row
        found.batch = _first(db, "chunk_batch", stream, write.batch)
        keys = [(stream, part.key) for part in write.parts if part.key is not None]
        if keys:
            there: list[Any] = db.executemany(SQL["chunk_key"], keys).fetchall()
            found.keys = dict(there)
    return run, found


def _write(db: apsw.Connection, run: int, write: Write, verdict: Verdict) -> None:
    head, chunks = verdict.head, verdict.chunks
    assert head is not None
    values = (
        head.position, head.size, head.time, head.ended, head.chain, head.step, head.attempt,
        dump_json(head.attempts).decode(),
    )  # fmt: skip
    stream = head.row
    if stream:
        db.execute(SQL["advance_stream"], (stream, *values)).fetchall()
    else:
        made: list[Any] = db.execute(SQL["create_stream"], (run, head.name, *values)).fetchall()
        stream = made[0][0]
    rows: list[tuple[Any, ...]] = [
        (stream, c.position, c.kind, c.body, c.time, c.step, c.attempt, c.key, None, None) for c in chunks
    ]
    rows[-1] = (*rows[-1][:-2], write.batch, chunks[0].position)
    db.executemany(SQL["add_chunk"], rows).fetchall()


def read_head(db: apsw.Connection, run: str, name: str) -> StreamHead | None:
    """A stream's row, or None."""
    row = _first(db, "stream", run, name)
    return None if row is None else to_stream(row)


def to_stream(row: Sequence[Any]) -> StreamHead:
    """A row of `streams`, in the order of the queries."""
    head = StreamHead(*row)
    head.attempts = {} if row[9] == "{}" else load_json(row[9].encode())
    return head


def _first(db: apsw.Connection, query: str, *values: Any) -> Any:
    rows = db.execute(SQL[query], values).fetchall()
    return rows[0] if rows else None


def read_chunks(db: apsw.Connection, run: str, name: str, after: int, limit: int) -> list[Chunk]:
    """A page of a stream; rows beyond it are not fetched."""
    cursor: Any = db.execute(SQL["read_stream"], (run, name, after, limit))
    try:
        return first_page(Chunk(*row) for row in cursor)
    finally:
        cursor.close()
