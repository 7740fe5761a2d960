"""Exchange with the npm tool `agent-trajectories`, through a folder of its own.

The tool takes no lock, cuts a file before it writes it, and deletes a finished record before it writes the new
one. In a folder that we share with it, it moves and deletes what is ours. So each has its own folder, and these
two functions carry over what the other side has: `import_folder` what it wrote, `export_npm` what we have.

Guarantee: nothing that the tool has written whole is lost by either. An import takes the union of both sides,
by what events say. A file that is torn or empty, or gone while the tool moves it, is looked at again a few times,
and never taken for an empty record. An export takes over what the tool has written since before it replaces a
file, and looks once more just before that. Between that look and the rename there is a moment in which the tool
may write; only a lock that it does not take could close it. What it says then is still in its memory: its next
save writes the whole record, and the next import brings it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import msgspec

from ..clock import from_datetime
from ..errors import PayloadError, TrailBroken, TrailError
from . import dialect, places, record, retell
from .entry import Entry
from .examine import Bad, Failure, examine, id_of, is_told, record_in
from .ids import checked, is_trail_id
from .model import Trail
from .places import ACTIVE, COMPLETED, JOURNAL, RECORD

if TYPE_CHECKING:
    from .folder import TrailFolder

ORIGIN = "npm"
PAUSES = (0.01, 0.02, 0.05, 0.1, 0.2)
"""How long to wait before each new look at a file that is torn, in seconds: a save of the tool takes some ms."""

_FILE, _PAGE = "trajectory.json", "summary.md"
_ASIDE = ("invalid", "compacted", "html", ".cache")
_KINDS = ("unchanged", "updated", "added")

Mark = tuple[int, ...]
"""Changes when a file does."""


class Imported(msgspec.Struct, kw_only=True):
    """Files that were read, and the trails that were new, had new entries or nothing new; files that failed."""

    scanned: int = 0
    added: int = 0
    updated: int = 0
    unchanged: int = 0
    failures: list[Failure] = msgspec.field(default_factory=list)


class Exported(msgspec.Struct, kw_only=True):
    """Trails that were written, or stood there already; `imported` of them had been changed by the tool."""

    written: int = 0
    unchanged: int = 0
    imported: int = 0
    failures: list[Failure] = msgspec.field(default_factory=list)


def import_folder(
    folder: TrailFolder, directory: str | os.PathLike[str], *, pause: Callable[[float], object] = time.sleep
) -> Imported:
    """Take over the trails of another folder, or of one file: the npm tool's, of any version, or one of ours.

    Records are found in all layouts, at any depth; index.json is not needed. What we have already is not taken
    again, also where the record has grown. `pause` waits between two looks at a torn file. Raises TrailError
    where there is nothing to read, or our folder cannot be written.

    Example:
        import_folder(folder, ".agentworkforce/trajectories")
    """
    top = _base(os.path.abspath(os.path.expanduser(os.fspath(directory))))
    if not os.path.exists(top):
        raise TrailError(f"{top}: expected a folder or a file with trails, got nothing of that name")
    if os.path.realpath(top) == os.path.realpath(folder.root):
        raise TrailError(f"{top}: expected another folder, got the one into which to import")
    return _Import(folder, top).run(pause)


def export_npm(
    folder: TrailFolder,
    directory: str | os.PathLike[str],
    ids: Iterable[str] | None = None,
    *,
    pause: Callable[[float], object] = time.sleep,
) -> Exported:
    """Write trails (all, or those named) such that the npm tool reads them in `directory`.

    What the tool has changed there is imported first, and its record of a trail is replaced only then; one that
    cannot be read is left alone and reported. Files that are no record of these trails are not touched. Raises
    TrailNotFound, TrailIdError, TrailError.

    Example:
        export_npm(folder, "../elsewhere/.agentworkforce/trajectories")
    """
    top = os.path.abspath(os.path.expanduser(os.fspath(directory)))
    root = os.path.realpath(folder.root)
    if os.path.commonpath([os.path.realpath(top), root]) == root:
        raise TrailError(f"{top}: expected a folder of its own, for the npm tool deletes files of ours there")
    if os.path.lexists(top) and not os.path.isdir(top):
        raise TrailError(f"{top}: expected a folder, found a file; move it away")
    wanted = [line.id for line in folder.list()] if ids is None else [checked(id) for id in ids]
    return _Export(folder, top, pause).run(wanted)


class _Import:
    def __init__(self, folder: TrailFolder, top: str) -> None:
        self.folder = folder
        self.top = top
        self.kinds: dict[str, int] = {}
        self.seen: dict[str, Mark] = {}

    def run(self, pause: Callable[[float], object]) -> Imported:
        failures, again = self._look()
        for seconds in PAUSES:
            if not again:
                break
            pause(seconds)
            failures, again = self._look()
        touched = [trail_id for trail_id, kind in self.kinds.items() if kind]
        if touched:
            self.folder.files.refresh(touched)
        counts = {name: list(self.kinds.values()).count(kind) for kind, name in enumerate(_KINDS)}
        return Imported(scanned=len(self.seen) + len(failures), failures=failures, **counts)

    def _look(self) -> tuple[list[Failure], bool]:
        """Take what is whole and new since the last look: what failed, and whether to look again."""
        failures: list[Failure] = []
        again = False
        for path in _files(self.top):
            try:
                mark = _mark(path)
                if self.seen.get(path) != mark:
                    self._take(path)
                    self.seen[path] = mark
            except FileNotFoundError:
                again = True  # the tool moves it just now, and it will stand somewhere else
            except (Bad, OSError) as error:
                failures.append(_failure(path, self.top, error))
                again = again or (isinstance(error, Bad) and error.reason == "malformed")
        return failures, again

    def _take(self, path: str) -> None:
        text = _read(path)
        if not path.endswith(JOURNAL):
            trail = record_in(text)
            self._count(trail.id, *_take_over(self.folder, trail))
            return
        trail_id = id_of(path)
        if not is_trail_id(trail_id):
            raise Bad("schema", f"expected the id of a trail as its name, got {trail_id!r:.120}")
        found = examine(trail_id, text)
        if found.started:
            self._count(trail_id, *_absorb(self.folder, trail_id, found.entries))
        if found.torn:
            raise Bad("malformed", "the last line is cut off")
        if found.bad or not found.started:
            raise found.bad[0].problem if found.bad else Bad("schema", "expected a trail_started, got none")

    def _count(self, trail_id: str, there: bool, added: int) -> None:
        kind = _KINDS.index("added" if not there else "updated" if added else "unchanged")
        self.kinds[trail_id] = max(kind, self.kinds.get(trail_id, 0))


class _Export:
    def __init__(self, folder: TrailFolder, top: str, pause: Callable[[float], object]) -> None:
        self.folder = folder
        self.top = top
        self.pause = pause
        self.told = Exported()

    def run(self, wanted: list[str]) -> Exported:
        there = self._there()
        for trail_id in wanted:
            problem = self._write(trail_id, there.get(trail_id, []))
            for seconds in PAUSES:
                if problem is None:
                    break
                self.pause(seconds)
                problem = self._write(trail_id, self._there().get(trail_id, []))
            if problem is not None:
                self.told.failures.append(problem)
        return self.told

    def _there(self) -> dict[str, list[str]]:
        """The records that stand in the tool's folder, by trail."""
        found: dict[str, list[str]] = {}
        for path in _files(self.top) if os.path.isdir(self.top) else ():
            if path.endswith(RECORD):
                found.setdefault(id_of(path), []).append(path)
        return found

    def _write(self, trail_id: str, there: list[str]) -> Failure | None:
        """Write one trail; what was in the way, where something was: it may be gone at the next look."""
        path = self.top
        marks: dict[str, Mark] = {}
        texts: dict[str, bytes] = {}
        new = 0
        try:
            for path in there:
                marks[path], texts[path] = _mark(path), _read(path)
                theirs = record_in(texts[path])
                if theirs.id != trail_id:
                    raise Bad("schema", f"expected the id {trail_id}, as its name says, got {theirs.id}")
                new += _take_over(self.folder, theirs)[1]
            trail = self.folder.load(trail_id)
            path = os.path.join(self._place(trail, there), _FILE)
            self._refuse_links(path)
            text = record.dump(retell.signed(dialect.to_npm(trail)), indent=2)
            changed = texts.get(path) != text
            if changed:
                self._put(path, trail, text, marks)
            for other in marks:
                if other != path and _mark(other) == marks[other]:
                    os.unlink(other)  # what it says is in the file just written, and in our journal
                    _remove_empty(os.path.dirname(other))
        except (Bad, OSError) as error:
            return _failure(path, self.top, error)
        finally:
            if new:
                self.folder.files.refresh([trail_id])
                self.told.imported += 1
        self.told.written += changed
        self.told.unchanged += not changed
        return None

    def _put(self, path: str, trail: Trail, text: bytes, marks: dict[str, Mark]) -> None:
        from .export import export

        place = os.path.dirname(path)
        os.makedirs(place, exist_ok=True)
        if trail.status != "active":
            page = export(trail, "markdown").encode("utf-8", "backslashreplace")
            places.replace(os.path.join(place, _PAGE), page)
        if any(_mark(other) != mark for other, mark in marks.items()):
            raise Bad("io", "the npm tool has written meanwhile, again and again; try later")
        places.replace(path, text, durable=True)

    def _place(self, trail: Trail, there: list[str]) -> str:
        """The folder of a trail's record: where the tool has put it, if it has ended there too."""
        if trail.status == "active":
            return os.path.join(self.top, ACTIVE, trail.id)
        completed = os.path.join(self.top, COMPLETED, "")
        stands = [path for path in there if path.startswith(completed) and os.path.basename(path) == _FILE]
        if stands:
            return os.path.dirname(stands[0])
        ended = from_datetime(trail.completed_at or trail.started_at)
        return os.path.join(self.top, places.stem(self.folder.files.places.ended(trail.id, ended)))

    def _refuse_links(self, path: str) -> None:
        while path != self.top:
            if os.path.islink(path):
                raise Bad("schema", "expected a file or folder, got a symbolic link, which is not followed")
            path = os.path.dirname(path)


