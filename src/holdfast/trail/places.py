"""Where the files of a folder are: its layout, and the four that other tools have written.

    .trajectories/
      active/<id>.jsonl            the journal: what is true
      active/<id>.json, .md        derived from it: the record, and a page to read
      completed/YYYY-MM/<id>.…     the same three, of trails that have ended (month of the end, in UTC)
      index.json                   derived: one entry for each trail
      .lock  .cache/               the folder's lock; the full-text index
      compacted/  invalid/         compactions; what `doctor --quarantine` took away

Other tools' records, which are read wherever they stand: `<id>.json` or `<id>/trajectory.json`, in `active`,
`completed` or any folder below it. Symbolic links are not followed below the folder itself.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC

import msgspec

from ..clock import to_datetime
from ..errors import TrailError
from .ids import is_trail_id

ACTIVE, COMPLETED = "active", "completed"
FOLDER = ".trajectories"
MOVED = os.path.join(".agentworkforce", "trajectories")
"""Where the npm tool renames `.trajectories` to, in the same parent folder."""
JOURNAL, RECORD, PAGE = ".jsonl", ".json", ".md"
_NO_RECORD = (".trace.json", ".compaction.json")
_IGNORED = (
    "# derived from the journals, or of one machine: made again when missing\n"
    "/index.json\n/index.json.bad-*\n/.lock\n/.cache/\n/html/\n*.tmp\n"
)
_ATTRIBUTES = (
    "# a journal is a set of lines: both branches' lines are kept; the rest is made again from them\n"
    "*.jsonl merge=union\nactive/*.json merge=union\nactive/*.md merge=union\n"
    "completed/[0-9]*/*.json merge=union\ncompleted/[0-9]*/*.md merge=union\n"
)


class Found(msgspec.Struct):
    """The files of one trail, relative to the folder: journals and other tools' records."""

    journals: list[str]
    records: list[str]

    @property
    def path(self) -> str:
        """The record's path as index.json has it."""
        return self.journals[0].removesuffix(JOURNAL) + RECORD if self.journals else self.records[0]


class Scan(msgspec.Struct):
    """What a walk over the folder saw, by name alone; and the ended trails that were changed lately."""

    trails: dict[str, Found]
    temporary: list[str]
    changed: set[str]


