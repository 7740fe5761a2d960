"""The SQLite store: where its writes run, and who works on what; `reading` is what else it is asked.

A small group is committed on the loop's own thread: handing it over costs a quarter of a single commit. What would
hold the loop up goes to the writer thread, and the next group gathers meanwhile: a crowd's groups, a lock that
another process holds, a slow disk, and appends of many events. Of a crowd's work that costs a sixth, for two
threads that compute take the interpreter's lock from each other; but with a thousand runs at once a timer of the
process is late by 0.3 ms (99th percentile 14 ms), where it was late by 90 (150) with the groups on the loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence

import apsw
import msgspec

from holdfast import faults
from holdfast.clock import Clock
from holdfast.errors import HoldfastError
from holdfast.events import Event, dump_json
from holdfast.queues import Queue
from holdfast.store.group import Answers, Item
from holdfast.store.messages import Append, Listener, News
from holdfast.store.peers import Peers
from holdfast.store.queued import QueueRow, Taken, Waiting
from holdfast.store.removal import Removal
from holdfast.store.rows import AccessToken, Child, Claim, ScheduleRow, WorkerRow
from holdfast.store.scheduled import swap, to_schedule
from holdfast.store.streams import Write, Written

from . import ownership
from .appends import GroupWriter
from .checkpoints import Checkpoints
from .connect import SQL, close, connect, translate, wait_for_lock
from .lookups import to_child, to_worker
from .queues import put_back, put_back_all, take
from .reading import PAGE, SqliteReads
from .removal import remove
from .streams import put_chunks
from .thread import WriterThread

SLOW = 0.002
"""Seconds: where the disk takes longer than this for a commit on average, commits leave the loop's thread."""
FEW = 16
"""Writes: a group of more than these is no work for the loop's thread."""
CROWD = 1000
"""Events: nor is one that has more of these."""


class SqliteStore(SqliteReads):
    """A store in one file. Get one with `open_store("sqlite:///app.db")`."""

    def __init__(self, url: str, clock: Clock | None = None) -> None:
        super().__init__(url, clock)
        self._writer: GroupWriter | None = None
        self._thread: WriterThread | None = None
        self._checkpoints = Checkpoints(self.path)
        self._pace = 0.0
        self._waits = True
        self._enlisted: set[str] = set()
        self._every = False
        self._peers = Peers(self.path)
        self.presence_folder = self._peers.folder
        self._versions: dict[str, int] = {}  # of the file, when each of our workers looked last

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

    # ---- reading what the next append rests on

    async def catch_up(self, run_id: str, after: int) -> list[Event]:
        """The events beyond `after`; what is written next rests on them."""
        rows = self._query("since", (run_id, after, PAGE))
        if len(rows) == PAGE:
            return await self.read(run_id, after)
        new = [(Event(run_id, *row), chain) for *row, chain in rows]
        if new and self._writer is not None:
            self._writer.heard(run_id, new)
        return [event for event, _ in new]

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

    # ---- streams

    def put_chunks(self, write: Write) -> Written | HoldfastError:
        """Judge and write chunks of a stream, inside the group's transaction."""
        return put_chunks(self._db, write, self.clock.now())

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
