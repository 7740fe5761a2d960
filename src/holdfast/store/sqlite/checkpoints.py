"""Checkpoints beside the commits: what the log (WAL) holds is moved into the database by a thread of its own.

SQLite does that inside the commit that finds 1,000 pages in the log. For small commits this is the cheapest: the
log keeps its size, and one commit in hundreds takes longer. With chunks by the megabyte every fourth commit does
it, and it is half of all the time. So the commits of heavy groups leave it to this thread, which works on the
second core while the next ones are written.

Nothing rests on it: a commit is durable before. Where the thread lags behind, a commit that finds `MOST` pages in
the log moves them itself; what is left is moved by the next small commit, as ever. An error here is nobody's: the
log stays longer, and who writes next meets the same disk.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import apsw

from .connect import CHECKPOINT_PAGES, another, close
from .thread import WriterThread

MOST = 4000
"""Pages that the log may have before a commit waits for them to be moved."""


class Checkpoints:
    """The checkpoints of one file. Made and closed on the loop."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._thread: WriterThread | None = None
        self._db: apsw.Connection | None = None
        self._moving = False

    def begin(self) -> None:
        """Have the thread, from the first heavy group on."""
        if self._thread is None:
            self._thread = WriterThread(f"holdfast-checkpoints {self._path}")

    @contextlib.contextmanager
    def aside(self, db: apsw.Connection) -> Iterator[None]:
        """Commits of `db` in here leave the log to the thread."""
        db.set_wal_hook(self._committed)
        try:
            yield
        finally:
            db.wal_autocheckpoint(CHECKPOINT_PAGES)  # takes the hook's place

    async def close(self) -> None:
        """End the thread."""
        if self._thread is not None:
            await self._thread.run(lambda: close([self._db] if self._db is not None else []))
            self._thread.stop()
            self._thread = self._db = None

    def _committed(self, db: apsw.Connection, _name: str, pages: int) -> int:
        if pages >= MOST:
            with contextlib.suppress(apsw.Error):  # the commit itself has succeeded
                db.wal_checkpoint()
        elif pages >= CHECKPOINT_PAGES and not self._moving and self._thread is not None:
            self._moving = True
            self._thread.hand_over(self._move, lambda _outcome: None)
        return 0

    def _move(self) -> None:
        try:
            if self._db is None:
                self._db = another(self._path)
            self._db.wal_checkpoint()
        finally:
            self._moving = False
