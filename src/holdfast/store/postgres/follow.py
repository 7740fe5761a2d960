"""How a process keeps up with runs that it remembers, with no more than the new events.

What others append to a run (payloads, cancel requests, outcomes of queued steps) is read alone, and what is
remembered moves on by it, if the hashes that come with it say that it follows on just that log. So the next append
is judged from memory again. A payload that this very process has sent is not even read.

Rejected: events that travel with the news. Whoever may connect to the database hears what is notified there, also
those who may not read our tables.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

from holdfast.events import Event
from holdfast.store.effects import EFFECTS, Effects
from holdfast.store.messages import Append
from holdfast.store.rules import copy_of, extend_chain

from .connect import SQL, Connection
from .known import Known
from .lookups import to_event

Since = list[tuple[Any, ...]]
"""Rows of one run: position, type, key, time, body, and the hash of the log where an append ends."""
_FOLLOWED = frozenset({
    "hook_received", "cancel_requested", "woken", "step_started", "step_retried", "step_completed", "step_failed",
})  # fmt: skip
"""What others may append while a worker has the run; after anything else, all that is open is read again."""
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


def follow(known: Known, rows: Since) -> list[Event] | None:
    """Move on what is remembered of a run; None, and nothing done, where these do not follow on it."""
    head, events = copy_of(known.head), []
    effects = Effects(_NOBODY, known.found(), head)
    appended: list[tuple[int, str, str, int, bytes]] = []
    for *row, chain in rows:
        event = to_event(head.run, row)
        if event.type not in _FOLLOWED or event.position != head.position + 1:
            return None
        events.append(event)
        head.position, head.time = event.position, event.time
        if event.cls == "fact":
            head.fact = event.position
        if event.type.startswith("step_"):
            EFFECTS[event.type](effects, event.data, event.key)
        appended.append((event.position, event.type, event.key, event.time, event.body))
        if chain is not None:
            head.chain = extend_chain(head.chain, appended)
            appended.clear()
            if head.chain != chain:
                return None
    if appended:
        return None
    known.apply(head, effects.changes)
    return events


_NOBODY = Append("", [], None, "", lambda _: None)


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
