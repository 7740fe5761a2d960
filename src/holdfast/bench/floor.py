"""The floor: raw durable commits of the same number and size on the same kind of store, and nothing around them.

SQLite: single-row inserts through the same driver, in WAL mode with synchronous=FULL (one fdatasync each), in a
file of its own beside the store's and with a log that has its full size, as the store's has.

PostgreSQL: single-row inserts into a table of its own in the same database, one connection, one prepared
statement, the server's own durable settings.

HTTP: the same as SQLite behind a bare server, each commit a request with its bytes. A server that was not
started here has no floor, for its disk cannot be had; memory has none at all.

A commit that is larger than `ROW` has rows of this size, as the chunks of a stream have.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, Protocol

from .place import Other, Where
from .shape import Commits, now

ROW = 64 * 1024
"""Bytes of a row at most."""
WARM = (4, 1 << 20)
"""Commits, and bytes of each, after which a log has its full size."""


class Floor(Protocol):
    """Raw commits, timed."""

    async def run(self, commits: int, size: int) -> float:
        """Seconds that `commits` durable commits of `size` bytes take."""
        ...

    async def close(self) -> None:
        """Leave nothing behind."""
        ...


async def floor_of(where: Where) -> Floor | None:
    """The floor of a store, ready to run; or None."""
    floor: SqliteFloor | PostgresFloor | HttpFloor
    if where.disk is None or where.kind == "memory":
        return None
    if where.kind == "http":
        floor = await HttpFloor.open(where.disk)
    elif where.disk.startswith("sqlite:"):
        floor = SqliteFloor(where.disk)
    else:
        floor = await PostgresFloor.open(where.disk)
    await floor.run(*WARM)
    return floor


async def least_time(floor: Floor, commits: Commits) -> float:
    """Seconds that these commits take, whose size is known; without what they wait for."""
    assert commits.size is not None
    if not commits.idle:
        return await floor.run(commits.number, commits.size)
    seconds = 0.0
    for _ in range(commits.number):
        await asyncio.sleep(commits.idle)
        seconds += await floor.run(1, commits.size)
    return seconds


def rows_of(size: int) -> list[bytes]:
    """So many bytes as rows."""
    return [b"x" * min(ROW, size)] * max(1, size // ROW)


class RawFile:
    """A file of SQLite beside the store's, with one table."""

    def __init__(self, disk: str) -> None:
        import apsw

        from ..store.sqlite.connect import path_of

        self._path = Path(f"{path_of(disk)}-floor.db")
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._db = apsw.Connection(str(self._path))
        for setting in ("journal_mode = WAL", "synchronous = FULL", "wal_autocheckpoint = 1000"):
            self._db.execute(f"PRAGMA {setting}").fetchall()
        self._db.execute("CREATE TABLE IF NOT EXISTS log (id INTEGER PRIMARY KEY, body BLOB)")

    def commit(self, rows: list[bytes]) -> None:
        """One durable commit."""
        if len(rows) == 1:
            self._db.execute("INSERT INTO log (body) VALUES (?)", (rows[0],))
            return
        self._db.execute("BEGIN IMMEDIATE")
        self._db.executemany("INSERT INTO log (body) VALUES (?)", [(row,) for row in rows])
        self._db.execute("COMMIT")

    def close(self) -> None:
        """Remove it."""
        self._db.close()
        for end in ("", "-wal", "-shm"):
            Path(f"{self._path}{end}").unlink(missing_ok=True)


class SqliteFloor:
    """Commits in a file beside the store's."""

    def __init__(self, disk: str) -> None:
        self._file = RawFile(disk)

    async def run(self, commits: int, size: int) -> float:
        """Seconds that `commits` durable commits of `size` bytes take."""
        rows = rows_of(size)
        begun = now()
        for _ in range(commits):
            self._file.commit(rows)
        return now() - begun

    async def close(self) -> None:
        """Leave nothing behind."""
        self._file.close()


class PostgresFloor:
    """Commits in a table of its own."""

    def __init__(self, connection: Any, insert: Any) -> None:
        self._connection, self._insert = connection, insert

    @classmethod
    async def open(cls, url: str) -> PostgresFloor:
        """Connect, and make the table."""
        import asyncpg

        connection = await asyncpg.connect(url)
        await connection.execute(
            "CREATE TABLE IF NOT EXISTS holdfast_bench_floor "
            "(id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, body bytea)"
        )
        insert = await connection.prepare(
            "INSERT INTO holdfast_bench_floor (body) SELECT unnest($1::bytea[])"
        )
        return cls(connection, insert)

    async def run(self, commits: int, size: int) -> float:
        """Seconds that `commits` durable commits of `size` bytes take."""
        rows = rows_of(size)
        begun = now()
        for _ in range(commits):
            await self._insert.fetch(rows)
        return now() - begun

    async def close(self) -> None:
        """Leave nothing behind."""
        await self._connection.execute("DROP TABLE holdfast_bench_floor")
        await self._connection.close()


class HttpFloor:
    """Commits behind a bare server (`bare.py`)."""

    def __init__(self, server: Other, session: Any) -> None:
        self._server, self._session = server, session

    @classmethod
    async def open(cls, disk: str) -> HttpFloor:
        """Start the server, and connect."""
        import aiohttp

        server = await Other.start("holdfast.bench.bare", disk)
        return cls(server, aiohttp.ClientSession(f"http://127.0.0.1:{server.said}"))

    async def run(self, commits: int, size: int) -> float:
        """Seconds that `commits` requests with `size` bytes take, each a durable commit."""
        body = b"x" * size
        begun = now()
        for _ in range(commits):
            async with self._session.post("/", data=body) as answer:
                await answer.read()
        return now() - begun

    async def close(self) -> None:
        """Leave nothing behind."""
        await self._session.close()
        await self._server.close()
