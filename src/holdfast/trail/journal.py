"""One journal: an append-only file of lines, the truth about one trail.

Guarantee: a line that was acknowledged is on the disk and stays there, whoever else writes, crashes or runs
out of space; a line that was cut off by a crash is set aside and reported, never read as something it may not
have been. It rests on an exclusive lock of the file while it is looked at and written, on lines that end with
a line feed, and on fdatasync before the acknowledgement. The sync comes after the lock is given back: it covers
every line before it, so writers that wait for the disk wait together.

A line that ends with `}` and lacks only its line feed (an editor took it) is whole: no prefix of a JSON object
is one. Rejected: a length and checksum around each line, which git and people could not merge.
"""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple

from .. import faults
from ..clock import from_text, to_text
from ..errors import PayloadError, TrailError
from . import lock, places
from .entry import ENDS, STRUCTURE, Entry, decode, encode, ordered
from .fold import check

log = logging.getLogger("holdfast.trail")

WRITE = os.O_RDWR | os.O_APPEND
"""How a journal is opened for writing."""


_ANY = "traj_0"  # what a line of a journal says does not depend on the trail's id


class BadLine(NamedTuple):
    """A whole line that is no entry: its number in the file, from 1, and why."""

    number: int
    reason: str
    text: bytes


class Reading(NamedTuple):
    """What a journal's file holds: its entries in file order, lines that are none, and a torn end."""

    entries: list[Entry]
    bad: list[BadLine]
    torn: bytes
    size: int


def parse(data: bytes, first: int = 1) -> Reading:
    """Read the bytes of a journal; `first` is the number of their first line."""
    reading = Reading([], [], b"", len(data))
    lines = data.split(b"\n")
    tail = lines.pop()
    for number, line in enumerate(lines, start=first):
        if line.strip():
            _read_line(reading, number, line)
    if tail.strip():
        try:
            decode(tail)
        except PayloadError:
            return reading._replace(torn=tail, size=len(data) - len(tail))
        _read_line(reading, first + len(lines), tail)
    return reading


def _read_line(reading: Reading, number: int, line: bytes) -> None:
    """An entry that makes the trail itself must be whole: an end of a wrong shape ends nothing."""
    try:
        entry = decode(line)
        if entry.type in STRUCTURE:
            check(_ANY, entry)
        reading.entries.append(entry)
    except PayloadError as error:
        reading.bad.append(BadLine(number, str(error), line))


