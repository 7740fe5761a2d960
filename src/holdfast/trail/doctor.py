"""What is wrong in a folder, and what can be put right without a guess.

Everything is read and checked, journals line by line. What a crash, git or another tool left half-done has one
right end, which is in the files: that is done under the folder's lock. What cannot be read is reported with the
reason and left where it is; `quarantine` moves it to `invalid/`. Nothing that was recorded is deleted.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import msgspec

from ..errors import HoldfastError
from . import entry as line
from . import index, journal, layouts, lock, places, retell
from .examine import Bad, Failure, Reason, examine, id_of, is_told, record_at
from .fold import summary_of
from .ids import is_trail_id
from .model import Trail
from .places import ACTIVE, COMPLETED, JOURNAL, RECORD, Found

if TYPE_CHECKING:
    from .folder import TrailFolder

INVALID = "invalid"


class Reconciled(msgspec.Struct, kw_only=True):
    """What was there: files read, trails that the index lacked and had, files that failed by reason.

    `mended` says in one line each what was put right (by `diagnose`: what `reconcile` would).
    """

    scanned: int = 0
    added: int = 0
    already_indexed: int = 0
    malformed: int = 0
    schema: int = 0
    io: int = 0
    failures: list[Failure] = msgspec.field(default_factory=list)
    mended: list[str] = msgspec.field(default_factory=list)


class Quarantined(msgspec.Struct, kw_only=True):
    """A file, or lines of one, that `quarantine` has moved: from where to where, relative to the folder."""

    path: str
    moved_to: str
    reason: Reason
    message: str


def diagnose(folder: TrailFolder) -> Reconciled:
    """What `reconcile` would find; nothing is changed, and a read-only folder will do.

    Example:
        for failure in diagnose(folder).failures:
            print(failure.path, failure.reason, failure.message)
    """
    told = _Visit(folder, mend=False).run()
    if _left_elsewhere(folder) is not None:
        told.mended.append(
            f"{places.MOVED}: the npm tool has moved trails there, and they are not all here yet"
        )
    return told


def reconcile(folder: TrailFolder) -> Reconciled:
    """Read every file, finish what a crash left, put the index right, and count what was there.

    Raises TrailError where the folder cannot be written, TrailLocked.
    """
    moved = _left_elsewhere(folder)
    taken = _take_back(folder, moved) if moved is not None else []
    with folder.files.locked():
        told = _Visit(folder, mend=True).run()
    told.mended[:0] = taken
    return told


def rebuild(folder: TrailFolder) -> Reconciled:
    """As `reconcile`; and the index, and the record and page of every trail, are made anew."""
    with folder.files.locked():
        return _Visit(folder, mend=True).run(anew=True)


def quarantine(folder: TrailFolder) -> list[Quarantined]:
    """Move what is malformed or no trail to `invalid/`, at the same relative path; nothing is overwritten.

    Of a journal with a few bad lines, these go to `invalid/<path>.lines`, and the others stay. Files that could
    not be read at all ('io') stay: they may be readable the next time.
    """
    moved: list[Quarantined] = []
    with folder.files.locked():
        for failure in _Visit(folder, mend=True).run().failures:
            if failure.reason == "io":
                continue
            take = _set_lines_aside if failure.lines else _set_file_aside
            target = take(folder, failure.path)
            told = msgspec.structs.asdict(failure)
            del told["lines"]
            moved.append(Quarantined(moved_to=target, **told))
        folder.files.update(sorted({trail for told in moved if is_trail_id(trail := id_of(told.path))}))
    return moved


class _Visit:
    """One look at all files of a folder. With `mend`, its lock is held, and what is found is put right."""

    def __init__(self, folder: TrailFolder, *, mend: bool) -> None:
        self.files = folder.files
        self.root = folder.files.places.root
        self.mend = mend
        self.told = Reconciled()
        self.failed: set[str] = set()

    def run(self, *, anew: bool = False) -> Reconciled:
        before = self.files.index.read()
        for path in list(self._walk()):
            self._look(path)
        touched: list[str] = []
        scan = self.files.places.scan()
        for trail_id, found in scan.trails.items():
            trail = self._trail(trail_id, found)
            entry = (before or {}).get(trail_id)
            if trail is None:
                touched += [trail_id] if entry is not None else []  # it is no longer what the index says
                continue
            now = self.files.places.find(trail_id) if self.mend else found
            if entry is None or entry.path != now.path:
                self.told.added += 1
            else:
                self.told.already_indexed += 1
            stale = entry is not None and index.summary(trail_id, entry) != summary_of(trail, entry.path)
            if anew or stale or not self._is_current(now, trail):
                touched.append(trail_id)
        self._index(before, set(scan.trails))
        if self.mend:
            if anew and os.path.lexists(self.files.index.path):
                os.unlink(self.files.index.path)
            self.files.update(touched)
        self.told.failures.sort(key=lambda failure: failure.path)
        return self.told

    # ---- files ----------------------------------------------------------------------------------------------

    def _walk(self) -> Iterator[str]:
        """Every file below `active` and `completed`, by its path in the folder; links are not followed."""
        for name in sorted(_names(self.root)):
            if name.endswith(".tmp"):
                yield name
        below = [ACTIVE, COMPLETED]
        while below:
            place = below.pop()
            full = os.path.join(self.root, place)
            if os.path.islink(full) or os.path.isfile(full):
                self._fail(
                    place, "schema", "expected a folder, found a file or a symbolic link, not followed"
                )
                continue
            try:
                entries = sorted(os.scandir(full), key=lambda entry: entry.name)
            except FileNotFoundError:
                continue
            except OSError as error:
                self._fail(place, "io", os.strerror(error.errno or 0))
                continue
            for entry in entries:
                path = f"{place}/{entry.name}"
                if entry.is_dir(follow_symlinks=False) and not entry.name.endswith((JOURNAL, RECORD)):
                    below.append(path)
                else:
                    yield path

    def _look(self, path: str) -> None:
        name = os.path.basename(path)
        if name.endswith(".tmp"):
            self._mend(f"{path}: left by a writer that died: removed", lambda: os.unlink(self._full(path)))
        if not is_told(name):
            return
        trail_id = id_of(path)
        beside = os.path.exists(places.stem(self._full(path)) + JOURNAL)
        if name.endswith(RECORD) and beside and is_trail_id(trail_id):
            return  # derived: looked at with its trail
        self.told.scanned += 1
        try:
            mode = os.lstat(self._full(path)).st_mode
            if not is_trail_id(trail_id):
                self._fail(path, "schema", f"expected the id of a trail as its name, got {trail_id!r:.120}")
            elif not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
                self._fail(
                    path, "schema", "expected a file, got a symbolic link or another thing: not followed"
                )
            elif name.endswith(JOURNAL):
                self._journal(path, trail_id)
            else:
                record_at(self.root, trail_id, path)
        except FileNotFoundError:
            return  # it was moved just now, and is looked at where it is
        except Bad as bad:
            self._fail(path, bad.reason, str(bad))
        except OSError as error:
            self._fail(path, "io", os.strerror(error.errno or 0))

    def _journal(self, path: str, trail_id: str) -> None:
        full = self._full(path)
        flags = journal.WRITE if self.mend else os.O_RDONLY
        with lock.locked(full, flags, timeout=self.files.lock_timeout) as fd:
            with open(full, "rb") as file:
                data = file.read()
            found = examine(trail_id, data)
            if found.torn:
                text = f"{path}: its last line was cut off by a crash: {len(found.torn)} bytes set aside"
                self._mend(text, lambda: journal.Tail().catch_up(fd, full))
            if not found.entries and not found.bad:
                self._mend(f"{path}: empty, left by a start that died: removed", lambda: os.unlink(full))
                return
        if found.bad:
            first = found.bad[0]
            more = f" (and {len(found.bad) - 1} more lines)" if len(found.bad) > 1 else ""
            numbers = [bad.number for bad in found.bad] if found.started else []
            self._fail(path, first.problem.reason, f"line {first.number}: {first.problem}{more}", numbers)
        elif not found.started:
            reason: Reason = "schema" if found.entries else "malformed"
            self._fail(path, reason, f"expected a trail_started, got {len(found.entries)} lines without it")

    # ---- trails ---------------------------------------------------------------------------------------------

    def _trail(self, trail_id: str, found: Found) -> Trail | None:
        """The trail of these files, after they have been put right; None where they cannot be read."""
        found = Found(
            [path for path in found.journals if path not in self.failed],
            [path for path in found.records if path not in self.failed],
        )
        if not found.journals and not found.records:
            return None
        try:
            told = layouts.entries(self.root, trail_id, found)
            if found.journals:
                self._put_right(trail_id, found, told)
                told = self.files.lines(trail_id)
            return retell.tell(trail_id, told)
        except FileNotFoundError:
            return None
        except HoldfastError as error:
            path = (found.journals or found.records)[0]
            if not any(failure.path == path for failure in self.told.failures):
                self._fail(path, "schema", str(error))
            return None

    def _put_right(self, trail_id: str, found: Found, told: list[line.Entry]) -> None:
        files, first = self.files, found.journals[0]
        for path in found.journals[1:]:
            self._mend(f"{path}: a second journal of the trail: merged into {first}", lambda: None)
        if len(found.journals) > 1 and self.mend:
            files.unified(trail_id)
        beside = [
            places.stem(path) + RECORD for path in found.journals
        ]  # derived, if nobody has rewritten it
        new = files.only_in_records(trail_id, Found(found.journals, [*found.records, *beside]), told)
        if new:
            ready = [files.ready(entry, trail_id, bounded=False) for entry in new]
            text = f"{first}: {len(new)} entries that only another tool's record told were taken over"
            self._mend(text, lambda: files.merge(trail_id, ready))
        place = files.place_of(trail_id, line.ordered([*told, *new]))
        if place != first:
            self._mend(f"{first}: moved to {os.path.dirname(place)}", lambda: files.settled(trail_id))

    def _is_current(self, found: Found, trail: Trail) -> bool:
        """Whether what is derived from a trail says what its journal does. That it lags behind is no finding."""
        if not found.journals:
            return True
        base = self._full(places.stem(found.journals[0]))
        try:
            return all(_read(base + ending) == text for ending, text in index.documents(trail).items())
        except FileNotFoundError:
            return False

    def _index(self, before: dict[str, index.IndexEntry] | None, trails: set[str]) -> None:
        if before is None and trails:
            there = os.path.lexists(self.files.index.path)
            self.told.mended.append(f"index.json: {'malformed' if there else 'missing'}: made again")
        gone = sorted(set(before or {}) - trails)
        self.told.mended += [f"index.json: named {trail_id}, which is not there" for trail_id in gone]

    # ---- telling --------------------------------------------------------------------------------------------

    def _full(self, path: str) -> str:
        return os.path.join(self.root, path)

    def _mend(self, text: str, do: Callable[[], Any]) -> None:
        self.told.mended.append(text)
        if self.mend:
            do()

    def _fail(self, path: str, reason: Reason, message: str, lines: list[int] | None = None) -> None:
        self.told.failures.append(Failure(path=path, reason=reason, message=message, lines=lines or []))
        if not lines:
            self.failed.add(path)
        setattr(self.told, reason, getattr(self.told, reason) + 1)


def _left_elsewhere(folder: TrailFolder) -> str | None:
    """Where the npm tool has moved the folder, if it was made again since (by a checkout) and lacks something."""
    where = folder.files.places
    moved = os.path.join(os.path.dirname(where.given), places.MOVED)
    again = os.path.basename(where.given) == places.FOLDER and where.root != moved
    if not again or not places.is_ours(moved):
        return None
    for trail_id, found in places.Places(moved).scan().trails.items():
        here = where.find(trail_id)
        try:
            there = {line.id for line in layouts.entries(moved, trail_id, found)}
            ours = layouts.entries(where.root, trail_id, here) if here.journals or here.records else []
        except (HoldfastError, OSError):
            continue
        if there - {line.id for line in ours}:
            return moved
    return None


def _take_back(folder: TrailFolder, moved: str) -> list[str]:
    from .npm import import_folder

    told = import_folder(folder, moved)
    count = told.added + told.updated
    return [f"{places.MOVED}: {count} trails were taken from where the npm tool had moved them"]


def _set_file_aside(folder: TrailFolder, path: str) -> str:
    root = folder.files.places.root
    target = _unused(root, path)
    os.rename(os.path.join(root, path), os.path.join(root, target))
    places.sync_folder(os.path.dirname(os.path.join(root, target)))
    return target


def _set_lines_aside(folder: TrailFolder, path: str) -> str:
    """Keep the bad lines of a journal in a file of their own, then write the journal without them."""
    files, full = folder.files, folder.files.places.path(path)
    target = _unused(files.places.root, f"{path}.lines")
    with lock.locked(full, journal.WRITE, timeout=files.lock_timeout):
        with open(full, "rb") as file:
            found = examine(id_of(path), file.read())
        bad = b"".join(line.text + b"\n" for line in found.bad)
        places.replace(files.places.path(target), bad, durable=True)
        places.replace(full, b"".join(text + b"\n" for text in found.good), durable=True)
    return target


def _unused(root: str, path: str) -> str:
    """A name below `invalid` that is not taken, like the path's."""
    name, number = f"{INVALID}/{path}", 0
    while os.path.lexists(os.path.join(root, name)):
        number += 1
        name = f"{INVALID}/{path}.{number}"
    os.makedirs(os.path.join(root, os.path.dirname(name)), exist_ok=True)
    return name


def _names(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except FileNotFoundError:
        return []


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()
