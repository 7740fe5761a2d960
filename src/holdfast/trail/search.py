"""Full text over all that trails say: `TrailFolder.search`, and `hits` for who wants to show the place.

Guarantee: what was on the disk when a search began is found by it, whoever wrote it; no file in `.cache` can make
an answer wrong or a search fail. It rests on looking at every journal and record by `stat` each time (what differs
from what was indexed is read again, what is gone goes), and on asking the index in the transaction that brought
it up to date. The index is `.cache/search.sqlite`, an SQLite file with FTS5. It may be deleted at any time, also
while somebody uses it: SQLite notices before it writes, and the search begins anew. One that is malformed or of
another version is made again.

Searches in any number of threads and processes wait for each other by SQLite's locks; each has a connection of
its own. The journal is a rollback journal: a write-ahead log that outlives its deleted file would be applied to
the next one. Nothing is synced: the files are derived. Where the file cannot be written, or stays locked for too
long, an index in memory is used, kept for as long as its `TrailFolder`.

Rejected: trusting index.json, or a writer to tell the index (writers that know nothing of it are many: git, the
npm tool, an editor); a row for each event (all words of a search may stand in different events of a trail).
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterable, Iterator
from contextlib import closing, suppress
from typing import TYPE_CHECKING, NamedTuple
from weakref import WeakKeyDictionary

import msgspec

from ..clock import from_datetime
from ..errors import HoldfastError, PayloadError
from . import index, lock
from .fold import summary_of
from .journal import log
from .model import Alternative, Decision, Event, Summary, Trail
from .places import Found, replace

if TYPE_CHECKING:
    import apsw  # imported when it is used: it costs what the rest of a start costs

    from .folder import TrailFolder

FOLDER, NAME = ".cache", "search.sqlite"
VERSION = 0x48_46_00_01
"""Of the tables and of what is put into them: any other is made again."""
WAIT_MS = 30_000
"""How long a search waits for another one that brings the index up to date."""
MARK = "**"
"""What stands on both sides of a match in a snippet."""

_FENCE = "\ue000"
"""A word that nobody writes, between two texts, so that no phrase begins in one and ends in the other."""
_COLUMNS = {"title": 10, "about": 4, "agents": 2, "chapters": 4, "said": 1, "decided": 3, "outcome": 3}
"""What is indexed, and how much a match there counts."""
_TABLES = f"""
CREATE TABLE files (path TEXT PRIMARY KEY, mark TEXT NOT NULL, trail TEXT NOT NULL) WITHOUT ROWID;
CREATE INDEX files_of_trail ON files (trail);
CREATE TABLE trails (number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, started INTEGER, summary BLOB);
CREATE VIRTUAL TABLE words USING fts5 ({", ".join(_COLUMNS)}, tokenize = "unicode61 remove_diacritics 2");
PRAGMA user_version = {VERSION};
"""
_FIND = f"""
SELECT number, summary FROM words JOIN trails ON number = words.rowid WHERE words MATCH ?
ORDER BY bm25(words, {", ".join(map(str, _COLUMNS.values()))}), started DESC, id DESC LIMIT ?
"""  # noqa: S608 - constants
_SNIPPET = "SELECT snippet(words, -1, ?, ?, '…', 16) FROM words WHERE words MATCH ? AND rowid = ?"
_INSERT = f"INSERT INTO words (rowid, {', '.join(_COLUMNS)}) VALUES (?{', ?' * len(_COLUMNS)})"  # noqa: S608

_decode = msgspec.json.Decoder(Summary).decode
_in_memory: WeakKeyDictionary[TrailFolder, tuple[threading.Lock, apsw.Connection]] = WeakKeyDictionary()
_making = threading.Lock()


class Hit(NamedTuple):
    """A trail that was found, and the place: a few words of it, with `MARK` around each match."""

    summary: Summary
    snippet: str


class _Useless(Exception):
    """The file is no index of this version."""


def search(folder: TrailFolder, text: str, limit: int | None = None) -> list[Summary]:
    """The trails that hold all these whole words, in whatever place; the best match first, then the newest.

    Case and accents make no difference, "words in quotes" are a phrase, and no other sign has a meaning. Raises
    PayloadError for a text or limit that is none.

    Example:
        search(folder, 'login "jwt token"', limit=20)
    """
    return [summary for summary, _ in _search(folder, text, limit, snippets=False)]


def hits(folder: TrailFolder, text: str, limit: int | None = None) -> list[Hit]:
    """As `search`, each with the place where the words stand.

    Example:
        for summary, snippet in hits(folder, "login", limit=20):
            print(summary.id, snippet)
    """
    return _search(folder, text, limit, snippets=True)


def query_of(text: str) -> str:
    """The FTS5 query for what a user has typed: each word and each quoted phrase as a string of its own."""
    if not isinstance(text, str):
        raise PayloadError(f"search: expected text, got {text!r:.80}")
    plain = _plain(text)
    pieces = [phrase or word for phrase, word in re.findall(r'"([^"]*)"|([^\s"]+)', plain)]
    return " ".join(f'"{piece}"' for piece in dict.fromkeys(pieces) if piece.strip())


def _search(folder: TrailFolder, text: str, limit: int | None, *, snippets: bool) -> list[Hit]:
    query = query_of(text)
    if limit is not None and (not isinstance(limit, int) or limit < 0):
        raise PayloadError(f"limit: expected how many at most, from 0, got {limit!r:.80}")
    if not query or not folder.files.places.exists():
        return []
    import apsw

    why: BaseException | None = None
    for _ in range(5):  # others may delete it, or make it again, as often as we do
        seen = _seen(_path(folder))
        try:
            with closing(_connect(folder)) as db:
                return Index(folder, db).answer(query, limit, snippets)
        except (_Useless, apsw.NotADBError, apsw.CorruptError, apsw.SQLError) as error:
            why = error
            try:
                _discard(folder, seen, error)
            except (OSError, HoldfastError):
                break
        except (apsw.CantOpenError, apsw.ReadOnlyError) as error:
            why = error
            if os.path.exists(_path(folder)) and not _was_moved(error):
                break
        except (apsw.Error, OSError) as error:
            why = error
            break
    return _answer_in_memory(folder, query, limit, snippets, why)


def _answer_in_memory(
    folder: TrailFolder, query: str, limit: int | None, snippets: bool, why: object
) -> list[Hit]:
    import apsw

    with _making:
        if folder not in _in_memory:
            log.warning("%s cannot be used (%s): an index in memory takes its place", _path(folder), why)
            _in_memory[folder] = threading.Lock(), apsw.Connection(":memory:")
        turn, db = _in_memory[folder]
    with turn:
        return Index(folder, db).answer(query, limit, snippets)


# ---- the file -----------------------------------------------------------------------------------------------


def _path(folder: TrailFolder) -> str:
    return folder.files.places.path(os.path.join(FOLDER, NAME))


def _connect(folder: TrailFolder) -> apsw.Connection:
    import apsw

    path = _path(folder)
    if os.path.islink(path) or os.path.islink(os.path.dirname(path)):
        raise OSError("it is a symbolic link")
    if not os.path.exists(_ignore(path)):  # another tool may have made the folder
        with suppress(FileExistsError):
            os.mkdir(os.path.dirname(path))
        replace(_ignore(path), b"*\n")
    db = apsw.Connection(path)
    try:
        db.set_busy_timeout(WAIT_MS)
        db.pragma("synchronous", "off")
        db.pragma(
            "journal_mode", "truncate"
        )  # to delete it would be to delete by name: another one's, perhaps
    except BaseException:
        db.close()
        raise
    return db


def _ignore(path: str) -> str:
    return os.path.join(os.path.dirname(path), ".gitignore")


def _seen(path: str) -> tuple[int, ...]:
    """Which file it is. A number of an inode alone may be given to the next file."""
    try:
        status = os.stat(path)
    except OSError:
        return ()
    return status.st_ino, status.st_ctime_ns


def _discard(folder: TrailFolder, seen: tuple[int, ...], why: object) -> None:
    """Remove a file that is of no use, if it is still the one that was seen."""
    path = _path(folder)
    with lock.locked(_ignore(path)):  # somebody else may have made it again
        if _seen(path) == seen:
            log.warning("%s is not of use (%s): it is made again", path, why)
            for ending in ("-journal", "-wal", "-shm", ""):
                with suppress(FileNotFoundError):
                    os.unlink(path + ending)


def _was_moved(error: apsw.Error) -> bool:
    import apsw

    return getattr(error, "extendedresult", 0) == apsw.SQLITE_READONLY_DBMOVED


# ---- the index ----------------------------------------------------------------------------------------------


class Index:
    """The full-text index of a folder, on an open connection. `read` counts the trails that it has read."""

    def __init__(self, folder: TrailFolder, db: apsw.Connection) -> None:
        self._folder = folder
        self._places = folder.files.places
        self._db = db
        self.read = 0

    def answer(self, query: str, limit: int | None, snippets: bool) -> list[Hit]:
        """What is found, after the index says what the files say. Raises apsw.Error, _Useless."""
        import apsw

        db, marks = self._db, self._marks()
        try:
            db.execute("BEGIN")  # reads from here on are of one state
            if db.pragma("user_version") == VERSION and self._known() == marks:
                return self._find(query, limit, snippets)
            db.execute("ROLLBACK")
            db.execute("BEGIN IMMEDIATE")
            self._catch_up()
            found = self._find(query, limit, snippets)
            with suppress(apsw.BusyError):  # others read all the time: the next one catches up
                db.execute("COMMIT")
            return found
        finally:
            if db.in_transaction:
                db.execute("ROLLBACK")

    def _marks(self) -> dict[str, str]:
        """For each file that tells a trail its inode, size and time: what changes when it does."""
        for _ in range(5):
            try:
                return self._stat_all()
            except FileNotFoundError:
                continue  # it was moved just now
        return self._stat_all(missing=True)

    def _stat_all(self, *, missing: bool = False) -> dict[str, str]:
        marks: dict[str, str] = {}
        root, stat = self._places.root, os.stat
        for _, path in self._places.walk([]):
            try:
                status = stat(f"{root}/{path}", follow_symlinks=False)
            except FileNotFoundError:
                if missing or path.endswith("/trajectory.json"):  # a folder that has the name of a trail
                    continue
                raise
            marks[path] = f"{status.st_ino} {status.st_size} {status.st_mtime_ns}"
        return marks

    def _known(self) -> dict[str, str]:
        known: dict[str, str] = dict(self._db.execute("SELECT path, mark FROM files"))
        return known

    def _catch_up(self) -> None:
        """Read what has changed. Whoever looks while the lock is held sees no less than the one before."""
        version = self._db.pragma("user_version")
        if version == 0 and not self._db.execute("SELECT 1 FROM sqlite_schema").fetchall():
            log.info("the full-text index of %s is made", self._places.root)
            self._db.execute(_TABLES)
        elif version != VERSION:
            raise _Useless(f"its version is {version}")
        for _ in range(5):
            marks, known = self._marks(), self._known()
            changed = [path for path, mark in marks.items() if known.get(path) != mark]
            gone = [path for path in known if path not in marks]
            if not changed and not gone:
                return
            trails = self._places.scan().trails
            for trail_id in sorted({_trail_of(path) for path in (*changed, *gone)}):
                self._forget(trail_id)
                if trail_id in trails:
                    self._take(trail_id, trails[trail_id], marks)

    def _forget(self, trail_id: str) -> None:
        db = self._db
        db.execute("DELETE FROM words WHERE rowid IN (SELECT number FROM trails WHERE id = ?)", (trail_id,))
        db.execute("DELETE FROM trails WHERE id = ?", (trail_id,))
        db.execute("DELETE FROM files WHERE trail = ?", (trail_id,))

    def _take(self, trail_id: str, found: Found, marks: dict[str, str]) -> None:
        db = self._db
        self.read += 1
        try:
            trail = self._read(trail_id, found)
        except OSError:
            return  # it was moved, or may not be read now: it is looked at again each time
        except HoldfastError:
            trail = None  # it is malformed until it changes; `list` and `doctor` tell
        if trail is not None:
            summary = _clean(summary_of(trail, found.path))
            values = trail_id, from_datetime(summary.started_at), msgspec.json.encode(summary)
            db.execute("INSERT INTO trails (id, started, summary) VALUES (?, ?, ?)", values)
            db.execute(_INSERT, (db.last_insert_rowid(), *_texts(trail)))
        for path in (*found.journals, *found.records):
            if path in marks:
                db.execute("INSERT INTO files VALUES (?, ?, ?)", (path, marks[path], trail_id))

    def _read(self, trail_id: str, found: Found) -> Trail:
        if found.journals and found.records:
            return self._folder.load(trail_id)
        return index.read_trail(self._places.root, trail_id, found)

    def _find(self, query: str, limit: int | None, snippets: bool) -> list[Hit]:
        rows: list[tuple[int, bytes]] = list(self._db.execute(_FIND, (query, -1 if limit is None else limit)))
        return [Hit(_decode(row), self._snippet(query, number) if snippets else "") for number, row in rows]

    def _snippet(self, query: str, number: int) -> str:
        text = self._db.execute(_SNIPPET, (MARK, MARK, query, number)).get
        return " ".join(text.replace(_FENCE, "·").split())


def _trail_of(path: str) -> str:
    folder, name = os.path.split(path)
    return os.path.basename(folder) if name == "trajectory.json" else os.path.splitext(name)[0]


# ---- what a trail says --------------------------------------------------------------------------------------


def _texts(trail: Trail) -> tuple[str, ...]:
    """The text of each column."""
    events = [event for chapter in trail.chapters for event in chapter.events]
    columns = (
        [trail.title],
        _about(trail),
        [agent.name for agent in trail.agents] + [chapter.agent_name for chapter in trail.chapters],
        [chapter.title for chapter in trail.chapters],
        _said(events),
        [text for decision in trail.decisions for text in _decided(decision)],
        _outcome(trail),
    )
    return tuple(_plain(f" {_FENCE} ".join(text for text in texts if text)) for texts in columns)


def _about(trail: Trail) -> list[str]:
    source = trail.task.source
    named = [source.system, source.id, source.url or ""] if source is not None else []
    ids = [trail.project_id or "", trail.workflow_id or ""]
    return [trail.task.description or "", *trail.tags, *named, *ids, *trail.commits, *trail.files_changed]


def _said(events: Iterable[Event]) -> list[str]:
    return [text for event in events for text in (event.content, *event.tags)]


def _decided(decision: Decision) -> Iterator[str]:
    yield from (decision.question, decision.chosen, decision.reasoning)
    for other in decision.alternatives:
        yield from (other.option, other.reason or "") if isinstance(other, Alternative) else (other,)


def _outcome(trail: Trail) -> list[str]:
    told = [trail.abandon_reason or ""]
    end = trail.retrospective
    if end is not None:
        told += [end.summary, end.approach, *end.challenges, *end.learnings, *end.suggestions]
    return told


def _clean(summary: Summary) -> Summary:
    agent = _plain(summary.agent) if summary.agent is not None else None
    return msgspec.structs.replace(summary, title=_plain(summary.title), agent=agent)


def _plain(text: str) -> str:
    """Text that SQLite takes: no lone surrogates, no NUL."""
    return text.encode("utf-8", "replace").decode().replace("\0", " ")
