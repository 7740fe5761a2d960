"""The PostgreSQL store: its connections, and who works on what; `reading` is what else it is asked.

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

import msgspec

from holdfast.clock import Clock
from holdfast.errors import RunNotFound, StoreError
from holdfast.events import Event
from holdfast.queues import Queue
from holdfast.store.group import Item
from holdfast.store.messages import Append, Listener
from holdfast.store.migrate import load_migrations
from holdfast.store.queued import QueueRow, Taken, Waiting
from holdfast.store.removal import Removal
from holdfast.store.rows import (
    AccessToken,
    Child,
    Claim,
    Hook,
    ScheduleRow,
    TakenUp,
    WorkerRow,
)
from holdfast.store.scheduled import swap, to_schedule

from . import ownership
from .appends import Audience, GroupWriter
from .clock import ServerClock
from .connect import FOR_WRITING, SQL, Connection, Line, prepare_writing
from .follow import Since, since
from .hearing import Hearing
from .logs import PAGE
from .lookups import to_child, to_worker
from .presence import Sessions, prepare_watch
from .queues import put_back, take, to_waiting
from .reading import PostgresReads
from .removal import remove
from .schema import prepare
from .streams import Request
from .takeup import MOST, Part, Receiver, ends, receivers, take_up
from .text import escape, unescape
from .together import Together


class PostgresStore(PostgresReads):
    """A store in a PostgreSQL database. Get one with `open_store("postgresql://…")`."""

    def __init__(self, url: str, clock: Clock | None = None) -> None:
        super().__init__(url, clock)
        self._enlisted: set[str] = set()
        self._every = False
        self._logs = Together(self._ask_logs, MOST)
        self._since = Together(self._ask_since, MOST)
        self._ends = Together(self._ask_ends, MOST)
        self._receivers = Together(self._ask_receivers, MOST)
        self._committer: asyncio.Task[None] | None = None
        self._writing: Line
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

    # ---- what is read to be written upon

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


def local_folder(identity: str) -> Path:
    """Where workers of this store on this machine find each other (`worker/presence.py`)."""
    name = blake2b(identity.encode(), digest_size=8).hexdigest()
    return Path(tempfile.gettempdir()) / f"holdfast-{os.getuid()}" / name
