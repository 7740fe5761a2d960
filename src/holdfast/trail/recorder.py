"""Runs as trails: take what a store's logs say into a folder, once or for as long as they grow.

    async with hf.connect("sqlite:///app.db") as app, app.worker(trails=".trajectories"):
        ...                                                  # each run of this worker has its trail

    recorded = await record(app.store, "order-1", TrailFolder())

Guarantee: a trail that was recorded says what its log said up to there, whoever recorded it, however often and
however many at once; a recorder that was killed goes on where the folder stands. It rests on the projection
(the same log gives the same entries, with the same ids) and on the folder, which takes a set of entries in and
leaves out those that it has. Nothing is remembered beside the two: how far a trail is follows from the folder.

A recorder only reads the store. What goes wrong in it is logged by `holdfast.trail` and tried again; no run
ever waits for it or fails with it.

Rejected: a mark of what was recorded, kept in the store (each recorder would write there, and it could lie);
telling the recorder from within the worker's appends (a disk that is slow for trails would slow down runs).
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import os
import time
from collections.abc import AsyncIterator, Callable, Container, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Self, TypeVar

import msgspec

from ..clock import from_datetime
from ..errors import HoldfastError, RunNotFound
from ..store.base import Store
from ..store.messages import News
from ..store.rows import Head
from .entry import Entry
from .folder import TrailFolder
from .model import Summary
from .projection import RunTrail, entries_of, trail_of

log = logging.getLogger("holdfast.trail")

T = TypeVar("T")

_PAGE = 500
_MOST = 10_000
"""Entries that are taken in at once: each time, the folder reads what the journal holds."""
_REMEMBERED = 10_000
_SHORTEST, _LONGEST, _SHARE = 0.05, 5.0, 4
"""A pass over the runs that have changed is followed by a pause: four times as long as it took, in seconds."""
_RECENT = 3_600_000_000
"""Microseconds: a run that ended within them was perhaps missed by a recorder that was killed."""
_OVERLAP = 60_000_000
"""Microseconds by which a look for runs goes back before the last one: clocks and commits overlap."""


class Recorded(msgspec.Struct, frozen=True):
    """What recording a run came to: its trail, the run's status by the log, and how many entries were new."""

    run: str
    trail: str
    status: str
    new: int

    @property
    def ended(self) -> bool:
        """Whether the run, and so its trail, has ended."""
        return self.status in ("completed", "failed", "cancelled")


async def record(store: Store, run_id: str, folder: TrailFolder) -> Recorded:
    """Make or complete the trail of one run; doing so again changes nothing.

    Example:
        recorded = await record(app.store, "order-1", TrailFolder())
        folder.load(recorded.trail)

    Raises RunNotFound, StoreError, TrailError.
    """
    async with Recorder(store, folder) as recorder:
        return await recorder.advance(run_id)


async def record_all(
    store: Store, folder: TrailFolder, *, workflows: Container[str] | None = None
) -> AsyncIterator[Recorded]:
    """Make or complete the trails of all runs of a store (or of some workflows), the newest run first.

    Runs whose trail has ended with them are passed over. Raises StoreError, TrailError.

    Example:
        async for recorded in record_all(app.store, TrailFolder()):
            print(recorded.run, recorded.trail)
    """
    async with Recorder(store, folder) as recorder:
        for run_id in await recorder.behind(workflows):
            yield await recorder.advance(run_id)


async def follow(
    store: Store,
    folder: TrailFolder,
    run_ids: Iterable[str] | None = None,
    *,
    workflows: Container[str] | None = None,
    history: bool = True,
    poll: float = 5.0,
    stop: asyncio.Event | None = None,
) -> AsyncIterator[Recorded]:
    """Keep trails current while their runs go on; yields each time that a trail has grown.

    With `run_ids` it ends when all of these runs have; else it goes on until `stop` is set (it records what
    has happened by then) or the loop is left. Without `history`, runs are left out that ended an hour ago or
    more, before the folder held the trail of any run. `poll` is in seconds: how often it looks by itself, for
    news that were lost. What goes wrong with a run is logged, and tried again with the next look.

    Example:
        async for recorded in follow(app.store, TrailFolder(), ["order-1"]):
            print(recorded.new, "more entries")

    Raises RunNotFound for a run that is not there, StoreError where the store cannot be read at all.
    """
    async with Recorder(store, folder) as recorder:
        watch = _Watch(recorder, None if run_ids is None else set(run_ids), workflows, history=history)
        with watch.listening():
            await watch.look()
            while True:
                stopping = stop is not None and stop.is_set()
                async for recorded in watch.catch_up():
                    yield recorded
                if stopping or watch.done:
                    return
                await watch.wait(poll, stop)


