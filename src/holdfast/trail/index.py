"""`index.json`: an entry for each trail, derived from the names in the folder and from the journals.

Guarantee: when `enter` returns, the file names the new trail; when `refresh` returns, it names every trail whose
journal was there when it began. It rests on the folder's lock, and on looking at the folder each time that
somebody asks what there is: names are cheap to read, and no entry is believed whose file stands somewhere else,
or is newer than the last look though its trail has ended. So whatever git, another tool or a crash did to the
folder is put right by the next one who lists or ends a trail, and one writer serves all that wait for the lock:
they find their entries there, and write nothing. A start looks at its own trail alone, for the price of the rest
grows with the folder. The file needs no sync: an empty or torn one is made again.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable

import msgspec

from .. import faults
from ..errors import HoldfastError
from . import journal, layouts, places, record, retell
from .fold import summary_of
from .model import Status, Summary, Trail
from .places import Found, Places, Scan

log = logging.getLogger("holdfast.trail")

NAME = "index.json"


class IndexEntry(msgspec.Struct, kw_only=True, omit_defaults=True, rename="camel"):
    """What the index says of a trail; `path` is the record's, relative to the folder."""

    title: str
    status: Status
    started_at: str
    completed_at: str | None = None
    path: str
    confidence: float | None = None
    agent: str | None = None
    session: str | None = None
    worktree: str | None = None


class _File(msgspec.Struct, kw_only=True, rename="camel"):
    version: int
    last_updated: str
    trails: dict[str, IndexEntry] = msgspec.field(name="trajectories")


_decoder = msgspec.json.Decoder(_File)
_encoder = msgspec.json.Encoder()


