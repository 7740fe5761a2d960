"""Locks between everybody who writes in a folder: processes, threads and tasks alike.

Guarantee: of all that hold the lock of one file, there is one at a time; the kernel takes it from a holder
that dies, however it dies. It rests on flock(2), which belongs to an open file, and on each holder opening the
file anew: two threads exclude each other just as two processes do. A file that was moved or deleted while
somebody waited for it is noticed, so that nobody writes into what is no longer there.

Rejected: fcntl(2) record locks, which belong to the process and are lost when any of its files is closed; lock
files that are created and removed, which a crash leaves behind; a table of locks by path in the process, where
two spellings of one folder are two locks.
"""

from __future__ import annotations

import errno
import fcntl
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from ..errors import TrailError, TrailLocked

_open: set[int] = set()
"""Files this process has locked or is about to: a fork closes its copies, or it would hold the lock too."""


def _close_in_child() -> None:
    for fd in _open:
        os.close(fd)
    _open.clear()


os.register_at_fork(after_in_child=_close_in_child)


@contextmanager
def locked(path: str, flags: int = os.O_RDWR, *, timeout: float = 30.0) -> Iterator[int]:
    """The open file, locked for as long as the block runs; symbolic links are not followed.

    Raises TrailLocked after `timeout` seconds and OSError where the file cannot be opened (FileNotFoundError
    too where it went away in the meantime).

    Example:
        with locked(".trajectories/.lock", os.O_RDWR | os.O_CREAT) as fd: ...
    """
    fd = acquire(path, flags, timeout=timeout)
    try:
        yield fd
    finally:
        release(fd)


def acquire(path: str, flags: int = os.O_RDWR, *, timeout: float = 30.0) -> int:
    """Open and lock a file. Whoever calls this calls `release`, or `unlock` and `close`."""
    while True:
        fd = _open_plain(path, flags)
        _wait(fd, path, timeout)
        try:
            if _leads_to(path, fd):
                return fd
        except BaseException:
            release(fd)
            raise
        release(fd)  # it was moved or replaced while we waited: look again
        flags &= ~os.O_EXCL


def sign(fd: int) -> None:
    """Write into a locked file who holds it, for people who wait for it."""
    me = f"{os.getpid()} {os.uname().nodename}".encode()
    try:
        os.pwrite(fd, me, 0)
        os.ftruncate(fd, len(me))
    except OSError:
        return  # a full disk is no reason not to work


def unlock(fd: int) -> None:
    """Let others have the lock; the file stays open, for a sync that nobody needs to wait for."""
    fcntl.flock(fd, fcntl.LOCK_UN)


def close(fd: int) -> None:
    """Close the file; its lock goes with it."""
    _open.discard(fd)
    os.close(fd)


def release(fd: int) -> None:
    """Let others have the lock, and close the file."""
    unlock(fd)  # a forked child may hold a copy of the file, so closing alone would not do
    close(fd)


def _open_plain(path: str, flags: int) -> int:
    try:
        fd = os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise TrailError(f"{path} is a symbolic link: a folder of trails keeps its own files") from None
        raise
    _open.add(fd)
    return fd


def _leads_to(path: str, fd: int) -> bool:
    try:
        there = os.stat(path, follow_symlinks=False)
    except FileNotFoundError:
        return False
    here = os.fstat(fd)
    return (there.st_dev, there.st_ino) == (here.st_dev, here.st_ino)


def _wait(fd: int, path: str, timeout: float) -> None:
    """Until the lock is ours. Where it does not become so, the file is closed."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        # flock has no time-out, and asking again and again is slow and unfair: a thread waits for us.
        if not _Waiter(fd).wait(timeout):
            raise TrailLocked(
                f"{path}: waited {timeout:g} s for {holder(path)}; stop it, or try again"
            ) from None
    except OSError:
        close(fd)
        raise


def holder(path: str) -> str:
    """Who holds the lock of a file: as the kernel says, else as the holder has said (it may be elsewhere)."""
    try:
        with open(path, "rb") as file:
            pid = _locked_by(os.fstat(file.fileno()))
            words = file.read(200).decode("ascii", "replace").split()
    except OSError:
        return "another writer"
    if pid is not None:
        return f"process {pid} on {os.uname().nodename}"
    return f"process {words[0]} on {words[1]}" if len(words) == 2 and words[0].isdigit() else "another writer"


def _locked_by(status: os.stat_result) -> int | None:
    """The process that Linux names for a lock; None where it does not, or the process is in another container."""
    file = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    try:
        with open("/proc/locks", encoding="ascii") as table:
            rows = [row.split() for row in table]
    except OSError:
        return None
    # "1: FLOCK ADVISORY WRITE 1234 fe:00:5678 0 EOF"; who waits has "->" in the second column
    pids = [int(row[4]) for row in rows if len(row) > 5 and row[1] == "FLOCK" and row[5] == file]
    return next((pid for pid in pids if pid > 0), None)


class _Waiter(threading.Thread):
    """Waits for a lock. When nobody wants it any more, it is given back as soon as it comes."""

    def __init__(self, fd: int) -> None:
        super().__init__(daemon=True, name="holdfast-trail-lock")
        self.fd = fd
        self._error: OSError | None = None
        self._turn = threading.Lock()
        self._done = False
        self._given_up = False

    def run(self) -> None:
        try:
            fcntl.flock(self.fd, fcntl.LOCK_EX)
        except OSError as error:
            self._error = error
        with self._turn:
            self._done = True
            if self._given_up:
                release(self.fd)  # not closed only: a process forked meanwhile may hold a copy of the file

    def wait(self, timeout: float) -> bool:
        """Whether the lock came in time. If it did not, the file is closed, now or when the lock comes."""
        came = False
        try:
            self._begin()
            self.join(timeout)
            with self._turn:
                if self._done and self._error is not None:
                    raise self._error
                came = self._done
        finally:
            if not came:
                self._give_up()
        return came

    def _begin(self) -> None:
        try:
            self.start()
        except RuntimeError:  # no thread is to be had
            self._done = True
            raise

    def _give_up(self) -> None:
        # Where `start` was interrupted the thread may be about to begin: the file stays open for it, or it would
        # wait for whatever is opened under that number next.
        with self._turn:
            self._given_up = True
            if self._done:
                release(self.fd)
