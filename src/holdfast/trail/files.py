"""The files of a folder, as its writers see them: finding, appending, moving, and what is derived.

Two kinds of lock, taken in this order: the folder's (which files there are, and what is derived from them) and
a journal's (its lines). A journal is appended to under its own lock alone, so writers of different trails do
not meet. Nothing is synced under the folder's lock but what must not be seen before it is durable: writers wait
for the disk side by side, and one write of the index serves all that wait for the lock.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

from .. import faults
from ..clock import Clock, from_text, to_datetime
from ..codec import check_depth
from ..errors import PayloadError, TrailEnded, TrailError, TrailNotFound
from . import entry as line
from . import ids, index, journal, layouts, lock, places, record, retell
from .entry import ENDS, Entry
from .fold import check, fold
from .index import Index, IndexEntry
from .places import Found, Places

Redact = Callable[[Any], Any]


class Files:
    """What a `TrailFolder` does with the disk. Every error of the system comes out as a TrailError."""

    def __init__(
        self, where: Places, *, clock: Clock, redact: Redact | None, lock_timeout: float, event_limit: int
    ) -> None:
        self.places = where
        self.index = Index(where)
        self.clock = clock
        self.redact = redact
        self.lock_timeout = lock_timeout
        self.event_limit = event_limit

    # ---- looking --------------------------------------------------------------------------------------------

    def found(self, trail_id: str) -> Found:
        """The files of a trail. Raises TrailIdError, TrailNotFound."""
        found = self.places.find(ids.checked(trail_id))
        if not found.journals and not found.records:
            raise TrailNotFound(
                f"no trail {trail_id} in {self.places.root}; `holdfast trail list` shows what there is"
            )
        return found

    def lines(self, trail_id: str) -> list[Entry]:
        """The entries of a trail, in order, from all of its files."""
        for _ in range(5):  # a trail may be moved between finding and reading it
            found = self.found(trail_id)
            try:
                told = layouts.entries(self.places.root, trail_id, found)
                return line.ordered([*told, *self.only_in_records(trail_id, found, told)])
            except FileNotFoundError:
                continue
        raise TrailNotFound(
            f"no trail {trail_id} in {self.places.root}: its files went away, or nothing was recorded yet"
        )

    def indexed(self) -> dict[str, IndexEntry]:
        """An index that agrees with the folder: read, or made again where it does not."""
        scan = self.places.scan(self.index.time())
        entries = self.index.read()
        if entries is not None and self.index.matches(scan, entries):
            return entries
        if not self.places.exists():
            return {}
        try:
            with self.locked():
                return self.update()
        except TrailError as error:
            journal.log.warning("the index is stale and stays so: %s", error)
            return self.index.look(scan)

    # ---- writing --------------------------------------------------------------------------------------------

    def ready(self, entry: Entry, trail_id: str, *, bounded: bool = True) -> Entry:
        """The entry as it may be written: without secrets, within the limit, and such that it can be read back."""
        if self.redact is not None:
            said = self.redact({"type": entry.type, "agent": entry.agent})
            entry = line.replaced(entry, data=self.redact(entry.data), **said)
        text = line.encode(entry)
        size = len(text)
        if bounded:
            check_depth(text, f"{trail_id}: an event")
        if bounded and size > self.event_limit:
            raise PayloadError(
                f"{trail_id}: expected an event of at most {self.event_limit:,} bytes, got {size:,}; "
                "put it into a file and name the file (or raise event_limit)"
            )
        check(trail_id, entry)
        return entry

    def start(self, trail_id: str, first: Entry) -> None:
        """A new trail: in its journal and in the index, or not at all."""
        # Derived here, and not while all wait for the folder's lock.
        self.create(trail_id, [first], beside=index.documents(fold(trail_id, [first])))
        try:
            with self.locked(), self._writing(index.NAME):
                found = Found([self._journal(places.ACTIVE, trail_id)], [])
                if not self.index.enter(trail_id, found, now=self._now()):
                    self.update()
        except TrailError:
            with suppress(TrailError):  # the first error is the one to tell
                self._take_back(trail_id)
            raise

    def _take_back(self, trail_id: str) -> None:
        """Remove a trail whose start failed, unless somebody has seen it and written in it already."""
        fd, path = self._open(trail_id)
        try:
            if len(journal.read(path).entries) == 1:
                os.unlink(path)  # the journal first: whoever derives from it looks at it once more at the end
                self.places.remove(trail_id, self._journal(places.ACTIVE, trail_id))
        finally:
            lock.release(fd)

    def create(
        self,
        trail_id: str,
        entries: Sequence[Entry],
        place: str = places.ACTIVE,
        *,
        beside: Mapping[str, bytes] | None = None,
    ) -> int | None:
        """A new journal, durable; how many entries it got, or None where there is one at this place already."""
        if not any(entry.type == "trail_started" for entry in entries):
            raise PayloadError(
                f"{trail_id}: expected an entry of type trail_started in a new trail, got none"
            )
        with self._writing(place):
            self.places.create()
        path = self.places.path(self._journal(place, trail_id))
        with self._writing(path):
            self._make(os.path.dirname(path))
            try:
                return journal.create(path, entries, timeout=self.lock_timeout, beside=beside)
            except FileExistsError:
                return None

    def append(self, trail_id: str, tail: journal.Tail, entry: Entry) -> None:
        """Write an entry into a trail's journal, durably. Raises TrailNotFound where it was deleted."""
        fd, path = self._open(trail_id)
        try:
            with self._writing(path):
                tail.catch_up(fd, path)
                journal.append(fd, path, tail, [entry])
                lock.unlock(fd)
                journal.sync(fd, path)
        finally:
            lock.close(fd)

    def merge(self, trail_id: str, entries: Iterable[Entry]) -> int:
        """Take entries that the journal lacks; how many there were."""
        fd, path = self._open(trail_id)
        try:
            with self._writing(path):
                tail = journal.Tail()
                tail.catch_up(fd, path)
                new = [entry for entry in entries if entry.id not in tail.ids]
                if new:
                    journal.append(fd, path, tail, new, as_told=True)
                    journal.sync(fd, path)
        finally:
            lock.release(fd)
        return len(new)

    def _open(self, trail_id: str) -> tuple[int, str]:
        """The locked journal of a trail, wherever it is moved to meanwhile. Raises TrailNotFound."""
        for _ in range(100):
            found = self.found(trail_id)
            if not found.journals:
                self.adopt(trail_id)
                continue
            path = self.places.path(found.journals[0])
            with self._writing(path):
                try:
                    return lock.acquire(path, journal.WRITE, timeout=self.lock_timeout), path
                except FileNotFoundError:
                    continue  # it was moved just now
        raise TrailError(f"{trail_id}: its journal is moved about without end; try again")

    def end(self, trail_id: str, tail: journal.Tail, entry: Entry) -> None:
        """End a trail: move its journal, then write its last line there. Raises TrailEnded, TrailNotFound.

        The move comes first, so that a crash in between leaves a trail that is active, wherever it stands.
        """
        if not self.found(trail_id).journals:
            self.adopt(trail_id)
        with ExitStack() as stack:
            with self.locked():
                path = self.unified(trail_id).journals[0]
                target = self.places.ended(trail_id, from_text(entry.occurred_at))
                full = self.places.path(target)
                with self._writing(path):
                    fd = lock.acquire(self.places.path(path), journal.WRITE, timeout=self.lock_timeout)
                    stack.callback(lock.release, fd)
                    tail.catch_up(fd, path)
                    if tail.ended is not None:
                        how = tail.ended.type.removeprefix("trail_")
                        raise TrailEnded(f"{trail_id} is {how} since {tail.ended.recorded_at}: an end stands")
                    self.move(path, target)
                    faults.point("trail.end.moved")
                    journal.append(fd, full, tail, [entry])
                    lock.unlock(fd)
            journal.sync(fd, full)
            with self._writing(target):
                places.sync_folder(os.path.dirname(full))
                places.sync_folder(self.places.path(places.ACTIVE))
        self.refresh([trail_id])

    def remove(self, trail_id: str) -> None:
        """Remove a trail and all its files."""
        self.found(trail_id)  # for one that is not there, no folder is made
        with self.locked():
            for _ in range(2):  # at the usual places first, then wherever else a record of it stands
                found = self.places.find(trail_id)
                for path in found.journals:
                    with self._writing(path), lock.locked(self.places.path(path), timeout=self.lock_timeout):
                        self.places.remove(trail_id, path)
                for path in found.records:
                    with self._writing(path):
                        self.places.remove(trail_id, path)
            self.update([trail_id])

    # ---- under the folder's lock ----------------------------------------------------------------------------

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder's lock: for which files there are, and for what is derived from them."""
        with self._writing(".lock"):
            self.places.create()
            fd = lock.acquire(self.places.path(".lock"), os.O_RDWR | os.O_CREAT, timeout=self.lock_timeout)
        try:
            lock.sign(fd)
            with self._writing(".gitignore"):
                self.places.furnish()
            yield
        finally:
            lock.release(fd)

    def refresh(self, touched: Iterable[str] = ()) -> None:
        """Put right what is derived; the record and page of `touched` trails are written anew."""
        with self.locked():
            self.update(touched)

    def update(self, touched: Iterable[str] = ()) -> dict[str, IndexEntry]:
        """As `refresh`, for who holds the lock already."""
        with self._writing(index.NAME):
            return self.index.refresh(self.places.scan(self.index.time()), touched, now=self._now())

    def unified(self, trail_id: str) -> Found:
        """The files of a trail, after its journals (git may have left two) have been made one."""
        found = self.found(trail_id)
        first, *others = (self.places.path(path) for path in found.journals)
        for other in others:
            with self._writing(other), lock.locked(other, journal.WRITE, timeout=self.lock_timeout):
                journal.merge(first, [other], timeout=self.lock_timeout)
                reading = journal.read(other)
                if reading.bad or reading.torn:  # what is no entry was not merged
                    os.rename(other, journal.beside(other, "merged"))
                else:
                    os.unlink(other)
        return self.found(trail_id) if others else found

    def move(self, path: str, target: str) -> str:
        """Move a journal within the folder; its new absolute path."""
        source, destination = self.places.path(path), self.places.path(target)
        self._make(os.path.dirname(destination))
        os.rename(source, destination)
        return destination

    def _make(self, folder: str) -> None:
        """A month's folder, durable before anything is in it."""
        if not os.path.isdir(folder):
            os.makedirs(folder, exist_ok=True)
            places.sync_folder(os.path.dirname(folder))
            places.sync_folder(self.places.root)

    def settle(self, trail_id: str) -> bool:
        """Move a journal to where its state belongs; whether it was moved."""
        with self.locked():
            return self.settled(trail_id)

    def settled(self, trail_id: str) -> bool:
        """As `settle`, for who holds the lock: ended trails stand in the month of their end, others in active."""
        found = self.unified(trail_id)
        path = found.journals[0]
        target = self.place_of(trail_id, layouts.entries(self.places.root, trail_id, found))
        if path == target:
            return False
        full = self.places.path(path)
        with self._writing(full), lock.locked(full, journal.WRITE, timeout=self.lock_timeout):
            target = self.move(path, target)
            places.sync_folder(os.path.dirname(target))
        return True

    def place_of(self, trail_id: str, entries: Iterable[Entry]) -> str:
        """Where the journal that holds these entries (in their order) belongs."""
        end = next((entry for entry in entries if entry.type in ENDS), None)
        if end is None:
            return self._journal(places.ACTIVE, trail_id)
        return self.places.ended(trail_id, from_text(end.occurred_at))

    def adopt(self, trail_id: str) -> bool:
        """Tell another tool's record of a trail in a journal, which is its truth from then on.

        Where both are there (the npm tool has rewritten the folder), what only the record says is taken over.
        False where there is no record.
        """
        with self.locked():
            found = self.places.find(trail_id)
            if not found.records:
                return False
            if self.taken_over(trail_id, found):
                self.update([trail_id])
        return True

    def taken_over(self, trail_id: str, found: Found) -> int:
        """As `adopt`, for who holds the lock: how many entries were new. The index is left for later."""
        told = layouts.entries(self.places.root, trail_id, found)
        if not found.journals:
            place = os.path.dirname(self.place_of(trail_id, told))
            self.create(trail_id, [self.ready(entry, trail_id, bounded=False) for entry in told], place)
            return len(told)
        new = self.only_in_records(trail_id, found, told)
        added = self.merge(trail_id, [self.ready(entry, trail_id, bounded=False) for entry in new])
        if added:
            self.settled(trail_id)
        return added

    def absorb(self, trail_id: str, entries: Iterable[Entry]) -> tuple[int, bool]:
        """Take entries that were made elsewhere: how many were new, and whether a journal came or moved.

        What is derived is left for `refresh`, so that many trails can share one.
        """
        new = [self.ready(entry, trail_id, bounded=False) for entry in line.ordered(entries)]
        known = bool(self.places.find(ids.checked(trail_id)).journals) or self.adopt(trail_id)
        created: int | None = None
        if not known:
            with self.locked():  # trails are moved under this lock: none slips from one place to another
                if not self.places.find(trail_id).journals:
                    created = self.create(trail_id, new)
        added = self.merge(trail_id, new) if created is None else created
        return added, (self.settle(trail_id) if added else False) or created is not None

    def only_in_records(self, trail_id: str, found: Found, told: Sequence[Entry]) -> list[Entry]:
        """What other tools' records of a trail say that its journals do not."""
        if not found.journals or not found.records:
            return []
        new: list[Entry] = []
        for path in found.records:
            try:
                trail = layouts.read(self.places.root, trail_id, path)
            except FileNotFoundError:
                continue
            except TrailError as error:
                journal.log.error("%s", error)
                continue
            if not retell.is_derived(trail):
                new += retell.new_in(trail, [*told, *new], origin="record")
        return new

    def _now(self) -> str:
        return record.instant(to_datetime(self.clock.now()))

    def _journal(self, place: str, trail_id: str) -> str:
        return f"{place}/{ids.checked(trail_id)}{places.JOURNAL}"

    @contextmanager
    def _writing(self, path: str) -> Iterator[None]:
        """What the system refuses is told in one line, with the remedy."""
        try:
            yield
        except OSError as error:
            raise journal.cannot_write(self.places.path(path), error) from None
