"""One run's log as the page needs it: what it means, its spans of time, and a line for each event.

A log only grows, so what was read stays read: the next look reads what came since. `Logs` keeps the runs that
were looked at last; a run of 10,000 events costs about two megabytes there, and is read once.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Sequence

import msgspec

from ...events import ENDS, Class, Event, RunState, fold
from ...phrases import clean
from ...store.base import Store
from ...trail.model import Trail
from ...trail.projection import RunTrail
from ...trail.retell import tell
from .spans import Spans

_PAGE = 1000
_KEPT = 16
_PREVIEW = 240
"""Bytes of an event's body that its line shows."""
_TOLD = 4000
"""Events whose trail is told on the page; beyond that, the command line makes it."""


class Line(msgspec.Struct, frozen=True, gc=False):
    """An event on one line: what a list of thousands needs."""

    position: int
    type: str
    key: str
    time: int
    cls: Class
    preview: str


class Part(msgspec.Struct, frozen=True):
    """One append: the positions that were committed together, their fence, and the hash of the log behind it.

    `after` is the view on which its commands rested; None for what rests on none.
    """

    first: int
    last: int
    after: int | None
    hash: str


class Log:
    """A run's log, as far as it was read. `spans` is its timeline."""

    def __init__(self, store: Store, run_id: str) -> None:
        self.run_id = run_id
        self.state = RunState(run_id)
        self.end: Event | None = None
        self.created: Event | None = None
        self.lines: list[Line] = []
        self.spans = Spans()
        self._store = store
        self._lock = asyncio.Lock()
        self._parts: tuple[int, list[Part]] = (0, [])
        self._trail: tuple[int, Trail | None] = (0, None)

    @property
    def position(self) -> int:
        """How far the log was read."""
        return len(self.lines)

    async def advance(self) -> None:
        """Read what was appended since the last look."""
        async with self._lock:
            while page := await self._store.read(self.run_id, self.position, _PAGE):
                fold(page, self.state)
                for event in page:
                    self._take(event)
                await asyncio.sleep(0)  # a long log leaves room for other requests

    def _take(self, event: Event) -> None:
        self.spans.feed(event)
        if event.type == "run_created":
            self.created = event
        if event.type in ENDS and self.end is None:
            self.end = event
        preview = "" if event.body == b"{}" else clean(event.body[:_PREVIEW].decode(errors="ignore"))
        self.lines.append(Line(event.position, event.type, event.key, event.time, event.cls, preview))

    async def events(self, first: int, count: int) -> Sequence[Event]:
        """Events with all that they hold, from a position on."""
        return await self._store.read(self.run_id, first - 1, count)

    async def parts(self) -> list[Part]:
        """The appends that made the log, in order (laws L2 and L13)."""
        if self._parts[0] != self.position:
            made, first = [], 1
            for last, chain, after in await self._store.chain(self.run_id):
                made.append(Part(first, last, after, chain.hex()))
                first = last + 1
            self._parts = (self.position, made)
        return self._parts[1]

    async def trail(self) -> Trail | None:
        """The run's trail, told from its log; None where the log is too long to tell it here."""
        if self.created is None or self.position > _TOLD:
            return None
        if self._trail[0] != self.position:
            at, teller = self.position, RunTrail(self.run_id)
            events = await self._store.read(self.run_id, 0, at)
            entries = [entry for event in events for entry in teller.feed(event)]
            self._trail = (at, tell(teller.id, entries))
        return self._trail[1]


class Logs:
    """The logs that were looked at last."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._kept: OrderedDict[str, Log] = OrderedDict()

    async def of(self, run_id: str) -> Log:
        """A run's log, read up to now."""
        log = self._kept.pop(run_id, None)
        if log is None or (log.end is not None and await self._removed(log)):
            log = Log(self._store, run_id)
        self._kept[run_id] = log
        while len(self._kept) > _KEPT:
            self._kept.popitem(last=False)
        await log.advance()
        return log

    async def _removed(self, log: Log) -> bool:
        """Whether this run was taken out of the store, as ended ones are; another may have its id by now."""
        head = await self._store.head(log.run_id)
        return head is None or head.created != log.spans.start
