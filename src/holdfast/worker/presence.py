"""Presence: a file per worker that the kernel unlocks when its process dies.

A worker of a store on this machine holds a lock (`flock`) on its file; the others look every moment whether
one has come free. That is how a death is noticed within a fraction of a second, however the process died. The
file holds the name of the run whose tick is under way, through shared memory, so that it survives the
process: that run is the one to blame when ticks kill workers. A paused process keeps its lock; for that, and
for stores on other machines, there is the lease.

The file is written whole before it is mapped. Were it only made long enough, its memory would be a hole, and the
first mark on a disk that is full by then would end the process (SIGBUS).
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import time
from pathlib import Path

from ..errors import StoreError

_SIZE = 1024
_SETTLED = 0.05
"""Seconds for which the folder is listed again though its time of change is the same: the kernel's clock for it
is coarse, so a second worker that comes right after the first can leave it as it is."""


class Sign:
    """How a run is named in such a file: its length, and its id."""

    __slots__ = ("bytes", "run", "size")

    def __init__(self, run: str) -> None:
        name = run.encode()[: _SIZE - 2]
        self.run = run
        self.bytes = len(name).to_bytes(2, "little") + name
        self.size = len(self.bytes)


class Presence:
    """This worker's own file. Raises StoreError where it cannot be made."""

    def __init__(self, folder: Path, worker: str) -> None:
        self._path = folder / f"{worker}.lock"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(self._fd, fcntl.LOCK_EX)
                os.pwrite(self._fd, bytes(_SIZE), 0)
                self._memory = mmap.mmap(self._fd, _SIZE)
            except BaseException:
                self._path.unlink(missing_ok=True)
                os.close(self._fd)
                raise
        except OSError as error:
            why = f"{folder}: a worker cannot keep its file there: {error.strerror}"
            raise StoreError(f"{why}: make room, or let it write there") from error

    def mark(self, run: Sign) -> None:
        """Note the run whose tick begins, until `clear`."""
        self._memory[: run.size] = run.bytes

    def clear(self) -> None:
        """Note that no tick is under way."""
        self._memory[:2] = b"\0\0"

    def rename(self, worker: str) -> None:
        """The worker goes on under another name; the lock goes with the file.

        Where the disk has no room for the name, the file keeps its old one: the death of this process is found out
        by its lease then.
        """
        with contextlib.suppress(OSError):
            self._path = self._path.rename(self._path.with_name(f"{worker}.lock"))

    def close(self) -> None:
        """Take the file away: this worker has left."""
        self._path.unlink(missing_ok=True)
        self._memory.close()
        os.close(self._fd)


class Others:
    """The files of the other workers of a store, held open: to ask whether one is locked is one system call."""

    def __init__(self, folder: Path, own: str) -> None:
        self._folder = folder
        self._listing = str(folder)
        self._own = own
        self._stamp = 0
        self._settled = 0.0
        self._listed = False
        self._open: dict[str, int] = {}

    def dead(self) -> list[tuple[str, str | None]]:
        """Workers whose process is gone, each with the run whose tick it died in; their files are removed."""
        self._list()
        gone = []
        for name, fd in list(self._open.items()):
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                continue
            try:
                found = self._remove(name, fd)
            finally:
                fcntl.flock(fd, fcntl.LOCK_UN)  # a process that was forked from this one may have it open too
                self._drop(name)
            if found is not None:
                gone.append((name.removesuffix(".lock"), found or None))
        return gone

    def close(self) -> None:
        """Hold none of them open."""
        self._listed = False
        for name in list(self._open):
            self._drop(name)

    def _list(self) -> None:
        """Open the files that have come, close those that have gone; where nothing did, one call finds out."""
        try:
            stamp, now = os.stat(self._listing).st_mtime_ns, time.monotonic()  # noqa: PTH116 - five times as quick
            if stamp != self._stamp:
                self._stamp, self._settled = stamp, now + _SETTLED
            if now >= self._settled and self._listed:
                return
            self._listed = now >= self._settled
            own = f"{self._own}.lock"
            names = {name for name in os.listdir(self._listing) if name.endswith(".lock") and name != own}  # noqa: PTH208
        except FileNotFoundError:
            names = set()
        for name in self._open.keys() - names:
            self._drop(name)
        for name in names - self._open.keys():
            with contextlib.suppress(OSError):
                self._open[name] = os.open(self._folder / name, os.O_RDWR | os.O_CLOEXEC)

    def _remove(self, name: str, fd: int) -> str | None:
        """The run that a dead worker's file names ('' for none); None where it is no dead worker's."""
        data = os.pread(fd, _SIZE, 0)
        if len(data) < _SIZE:
            self._listed = False
            return None  # its owner is just making it
        try:
            (self._folder / name).unlink()
        except FileNotFoundError:
            return None  # somebody else has found it, or it has another name now
        size = data[0] | data[1] << 8
        return data[2 : 2 + size].decode(errors="replace")

    def _drop(self, name: str) -> None:
        os.close(self._open.pop(name))
