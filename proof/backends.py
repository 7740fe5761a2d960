"""The stores of small worlds: in memory, a SQLite file, a PostgreSQL database; with a handle for each process."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from processes import RUN, Clock, Handle

from holdfast.errors import StoreError
from holdfast.events import Event
from holdfast.store import open_store
from holdfast.store.base import Store
from holdfast.store.memory import Data, MemoryStore
from holdfast.store.sqlite import SqliteStore
from holdfast.store.sqlite.appends import GroupWriter
from holdfast.store.sqlite.connect import close, connect

try:
    from holdfast.store.postgres.appends import Audience
    from holdfast.store.postgres.appends import GroupWriter as PostgresWriter
    from holdfast.store.postgres.connect import Line
    from holdfast.store.postgres.store import PostgresStore
    from holdfast.store.postgres.takeup import take_up
except StoreError:  # its driver is not installed
    PostgresStore = object  # type: ignore[assignment,misc]

if TYPE_CHECKING:
    from holdfast.store.group import Answers, Item
    from holdfast.store.messages import News
    from holdfast.store.rows import TakenUp

T = TypeVar("T")


class MemoryHandle(Handle, MemoryStore):
    """A handle on runs in memory."""


class MemoryBackend:
    """An empty store in memory."""

    def __init__(self) -> None:
        self._data = Data()

    def handle(self, clock: Clock) -> Handle:
        return MemoryHandle("memory://small", clock, self._data)

    def log(self) -> Sequence[Event]:
        return self._data.runs[RUN].log

    def batch(self, batch: object) -> object:
        return self._data.runs[RUN].batches.get(batch)  # type: ignore[call-overload]

    def plain(self) -> Store:
        return MemoryStore("memory://small", None, self._data)


class SqliteHandle(Handle, SqliteStore):
    """A handle on a file. Its connections outlive it: opening a file takes longer than most schedules."""

    def use(self, connections: Any) -> SqliteHandle:
        writer, self._reader = connections
        self._writer = GroupWriter(writer, self.path, self.clock)
        return self

    async def catch_up(self, run_id: str, after: int) -> list[Event]:
        ask = super().catch_up
        return await self.read_by(lambda: ask(run_id, after), after)


class SqliteBackend:
    """A SQLite file; `emptied` gives it for the next world. How durable it is, is not looked at here."""

    def __init__(self, folder: Path) -> None:
        self._path = str(folder / "small.db")
        self._connections = [connect(self._path, 0) for _ in range(4)]
        self._used = 0
        for writer, _ in self._connections:
            writer.pragma("synchronous", "off")

    def emptied(self) -> SqliteBackend:
        db = self._connections[0][0]
        for table in ("deliveries", "hooks", "timers", "steps", "events", "runs"):
            db.execute(f"DELETE FROM {table}")
        self._used = 0
        return self

    def close(self) -> None:
        for connections in self._connections:
            close(list(connections))

    def handle(self, clock: Clock) -> Handle:
        self._used += 1
        return SqliteHandle(f"sqlite:///{self._path}", clock).use(self._connections[self._used])

    def log(self) -> Sequence[Event]:
        rows = self._connections[0][1].execute(
            "SELECT e.position, e.type, e.key, e.time, e.body FROM events e JOIN runs r ON e.run = r.row "
            "WHERE r.run = ? ORDER BY e.position",
            (RUN,),
        )
        return [
            Event(RUN, position, type, key, time, body.encode()) for position, type, key, time, body in rows
        ]

    def batch(self, batch: object) -> object:
        found: Any = self._connections[0][1].execute(
            "SELECT position FROM events WHERE batch = ?", (str(batch),)
        )
        return found.fetchall() or None

    def plain(self) -> Store:
        return SqliteStorePlain(f"sqlite:///{self._path}").use(self._connections[0])


class SqliteStorePlain(SqliteStore):
    """The file as it is, for who checks it."""

    def use(self, connections: Any) -> SqliteStorePlain:
        self._reader = connections[1]
        return self


class Elsewhere:
    """A loop in a thread: what a driver does there has happened when the call comes back. Worlds never wait."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(60)

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class PostgresPlain(PostgresStore):
    """The database as it is, for who checks it."""

    def use(self, elsewhere: Elsewhere, reading: Any) -> Any:
        self._elsewhere, self._reading = elsewhere, reading
        return self

    async def _query(self, name: str, *values: Any) -> list[Any]:
        return self._elsewhere.do(self._reading.fetch(name, *values))


