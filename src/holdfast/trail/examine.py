"""Whether one file is what its name says: the checks that `doctor` makes, and words for what is wrong."""

from __future__ import annotations

import os
import re
from typing import Literal, NamedTuple

import msgspec

from ..errors import PayloadError
from . import layouts, record
from .entry import Entry, decode
from .fold import check
from .model import Trail
from .places import JOURNAL, RECORD

Reason = Literal["malformed", "schema", "io"]
"""Why a file cannot be read: it is no JSON; it is JSON but no trail; the system refused."""

_CONFLICT = re.compile(rb"(<{7}|={7}|>{7}|\|{7})( |$)")


class Failure(msgspec.Struct, kw_only=True):
    """A file that cannot be read: its path in the folder, why, and what was expected and there.

    `lines` are the numbers of the bad lines of a journal whose other lines are good.
    """

    path: str
    reason: Reason
    message: str
    lines: list[int] = []


class Bad(Exception):
    """Something is wrong with a file: the reason and, as text, what was expected and what was there."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason: Reason = reason


class BadLine(NamedTuple):
    """A line of a journal that is no entry: its number, from 1, why, and itself."""

    number: int
    problem: Bad
    text: bytes


class Examined(NamedTuple):
    """A journal, line by line: its good lines with their entries, the bad ones, and a torn end."""

    good: list[bytes]
    entries: list[Entry]
    bad: list[BadLine]
    torn: bytes

    @property
    def started(self) -> bool:
        """Whether a trail can be told from the good lines."""
        return any(entry.type == "trail_started" for entry in self.entries)


def examine(trail_id: str, data: bytes) -> Examined:
    """Check each line of a journal, also whether its data can be read back."""
    seen = Examined([], [], [], b"")
    *lines, tail = data.split(b"\n")
    for number, text in enumerate(lines, start=1):
        if text.strip():
            _line(seen, trail_id, number, text)
    if tail.strip():
        try:
            decode(tail)
        except PayloadError:
            return seen._replace(torn=tail)
        _line(seen, trail_id, len(lines) + 1, tail)
    return seen


def is_told(name: str) -> bool:
    """Whether a file of this name tells of a trail: a journal or a record, not an index, a trace or a marker."""
    if name in ("index.json", "config.json", "compaction.json"):
        return False
    return name.endswith((JOURNAL, RECORD)) and not name.endswith((".trace.json", ".compaction.json"))


def id_of(path: str) -> str:
    """What a file of a trail is named for: the trail's id, if it is one."""
    folder, name = os.path.split(path)
    return os.path.basename(folder) if name == "trajectory.json" else os.path.splitext(name)[0]


def record_at(root: str, trail_id: str, path: str) -> Trail:
    """Another tool's record. Raises Bad, OSError."""
    fd = os.open(os.path.join(root, path), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    with open(fd, "rb") as file:
        trail = record_in(file.read())
    if trail.id != trail_id:
        raise Bad("schema", f"expected the id {trail_id}, as its name says, got {trail.id}")
    return trail


def record_in(text: bytes) -> Trail:
    """The trail of a record's text. Raises Bad."""
    try:
        data = record.parse(text, "record")
    except PayloadError as error:
        raise Bad("malformed", _bare(error)) from None
    try:
        return layouts.of_record(data, "record")
    except PayloadError as error:
        raise Bad("schema", _bare(error)) from None


def _line(seen: Examined, trail_id: str, number: int, text: bytes) -> None:
    try:
        entry = decode(text)
    except PayloadError as error:
        seen.bad.append(BadLine(number, _why(text, error), text))
        return
    try:
        check(trail_id, entry)
    except PayloadError as error:
        seen.bad.append(BadLine(number, Bad("schema", str(error)), text))
        return
    seen.good.append(text)
    seen.entries.append(entry)


def _why(text: bytes, error: PayloadError) -> Bad:
    if _CONFLICT.match(text.rstrip()):
        return Bad("malformed", "a conflict marker of git; the lines of both sides count")
    try:
        record.parse(text)
    except PayloadError:
        return Bad("malformed", _bare(error))
    return Bad("schema", _bare(error))


def _bare(error: PayloadError) -> str:
    return str(error).removeprefix("record: ").removeprefix("journal line: ")
