"""Events and drafts on their way: arrays, for they come by the thousand, with their bodies as JSON text."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from holdfast.codec import MAX_DEPTH, check_depth
from holdfast.errors import PayloadError
from holdfast.events import Draft, Event, load_json, new

_MOST = 2 * MAX_DEPTH
"""Levels that the body of an event may have: those of a payload, and what is around it."""


class EventRow(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """An event of the log that the message is about: position, type, key, time (µs since 1970), body."""

    position: int
    type: str
    key: str
    time: int
    body: str


class DraftRow(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """An event on its way: type, key, body (the JSON text of its data), and `at` of an early fact."""

    type: str
    key: str
    body: str
    at: int | None = None


def event_rows(events: Iterable[Event]) -> list[EventRow]:
    """Events as they travel."""
    return [EventRow(e.position, e.type, e.key, e.time, e.body.decode()) for e in events]


def events_of(run: str, rows: Iterable[EventRow]) -> list[Event]:
    """The reverse."""
    return [Event(run, row.position, row.type, row.key, row.time, row.body.encode()) for row in rows]


def draft_of(row: DraftRow) -> Draft:
    """The draft that was sent, with the very body. Raises PayloadError."""
    try:
        body = row.body.encode()
        data = load_json(body)
    except (ValueError, RecursionError) as error:
        raise PayloadError(f"{row.type} {row.key}: its body is no JSON: {error}") from None
    if not isinstance(data, dict) or b"\n" in body:
        raise PayloadError(f"{row.type} {row.key}: expected a JSON object on one line as its body")
    check_depth(body, f"{row.type} {row.key}", _MOST)
    draft = new(row.type, key=row.key, data=data, at=row.at)
    draft.body = body
    return draft
