"""The SQLite store: where its writes run, and its reads.

A small group is committed on the loop's own thread: handing it over costs a quarter of a single commit. What would
hold the loop up goes to the writer thread, and the next group gathers meanwhile: a crowd's groups, a lock that
another process holds, a slow disk, and appends of many events. Of a crowd's work that costs a sixth, for two
threads that compute take the interpreter's lock from each other; but with a thousand runs at once a timer of the
process is late by 0.3 ms (99th percentile 14 ms), where it was late by 90 (150) with the groups on the loop.

Reads have a connection of their own on the loop's thread; long ones let the loop go on between pages.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any, TypeVar

import apsw
import msgspec

from holdfast import faults
from holdfast.chunks import Chunk
from holdfast.clock import Clock
from holdfast.errors import HoldfastError, StoreError
from holdfast.events import ENDS, Event, dump_json
from holdfast.queues import Queue
from holdfast.store.gauge import MOST, STATES, TAIL, Gauge, WorkerLoad, oldest_of
from holdfast.store.group import Answers, GroupStore, Item
from holdfast.store.messages import Append, Listener, News
from holdfast.store.peers import Peers
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
    Timer,
    WorkerRow,
)
from holdfast.store.scheduled import swap, to_schedule
from holdfast.store.streams import PAGE_CHUNKS, StreamHead, Write, Written

from . import ownership
from .appends import GroupWriter
from .checkpoints import Checkpoints
from .connect import SQL, close, connect, path_of, translate, wait_for_lock
from .lookups import to_child, to_head, to_hook, to_worker
from .queues import put_back, put_back_all, take
from .removal import remove
from .streams import put_chunks, read_chunks, to_stream
from .thread import WriterThread

T = TypeVar("T")
PAGE = 2000
"""Events that are read before the loop gets a turn (about 1 ms)."""
SLOW = 0.002
"""Seconds: where the disk takes longer than this for a commit on average, commits leave the loop's thread."""
FEW = 16
"""Writes: a group of more than these is no work for the loop's thread."""
CROWD = 1000
"""Events: nor is one that has more of these."""
_LATEST = (1 << 63) - 1
_LAGS = (("oldest", ()), ("free", (MOST,)), ("undelivered", (MOST,)))


