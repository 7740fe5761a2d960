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
    """The files of the other workers of a store."""

    def __init__(self, folder: Path, own: str) -> None:
        self._folder = folder
        self._own = own
        self._stamp = 0
        self._settled = 0.0
        self._listed = False
        self._names: list[str] = []

    def dead(self) -> list[tuple[str, str | None]]:
        """Workers whose process is gone, each with the run whose tick it died in; their files are removed."""
        gone = []
        for name in self._list():
            found = self._look(name)
            if found is not None:
                gone.append((name.removesuffix(".lock"), found or None))
        return gone

    def _list(self) -> list[str]:
        try:
            stamp, now = self._folder.stat().st_mtime_ns, time.monotonic()
            if stamp != self._stamp:
                self._stamp, self._settled = stamp, now + _SETTLED
            if now < self._settled or not self._listed:
                self._listed = now >= self._settled
                own = f"{self._own}.lock"
                found = (path.name for path in self._folder.iterdir())
                self._names = [name for name in found if name.endswith(".lock") and name != own]
        except FileNotFoundError:
            self._names = []
        return self._names

    def _look(self, name: str) -> str | None:
        """The run that a dead worker's file names ('' for none), or None while its owner lives."""
        try:
            fd = os.open(self._folder / name, os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                return None
            data = os.pread(fd, _SIZE, 0)
            if len(data) < _SIZE:
                return None  # its owner is just making it
            try:
                (self._folder / name).unlink()
            except FileNotFoundError:
                return None  # somebody else has found it
            size = data[0] | data[1] << 8
            return data[2 : 2 + size].decode(errors="replace")
        finally:
            os.close(fd)