def read(path: str) -> Reading:
    """Read a journal. A torn end may be a line that is being written just now; only a writer can tell.

    Raises FileNotFoundError and other OSErrors; symbolic links are not followed.
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    with open(fd, "rb") as file:
        return parse(file.read())


class Tail:
    """What a writer knows of a journal: how far it has read, and what it needs of that for the next line."""

    __slots__ = ("_file", "ended", "ids", "last", "seq", "size")

    def __init__(self) -> None:
        self.seq = 0
        self._forget((0, 0))

    def _forget(self, file: tuple[int, int]) -> None:
        self._file = file
        self.size = 0
        self.seq = 0
        self.last = 0
        self.ended: Entry | None = None
        self.ids: set[str] = set()

    def catch_up(self, fd: int, path: str) -> None:
        """Read what others have written since. The file is locked; a torn end is set aside."""
        status = os.fstat(fd)
        if self._file != (status.st_dev, status.st_ino) or status.st_size < self.size:
            self._forget((status.st_dev, status.st_ino))
        if status.st_size == self.size:
            return
        data = _pread(fd, self.size, status.st_size)
        reading = parse(data)
        if reading.torn:
            _set_aside(fd, path, reading.torn, self.size + reading.size)
        elif not data.endswith(b"\n"):
            places.write(fd, b"\n")  # at the end: the file is open for appending
        for line in reading.bad:
            log.error("%s: a line is no entry, and is passed over: %s", path, line.reason)
        self.take(reading.entries)
        self.size = os.fstat(fd).st_size

    def take(self, entries: Iterable[Entry]) -> None:
        """These are in the journal now."""
        for entry in entries:
            self.seq = max(self.seq, entry.seq)
            self.last = max(self.last, from_text(entry.recorded_at))
            self.ids.add(entry.id)
            if entry.type in ENDS and (self.ended is None or entry.rank < self.ended.rank):
                self.ended = entry


def append(fd: int, path: str, tail: Tail, entries: Sequence[Entry], *, as_told: bool = False) -> None:
    """Write entries at the end of a locked journal, each with the next number. Not durable until `sync`.

    Times before the last line's are raised to it. `as_told` is for entries that were recorded elsewhere: they
    keep their times and numbers (if they have any), so that a merge is what the union of both sets of lines is.
    Raises TrailError where the disk does not take them; then nothing of them is there.
    """
    lines = []
    seq = tail.seq
    for entry in entries:
        if not as_told or not entry.seq:
            entry.seq = seq + 1
        if not as_told and from_text(entry.recorded_at) < tail.last:
            entry.recorded_at = to_text(tail.last)
        seq = max(seq, entry.seq)
        lines.append(encode(entry))
    faults.point("trail.append.before")
    try:
        places.write(fd, b"".join(lines))
    except OSError as error:
        os.ftruncate(fd, tail.size)
        raise cannot_write(path, error) from None
    tail.take(entries)
    tail.size = os.fstat(fd).st_size
    faults.point("trail.append.after")


def sync(fd: int, path: str) -> None:
    """Wait until all that the journal holds is on the disk. Raises TrailError where the disk does not say so."""
    try:
        os.fdatasync(fd)
    except OSError as error:
        raise TrailError(
            f"{path}: the disk did not confirm what was written: {os.strerror(error.errno or 0)}; "
            "it may be there or not: look before you try again"
        ) from None


def create(
    path: str, entries: Sequence[Entry], *, timeout: float, beside: Mapping[str, bytes] | None = None
) -> int:
    """A new journal with its first lines, durable; `beside` it (by ending) stands what is derived from them.

    How many lines were written: fewer, where another has told of them in it before it could be locked.
    Raises FileExistsError, other OSErrors, TrailError.
    """
    fd = lock.acquire(path, WRITE | os.O_CREAT | os.O_EXCL, timeout=timeout)
    try:
        try:
            tail = Tail()
            tail.catch_up(fd, path)  # another may have told the same in it before we had the lock
            new = [entry for entry in entries if entry.id not in tail.ids]
            append(fd, path, tail, new, as_told=True)
            sync(fd, path)
            places.sync_folder(os.path.dirname(path))
        except (TrailError, OSError):
            os.unlink(path)  # still locked: nobody else has written in it
            raise
        with suppress(OSError):  # whoever makes the index makes up for it
            for ending, text in (beside or {}).items():
                places.put(places.stem(path) + ending, text)
    finally:
        lock.close(fd)
    faults.point("trail.create.after")
    return len(new)


def clear(path: str) -> None:
    """Remove a journal that holds nothing: whoever began it died before its first line was whole.

    One that is being begun just now is left alone: its writer has the lock, or makes the file again.
    """
    try:
        with lock.locked(path, WRITE, timeout=0) as fd:
            reading = parse(_pread(fd, 0, os.fstat(fd).st_size))
            if not reading.entries and not reading.bad:
                if reading.torn:
                    _set_aside(fd, path, reading.torn, 0)
                os.unlink(path)
    except (TrailError, OSError):
        return


def merge(path: str, others: Iterable[str], *, timeout: float) -> int:
    """Take the lines of other journals of the same trail that this one lacks; the number of new lines."""
    with lock.locked(path, WRITE, timeout=timeout) as fd:
        tail = Tail()
        tail.catch_up(fd, path)
        new = [e for e in ordered(e for other in others for e in read(other).entries) if e.id not in tail.ids]
        if new:
            append(fd, path, tail, new, as_told=True)
            sync(fd, path)
    return len(new)


def rewrite(path: str, keep: Callable[[Reading], bytes], *, timeout: float) -> None:
    """Replace a journal as a whole, durably, while nobody writes in it. The caller holds the folder's lock."""
    with lock.locked(path, WRITE, timeout=timeout) as fd:
        data = keep(parse(_pread(fd, 0, os.fstat(fd).st_size)))
        places.replace(path, data, durable=True)


def cannot_write(path: str, error: OSError) -> TrailError:
    """What people are told when the system refuses a write."""
    remedy = {
        errno.ENOSPC: "free some space and try again",
        errno.EDQUOT: "free some space and try again",
        errno.EROFS: "the file system is read-only",
        errno.EACCES: "give yourself the right to write there, or set TRAJECTORIES_DATA_DIR",
        errno.EPERM: "give yourself the right to write there, or set TRAJECTORIES_DATA_DIR",
    }.get(error.errno or 0, "what was recorded before is kept")
    return TrailError(f"{path}: nothing was recorded: {os.strerror(error.errno or 0)}; {remedy}")


def beside(path: str, ending: str) -> str:
    """A name beside a file that is not taken: `<path>.<ending>-1`, then `-2`."""
    number = 1
    while os.path.lexists(f"{path}.{ending}-{number}"):
        number += 1
    return f"{path}.{ending}-{number}"


def _set_aside(fd: int, path: str, torn: bytes, whole: int) -> None:
    """Keep the bytes that a crash left of a line in a file of their own, then cut them off."""
    aside = beside(path, "torn")
    file = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        places.write(file, torn)
        os.fsync(file)
    finally:
        os.close(file)
    places.sync_folder(os.path.dirname(aside))
    os.ftruncate(fd, whole)
    os.fdatasync(fd)
    log.error("%s: the last line was cut off by a crash: its %d bytes are kept in %s", path, len(torn), aside)


def _pread(fd: int, start: int, end: int) -> bytes:
    parts = []
    while start < end:
        part = os.pread(fd, end - start, start)
        if not part:
            break
        parts.append(part)
        start += len(part)
    return b"".join(parts)
