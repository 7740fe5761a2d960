"""What a PostgreSQL store is asked about logs, their projections and streams.

Reads have the connection that is not for writing groups. What is read to be written upon (a run that is taken up,
say) is in `store.py`: the writer remembers it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from holdfast.chunks import Chunk
from holdfast.clock import Clock
from holdfast.errors import StoreError
from holdfast.events import Event
from holdfast.store.gauge import MOST as MOST_GAUGED
from holdfast.store.gauge import STATES, Gauge, WorkerLoad, oldest_of
from holdfast.store.group import GroupStore
from holdfast.store.queries import listing
from holdfast.store.rows import ALL, Child, Head, Hook, Link, OpenStep, RunFilter, Timer
from holdfast.store.streams import PAGE_BYTES, PAGE_CHUNKS, StreamHead, first_page

from . import logs
from .clock import ServerClock
from .connect import SQL, Connection, Line, shown
from .logs import PAGE
from .lookups import to_child, to_head, to_hook, to_worker
from .streams import to_chunk, to_stream
from .takeup import MOST
from .text import escape, escape_some, unescape, unescape_some
from .together import Together
from .writes import attribute_items

_LATEST = (1 << 63) - 1
_MOST = (1 << 31) - 1


class PostgresReads(GroupStore):
    """The half of a `PostgresStore` that only reads. Who opens the store puts the connection here."""

    def __init__(self, url: str, clock: Clock | None = None) -> None:
        super().__init__(url, clock or ServerClock())
        self.where = shown(url)
        self._heads = Together(self._ask_heads, MOST)
        self._reading: Line

    async def _query(self, name: str, *values: Any) -> list[Any]:
        self._check_open()
        return await self._reading.fetch(name, *values)

    async def _list(self, name: str, *values: Any) -> list[Any]:
        """A page of a table that may be large: planned for these values."""
        self._check_open()

        async def work(db: Connection) -> list[Any]:
            await db.execute(SQL["begin"])
            await db.fetch(SQL["plan_anew"])
            rows: list[Any] = await db.fetch(SQL[name], *values)
            await db.execute(SQL["commit"])
            return rows

        return await self._reading.run(work)

    def _check_open(self) -> None:
        if self._closed:
            raise StoreError(f"{self.where} is not open: use it inside `async with`")

    # ---- logs

    async def read(self, run_id: str, after: int = 0, limit: int | None = None) -> list[Event]:
        """The events beyond `after`, a prefix of what is there."""
        return await logs.read(self._query, run_id, after, _MOST if limit is None else limit)

    async def chain(self, run_id: str) -> list[Link]:
        """The appends of the run, in order."""
        links = list[Link]()
        while True:
            after = links[-1].last if links else 0
            rows = await self._query("chain", escape(run_id), after, PAGE)
            links += [Link(*row) for row in rows]
            if len(rows) < PAGE:
                return links

    async def head(self, run_id: str) -> Head | None:
        """The run's row, or None."""
        return await self._heads.get(run_id)

    async def _ask_heads(self, names: Sequence[str]) -> dict[str, Head]:
        rows = await self._query("heads", [escape(name) for name in names])
        return {head.run: head for head in map(to_head, rows)}

    # ---- projections

    async def runs(
        self, which: RunFilter = ALL, *, before: tuple[int, str] | None = None, limit: int = 100
    ) -> list[Head]:
        """A page of runs, newest first."""
        created, run = before or (_LATEST, "")
        wanted = attribute_items(dict(which.attributes)) if which.attributes else None
        rows = await self._list(
            listing(which), created, escape(run), wanted, which.parked, which.status, escape_some(which.workflow),
            escape_some(which.parent), escape_some(which.root), limit,
        )  # fmt: skip
        return [to_head(row) for row in rows]

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
        bounds = (escape(after_token), escape(after_run), open_only)
        if token is not None:
            rows = await self._query("list_hooks_by_token", *bounds, limit, escape(token), escape_some(run))
        elif run is not None:
            rows = await self._query("list_hooks_by_run", *bounds, limit, escape(run))
        else:
            rows = await self._list("list_hooks", *bounds, limit)
        if rows and len(rows) == limit:
            pair = tuple(rows[-1][:2])
            rows = [row for row in rows if tuple(row[:2]) != pair]
            rows += await self._query("list_hooks_by_token", *bounds, _MOST, *pair)
        return [to_hook(row) for row in rows]

    async def tally(self) -> dict[tuple[str, str], int]:
        """How many runs there are of each workflow and status; parked ones besides."""
        counted: dict[tuple[str, str], int] = {}
        for name, status, number, parked in await self._list("tally"):
            workflow = unescape(name)
            counted[workflow, status] = number
            if parked:
                counted[workflow, "parked"] = counted.get((workflow, "parked"), 0) + parked
        return counted

    async def timers(self, *, run: str | None = None, limit: int = 100) -> list[Timer]:
        """Pending timers, the earliest first."""
        if run is None:
            rows = await self._list("list_timers", limit)
        else:
            rows = await self._query("list_timers_by_run", limit, escape(run))
        return [Timer(unescape(name), unescape(key), due) for name, key, due in rows]

    async def open_steps(self, run_id: str) -> list[OpenStep]:
        """The steps of a run that still owe an outcome."""
        rows = await self._query("open_steps", escape(run_id))
        return [
            OpenStep(run_id, unescape(key), attempt, due, unescape_some(queue))
            for key, attempt, due, queue in rows
        ]

    async def children(self, run_id: str) -> list[Child]:
        """The child runs of which this run has not heard the end."""
        return [to_child(row) for row in await self._query("open_children", escape(run_id))]

    async def strays(self) -> list[str]:
        """Rows that belong to no run: only an edit by hand leaves such."""
        return [f"{count} rows of {table}" for table, count in await self._list("strays")]

    # ---- streams

    async def read_stream(
        self, run_id: str, name: str, after: int = 0, limit: int = PAGE_CHUNKS
    ) -> list[Chunk]:
        """A page of a stream beyond `after`."""
        rows = await self._query("read_stream", escape(run_id), escape(name), after, limit, PAGE_BYTES)
        return first_page(to_chunk(row) for row in rows)

    async def stream(self, run_id: str, name: str) -> StreamHead | None:
        """A stream's row, or None."""
        rows = await self._query("stream", escape(run_id), escape(name))
        return to_stream(rows[0]) if rows else None

    async def streams(self, run_id: str) -> list[StreamHead]:
        """The streams of a run."""
        return [to_stream(row) for row in await self._query("streams", escape(run_id))]

    # ---- all of it

    async def gauge(self, since: int) -> Gauge:
        """What the rows come to at this moment; what was added lately the server tells with a second's delay."""
        now = self.clock.now()
        [counts] = await self._list("gauge", MOST_GAUGED, since)
        [(events, steps)] = await self._list("gauge_counters")
        oldest, free, undelivered = [
            oldest_of((unescape(run), time) for run, time in rows)
            for rows in (
                await self._list("gauge_oldest"),
                await self._list("gauge_free", MOST_GAUGED),
                await self._list("gauge_undelivered", MOST_GAUGED),
            )
        ]
        workers = [
            WorkerLoad(to_worker(*row), runs, held)
            for *row, runs, held in await self._list("gauge_workers", MOST_GAUGED)
        ]
        runs = dict(zip(STATES, counts, strict=False))
        return Gauge(now, runs, counts[-1], events, steps, oldest, free, undelivered, workers)