class Index:
    """The index of one folder, as this process knows it. Safe from threads: what it keeps is replaced whole."""

    def __init__(self, where: Places) -> None:
        self._places = where
        self._known: tuple[tuple[int, ...], dict[str, IndexEntry]] = ((), {})
        self._unreadable: dict[str, tuple[int, ...]] = {}

    @property
    def path(self) -> str:
        """Where the file is."""
        return self._places.path(NAME)

    def time(self) -> int:
        """When the whole folder was looked at, in nanoseconds: the file's time; 0 where there is none."""
        try:
            return os.stat(self.path, follow_symlinks=False).st_mtime_ns
        except OSError:
            return 0

    def read(self) -> dict[str, IndexEntry] | None:
        """The entries; None where there is no such file, or none that can be read."""
        try:
            mark = _mark(self.path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        known, entries = self._known
        if mark == known:
            return entries
        try:
            with open(self.path, "rb") as file:
                entries = _decoder.decode(file.read()).trails
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
            return None
        self._known = (mark, entries)
        return entries

    def matches(self, scan: Scan, entries: dict[str, IndexEntry]) -> bool:
        """Whether each trail of the folder has its entry, and each entry its trail."""
        if scan.temporary or scan.changed:
            return False
        for trail_id, found in scan.trails.items():
            entry = entries.get(trail_id)
            if (entry is None or entry.path != found.path) and not self._is_known_bad(found):
                return False
        return all(trail_id in scan.trails for trail_id in entries)

    def enter(self, trail_id: str, found: Found, *, now: str) -> bool:
        """Have the index name a new trail, without a look at the others. The caller holds the folder's lock.

        False where all should be looked at: there is no index that can be read, or it was written since the
        journal was. Then others begin trails too, and wait for the lock: one look serves all of them.
        """
        before = self.read()
        if before is None:
            return False
        if trail_id in before and before[trail_id].path == found.path:
            return True  # whoever had the lock before has seen it
        if os.stat(self.path).st_ctime_ns >= os.stat(self._places.path(found.journals[0])).st_ctime_ns:
            return False
        entries = dict(before)
        self._look(trail_id, found, entries, derived=True)
        self._write(entries, now, looked=self.time())
        return True

    def refresh(self, scan: Scan, touched: Iterable[str] = (), *, now: str) -> dict[str, IndexEntry]:
        """Make the index say what the folder holds. The caller holds the folder's lock.

        Trails that are new, moved or `touched` are read again, and their derived files written.
        """
        for name in scan.temporary:  # whoever wrote it died: they are made under this lock only
            _remove(self._places.path(name))
        before = self._before()
        entries = dict(before or {})
        for trail_id in [trail_id for trail_id in entries if trail_id not in scan.trails]:
            del entries[trail_id]
        again = {*touched, *scan.changed}
        for trail_id, found in scan.trails.items():
            entry = entries.get(trail_id)
            if entry is None or entry.path != found.path or trail_id in again:
                self._look(trail_id, found, entries, derived=entry is None and trail_id not in again)
        if entries != before:
            self._write(entries, now)
        elif again:
            os.utime(self.path)  # newer than what was looked at
        return entries

    def look(self, scan: Scan) -> dict[str, IndexEntry]:
        """What `refresh` would write, where the folder cannot be written."""
        entries: dict[str, IndexEntry] = {}
        before = self.read() or {}
        for trail_id, found in scan.trails.items():
            entry = before.get(trail_id)
            if entry is not None and entry.path == found.path and trail_id not in scan.changed:
                entries[trail_id] = entry
            elif (trail := self._read_trail(trail_id, found)) is not None:
                entries[trail_id] = _entry_of(trail, found.path)
        return entries

    def _before(self) -> dict[str, IndexEntry] | None:
        entries = self.read()
        if entries is None and os.path.lexists(self.path) and not _is_empty(self.path):
            bad = journal.beside(self.path, "bad")
            os.rename(self.path, bad)
            log.error("%s is malformed: it is kept as %s, and made again from the journals", self.path, bad)
        return entries

    def _look(self, trail_id: str, found: Found, entries: dict[str, IndexEntry], *, derived: bool) -> None:
        """Read a trail and derive from it; where it is only new to the index, not what has been `derived`."""
        trail = self._read_trail(trail_id, found)
        if trail is None:
            entries.pop(trail_id, None)
            for path in found.journals:
                journal.clear(self._places.path(path))
            return
        entries[trail_id] = _entry_of(trail, found.path)
        if found.journals:
            if not (derived and _is_derived(self._places.root, found.journals[0])):
                derive(self._places.root, found.journals[0], trail)
            for path in found.records:
                self._remove_old(trail_id, path)

    def _remove_old(self, trail_id: str, path: str) -> None:
        """Remove what was derived at the place where the journal stood before; other tools' records stay."""
        try:
            derived = retell.is_derived(layouts.read(self._places.root, trail_id, path))
        except (HoldfastError, OSError):
            return
        if derived:
            _remove(self._places.path(path))
            _remove(places.stem(self._places.path(path)) + places.PAGE)

    def _read_trail(self, trail_id: str, found: Found) -> Trail | None:
        path = (found.journals or found.records)[0]
        mark = _mark_of(self._places.path(path))
        try:
            return read_trail(self._places.root, trail_id, found)
        except FileNotFoundError:
            return None
        except (HoldfastError, OSError) as error:
            if self._unreadable.get(path) != mark:
                self._unreadable[path] = mark
                log.error("%s", error)
            return None

    def _is_known_bad(self, found: Found) -> bool:
        path = (found.journals or found.records)[0]
        return self._unreadable.get(path) == _mark_of(self._places.path(path)) or not os.path.exists(
            self._places.path(path)
        )

    def _write(self, entries: dict[str, IndexEntry], now: str, *, looked: int | None = None) -> None:
        """The file's time is that of the last look at the whole folder, if that was not now."""
        faults.point("trail.index.before")
        data = _encoder.encode(_File(version=1, last_updated=now, trails=entries))
        places.replace(self.path, data, time=looked)
        self._known = (_mark(self.path), entries)
        faults.point("trail.index.after")


def read_trail(root: str, trail_id: str, found: Found) -> Trail:
    """A trail from its files: the union of its journals, else another tool's record of it.

    Raises TrailBroken, FileNotFoundError.
    """
    path = (found.journals or found.records)[0]
    return retell.tell(trail_id, layouts.entries(root, trail_id, found), path)


def derive(root: str, path: str, trail: Trail) -> None:
    """Write the record and the page of a trail beside its journal."""
    base = os.path.join(root, places.stem(path))
    _keep_rewritten(root, places.stem(path), trail.id)
    for ending, text in documents(trail).items():
        places.replace(base + ending, text)
    if not os.path.exists(os.path.join(root, path)):  # a start was taken back meanwhile: no ghost of it stays
        _remove(base + places.RECORD)
        _remove(base + places.PAGE)


def _is_derived(root: str, path: str) -> bool:
    """Whether a record and a page that we derived stand beside a journal."""
    base = places.stem(path)
    try:
        return layouts.is_signed(root, base + places.RECORD) and os.path.exists(f"{root}/{base}{places.PAGE}")
    except OSError:
        return False


def _keep_rewritten(root: str, base: str, trail_id: str) -> None:
    """A record that another tool wrote over ours goes where its own stand: the next writer takes it over."""
    path = base + places.RECORD
    if not layouts.is_rewritten(root, trail_id, path):
        return
    target = os.path.join(root, base, "trajectory.json")
    os.makedirs(os.path.dirname(target), exist_ok=True)
    free = journal.beside(target, "other") if os.path.lexists(target) else target
    os.rename(os.path.join(root, path), free)


def documents(trail: Trail) -> dict[str, bytes]:
    """What is derived from a trail and stands beside its journal, by the ending of the file's name."""
    from .export import export

    return {
        places.RECORD: record.dump(retell.signed(record.to_record(trail)), indent=2),
        places.PAGE: export(trail, "markdown").encode("utf-8", "backslashreplace"),
    }


def summary(trail_id: str, entry: IndexEntry) -> Summary:
    """The line of a list for an entry of the index."""
    return Summary(
        id=trail_id,
        title=entry.title,
        status=entry.status,
        started_at=record.moment(entry.started_at),
        completed_at=record.moment(entry.completed_at) if entry.completed_at else None,
        confidence=entry.confidence,
        agent=entry.agent,
        session=entry.session,
        worktree=entry.worktree,
        path=entry.path,
    )


def _entry_of(trail: Trail, path: str) -> IndexEntry:
    line = summary_of(trail)
    return IndexEntry(
        title=_plain(line.title),
        status=line.status,
        started_at=record.instant(line.started_at),
        completed_at=record.instant(line.completed_at) if line.completed_at else None,
        path=path,
        confidence=line.confidence,
        agent=_plain(line.agent) if line.agent else None,
        session=_plain(line.session) if line.session else None,
        worktree=_plain(line.worktree) if line.worktree else None,
    )


def _plain(text: str) -> str:
    """The text without lone surrogates, which UTF-8 does not know."""
    return text.encode("utf-8", "replace").decode()


def _is_empty(path: str) -> bool:
    return not os.path.islink(path) and os.path.getsize(path) == 0


def _remove(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        return


def _mark(path: str) -> tuple[int, ...]:
    """Changes when the file does."""
    status = os.stat(path, follow_symlinks=False)
    return status.st_ino, status.st_size, status.st_mtime_ns


def _mark_of(path: str) -> tuple[int, ...]:
    try:
        return _mark(path)
    except OSError:
        return ()