def _take_over(folder: TrailFolder, trail: Trail) -> tuple[bool, int]:
    """Take what a record says and our trail does not: whether there is one, and how many entries were new."""
    if not _is_there(folder, trail.id):
        return _absorb(folder, trail.id, retell.entries_of(trail, origin=ORIGIN))
    try:
        new = retell.new_in(trail, folder.entries(trail.id), origin=ORIGIN)
    except TrailBroken as error:
        raise Bad("schema", f"our own trail cannot be read: {error}") from None
    return _absorb(folder, trail.id, new)


def _absorb(folder: TrailFolder, trail_id: str, entries: Iterable[Entry]) -> tuple[bool, int]:
    there, new = _is_there(folder, trail_id), list(entries)
    try:
        return there, folder.files.absorb(trail_id, new)[0] if new else 0
    except (PayloadError, TrailBroken) as error:
        raise Bad("schema", str(error)) from None


def _is_there(folder: TrailFolder, trail_id: str) -> bool:
    found = folder.files.places.find(trail_id)
    return bool(found.journals or found.records)


def _base(top: str) -> str:
    """The folder of trails itself, where that of a project is named."""
    if any(os.path.isdir(os.path.join(top, place)) for place in (ACTIVE, COMPLETED)):
        return top
    inside = [os.path.join(top, place) for place in (places.FOLDER, places.MOVED)]
    return next((place for place in inside if os.path.isdir(place)), top)


