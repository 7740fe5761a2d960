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

import os
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
)


class Found(msgspec.Struct):
    """The files of one trail, relative to the folder: journals and other tools' records."""

    journals: list[str]
    records: list[str]

    @property
    def path(self) -> str:
        """The record's path as index.json has it."""
        return stem(self.journals[0]) + RECORD if self.journals else self.records[0]


class Scan(msgspec.Struct):
    """What a walk over the folder saw, by name alone."""

    trails: dict[str, Found]
    temporary: list[str]


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
            if os.path.isfile(os.path.join(moved, ".gitattributes")):
                return moved
        return self.given

    def path(self, relative: str) -> str:
        """The absolute path of a file of the folder."""
        return os.path.join(self.root, relative)

    def create(self) -> None:
        """Make the folder and its parts, where they are missing; any number of processes may do so at once."""
        root = self.root
        if os.path.isdir(os.path.join(root, ACTIVE)) and os.path.exists(os.path.join(root, ".gitattributes")):
            return
        try:
            os.makedirs(os.path.join(root, ACTIVE), exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:
            raise TrailError(f"{error.filename}: expected a folder, found a file; move it away") from None
        for name, text in ((".gitignore", _IGNORED), (".gitattributes", _ATTRIBUTES)):
            if not os.path.exists(os.path.join(root, name)):
                replace(os.path.join(root, name), text.encode())

    def ended(self, trail_id: str, micros: int) -> str:
        """Where the journal of a trail goes that ends at this instant."""
        month = to_datetime(micros).astimezone(UTC).strftime("%Y-%m")
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
        except FileNotFoundError:
            return
        for name in names:
            if len(name) == 7 and name[4] == "-" and not os.path.islink(os.path.join(completed, name)):
                yield f"{COMPLETED}/{name}"

    def scan(self) -> Scan:
        """Every trail of the folder and its files, by their names."""
        seen = Scan({}, [])
        records: list[tuple[str, str]] = []
        for top in (ACTIVE, COMPLETED):
            self._walk(top, seen, records)
        for name in _names(self.root):
            if name.endswith(".tmp"):
                seen.temporary.append(name)
        for trail_id, relative in records:
            found = seen.trails.get(trail_id)
            if found is None:
                seen.trails[trail_id] = Found([], [relative])
            elif not relative.endswith(RECORD) or stem(relative) + JOURNAL not in found.journals:
                found.records.append(relative)
        for found in seen.trails.values():
            if len(found.journals) + len(found.records) > 1:
                _in_order(found)
        return seen

    def _walk(self, place: str, seen: Scan, records: list[tuple[str, str]]) -> None:
        try:
            entries = os.scandir(os.path.join(self.root, place))
        except (FileNotFoundError, NotADirectoryError):
            return
        with entries:
            for entry in entries:
                name = entry.name
                if name.endswith(JOURNAL):
                    trail_id = name[: -len(JOURNAL)]
                    if is_trail_id(trail_id) and not entry.is_symlink():
                        found = seen.trails.get(trail_id)
                        if found is None:
                            seen.trails[trail_id] = Found([f"{place}/{name}"], [])
                        else:
                            found.journals.append(f"{place}/{name}")
                elif name.endswith(RECORD):
                    trail_id = name[: -len(RECORD)]
                    if is_trail_id(trail_id) and not name.endswith(_NO_RECORD) and not entry.is_symlink():
                        records.append((trail_id, f"{place}/{name}"))
                elif name.endswith(".tmp"):
                    seen.temporary.append(f"{place}/{name}")
                elif "." not in name and entry.is_dir(follow_symlinks=False):
                    if is_trail_id(name):
                        records.append((name, f"{place}/{name}/trajectory.json"))
                    else:
                        self._walk(f"{place}/{name}", seen, records)

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
            base = stem(full)
            names = [full, *(base + ending for ending in (RECORD, PAGE, *_NO_RECORD))]
        for name in names:
            if os.path.lexists(name):
                os.unlink(name)
        if nested and not os.listdir(folder):
            os.rmdir(folder)


def replace(path: str, data: bytes, *, durable: bool = False) -> None:
    """Write a whole file: a reader sees the old one or the new one, and two writers do not meet.

    The temporary file stands in the same folder under a name that nobody else uses. Raises OSError.
    """
    temporary = f"{path}.{os.getpid()}.{os.urandom(6).hex()}.tmp"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        try:
            write(fd, data)
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