class SqliteStore(GroupStore):
    """A store in one file. Get one with `open_store("sqlite:///app.db")`."""

    def __init__(self, url: str, clock: Clock | None = None) -> None:
        super().__init__(url, clock)
        self.path = path_of(url)
        self._writer: GroupWriter | None = None
        self._reader: apsw.Connection | None = None
        self._thread: WriterThread | None = None
        self._checkpoints = Checkpoints(self.path)
        self._pace = 0.0
        self._waits = True
        self._enlisted: set[str] = set()
        self._every = False
        self._peers = Peers(self.path)
        self.presence_folder = self._peers.folder
        self._version = 0
        self._versions: dict[str, int] = {}  # of the file, when each of our workers looked last
        self._seen = self._steps = 0  # the last event that was looked at for `gauge`, and outcomes up to it

    async def open(self) -> None:
        """Open the file; create it, its folder and its tables where they are missing."""
        thread = WriterThread(f"holdfast-writer {self.path}")
        try:
            writer, self._reader = await thread.run(lambda: connect(self.path, self.clock.now()))
        except BaseException:
            thread.stop()
            raise
        self._thread = thread
        self._writer = GroupWriter(writer, self.path, self.clock)
        self._waits = True
        self.opened()
        if self._listeners:
            self._peers.listen(asyncio.get_running_loop(), self.tell, every=self._every)

    async def close(self) -> None:
        """Finish what was submitted, then close the file."""
        try:
            await self.drain()
        finally:
            self._peers.close()
            thread, writer, reader = self._thread, self._writer, self._reader
            self._thread = self._writer = self._reader = None
            await self._checkpoints.close()
            if thread is not None and writer is not None and reader is not None:
                # In the thread, behind what it has to do: the last one to close moves the WAL's content.
                await thread.run(lambda: close([writer.db, reader]))
                thread.stop()

    # ---- where writes run

    def start_commit(self, group: Sequence[Item]) -> None:
        """Commit a group: here, or in the thread where that would hold up the loop."""
        heavy = _is_heavy(group)
        if self._pace < SLOW and not heavy and len(group) <= FEW:
            try:
                outcome = self._timed_commit(group, wait=False)
            except apsw.BusyError:
                pass  # another process is writing: wait for it elsewhere
            except Exception as error:  # noqa: BLE001 - whatever failed the commit is the writer's answer
                self.finish_commit(group, self._failure(error))
                return
            else:
                self.finish_commit(group, outcome)
                return
        assert self._thread is not None
        if heavy:
            self._checkpoints.begin()
        self._thread.hand_over(
            lambda: self._heavy_commit(group) if heavy else self.guarded_commit(group),
            lambda outcome: self.finish_commit(group, outcome),  # type: ignore[arg-type]
        )

    def _heavy_commit(self, group: Sequence[Item]) -> tuple[Answers, list[News]] | Exception:
        assert self._writer is not None
        with self._checkpoints.aside(self._writer.db):
            return self.guarded_commit(group)

    def commit_group(self, group: Sequence[Item]) -> tuple[Answers, list[News]]:
        """Judge and write a group in one transaction, waiting for other processes."""
        try:
            return self._timed_commit(group, wait=True)
        except Exception as error:
            raise self._failure(error) from error

    def _timed_commit(self, group: Sequence[Item], *, wait: bool) -> tuple[Answers, list[News]]:
        assert self._writer is not None
        if wait is not self._waits:
            wait_for_lock(self._writer.db, wait)
            self._waits = wait
        outcome = self._writer.commit(group)
        self._pace += 0.1 * (self._writer.sync - self._pace)
        return outcome

    def _failure(self, error: Exception) -> Exception:
        return translate(error, self.path) if isinstance(error, apsw.Error) else error

    # ---- being told, and telling others

    def listen(self, listener: Listener, *, every: bool = False) -> Callable[[], None]:
        """Call `listener` with the news of each commit, also of other processes."""
        self._every |= every
        if self._loop is not None and not self._closed:
            self._peers.listen(self._loop, self.tell, every=self._every)
        return super().listen(listener, every=every)

    def tell_others(self, news: Sequence[News]) -> None:
        """Send what other processes can use; a run that one of our workers owns and drives is ours alone."""
        self._peers.send(filter(self._concerns_others, news), news)

    def _concerns_others(self, item: News) -> bool:
        free = item.ready and item.owner not in self._enlisted
        return item.fact or item.ended or free or item.stream is not None or item.queue is not None

    # ---- reading

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

    def _query(self, name: str, values: Any) -> list[Any]:
        if self._reader is None:
            raise StoreError(f"{self.url} is not open: use it inside `async with`")
        try:
            return self._reader.execute(SQL[name], values).fetchall()
        except apsw.Error as error:
            raise translate(error, self.path) from error

    # ---- streams

    def put_chunks(self, write: Write) -> Written | HoldfastError:
        """Judge and write chunks of a stream, inside the group's transaction."""
        return put_chunks(self._db, write, self.clock.now())

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

    # ---- who works on what

    async def enlist(self, worker: WorkerRow) -> None:
        """Add a worker, or move its lease on."""
        known = worker.id in self._enlisted
        await self.job(lambda: ownership.enlist(self._db, worker, known=known))
        self._enlisted.add(worker.id)

    async def workers(self) -> list[WorkerRow]:
        """All workers that have not left."""
        return [to_worker(*row) for row in self._query("workers", ())]

    async def discharge(self, worker: str) -> None:
        """Free the runs of a worker that is gone."""

        def work() -> list[News]:
            return ownership.discharge(self._db, worker) + put_back_all(self._db, worker)

        self.announce(await self.job(work))

    async def claim(
        self, worker: str, workflows: Sequence[str], *, limit: int = 100, parked: bool = False
    ) -> list[Claim]:
        """Give the worker free runs that are ready; where there are none, a read is all it costs."""
        names = dump_json(list(workflows)).decode()
        if not parked and self._query("any_free", (worker, names))[0] == (1, 0):
            return []
        return await self.job(lambda: ownership.claim(self._db, worker, workflows, limit, parked=parked))

    async def release(self, worker: str, marks: Mapping[str, int]) -> None:
        """Free these runs again."""
        self.announce(await self.job(lambda: ownership.release(self._db, worker, marks)))

    async def park(self, run_id: str, reason: str | None) -> None:
        """Set a run aside, or take it up again."""
        self.announce(await self.job(lambda: ownership.park(self._db, run_id, reason)))

    async def crashed(self, run_id: str) -> int:
        """Count one more crash of a tick."""
        return await self.job(lambda: ownership.crashed(self._db, run_id))

    async def owned(self, worker: str) -> list[Claim]:
        """The live runs that are this worker's."""
        rows = self._query("owned", (worker,))
        return [
            Claim(run, workflow, due, bool(ready), crashes) for run, workflow, ready, due, crashes in rows
        ]

    async def behind(self, worker: str) -> list[tuple[str, int]]:
        """This worker's runs with facts beyond the delivered mark."""
        return [(run, fact) for run, fact in self._query("behind", (worker,))]

    async def ended_children(self, worker: str) -> list[Child]:
        """The children of this worker's runs that have ended."""
        return [to_child(row) for row in self._query("ended_children", (worker,))]

    async def orphans(self, limit: int = 100) -> list[Child]:
        """Children whose parent has ended."""
        return [to_child(row) for row in self._query("orphans", (limit,))]

    async def bury_orphan(self, run_id: str, key: str) -> None:
        """An orphan has been seen to."""
        await self.job(lambda: ownership.bury_orphan(self._db, run_id, key))

    # ---- queues

    async def take_steps(
        self, worker: str, queues: Sequence[Queue], steps: Sequence[str], room: int
    ) -> Taken:
        """Give the worker steps that wait in these queues; where none does, a read is all it costs."""
        names = dump_json([queue.name for queue in queues]).decode()
        [(first,)] = self._query("any_waiting", (names,))
        if first is None or first > self.clock.now():
            return Taken(again=first)
        return await self.job(lambda: take(self._db, worker, queues, steps, room, self.clock.now()))

    async def held_steps(self, worker: str) -> list[Waiting]:
        """The queued steps that are this worker's."""
        return [Waiting(*row) for row in self._query("held", (worker,))]

    async def put_back(self, worker: str, steps: Sequence[tuple[str, str]]) -> None:
        """Give up steps that were taken and not begun."""
        self.announce(await self.job(lambda: put_back(self._db, worker, steps)))

    async def queues(self) -> list[QueueRow]:
        """The queues in which steps wait or run."""
        return [QueueRow(*row) for row in self._query("queues", ())]

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

    # ---- schedules

    async def schedules(self) -> list[ScheduleRow]:
        """The schedules, by workflow."""
        return [to_schedule(row) for row in self._query("schedules", ())]

    async def swap_schedule(self, was: ScheduleRow | None, now: ScheduleRow | None) -> bool:
        """Put one row in the place of another."""
        statement = swap(was, now)
        if statement is None:
            return False
        name, values = statement
        return bool(await self.job(lambda: self._db.execute(SQL[name], values).fetchall()))

    # ---- removing

    async def remove(self, runs: Sequence[str], ended_before: int, *, dry: bool = False) -> Removal:
        """Remove runs that ended before a time; in the thread, for it takes longer than a commit."""
        removal = await self.job(lambda: remove(self._db, runs, ended_before, dry=dry), heavy=True)
        faults.point("prune.commit.after")
        return removal

    async def changed(self) -> bool:
        """Whether anything was committed since this was last asked, by whomever (2 µs)."""
        before, self._version = self._version, self._query("data_version", ())[0][0]
        return before != self._version

    async def work_waits(self, worker: str) -> bool:
        """Whether there may be something to do for this worker, by one statement (10 µs)."""
        before = self._versions.get(worker, 0)
        [(self._versions[worker], found)] = self._query("anything_to_do", (worker, before))
        return bool(found)

    # ---- who may call a server

    async def tokens(self) -> list[AccessToken]:
        """The tokens that callers of a server may have."""
        return [AccessToken(*row) for row in self._query("tokens", ())]

    async def put_token(self, token: AccessToken) -> None:
        """Keep a token's hash."""
        values = msgspec.structs.astuple(token)
        await self.job(lambda: self._db.execute(SQL["put_token"], values).fetchall())

    async def drop_token(self, token: str) -> bool:
        """Forget a token."""
        return bool(await self.job(lambda: self._db.execute(SQL["drop_token"], (token,)).fetchall()))

    @property
    def _db(self) -> apsw.Connection:
        assert self._writer is not None, "a job runs while the store is open"
        return self._writer.db


def _is_heavy(group: Sequence[Item]) -> bool:
    events = 0
    for item in group:
        if type(item) is Append:
            events += len(item.drafts)
        elif item.heavy:  # type: ignore[union-attr] # a job: nothing else is submitted
            return True
    return events > CROWD
