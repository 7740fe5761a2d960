"""The floor: raw durable commits of the same number and size on the same kind of store, and nothing around them.

SQLite: single-row inserts through the same driver, in WAL mode with synchronous=FULL (one fdatasync each), in a
file of its own beside the store's and with a log that has its full size, as the store's has. Where a store has
no floor of its own (memory, or one behind HTTP), figures stand alone.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Protocol


class Floor(Protocol):
    """Raw commits, timed."""

    def run(self, commits: int, size: int) -> float:
        """Seconds that `commits` durable commits of `size` bytes take."""
        ...

    def close(self) -> None:
        """Leave nothing behind."""
        ...


def floor_of(url: str) -> Floor | None:
    """The floor of a store's kind, or None."""
    return SqliteFloor(url) if url.startswith("sqlite:") else None


class SqliteFloor:
    """Raw commits in a file beside the store's."""

    def __init__(self, url: str) -> None:
        import apsw

        from ..store.sqlite.connect import path_of

        self._path = Path(f"{path_of(url)}-floor.db")
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._db = apsw.Connection(str(self._path))
        for setting in ("journal_mode = WAL", "synchronous = FULL", "wal_autocheckpoint = 1000"):
            self._db.execute(f"PRAGMA {setting}").fetchall()
        self._db.execute("CREATE TABLE IF NOT EXISTS log (id INTEGER PRIMARY KEY, body TEXT)")
        self.run(1200, 4000)

    def run(self, commits: int, size: int) -> float:
        """Seconds that `commits` durable commits of `size` bytes take."""
        body = "x" * size
        begun = time.perf_counter()
        for _ in range(commits):
            self._db.execute("INSERT INTO log (body) VALUES (?)", (body,))
        return time.perf_counter() - begun

    def close(self) -> None:
        """Leave nothing behind."""
        self._db.close()
        for end in ("", "-wal", "-shm"):
            Path(f"{self._path}{end}").unlink(missing_ok=True)