@contextlib.asynccontextmanager
async def keeping(
    store: Store, trails: TrailFolder | str | os.PathLike[str], workflows: Callable[[], Sequence[str]]
) -> AsyncIterator[None]:
    """Keep the trails of these workflows' runs beside whatever happens in the block, and to its end."""
    folder = trails if isinstance(trails, TrailFolder) else TrailFolder(trails)
    stop = asyncio.Event()
    task = asyncio.create_task(_keep(store, folder, _Names(workflows), stop))
    try:
        yield
    finally:
        stop.set()
        await task


async def _keep(store: Store, folder: TrailFolder, names: Container[str], stop: asyncio.Event) -> None:
    trouble = ""
    while True:
        try:
            async for _ in follow(store, folder, workflows=names, history=False, stop=stop):
                pass
        except Exception as error:
            if trouble != str(error):  # once for each trouble, not every two seconds
                trouble = str(error)
                known = isinstance(error, HoldfastError | OSError)
                where, more = folder.root, None if known else error
                log.error("no trails in %s for the moment, runs go on: %s", where, error, exc_info=more)
        if stop.is_set():
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(2):
                await stop.wait()


class _Names:
    """The workflows of a process, which may come to define more."""

    def __init__(self, names: Callable[[], Sequence[str]]) -> None:
        self._names = names

    def __contains__(self, name: object) -> bool:
        return name in self._names()


