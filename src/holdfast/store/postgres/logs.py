"""How logs are read: a page of events is one row, in which the server has joined each column of them.

Sent and taken apart event by event, a log costs this process twice as much. Texts are joined with a mark in
between; types and JSON never hold it, and where a key does (they are counted), the page is asked for again with
another mark. Numbers are joined too: as arrays they cost no less, and the first array of numbers on a connection
costs 7 ms, in which the driver asks the server what that is. Bodies that are large come by themselves, so that no
page is larger than the server can join.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from itertools import repeat
from typing import Any, TypeVar

from holdfast import ids
from holdfast.events import Event, load_json

from .text import escape, unescape

T = TypeVar("T")
Query = Callable[..., Awaitable[list[Any]]]
"""Asks a statement by its name and gives its rows."""
PAGE = 2000
"""Events in a page, at most."""


class _Marked(Exception):
    """A text holds the mark."""


async def with_mark(ask: Callable[[str], Awaitable[T]]) -> T:
    """What `ask` gives for a mark that no text holds."""
    mark = "\x01"
    while True:
        try:
            return await ask(mark)
        except _Marked:
            mark = ids.random_bytes(8).hex() + "\x01"


async def read(query: Query, run: str, after: int, most: int) -> list[Event]:
    """The events beyond a position, a prefix of what is there."""
    name, events = escape(run), list[Event]()

    async def go_on(mark: str) -> list[Event]:
        while True:
            beyond, size = events[-1].position if events else after, min(PAGE, most - len(events))
            [columns] = await query("read", name, beyond, size, mark)
            page = await to_events(query, run, columns, mark)
            events.extend(page)
            if len(page) < size or len(events) == most:
                return events

    return await with_mark(go_on)


async def to_events(query: Query, run: str, columns: Sequence[Any], mark: str) -> list[Event]:
    """A page of a log: positions, types, keys, times, bodies, each None where there are no events."""
    positions, types, keys, times, bodies = columns
    if positions is None:
        return []
    positions, times = load_json(f"[{positions}]".encode()), load_json(f"[{times}]".encode())
    type_of, key_of, body_of = types.split(mark), unescape(keys).split(mark), bodies.split(mark.encode())
    if not len(type_of) == len(key_of) == len(body_of) == len(positions):
        raise _Marked
    if b"" in body_of:
        large = [position for position, body in zip(positions, body_of, strict=True) if not body]
        found = {position: body.encode() for position, body in await query("bodies", escape(run), large)}
        body_of = [
            body or found.get(position, b"") for position, body in zip(positions, body_of, strict=True)
        ]
        if len(found) < len(large):  # the run has been removed meanwhile
            positions = positions[: positions.index(min(set(large) - set(found)))]
    return list(map(Event, repeat(run), positions, type_of, key_of, times, body_of))
