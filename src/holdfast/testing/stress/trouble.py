"""Trouble that a process of a storm brings upon itself on command: a clock that jumps, a disk that fails.

The command is a file, so that the driver can give it to processes that are busy or paused:

- a clock reads its offset from the first eight bytes of its file each time it is asked;
- a file system, put under SQLite as a VFS of apsw, refuses to sync while a file of this name exists, and to
  write while another one does.

Production code knows nothing of this: it is put in place by the programs of `testing.stress` alone.
"""

from __future__ import annotations

import mmap
import os
from pathlib import Path
from typing import Any

import apsw

from ...clock import SystemClock

_SIZE = 8
_BELOW = "unix"
"""SQLite's own file system here; "the default" would be ourselves, once we are that."""


class JumpingClock(SystemClock):
    """The machine's clock, off by what its file says (microseconds)."""

    __slots__ = ("_offset",)

    def __init__(self, path: Path) -> None:
        set_offset(path, read_offset(path) if path.exists() else 0)
        with path.open("r+b") as file:
            self._offset = mmap.mmap(file.fileno(), _SIZE)

    def now(self) -> int:
        """Microseconds since 1970, as this process believes."""
        return super().now() + int.from_bytes(self._offset[:_SIZE], "little", signed=True)


def set_offset(path: Path, micros: int) -> None:
    """Let the clock of this file jump."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        os.pwrite(fd, micros.to_bytes(_SIZE, "little", signed=True), 0)
    finally:
        os.close(fd)


def read_offset(path: Path) -> int:
    """How far the clock of this file is off."""
    return int.from_bytes(path.read_bytes()[:_SIZE], "little", signed=True)


class _File(apsw.VFSFile):
    def __init__(self, name: Any, flags: Any, sync_fails: str, disk_full: str) -> None:
        super().__init__(_BELOW, name, flags)
        self._sync_fails = sync_fails
        self._disk_full = disk_full

    def xSync(self, flags: int) -> None:  # noqa: N802 - SQLite's names
        if os.path.exists(self._sync_fails):  # noqa: PTH110 - each commit pays for this
            raise apsw.IOError("fsync failed, on command")
        super().xSync(flags)

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802
        if os.path.exists(self._disk_full):  # noqa: PTH110
            raise apsw.FullError("no space, on command")
        super().xWrite(data, offset)


class _FailingDisk(apsw.VFS):
    def __init__(self, sync_fails: str, disk_full: str) -> None:
        super().__init__("holdfast-failing", _BELOW)
        self._files = sync_fails, disk_full

    def xOpen(self, name: Any, flags: Any) -> apsw.VFSFile:  # noqa: N802
        return _File(name, flags, *self._files)


_installed: list[apsw.VFS] = []


def install_failing_disk(sync_fails: str, disk_full: str) -> None:
    """From now on, SQLite in this process fails to sync, or to write, while these files exist."""
    _installed.append(_FailingDisk(sync_fails, disk_full))
    apsw.set_default_vfs("holdfast-failing")
