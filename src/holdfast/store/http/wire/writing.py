"""Appends to logs and writes to streams, one by one and in groups, and what they are answered."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from holdfast.chunks import Kind, Part
from holdfast.errors import InvalidAppend, StoreError
from holdfast.store.messages import Append, Appended
from holdfast.store.streams import Author, Write, Written

from .events import DraftRow, EventRow, draft_of, event_rows, events_of
from .problems import Problem, error_of


class AppendRow(msgspec.Struct, frozen=True, omit_defaults=True):
    """One append: see `Store.append`. With `token`, a payload for the run that has this hook open."""

    run: str
    drafts: list[DraftRow]
    batch: str
    after: int | None = None
    owner: str | None = None
    token: str | None = None


def append_row(request: Append) -> AppendRow:
    """An append as it travels."""
    drafts = [DraftRow(d.type, d.key, d.body.decode(), d.at) for d in request.drafts]
    return AppendRow(request.run, drafts, request.batch, request.after, request.owner, request.token)


def append_of(row: AppendRow, answer: Callable[[Appended | BaseException], None]) -> Append:
    """The reverse. Raises PayloadError and InvalidAppend."""
    if not row.drafts:
        raise InvalidAppend(f"an append to {row.run} without events says nothing")
    if row.token is not None and [draft.type for draft in row.drafts] != ["hook_received"]:
        raise InvalidAppend("an append to a token is one hook_received")
    drafts = [draft_of(draft) for draft in row.drafts]
    return Append(row.run, drafts, row.after, row.batch, answer, owner=row.owner, token=row.token)


class Taken(msgspec.Struct, omit_defaults=True):
    """An accepted append: see `holdfast.store.Appended`. `duplicate`: all of it was there already."""

    run: str
    first: int
    last: int
    missed: list[EventRow] = []
    duplicates: list[int] = []
    doubles: list[str] = []
    duplicate: bool = False


def taken_row(answer: Appended, run: str) -> Taken:
    """An answer as it travels."""
    return Taken(
        answer.run or run,
        answer.first,
        answer.last,
        event_rows(answer.missed),
        answer.duplicates,
        answer.doubles,
        duplicate=bool(answer.duplicates) and answer.first in answer.duplicates,
    )


class PartRow(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """A chunk on its way: kind, body (base64), key."""

    kind: Kind
    body: bytes = b""
    key: str | None = None


class WriteStream(msgspec.Struct, frozen=True, omit_defaults=True):
    """Chunks for one stream, all or nothing: see `Store.write_stream`."""

    run: str
    name: str
    parts: list[PartRow]
    batch: str
    author: Author | None = None
    limit: int | None = None


def write_row(write: Write) -> WriteStream:
    """Chunks as they travel."""
    parts = [PartRow(part.kind, part.body, part.key) for part in write.parts]
    return WriteStream(write.run, write.name, parts, write.batch, write.author, write.limit)


def parts_of(row: WriteStream) -> list[Part]:
    """The chunks that were sent."""
    return [Part(part.kind, part.body, part.key) for part in row.parts]


class Outcome(msgspec.Struct, omit_defaults=True):
    """What one item of a group came to: the status that it would have alone, and what it was answered."""

    status: int
    taken: Taken | None = None
    written: Written | None = None
    problem: Problem | None = None


class WriteGroup(msgspec.Struct, omit_defaults=True):
    """Appends to logs and to streams that are committed together; each has its own outcome."""

    appends: list[AppendRow] = []
    chunks: list[WriteStream] = []


class Outcomes(msgspec.Struct):
    """One outcome for each append, then one for each write of chunks, in order."""

    outcomes: list[Outcome]


def answer_of(outcome: Outcome) -> Appended | Written | BaseException:
    """What the store would have answered."""
    if outcome.written is not None:
        return outcome.written
    taken = outcome.taken
    if taken is not None:
        missed = events_of(taken.run, taken.missed)
        return Appended(taken.first, taken.last, missed, taken.duplicates, taken.run, taken.doubles)
    if outcome.problem is not None:
        return error_of(outcome.problem)
    return StoreError("the server answered with neither an outcome nor a problem")