def _files(top: str) -> list[str]:
    """The journals, then the records below a folder, or the one file; symbolic links are not followed.

    A journal says more than a record that was made of it, so it is taken first.
    """
    if not os.path.isdir(top):
        return [top]
    found = []
    for place, folders, names in os.walk(top):
        folders[:] = [name for name in folders if place != top or name not in _ASIDE]
        paths = (os.path.join(place, name) for name in names if is_told(name))
        found += [path for path in paths if not os.path.islink(path)]
    return sorted(found, key=lambda path: (not path.endswith(JOURNAL), path))


def _failure(path: str, top: str, error: Bad | OSError) -> Failure:
    relative = os.path.relpath(path, top) if path != top else os.path.basename(path)
    if isinstance(error, Bad):
        return Failure(path=relative, reason=error.reason, message=str(error))
    return Failure(path=relative, reason="io", message=os.strerror(error.errno or 0))


def _read(path: str) -> bytes:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a pipe would make us wait for ever
    with open(fd, "rb") as file:
        return file.read()


def _mark(path: str) -> Mark:
    status = os.stat(path)
    return status.st_ino, status.st_size, status.st_mtime_ns


def _remove_empty(place: str) -> None:
    if is_trail_id(os.path.basename(place)) and not os.listdir(place):
        os.rmdir(place)
