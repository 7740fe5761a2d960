"""The sources of a compaction: which trails are chosen, how they are marked, and how they are discarded.

Guarantee: a trail is discarded only as it was read. What was written into it since then is in no compaction, so
that trail stays; this is looked at under the lock that its writers take. What was compacted is not chosen again
unless it is named, by id or workflow, or `again` is asked for: a marker beside the trail says so, the npm tool's
`<id>.compaction.json` or `<id>/compaction.json`, which goes wherever git takes the trail.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Iterator
from contextlib import ExitStack, suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ..errors import TrailError, TrailNotFound
from . import git, ids, journal, lock, places, record, retell
from .compact import Compacted
from .git import Commit
from .githook import trail_in
from .model import Trail
from .places import PAGE, RECORD, Found

if TYPE_CHECKING:
    from .folder import TrailFolder

MARKER = ".compaction.json"
_TRACE = ".trace.json"


class Chosen(NamedTuple):
    """A trail, and the entries that it had when it was read."""

    trail: Trail
    entries: frozenset[str]


class Selection(NamedTuple):
    """What was chosen; `broken` are trails that could not be read, and why."""

    chosen: list[Chosen]
    broken: dict[str, str]

    @property
    def trails(self) -> list[Trail]:
        """The trails alone."""
        return [one.trail for one in self.chosen]


class Discarded(NamedTuple):
    """How many trails were discarded, and which of their files; `kept` are those that had changed."""

    trails: int = 0
    records: int = 0
    pages: int = 0
    traces: int = 0
    markers: int = 0
    kept: tuple[str, ...] = ()


def select(
    folder: TrailFolder,
    *,
    since: datetime | None = None,
    until: datetime | None = None,
    named: Collection[str] = (),
    workflow: str | None = None,
    commits: Iterable[Collection[Commit]] = (),
    pull_request: int | None = None,
    again: bool = False,
) -> Selection:
    """The ended trails for which all that is said holds; nothing is written.

    `since` and `until` bound when they started. Of each collection in `commits`, the trail names one, or one names
    the trail. It is of a pull request where that holds for the commits of that, or its task names it, as '#7'.
    Raises TrailNotFound for an id that no trail has, TrailError for that of an active one, TrailIdError.

    Example:
        select(folder, since=datetime.now(UTC) - timedelta(days=7)).trails
    """
    known = folder.files.places.scan().trails
    for trail_id in map(ids.checked, named):
        if trail_id not in known:
            raise TrailNotFound(f"no trail {trail_id} in {folder.root}")
    merged = of_pull_request(pull_request) if pull_request is not None else []
    again = again or bool(named) or workflow is not None
    selection = Selection([], {})
    for trail_id in sorted(named or known):
        found = known[trail_id]
        if not again and any(os.path.lexists(path) for path in _markers(folder, trail_id, found)):
            continue
        try:
            one = _read(folder, trail_id)
        except TrailError as error:
            selection.broken[trail_id] = str(error)
            continue
        trail = one.trail
        if trail.status == "active":
            if named:
                raise TrailError(f"{trail_id} is active: a trail is compacted once it has ended")
            continue
        wanted = (
            (since is None or trail.started_at >= since)
            and (until is None or trail.started_at <= until)
            and workflow in (None, trail.workflow_id)
            and all(_made(trail, those) for those in commits)
            and (pull_request is None or _made(trail, merged) or _mentions(trail, pull_request))
        )
        if wanted:
            selection.chosen.append(one)
    return selection


def mark(folder: TrailFolder, compacted: Compacted) -> None:
    """Note beside each trail that it was compacted. The caller holds the folder's lock."""
    for trail_id in compacted.source_trajectories:
        found = folder.files.places.find(trail_id)
        told = {
            "trajectoryId": trail_id,
            "compactedInto": compacted.id,
            "compactedAt": record.instant(compacted.compacted_at),
        }
        for path in _markers(folder, trail_id, found):
            try:
                places.replace(path, record.dump(told, indent=2))
            except OSError as error:
                raise journal.cannot_write(path, error) from None


def discard(folder: TrailFolder, chosen: Iterable[Chosen]) -> Discarded:
    """Remove trails that are in a compaction on the disk, and all their files; how many of each there were.

    Raises TrailError where one cannot be removed; the others before it are gone.
    """
    counts = dict.fromkeys(("trails", "records", "pages", "traces", "markers"), 0)
    kept: list[str] = []
    files = folder.files
    with files.locked():
        try:
            for one in chosen:
                gone = _remove(folder, one)
                if gone is None:
                    kept.append(one.trail.id)
                    continue
                counts["trails"] += bool(gone)
                for path in gone:
                    counts[_kind(path)] += 1
        finally:
            files.update()
    return Discarded(**counts, kept=tuple(kept))


