"""The PostgreSQL store: its connections, and its reads.

A process has two connections: one writes groups, the other reads, settles who works on what, and hears what
others did. A worker has a third one, by which it learns of deaths (`presence.py`). Each is made again when it is
lost; what was under way is sent again, and is done once (law L12).
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec

from holdfast.chunks import Chunk
from holdfast.clock import Clock
from holdfast.errors import RunNotFound, StoreError
from holdfast.events import Event
from holdfast.queues import Queue
from holdfast.store.gauge import MOST as MOST_GAUGED
from holdfast.store.gauge import STATES, Gauge, WorkerLoad, oldest_of
from holdfast.store.group import GroupStore, Item
from holdfast.store.messages import Append, Listener
from holdfast.store.migrate import load_migrations
from holdfast.store.queries import listing
from holdfast.store.queued import QueueRow, Taken, Waiting
from holdfast.store.removal import Removal
from holdfast.store.rows import (
    ALL,
    AccessToken,
    Child,
    Claim,
    Head,
    Hook,
    Link,
    OpenStep,
    RunFilter,
    ScheduleRow,
    TakenUp,
    Timer,
    WorkerRow,
)
from holdfast.store.scheduled import swap, to_schedule
from holdfast.store.streams import PAGE_BYTES, PAGE_CHUNKS, StreamHead, first_page

from . import logs, ownership
from .appends import FOR_WRITING, Audience, GroupWriter
from .clock import ServerClock
from .connect import SQL, Connection, Line, prepare_writing
from .follow import Since, since
from .hearing import Hearing
from .logs import PAGE
from .lookups import to_child, to_head, to_hook, to_worker
from .presence import Sessions, prepare_watch
from .queues import put_back, take, to_waiting
from .removal import remove
from .schema import prepare
from .streams import Request, to_chunk, to_stream
from .takeup import MOST, Part, Receiver, ends, receivers, take_up
from .text import escape, escape_some, unescape, unescape_some
from .together import Together
from .writes import attribute_items

_LATEST = (1 << 63) - 1
_MOST = (1 << 31) - 1


class PostgresStore(GroupStore):
    """A store in a PostgreSQL database. Get one with `open_store("postgresql://…")`."""

    def __init__(self, url: str, clock: Clock | None = None) -> None:
        super().__init__(url, clock or ServerClock())
        self.where = shown(url)
        self._enlisted: set[str] = set()
        self._every = False
        self._heads = Together(self._ask_heads, MOST)
        self._logs = Together(self._ask_logs, MOST)
        self._since = Together(self._ask_since, MOST)
        self._ends = Together(self._ask_ends, MOST)
        self._receivers = Together(self._ask_receivers, MOST)
        self._committer: asyncio.Task[None] | None = None
        self._writing: Line
        self._reading: Line
        self._hearing: Hearing
        self._sessions: Sessions
        self._writer: GroupWriter

    async def open(self) -> None:
        """Connect; make the schema in an empty database. Raises StoreError, StoreBroken, SchemaUnknown."""
        self._writing = Line(self.url, self.where, settings=FOR_WRITING, prepare=prepare_writing)
        self._hearing = Hearing(self.tell, lambda pid: pid == self._writing.pid)
        self._reading = Line(self.url, self.where, prepare=self._prepare_reading)
        self._sessions = Sessions(self._reading, lambda: Line(self.url, self.where, prepare=prepare_watch))
        self._hearing.joined = self._sessions.joined
        try:
            await self._reading.connect()
            await self._reading.run(self._prepare)
        except BaseException:
            await self._reading.close()
            raise
        self._writer = GroupWriter(self._writing, self.where, self.clock, self._audience)
        self.opened()
        self._hearing.stay(self._reading)
        if self._every:
            self._hearing.want_every()

    def _audience(self) -> Audience:
        return Audience(tuple(self._enlisted), self._hearing.every_wanted)

    async def _prepare_reading(self, db: Connection) -> None:
        await self._hearing.prepare(db)
        await self._sessions.prepare(db)

    async def _prepare(self, db: Connection) -> None:
        await self._set_clock(db)
        every, now = load_migrations("postgres"), self.clock.now()
        self.upgraded = await prepare(db, every, self.where, now, upgrade=self.upgrade) or self.upgraded
        self.presence_folder = local_folder((await db.fetch(SQL["identity"]))[0][0])

    async def _set_clock(self, db: Connection) -> None:
        if isinstance(self.clock, ServerClock):
            sent = self.clock.instant()
            self.clock.learn(await db.fetchval(SQL["now"]), sent, self.clock.instant())

    async def close(self) -> None:
        """Finish what was submitted, then disconnect."""
        if self._loop is None:
            return
        try:
            await self.drain()
        finally:
            for part in (self._hearing, self._sessions, self._writing, self._reading):
                await part.close()

    # ---- writing

    def start_commit(self, group: Sequence[Item]) -> None:
        """Commit a group in a task; the next one gathers meanwhile."""
        assert self._loop is not None
        self._committer = self._loop.create_task(self._commit(group))

    async def _commit(self, group: Sequence[Item]) -> None:
        try:
            outcome: Any = await self._writer.commit([_request(item) for item in group])
        except Exception as error:  # noqa: BLE001 - whatever failed the commit is every writer's answer
            outcome = error
        except BaseException:
            self.finish_commit(group, StoreError(f"{self.where} was closed before this was answered"))
            raise
        self.finish_commit(group, outcome)

    # ---- being told

    def listen(self, listener: Listener, *, every: bool = False) -> Callable[[], None]:
        """Call `listener` with the news of each commit, also of other processes."""
        self._every |= every
        if every and not self._closed:
            self._hearing.want_every()
        return super().listen(listener, every=every)

    # ---- reading

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

    async def take_up(self, run_id: str) -> TakenUp:
        """The log and what is open, as of one moment: what is written next rests on it."""
        events, after = list[Event](), 0
        while (part := await self._logs.get((run_id, after))) is not None:
            events += part.found.events
            if part.whole:
                self._writer.remember(part.known)
                return TakenUp(events, part.found.steps, part.found.children)
            after = events[-1].position
        return TakenUp(events, [], [])

    async def catch_up(self, run_id: str, after: int) -> list[Event]:
        """The events beyond `after`; what is written next rests on them."""
        sent = self._writer.sent(run_id, after)
        if sent:
            return sent
        row = self._writer.remembered(run_id, after)
        if row is not None:
            new = self._writer.follow(run_id, after, await self._since.get((row, after)))
            if new is not None:
                return new
        part = await self._logs.get((run_id, after))
        if part is None or not part.whole:
            return await self.read(run_id, after)
        self._writer.remember(part.known)
        return part.found.events

    async def _ask_logs(self, runs: Sequence[tuple[str, int]]) -> dict[tuple[str, int], Part]:
        self._check_open()
        return await self._reading.run(lambda db: take_up(db, runs, PAGE))

    async def _ask_since(self, runs: Sequence[tuple[int, int]]) -> dict[tuple[int, int], Since]:
        self._check_open()
        return await self._reading.run(lambda db: since(db, runs, PAGE))

    async def end_of(self, run_id: str) -> Event | None:
        """The event that ended a run, or None."""
        found = await self._ends.get(run_id)
        if found is None:
            raise RunNotFound(f"no run {run_id!r} in {self.url}")
        return found[0]

    async def _ask_ends(self, runs: Sequence[str]) -> dict[str, tuple[Event | None]]:
        self._check_open()
        return await self._reading.run(lambda db: ends(db, runs))

    async def receiver(self, token: str) -> Hook | None:
        """The open hook that gets the payloads of a token; what is delivered next rests on it."""
        found = await self._receivers.get(token)
        if found is None:
            return None
        self._writer.remember_receiver(found)
        return found.hook

    async def _ask_receivers(self, tokens: Sequence[str]) -> dict[str, Receiver]:
        self._check_open()
        return await self._reading.run(lambda db: receivers(db, tokens))

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

    async def strays(self) -> list[str]:
        """Rows that belong to no run: only an edit by hand leaves such."""
        return [f"{count} rows of {table}" for table, count in await self._list("strays")]

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

    # ---- who works on what

    async def enlist(self, worker: WorkerRow) -> None:
        """Add a worker, or move its lease on."""
        await ownership.enlist(self._reading, worker, known=worker.id in self._enlisted)
        self._enlisted.add(worker.id)

    async def workers(self) -> list[WorkerRow]:
        """All workers that have not left."""
        return [to_worker(*row) for row in await self._query("workers")]

    async def attend(self, worker: str) -> None:
        """Be present by this store's session at the server."""
        await self._sessions.attend(worker)

    async def next_death(self, worker: str) -> str:
        """Wait for the death of another worker."""
        return await self._sessions.next_death(worker)

    async def discharge(self, worker: str) -> None:
        """Free the runs of a worker that is gone."""
        await ownership.discharge(self._reading, worker)

    async def claim(
        self, worker: str, workflows: Sequence[str], *, limit: int = 100, parked: bool = False
    ) -> list[Claim]:
        """Give the worker free runs that are ready; where there are none, a read is all it costs."""
        return await ownership.claim(self._reading, worker, workflows, limit, parked=parked)

    async def release(self, worker: str, marks: Mapping[str, int]) -> None:
        """Free these runs again."""
        await ownership.release(self._reading, worker, marks)

    async def park(self, run_id: str, reason: str | None) -> None:
        """Set a run aside, or take it up again."""
        await ownership.park(self._reading, run_id, reason)

    async def crashed(self, run_id: str) -> int:
        """Count one more crash of a tick."""
        return await ownership.crashed(self._reading, run_id)

    async def work_waits(self, worker: str) -> bool:
        """Whether there may be something to do for this worker, by one statement."""
        [(found,)] = await self._query("anything_to_do", escape(worker))
        return bool(found)

    async def owned(self, worker: str) -> list[Claim]:
        """The live runs that are this worker's."""
        rows = await self._query("owned", escape(worker))
        return [
            Claim(unescape(run), unescape(workflow), due, ready, crashes)
            for run, workflow, due, ready, crashes in rows
        ]

    async def behind(self, worker: str) -> list[tuple[str, int]]:
        """This worker's runs with facts beyond the delivered mark."""
        return [(unescape(run), fact) for run, fact in await self._query("behind", escape(worker))]

    async def ended_children(self, worker: str) -> list[Child]:
        """The children of this worker's runs that have ended."""
        return [to_child(row) for row in await self._query("ended_children", escape(worker))]

    async def orphans(self, limit: int = 100) -> list[Child]:
        """Children whose parent has ended."""
        return [to_child(row) for row in await self._query("orphans", limit)]

    async def bury_orphan(self, run_id: str, key: str) -> None:
        """An orphan has been seen to."""
        await self._query("bury_orphan", escape(run_id), escape(key))

    # ---- queues

    async def take_steps(
        self, worker: str, queues: Sequence[Queue], steps: Sequence[str], room: int
    ) -> Taken:
        """Give the worker steps that wait in these queues; where none does, a read is all it costs."""
        [(first,)] = await self._query("any_waiting", [escape(queue.name) for queue in queues])
        now = self.clock.now()
        if first is None or first > now:
            return Taken(again=first)
        return await take(self._reading, worker, queues, steps, room, now)

    async def held_steps(self, worker: str) -> list[Waiting]:
        """The queued steps that are this worker's."""
        return [to_waiting(row) for row in await self._query("held", escape(worker))]

    async def put_back(self, worker: str, steps: Sequence[tuple[str, str]]) -> None:
        """Give up steps that were taken and not begun."""
        await put_back(self._reading, worker, steps)

    async def queues(self) -> list[QueueRow]:
        """The queues in which steps wait or run."""
        rows = await self._query("queues")
        return [QueueRow(unescape(name), waiting, running, oldest) for name, waiting, running, oldest in rows]

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

    # ---- schedules

    async def schedules(self) -> list[ScheduleRow]:
        """The schedules, by workflow."""
        return [to_schedule(row) for row in await self._query("schedules")]

    async def swap_schedule(self, was: ScheduleRow | None, now: ScheduleRow | None) -> bool:
        """Put one row in the place of another."""
        statement = swap(was, now)
        return statement is not None and bool(await self._query(statement[0], *statement[1]))

    # ---- removing

    async def remove(self, runs: Sequence[str], ended_before: int, *, dry: bool = False) -> Removal:
        """Remove runs that ended before a time; only their own rows are locked."""
        return await remove(self._reading, runs, ended_before, dry=dry)

    # ---- who may call a server

    async def tokens(self) -> list[AccessToken]:
        """The tokens that callers of a server may have."""
        return [AccessToken(*row) for row in await self._query("tokens")]

    async def put_token(self, token: AccessToken) -> None:
        """Keep a token's hash."""
        await self._query("put_token", *msgspec.structs.astuple(token))

    async def drop_token(self, token: str) -> bool:
        """Forget a token."""
        return bool(await self._query("drop_token", token))


def _request(item: Item) -> Request:
    if isinstance(item, Append):
        return item
    assert item.write is not None, "who works on what has statements of its own here"
    return item.write


def shown(url: str) -> str:
    """The URL as messages show it: without its password, and without parameters that may hold one."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    user = parts.username
    return f"{parts.scheme}://{user + '@' if user else ''}{host}{parts.path}"


def local_folder(identity: str) -> Path:
    """Where workers of this store on this machine find each other (`worker/presence.py`)."""
    name = blake2b(identity.encode(), digest_size=8).hexdigest()
    return Path(tempfile.gettempdir()) / f"holdfast-{os.getuid()}" / name