class Recorder:
    """Takes runs into a folder, and knows how far it is with those that go on. Use it as `async with`."""

    def __init__(self, store: Store, folder: TrailFolder) -> None:
        self.store = store
        self.folder = folder
        self._live: dict[str, RunTrail] = {}
        self._ended: dict[str, int] = {}
        self._threads = ThreadPoolExecutor(max_workers=1, thread_name_prefix="holdfast-trail")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._threads.shutdown(wait=False)

    async def advance(self, run_id: str) -> Recorded:
        """Take in what the run's log holds beyond what this recorder has taken. Raises RunNotFound."""
        run = self._live.pop(run_id, None)  # where this fails, it is read anew from its beginning
        if run is None:
            run = RunTrail(run_id, redact=self.folder.files.redact)
        new = 0
        entries: list[Entry] = []
        while page := await self.store.read(run_id, run.position, _PAGE):
            entries += [entry for event in page for entry in run.feed(event)]
            if len(entries) >= _MOST:
                new += await self._absorb(run.id, entries)
                entries = []
        if entries:
            new += await self._absorb(run.id, entries)
        if not run.position:
            raise RunNotFound(f"no run {run_id!r} in {self.store.url}")
        recorded = Recorded(run_id, run.id, run.status, new)
        if new and not recorded.ended:
            await self._apart(functools.partial(self.folder.settle, run.id))
        self._remember(run, recorded)
        return recorded

    async def _absorb(self, trail_id: str, entries: list[Entry]) -> int:
        return await self._apart(functools.partial(self.folder.absorb, trail_id, entries, derive=False))

    def _remember(self, run: RunTrail, recorded: Recorded) -> None:
        if not recorded.ended:
            self._live[run.run_id] = run
            return
        self._ended[run.run_id] = run.position
        if len(self._ended) > _REMEMBERED:
            del self._ended[next(iter(self._ended))]

    def position(self, run_id: str) -> int:
        """Up to where this recorder has taken a run."""
        run = self._live.get(run_id)
        return run.position if run is not None else self._ended.get(run_id, 0)

    async def behind(
        self, workflows: Container[str] | None = None, since: int = 0, *, history: bool = True
    ) -> list[str]:
        """The runs whose trail may lack something; with `since`, of those created from then on or known.

        Without `history`, those are left out that ended long before there was a trail of any run.
        """
        recorded: dict[str, int] = {}
        if not since:  # the folder says what recorders before this one have done
            recorded = {summary.id: _end_of(summary) for summary in await self._apart(self.folder.list)}
        now = self.store.clock.now()
        found: list[str] = []
        unsure: list[str] = []
        async for head in self._heads(since):
            if workflows is not None and head.workflow not in workflows:
                continue
            until = recorded.get(trail_of(head.run, head.created))
            if until is not None:
                found += unsure  # younger than a trail: a recorder that was killed has missed them
                unsure.clear()
            if self.position(head.run) < head.position and (head.ended is None or (until or 0) < head.time):
                recent = head.ended is None or head.ended > now - _RECENT
                (found if history or since or recent or until is not None else unsure).append(head.run)
        for run_id, run in list(self._live.items()):
            row = await self.store.head(run_id)
            if row is not None and row.position > run.position and run_id not in found:
                found.append(run_id)
        return found

    async def _heads(self, since: int) -> AsyncIterator[Head]:
        async for head in self.store.all_runs(page=_PAGE):
            if head.created < since:
                return
            yield head

    async def _apart(self, work: Callable[[], T]) -> T:
        """Do something with the disk, in the recorder's own thread."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)


class _Watch:
    """Which runs have changed, for `follow`."""

    def __init__(
        self, recorder: Recorder, wanted: set[str] | None, workflows: Container[str] | None, *, history: bool
    ) -> None:
        self._recorder = recorder
        self._history = history
        self._wanted = wanted
        self._workflows = workflows
        self._changed: dict[str, None] = {}
        self._foreign: set[str] = set()
        self._troubles: dict[str, str] = {}
        self._wake = asyncio.Event()
        self._looked = 0
        self._pause = 0.0

    @property
    def done(self) -> bool:
        """Whether every run that is wanted has ended."""
        return self._wanted is not None and not self._wanted

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Hear of each commit."""
        unlisten = self._recorder.store.listen(self._hear)
        try:
            yield
        finally:
            unlisten()

    def _hear(self, news: Sequence[News]) -> None:
        for item in news:
            if item.stream is not None:
                continue  # trails are told by logs
            if (self._wanted is None or item.run in self._wanted) and item.run not in self._foreign:
                self._changed[item.run] = None
            if item.ended:
                self._foreign.discard(item.run)
        if self._changed:
            self._wake.set()

    async def look(self) -> None:
        """See for itself what has changed since the last look."""
        if self._wanted is not None:
            self._changed |= dict.fromkeys(self._wanted)
            return
        now = self._recorder.store.clock.now()
        runs = await self._recorder.behind(self._workflows, self._looked, history=self._history)
        self._changed |= dict.fromkeys(reversed(runs))
        self._looked = max(1, now - _OVERLAP)

    async def catch_up(self) -> AsyncIterator[Recorded]:
        """Take in every run that has changed, and tell of those whose trail has grown."""
        begun = time.monotonic()
        self._wake.clear()
        changed, self._changed = self._changed, {}
        for run_id in changed:
            recorded = await self._advance(run_id)
            if recorded is None:
                continue
            if recorded.ended and self._wanted is not None:
                self._wanted.discard(run_id)
            if recorded.new:
                yield recorded
        self._pause = min(max(_SHORTEST, _SHARE * (time.monotonic() - begun)), _LONGEST)

    async def _advance(self, run_id: str) -> Recorded | None:
        try:
            if not await self._is_ours(run_id):
                return None
            recorded = await self._recorder.advance(run_id)
        except RunNotFound:
            if self._wanted is not None:
                raise
            return None  # another process told of it before its commit could be seen here
        except (HoldfastError, OSError) as error:
            self._changed[run_id] = None
            if self._troubles.get(run_id) != str(error):  # once for each trouble, not with each look
                self._troubles[run_id] = str(error)
                log.error("the trail of run %s is behind, and will be tried again: %s", run_id, error)
            return None
        self._troubles.pop(run_id, None)
        return recorded

    async def _is_ours(self, run_id: str) -> bool:
        if self._workflows is None or self._recorder.position(run_id):
            return True
        head = await self._recorder.store.head(run_id)
        if head is None or head.workflow in self._workflows:
            return head is not None
        if head.ended is None:
            self._foreign.add(run_id)
        return False

    async def wait(self, poll: float, stop: asyncio.Event | None) -> None:
        """Until something has changed; not at once again, so that recording never takes more than its share."""
        stopping = asyncio.ensure_future(stop.wait() if stop is not None else asyncio.Event().wait())
        waking = asyncio.ensure_future(self._wake.wait())
        try:
            await asyncio.wait({stopping}, timeout=self._pause)
            await asyncio.wait({stopping, waking}, timeout=poll, return_when=asyncio.FIRST_COMPLETED)
            if not waking.done() and not stopping.done():
                await self.look()
        finally:
            stopping.cancel()
            waking.cancel()


def _end_of(summary: Summary) -> int:
    return from_datetime(summary.completed_at) if summary.completed_at is not None else -1


__all__ = ["Recorded", "Recorder", "entries_of", "follow", "keeping", "record", "record_all", "trail_of"]