def _read(folder: TrailFolder, trail_id: str) -> Chosen:
    entries = folder.entries(trail_id)
    return Chosen(retell.tell(trail_id, entries), frozenset(entry.id for entry in entries))


def _remove(folder: TrailFolder, one: Chosen) -> set[str] | None:
    """The files that were removed; None where the trail has changed since it was read."""
    files, trail_id = folder.files, one.trail.id
    found = files.places.find(trail_id)
    with ExitStack() as stack:
        try:
            for path in found.journals:
                full = files.places.path(path)
                stack.enter_context(lock.locked(full, timeout=files.lock_timeout))
            now = {entry.id for entry in files.lines(trail_id)}
        except (FileNotFoundError, TrailNotFound):
            return set()
        if now != one.entries:
            return None
        before = {path for path in _all(folder, trail_id, found) if os.path.lexists(path)}
        try:
            for path in (*found.records, *found.journals):
                files.places.remove(trail_id, path)
            for path in before:
                with suppress(FileNotFoundError):
                    os.unlink(path)
        except OSError as error:
            raise journal.cannot_write(error.filename or str(folder.root), error) from None
    return before


def _all(folder: TrailFolder, trail_id: str, found: Found) -> Iterator[str]:
    """All the paths at which a file of a trail may stand."""
    for path in (*found.journals, *found.records):
        full = folder.files.places.path(path)
        yield full
        if _is_nested(path):
            yield os.path.join(os.path.dirname(full), "summary.md")
            yield os.path.dirname(full) + _TRACE
        else:
            yield from (places.stem(full) + ending for ending in (RECORD, PAGE, _TRACE))
    yield from _markers(folder, trail_id, found)


def _markers(folder: TrailFolder, trail_id: str, found: Found) -> Iterator[str]:
    for path in (*found.journals, *found.records):
        full = folder.files.places.path(path)
        nested = os.path.join(os.path.dirname(full), MARKER[1:])
        yield nested if _is_nested(path) else places.stem(full) + MARKER


def _is_nested(path: str) -> bool:
    return os.path.basename(path) == "trajectory.json"


def _kind(path: str) -> str:
    name = os.path.basename(path)
    if name.endswith(MARKER[1:]):
        return "markers"
    if name.endswith(_TRACE):
        return "traces"
    return "pages" if name.endswith(PAGE) else "records"


# ---- by git -------------------------------------------------------------------------------------------------


def of_commits(words: Iterable[str], at: Path | None = None) -> list[Commit]:
    """The commits that are named: by hashes, names or ranges. Raises TrailError for what git does not know."""
    found: list[Commit] = []
    for word in words:
        several = ".." in word
        found += _asked(word, *(() if several else ("--no-walk",)), at=at)
    return found


def of_branch(name: str, at: Path | None = None) -> list[Commit]:
    """The commits of what is checked out that this branch has not. Raises TrailError.

    Example:
        of_branch("main")
    """
    return _asked(f"{name}..HEAD" if git.is_name(name) else name, at=at)


def of_pull_request(number: int, at: Path | None = None) -> list[Commit]:
    """The commits of a merged pull request, as the title of its merge or squash commit tells; [] for none.

    Nobody is asked but the local repository.
    """
    told = git.commits("--all", f"--grep=#{number}", at=at) or []
    title = re.compile(rf"Merge pull request #{number}\b|.*\(#{number}\)$")
    merges = [commit for commit in told if title.match(commit.message.partition("\n")[0].strip())]
    return [c for merge in merges for c in git.commits(f"{merge.hash}^1..{merge.hash}", at=at) or [merge]]


def _asked(word: str, *options: str, at: Path | None) -> list[Commit]:
    found = git.commits(word, *options, at=at) if git.is_name(word) else None
    if found is None:
        raise TrailError(f"git knows no commits by the name {word!r:.120} here")
    return found


def _made(trail: Trail, commits: Iterable[Commit]) -> bool:
    """Whether one of the commits was made in this trail: it names the commit, or the commit names it."""
    own = tuple(commit for commit in trail.commits if len(commit) >= 4)
    return any(commit.hash.startswith(own) or trail_in(commit.message) == trail.id for commit in commits)


def _mentions(trail: Trail, pull_request: int) -> bool:
    text = f"{trail.title}\n{trail.task.description or ''}"
    return re.search(rf"(?:#|\bPR ?#?){pull_request}\b", text, re.IGNORECASE) is not None
