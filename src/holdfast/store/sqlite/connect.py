"""Opening the file, and saying in one line what is wrong with it.

The settings, with the reasons (measured; 51 commits of the same bytes):

- WAL with `synchronous=FULL`: one fdatasync a commit, and an answer means that the write is durable.
- The WAL is never truncated, survives the last close, and a new one is filled with zeros up to the size that
  it will have anyway: a commit that extends the file costs about twice one that overwrites it, for the file
  system must record the new size. Zeros at the end of a WAL are like what SQLite leaves there after a reset:
  frames whose salt and checksum do not fit, which end the log.
- A checkpoint every 1,000 pages, SQLite's own measure: 4,000 gained nothing that could be told from noise,
  and a WAL of 16 MB would have to be filled first. Commits of megabytes leave it to a thread (`checkpoints.py`).

Every apsw error is translated here; nothing above the SQLite backend knows the driver.

One warning. apsw brings its own SQLite; that of Python's `sqlite3` in the same process does not see its locks
and, when it closes the file, takes them away. Other processes may read a store with whatever they like; a
process that has it open must not open it by `sqlite3` as well.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import time
from pathlib import Path

import apsw

from holdfast.errors import StoreBroken, StoreError
from holdfast.store.migrate import load_migrations, migrate
from holdfast.store.queries import load_queries

SQL = load_queries("sqlite")
WAIT = 30.0
"""Seconds to wait for another process's write transaction."""
CHECKPOINT_PAGES = 1000
_CACHE_KIB = 16 * 1024
"""What a transaction may have in memory. With SQLite's 2 MB a group of megabytes of chunks goes to the WAL in
pieces while it grows; with room, 10 MB took a fifth less."""
_WARM = (CHECKPOINT_PAGES + 100) * 4120
"""Bytes of zeros that a new WAL gets: its pages between two checkpoints, each with the header of a frame."""

FATAL = (
    apsw.FullError,
    apsw.IOError,
    apsw.CorruptError,
    apsw.NotADBError,
    apsw.ReadOnlyError,
    apsw.CantOpenError,
    apsw.BusyError,
    apsw.LockedError,
    apsw.NoMemError,
    apsw.ProtocolError,
    apsw.ConnectionClosedError,
)
"""Errors that are about the file, not about one write: they fail the whole group."""


def path_of(url: str) -> str:
    """The file that a URL names: `sqlite:///rel.db`, `sqlite:////abs/x.db`. Raises StoreError."""
    path = url.removeprefix("sqlite:///")
    if path == url or not path or path.startswith(":"):
        raise StoreError(
            f"{url!r} names no file: write sqlite:///relative.db or sqlite:////absolute/path.db "
            "(memory:// is the store without a file)"
        )
    return path


def connect(path: str, now: int) -> tuple[apsw.Connection, apsw.Connection]:
    """A connection for writing and one for reading, on a file that has the schema of this version.

    Creates the file and its folder where they are missing. Raises StoreError, StoreBroken, SchemaUnknown.
    """
    try:
        Path(path).absolute().parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(
            f"{path}: its folder cannot be made ({error.strerror}): create it, or choose another place"
        ) from error
    opened: list[apsw.Connection] = []
    try:
        writer = _open(path, opened)
        _patiently(lambda: _prepare(writer, path))
        migrate(writer, SQL, load_migrations("sqlite"), path, now)
        _warm_wal(writer)
        reader = _open(path, opened)
        reader.set_busy_timeout(1000)
        reader.pragma("query_only", True)
    except BaseException as error:
        close(opened)
        if isinstance(error, apsw.Error):
            raise translate(error, path) from error
        raise
    return writer, reader


def another(path: str) -> apsw.Connection:
    """One more connection to a file that is open; it has seen that there is a log."""
    db = _open(path, [])
    db.pragma("journal_mode")
    return db


def close(connections: list[apsw.Connection]) -> None:
    """Close what is open; an error at closing helps nobody."""
    for connection in reversed(connections):
        with contextlib.suppress(apsw.Error):
            connection.close()


