"""What the files of a trail say, whatever their layout: journals, and the records that other tools left."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..errors import PayloadError, TrailBroken, TrailError
from . import dialect, journal, record
from . import entry as line
from .entry import ENDS, Entry
from .model import Trail
from .places import Found
from .retell import SIGN, entries_of, is_derived, new_in


def entries(root: str, trail_id: str, found: Found) -> list[Entry]:
    """What the files of a trail say. Raises TrailBroken, and FileNotFoundError where they are gone."""
    if not found.journals:
        return _of_records(root, trail_id, found.records)
    lines: list[Entry] = []
    begun = False
    for path in found.journals:
        with _told(path):
            reading = journal.read(os.path.join(root, path))
        for bad in reading.bad:
            journal.log.error("%s line %d is no entry, and is passed over: %s", path, bad.number, bad.reason)
        lines += reading.entries
        begun = begun or bool(reading.entries or reading.bad)
    if not begun:  # not yet, or never
        raise FileNotFoundError(errno.ENOENT, "nothing was recorded yet", found.journals[0])
    if not any(entry.type == "trail_started" for entry in lines):
        raise TrailBroken(
            f"{found.journals[0]}: expected a line of type trail_started, got {len(lines)} lines without it; "
            "`holdfast trail doctor` tells more",
            path=found.journals[0],
        )
    return line.ordered(lines)


def read(root: str, trail_id: str, path: str) -> Trail:
    """Another tool's record. Raises TrailBroken with its path for what is none, FileNotFoundError.

    Where `is_derived` says so of it, it is our own, and tells nothing that its journal does not.
    """
    with _told(path):
        fd = os.open(os.path.join(root, path), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        with open(fd, "rb") as file:
            text = file.read()
    try:
        trail = of_record(record.parse(text, path), path)
    except PayloadError as error:
        raise TrailBroken(str(error), path=path) from None
    if trail.id != trail_id:
        raise TrailBroken(f"{path}: expected the id {trail_id}, as its name says, got {trail.id}", path=path)
    return trail


def of_record(data: Any, path: str) -> Trail:
    """The trail of a record's JSON data, as it was before it was exported. Raises PayloadError."""
    return record.from_record(dialect.from_npm(data), what=path)


def is_rewritten(root: str, trail_id: str, path: str) -> bool:
    """Whether another tool has written its record over the one that we derived."""
    try:
        return not is_signed(root, path) and not is_derived(read(root, trail_id, path))
    except (TrailError, OSError):
        return False  # there is none, or it was cut off: it tells nothing


def is_signed(root: str, path: str) -> bool:
    """Whether a record ends as those that we derive do. Raises OSError."""
    with open(os.path.join(root, path), "rb") as file:
        file.seek(-min(200, os.fstat(file.fileno()).st_size), os.SEEK_END)
        return SIGN in file.read()


@contextmanager
def _told(path: str) -> Iterator[None]:
    """What the system refuses is told with the file's path; that a file is gone is for the caller to know."""
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        raise TrailBroken(f"{path}: cannot be read: {os.strerror(error.errno or 0)}", path=path) from None


def _of_records(root: str, trail_id: str, paths: list[str]) -> list[Entry]:
    """What several records of one trail say: the newest tells what it is, the others add their events."""
    trails: list[Trail] = []
    problem: TrailError | FileNotFoundError | None = None
    for path in paths:
        try:
            trails.append(read(root, trail_id, path))
        except (TrailError, FileNotFoundError) as error:
            problem = error
    if not trails:
        raise problem or FileNotFoundError(trail_id)
    first, *older = sorted(trails, key=lambda trail: trail.completed_at or trail.started_at, reverse=True)
    told = list(entries_of(first, origin="record"))
    for trail in older:
        told += [entry for entry in new_in(trail, told, origin="record") if entry.type not in ENDS]
    return line.ordered(told)
