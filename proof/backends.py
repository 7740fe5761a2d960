"""The stores on which small worlds run: the one in memory, and a SQLite file with a connection a process."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from processes import RUN, Clock, Handle

from holdfast.events import Event
from holdfast.store.base import Store
from holdfast.store.memory import MemoryStore
from holdfast.store.memory_data import Data
from holdfast.store.sqlite import SqliteStore
from holdfast.store.sqlite.appends import GroupWriter
from holdfast.store.sqlite.connect import close, connect


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