class Places:
    """The paths of one folder."""

    def __init__(self, path: str | os.PathLike[str] | None) -> None:
        given = path if path is not None else os.environ.get("TRAJECTORIES_DATA_DIR") or FOLDER
        self.given = os.path.abspath(os.path.expanduser(os.fspath(given)))

    @property
    def root(self) -> str:
        """The folder; where the npm tool has moved it, the place to which it did."""
        if os.path.basename(self.given) == FOLDER and not os.path.isdir(self.given):
            moved = os.path.join(os.path.dirname(self.given), MOVED)
            if is_ours(moved):
                return moved
        return self.given

    def path(self, relative: str) -> str:
        """The absolute path of a file of the folder."""
        return os.path.join(self.root, relative)

    def exists(self) -> bool:
        """Whether the folder is there. Raises TrailError where something else stands in its place."""
        try:
            mode = os.stat(self.root).st_mode
        except FileNotFoundError:
            return False
        except OSError as error:
            reason = os.strerror(error.errno or 0).lower()
            raise TrailError(
                f"{self.root} cannot be a folder of trails: {reason}; name another one"
            ) from None
        if not stat.S_ISDIR(mode):
            raise TrailError(
                f"{self.root}: expected a folder, found a file; move it away or name another one"
            )
        return True

    def create(self) -> None:
        """Make the folder, where it is missing; any number of processes may do so at once."""
        root = self.root
        for place in (ACTIVE, COMPLETED):
            if os.path.islink(os.path.join(root, place)):
                raise TrailError(f"{root}/{place} is a symbolic link: a folder of trails keeps its own files")
        if os.path.isdir(os.path.join(root, ACTIVE)):
            return
        try:
            os.makedirs(os.path.join(root, ACTIVE), exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:
            raise TrailError(f"{error.filename}: expected a folder, found a file; move it away") from None

    def furnish(self) -> None:
        """Write the files that tell git about the folder, where they are missing. The caller holds its lock."""
        root = self.root
        for name, text in ((".gitignore", _IGNORED), (".gitattributes", _ATTRIBUTES)):
            if not os.path.exists(os.path.join(root, name)):
                replace(os.path.join(root, name), text.encode())

    def ended(self, trail_id: str, micros: int) -> str:
        """Where the journal of a trail goes that ends at this instant."""
        month = to_datetime(micros).astimezone(UTC).isoformat()[:7]  # strftime would write the year 33 so
        return f"{COMPLETED}/{month}/{trail_id}{JOURNAL}"

    def find(self, trail_id: str) -> Found:
        """The files of one trail, without a walk where they stand at their places."""
        root, journals, records = self.root, [], []
        for place in self._usual():
            if _is_plain(f"{root}/{place}/{trail_id}{JOURNAL}"):
                journals.append(f"{place}/{trail_id}{JOURNAL}")
            elif _is_plain(f"{root}/{place}/{trail_id}{RECORD}"):
                records.append(f"{place}/{trail_id}{RECORD}")
            nested = f"{place}/{trail_id}/trajectory.json"
            if _is_plain(f"{root}/{nested}") and not os.path.islink(f"{root}/{place}/{trail_id}"):
                records.append(nested)
        if not journals and not records:
            return self.scan().trails.get(trail_id, Found([], []))
        return _in_order(Found(journals, records))

    def _usual(self) -> Iterator[str]:
        root = self.root
        if not os.path.islink(os.path.join(root, ACTIVE)):
            yield ACTIVE
        completed = os.path.join(root, COMPLETED)
        if os.path.islink(completed):
            return
        yield COMPLETED
        try:
            names = os.listdir(completed)
        except (FileNotFoundError, NotADirectoryError):
            return
        for name in names:
            if len(name) == 7 and name[4] == "-" and not os.path.islink(os.path.join(completed, name)):
                yield f"{COMPLETED}/{name}"

    def scan(self, since: int = 0) -> Scan:
        """Every trail of the folder and its files, by their names; with `since`, see `_changed`."""
        seen = Scan({}, [name for name in _names(self.root) if name.endswith(".tmp")], set())
        trails = seen.trails
        several = set()
        for trail_id, path in self.walk(seen.temporary):
            found = trails.get(trail_id)
            if found is None:
                journal = path.endswith(JOURNAL)
                trails[trail_id] = Found([path], []) if journal else Found([], [path])
            else:
                (found.journals if path.endswith(JOURNAL) else found.records).append(path)
                several.add(trail_id)
        for trail_id in several:
            _in_order(trails[trail_id])
        if since:
            seen.changed = self._changed(trails, since)
        return seen

    def _changed(self, trails: dict[str, Found], since: int) -> set[str]:
        """The ended trails whose journal was changed at `since` (nanoseconds) or later.

        An ended trail moves no more, so its place does not tell that git has put another file there. Files are
        asked for their time only where a name of the same folder has changed: it takes longer than the scan.
        """
        recent: dict[str, bool] = {}
        changed = set()
        for trail_id, found in trails.items():
            for path in found.journals:
                place = path.rpartition("/")[0]
                if place != ACTIVE:
                    if place not in recent:
                        recent[place] = self._time(place) >= since
                    if recent[place] and self._time(path) >= since:
                        changed.add(trail_id)
        return changed

    def _time(self, path: str) -> int:
        try:
            return os.stat(self.path(path), follow_symlinks=False).st_mtime_ns
        except FileNotFoundError:
            return 0

    def walk(self, temporary: list[str]) -> Iterator[tuple[str, str]]:
        """The files that tell a trail: its id and the path; what stands beside a journal is derived.

        A trail that moves while this looks is seen at least once, for `active` is looked at first.
        """
        for top in (ACTIVE, COMPLETED):
            if not os.path.islink(self.path(top)):
                yield from self._walk(top, temporary)

    def _walk(  # noqa: C901 - one loop, for what each name's ending says
        self, place: str, temporary: list[str]
    ) -> Iterator[tuple[str, str]]:
        journals: set[str] = set()
        records: set[str] = set()
        folders: list[str] = []
        with suppress(FileNotFoundError, NotADirectoryError), os.scandir(self.path(place)) as entries:
            for entry in entries:  # this loop is half of what a list of 10,000 trails costs: no calls in it
                name = entry.name
                if name.endswith(JOURNAL):
                    trail_id = name[: -len(JOURNAL)]
                    if is_trail_id(trail_id) and entry.is_file(follow_symlinks=False):
                        journals.add(trail_id)
                        yield trail_id, f"{place}/{name}"
                elif name.endswith(RECORD):
                    records.add(name[: -len(RECORD)])
                elif name.endswith(PAGE):
                    continue
                elif name.endswith(".tmp"):
                    temporary.append(f"{place}/{name}")
                elif entry.is_dir(follow_symlinks=False):
                    folders.append(name)
                    if is_trail_id(name):
                        yield name, f"{place}/{name}/trajectory.json"
        for name in sorted(records - journals):
            if is_trail_id(name) and _is_plain(self.path(f"{place}/{name}{RECORD}")):
                yield name, f"{place}/{name}{RECORD}"
        for name in folders:
            if not is_trail_id(name):
                yield from self._walk(f"{place}/{name}", temporary)

    def remove(self, trail_id: str, path: str) -> None:
        """Remove what belongs to a trail at one of its places; other files of the folder stay."""
        full = self.path(path)
        folder = os.path.dirname(full)
        nested = os.path.basename(full) == "trajectory.json" and os.path.basename(folder) == trail_id
        if nested:
            names = [
                os.path.join(folder, name) for name in ("trajectory.json", "summary.md", "compaction.json")
            ]
        else:
            base = stem(full)  # the journal goes last: until then, a crash leaves the trail as it was
            names = [*(base + ending for ending in (RECORD, PAGE, *_NO_RECORD)), full]
        for name in names:
            if os.path.lexists(name):
                os.unlink(name)
        if nested and not os.listdir(folder):
            os.rmdir(folder)


def replace(path: str, data: bytes, *, durable: bool = False, time: int | None = None) -> None:
    """Write a whole file: a reader sees the old one or the new one, and two writers do not meet.

    The temporary file stands in the same folder under a name that nobody else uses. Inside a folder of trails
    the caller holds the folder's lock: who holds it next takes such a file for one that a crash left behind,
    and removes it. `time` (nanoseconds) is what the file will say of itself, if not now. Raises OSError.
    """
    temporary = f"{path}.{os.getpid()}.{os.urandom(6).hex()}.tmp"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        try:
            write(fd, data)
            if time is not None:
                os.utime(fd, ns=(time, time))
            if durable:
                os.fsync(fd)
        finally:
            os.close(fd)
        os.replace(temporary, path)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
    if durable:
        sync_folder(os.path.dirname(path))


def put(path: str, data: bytes) -> None:
    """A new file that is whole from the moment it has a name, without a temporary file: no lock is needed.

    Raises OSError, also where there is such a file already or the system cannot do it: see `replace`.
    """
    if sys.platform != "linux":
        raise OSError(errno.ENOTSUP, "no files without a name here")
    fd = os.open(os.path.dirname(path), os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, 0o666)
    try:
        write(fd, data)
        os.link(f"/proc/self/fd/{fd}", path, src_dir_fd=fd)  # any number: with one, links are followed
    finally:
        os.close(fd)


def write(fd: int, data: bytes) -> None:
    """All of it, or OSError."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def sync_folder(path: str) -> None:
    """Make names in a folder durable: a new file, a moved one."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def is_ours(folder: str) -> bool:
    """Whether this folder was made by us, wherever it stands now."""
    return os.path.isfile(os.path.join(folder, ".gitattributes"))


def stem(path: str) -> str:
    """A path without the ending of a journal, a record or a page."""
    return os.path.splitext(path)[0]


def _in_order(found: Found) -> Found:
    found.journals.sort(key=lambda path: (path.startswith(ACTIVE), path))  # where it ended comes first
    found.records.sort(key=lambda path: (path.startswith(ACTIVE), path))
    return found


def _is_plain(path: str) -> bool:
    return os.path.isfile(path) and not os.path.islink(path)


def _names(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []
