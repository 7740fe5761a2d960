"""How a process keeps up with runs that it remembers, with no more than the new events.

What others append to a run (payloads, cancel requests, outcomes of queued steps) is read alone, for many runs at
once, and what is remembered follows (`store/known.py`). A payload that this process has sent is not even read.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

from holdfast.events import Event

from .connect import SQL, Connection

Since = list[tuple[Any, ...]]
"""Rows of one run: position, type, key, time, body, and the hash of the log where an append ends."""
_KEPT = 100
"""Runs of which payloads are kept until their worker, which is in this process, asks for them."""


async def since(db: Connection, runs: Sequence[tuple[int, int]], page: int) -> dict[tuple[int, int], Since]:
    """Of each of these runs (by its row), what stands beyond a position; nothing at all where that is a page."""
    found: dict[tuple[int, int], Since] = {run: [] for run in runs}
    places = dict(runs)
    rows = await db.fetch(SQL["since"], [row for row, _ in runs], [after for _, after in runs], page)
    if len(rows) == page:
        return {}
    for run, *row in rows:
        found[run, places[run]].append(tuple(row))
    return found


class Sent:
    """Payloads that this process has sent to runs of its own worker, those of a run right behind each other."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, tuple[list[Event], bytes]] = OrderedDict()

    def keep(self, events: list[Event], chain: bytes) -> None:
        """Keep what was just committed, with the hash of the log up to it."""
        run, first = events[0].run, events[0].position
        before, _ = self._kept.pop(run, ([], b""))
        if before and before[-1].position == first - 1:
            events = before + events
        self._kept[run] = events, chain
        if len(self._kept) > _KEPT:
            self._kept.popitem(last=False)

    def take(self, run: str, after: int, chain: bytes | None) -> list[Event]:
        """What is kept beyond a position, if that is all up to this hash: a removed run's id may be used again."""
        events, kept = self._kept.pop(run, ([], b""))
        fits = events and kept == chain and events[0].position <= after + 1
        return events[after + 1 - events[0].position :] if fits else []