def wait_for_lock(db: apsw.Connection, wait: bool) -> None:
    """How `db` meets a lock: with a wait of up to 30 s, or with BusyError at once (on the loop's thread).

    The waits are short, because writers hold the lock for about a fsync, and SQLite's own grow to 100 ms.
    """
    if not wait:
        db.set_busy_handler(None)
        return
    begun = 0.0

    def again(count: int) -> bool:
        nonlocal begun
        if count == 0:
            begun = time.monotonic()
        time.sleep(min(0.0002 * (count + 1), 0.005))
        return time.monotonic() - begun < WAIT

    db.set_busy_handler(again)


def translate(error: BaseException, path: str) -> StoreError:
    """The error as the contract knows it, in one line that says what to do."""
    if isinstance(error, StoreError):
        return error
    if isinstance(error, apsw.NotADBError):
        return StoreBroken(f"{path} is not an SQLite database: choose another file")
    if isinstance(error, apsw.CorruptError):
        return StoreBroken(
            f"{path} is corrupt ({error}): keep a copy, and put a backup back or try `sqlite3 … .recover`"
        )
    if isinstance(error, apsw.FullError):
        return StoreError(f"{path}: the disk is full, nothing was stored: make room, then try again")
    if isinstance(error, apsw.ReadOnlyError | apsw.PermissionsError):
        return StoreError(f"{path} is read-only: make the file and its folder writable")
    if isinstance(error, apsw.CantOpenError):
        return StoreError(
            f"{path} cannot be opened: check that it is a file, and that it and its folder are writable"
        )
    if isinstance(error, apsw.BusyError | apsw.LockedError):
        return StoreError(
            f"{path} was locked by another process for {WAIT:g} s, nothing was stored: "
            "find out who holds it, then try again"
        )
    if isinstance(error, apsw.IOError):
        return StoreError(f"{path}: the disk failed ({error}), nothing was stored: check it")
    if isinstance(error, apsw.ConnectionClosedError):
        return StoreError(f"{path} is closed: use it inside `async with`")
    return StoreError(f"{path}: {type(error).__name__}: {error}")


def _open(path: str, opened: list[apsw.Connection]) -> apsw.Connection:
    db = apsw.Connection(path)
    opened.append(db)
    wait_for_lock(db, True)
    keep = ctypes.c_int(1)
    db.file_control("main", apsw.SQLITE_FCNTL_PERSIST_WAL, ctypes.addressof(keep))
    return db


def _prepare(db: apsw.Connection, path: str) -> None:
    if db.pragma("journal_mode", "wal") != "wal":
        raise StoreError(f"{path} lies where SQLite cannot share memory: choose a local disk")
    db.pragma("synchronous", "full")
    db.pragma("wal_autocheckpoint", CHECKPOINT_PAGES)
    db.pragma("cache_size", -_CACHE_KIB)
    if db.readonly("main"):
        raise apsw.ReadOnlyError("opened for reading only")


def _patiently(work: object) -> None:
    """Repeat what SQLite refuses at once while another process turns WAL on or recovers it."""
    assert callable(work)
    end = time.monotonic() + WAIT
    while True:
        try:
            work()
        except (apsw.BusyError, apsw.LockedError, apsw.ProtocolError):
            if time.monotonic() > end:
                raise
            time.sleep(0.002)
        else:
            return


def _warm_wal(db: apsw.Connection) -> None:
    """Give a new WAL its size, under the write lock, so that no frame is being added meanwhile."""
    wal = db.filename_wal
    db.execute(SQL["begin"])
    try:
        with contextlib.suppress(OSError):  # a full disk shows where it matters, at the first commit
            missing = _WARM - Path(wal).stat().st_size
            if missing > 0:
                with Path(wal).open("ab") as file:
                    file.write(bytes(missing))
                    file.flush()
                    os.fsync(file.fileno())
    finally:
        db.execute(SQL["rollback"])
