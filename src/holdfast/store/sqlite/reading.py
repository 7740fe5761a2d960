"""What a SQLite store is asked about logs, their projections and streams.

Reads have a connection of their own on the loop's thread; long ones let the loop go on between pages.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import apsw

from holdfast.chunks import Chunk
from holdfast.clock import Clock
from holdfast.errors import StoreError
from holdfast.events import ENDS, Event, dump_json
from holdfast.store.gauge import MOST, STATES, TAIL, Gauge, WorkerLoad, oldest_of
from holdfast.store.group import GroupStore
from holdfast.store.queries import listing
from holdfast.store.rows import ALL, Child, Head, Hook, Link, OpenStep, RunFilter, Timer
from holdfast.store.streams import PAGE_CHUNKS, StreamHead

from .connect import SQL, path_of, translate
from .lookups import to_child, to_head, to_hook, to_worker
from .streams import read_chunks, to_stream

PAGE = 2000
"""Events that are read before the loop gets a turn (about 1 ms)."""
_LATEST = (1 << 63) - 1
_LAGS = (("oldest", ()), ("free", (MOST,)), ("undelivered", (MOST,)))


class SqliteReads(GroupStore):
    """The half of a `SqliteStore` that only reads. Who opens the store puts the connection here."""

    def __init__(self, url: str, clock: Clock | None = None) -> None:
        super().__init__(url, clock)
        self.path = path_of(url)
        self._reader: apsw.Connection | None = None
        self._version = 0
        self._seen = self._steps = 0  # the last event that was looked at for `gauge`, and outcomes up to it

    def _query(self, name: str, values: Any) -> list[Any]:
        if self._reader is None:
            raise StoreError(f"{self.url} is not open: use it inside `async with`")
        try:
            return self._reader.execute(SQL[name], values).fetchall()
        except apsw.Error as error:
            raise translate(error, self.path) from error

    # ---- logs

    async def read(self, run_id: str, after: int = 0, limit: int | None = None) -> list[Event]:
        """The events beyond `after`, a prefix of what is there."""
        events: list[Event] = []
        async for rows in self._pages("read", run_id, after, limit):
            events += [Event(run_id, *row) for row in rows]
        return events

    async def end_of(self, run_id: str) -> Event | None:
        """The event that ended a run, or None: one question, for everybody who waits asks it twice."""
        rows = self._query("tail", (run_id,))
        if rows and rows[0][0] is None:
            return None
        for row in rows:
            if row[2] in ENDS:
                return Event(run_id, *row[1:])
        return await super().end_of(run_id)  # there is none, or late outcomes have come after it

    async def chain(self, run_id: str) -> list[Link]:
        """The appends of the run, in order."""
        return [Link(*row) async for rows in self._pages("chain", run_id, 0, None) for row in rows]

    async def _pages(
        self, query: str, run_id: str, after: int, limit: int | None
    ) -> AsyncIterator[list[Any]]:
        """Rows that begin with a position, page by page."""
        left = _LATEST if limit is None else limit
        while left > 0:
            size = min(PAGE, left)
            rows = self._query(query, (run_id, after, size))
            yield rows
            if len(rows) < size:
                return
            after, left = rows[-1][0], left - size
            await asyncio.sleep(0)

    async def head(self, run_id: str) -> Head | None:
        """The run's row, or None."""
        rows = self._query("head", (run_id,))
        return to_head(rows[0]) if rows else None

    async def runs(
        self, which: RunFilter = ALL, *, before: tuple[int, str] | None = None, limit: int = 100
    ) -> list[Head]:
        """A page of runs, newest first."""
        created, run = before or (_LATEST, "")
        values = {
            "status": which.status,
            "workflow": which.workflow,
            "attributes": dump_json(dict(which.attributes)).decode() if which.attributes else None,
            "parked": which.parked,
            "parent": which.parent,
            "root": which.root,
            "created": created,
            "run": run,
            "limit": limit,
        }
        return [to_head(row) for row in self._query(listing(which), values)]

    async def hooks(
        self,
        *,
        run: str | None = None,
        token: str | None = None,
        open_only: bool = True,
        after: tuple[str, str] | None = None,
        limit: int = 100,
    ) -> list[Hook]:
        """A page of hooks by token and run; one that ends inside a pair holds the rest of it too."""
        after_token, after_run = after or ("", "")
        values = {
            "run": run,
            "token": token,
            "open_only": open_only,
            "after_token": after_token,
            "after_run": after_run,
            "limit": limit,
        }
        query = "list_hooks"
        if token is not None:
            query = "list_hooks_by_token"
        elif run is not None:
            query = "list_hooks_by_run"
        rows = self._query(query, values)
        if rows and len(rows) == limit:
            pair = rows[-1][:2]
            rest = dict(values, token=pair[0], run=pair[1], limit=-1)
            rows = [row for row in rows if row[:2] != pair]
            rows += self._query("list_hooks_by_token", rest)
        return [to_hook(row) for row in rows]

    async def receiver(self, token: str) -> Hook | None:
        """The open hook that gets the payloads of a token."""
        rows = self._query("receiver", (token,))
        return to_hook(rows[0]) if rows else None

    async def tally(self) -> dict[tuple[str, str], int]:
        """How many runs there are of each workflow and status; parked ones besides."""
        counted: dict[tuple[str, str], int] = {}
        for workflow, status, number, parked in self._query("tally", ()):
            counted[workflow, status] = number
            if parked:
                counted[workflow, "parked"] = counted.get((workflow, "parked"), 0) + parked
        return counted

    async def timers(self, *, run: str | None = None, limit: int = 100) -> list[Timer]:
        """Pending timers, the earliest first."""
        query = "list_timers" if run is None else "list_timers_by_run"
        return [Timer(*row) for row in self._query(query, {"run": run, "limit": limit})]

    async def open_steps(self, run_id: str) -> list[OpenStep]:
        """The steps of a run that still owe an outcome."""
        return [OpenStep(run_id, *row) for row in self._query("open_steps", (run_id,))]

    async def children(self, run_id: str) -> list[Child]:
        """The child runs of which this run has not heard the end."""
        return [to_child(row) for row in self._query("open_children", (run_id,))]

    async def strays(self) -> list[str]:
        """Rows that belong to no run: only an edit by hand leaves such."""
        return [f"{count} rows of {table}" for table, count in self._query("strays", ())]

    # ---- streams

    async def read_stream(
        self, run_id: str, name: str, after: int = 0, limit: int = PAGE_CHUNKS
    ) -> list[Chunk]:
        """A page of a stream beyond `after`."""
        if self._reader is None:
            raise StoreError(f"{self.url} is not open: use it inside `async with`")
        try:
            return read_chunks(self._reader, run_id, name, after, limit)
        except apsw.Error as error:
            raise translate(error, self.path) from error

    async def stream(self, run_id: str, name: str) -> StreamHead | None:
        """A stream's row, or None."""
        rows = self._query("stream", (run_id, name))
        return to_stream(rows[0]) if rows else None

    async def streams(self, run_id: str) -> list[StreamHead]:
        """The streams of a run."""
        return [to_stream(row) for row in self._query("streams", (run_id,))]

    # ---- the store as a whole

    async def gauge(self, since: int) -> Gauge:
        """What the rows come to at this moment (a quarter of a millisecond, and more where much has happened)."""
        now = self.clock.now()
        [counts] = self._query("gauge", (MOST, since))
        self._count_steps(counts[-1])
        oldest, free, undelivered = [oldest_of(self._query(f"gauge_{of}", limits)) for of, limits in _LAGS]
        workers = [
            WorkerLoad(to_worker(*row), runs, held)
            for *row, runs, held in self._query("gauge_workers", (MOST,))
        ]
        runs, (started, events) = dict(zip(STATES, counts, strict=False)), counts[-2:]
        return Gauge(now, runs, started, events, self._steps, oldest, free, undelivered, workers)

    def _count_steps(self, last: int) -> None:
        """Look through the events since the look before: this file counts none."""
        first = max(self._seen, last - TAIL)
        [(found,)] = self._query("gauge_steps", (first, last))
        if last > first:
            self._steps += round(found * (last - self._seen) / (last - first)) if self._seen else 0
        self._seen = last

    async def changed(self) -> bool:
        """Whether anything was committed since this was last asked, by whomever (2 µs)."""
        before, self._version = self._version, self._query("data_version", ())[0][0]
        return before != self._version