class PostgresHandle(Handle, PostgresPlain):
    """A handle on a database, with two connections of its own, as a process has; they outlive it."""

    def write_by(self, writing: Any) -> PostgresHandle:
        self._writer = PostgresWriter(writing, "here", self.clock, lambda: Audience((), False))
        return self

    def commit_group(self, group: Sequence[Item]) -> tuple[Answers, list[News]]:
        return self._elsewhere.do(self._writer.commit(group))  # type: ignore[arg-type]

    # The calls of the contract one by one, as in memory. What is remembered besides is of a moment that may be
    # later than what was read: nothing rests on it but speed.

    end_of, receiver = Store.end_of, Store.receiver

    async def take_up(self, run_id: str) -> TakenUp:
        found = await Store.take_up(self, run_id)
        self._remember(run_id)
        return found

    async def catch_up(self, run_id: str, after: int) -> list[Event]:
        events = await self.read(run_id, after)
        self._remember(run_id)
        return events

    def _remember(self, run_id: str) -> None:
        parts = self._elsewhere.do(self._reading.run(lambda db: take_up(db, [(run_id, 0)], 100)))
        for part in parts.values():
            self._writer.remember(part.known)


class PostgresBackend:
    """A PostgreSQL database; `emptied` gives it for the next world. How durable it is, is not looked at here."""

    def __init__(self, url: str) -> None:
        self._url, self._used, self._elsewhere = url, 0, Elsewhere()
        self._elsewhere.do(self._prepare())
        settings = {"synchronous_commit": "off"}
        self._lines = [[Line(url, "here", settings=settings) for _ in range(2)] for _ in range(4)]
        self._line = self._lines[0][1]

    async def _prepare(self) -> None:
        async with open_store(self._url):
            pass

    def emptied(self) -> PostgresBackend:
        tables = ("deliveries", "hooks", "timers", "steps", "children", "events", "runs")
        self._run("; ".join(f"DELETE FROM holdfast.{table}" for table in tables), "execute")
        self._used = 0
        return self

    def close(self) -> None:
        for line in (line for lines in self._lines for line in lines):
            self._elsewhere.do(line.close())
        self._elsewhere.close()

    def _run(self, text: str, how: str, *values: Any) -> Any:
        return self._elsewhere.do(self._line.run(lambda db: getattr(db, how)(text, *values)))

    def handle(self, clock: Clock) -> Handle:
        self._used += 1
        writing, reading = self._lines[self._used]
        handle = PostgresHandle(self._url, clock)
        handle.use(self._elsewhere, reading)
        return handle.write_by(writing)

    def log(self) -> Sequence[Event]:
        rows = self._run(
            "SELECT e.position, e.type, e.key, e.time, e.body FROM holdfast.events e "
            "JOIN holdfast.runs r ON e.run = r.id WHERE r.run = $1 ORDER BY e.position",
            "fetch",
            RUN,
        )
        return [
            Event(RUN, position, type, key, time, body.encode()) for position, type, key, time, body in rows
        ]

    def batch(self, batch: object) -> object:
        return self._run("SELECT position FROM holdfast.events WHERE batch = $1", "fetch", str(batch)) or None

    def plain(self) -> Store:
        plain: Store = PostgresPlain(self._url).use(self._elsewhere, self._line)
        return plain
