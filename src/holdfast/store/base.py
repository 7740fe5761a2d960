"""The contract of a store: logs, what is derived from them, and who works on what.

A store keeps for every run an append-only log (law L1: positions 1, 2, 3 … given inside the commit) and five
projections, written in the commit of the events they derive from:

    runs    one row a run: status, attributes, the log's head and marks (`Head`)
    steps   the steps that still owe an outcome
    timers  the timers that are still to fire
    hooks   the tokens, open or not, and the deliveries they have had
    children  the child runs of which their parent has not heard the end; those of a parent that has ended
            (its *orphans*) stay until a worker has seen to them

and, beside the log, its streams (`streams.py`), and what is not history: which worker owns a run, whether it
is parked.

Whatever is written goes through `submit`: appends of different runs that wait at one moment are committed
together (`group.py`), each judged by the same pure function (`rules.judge`). A backend brings only the
look-ups and the writes. The laws L1–L5, L8 and L11–L14 are tested for all backends by one suite
(`tests/store/`), which a new backend joins by supplying an `open`.
"""

from __future__ import annotations

import abc
import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Self

from ..chunks import Chunk, Part
from ..clock import Clock, SystemClock
from ..errors import RunNotFound, StoreBroken, StoreError
from ..events import ENDS, Draft, Event
from ..queues import Queue
from .gauge import Gauge
from .messages import Append, Appended, Listener, News
from .queued import QueueRow, Taken, Waiting
from .removal import Removal
from .rows import (
    ALL,
    AccessToken,
    Child,
    Claim,
    Head,
    Hook,
    Link,
    OpenStep,
    RunFilter,
    ScheduleRow,
    TakenUp,
    Timer,
    WorkerRow,
)
from .streams import PAGE_CHUNKS, Author, StreamHead, Written


class Store(abc.ABC):
    """Where runs live. Get one with `open_store(url)`; use it as `async with`.

    Example:
        async with open_store("sqlite:///app.db") as store:
            await store.append("order-1", [new("run_created", data=...)], after=0)
            log = await store.read("order-1")
    """

    presence_folder: Path | None = None
    """Where workers on this machine lock their presence files (`worker/presence.py`); None: they cannot."""

    upgrade = False
    """Whether `open` may change an older schema on which others may be at work (`holdfast migrate`)."""
    upgraded: Sequence[str] = ()
    """The migrations that `open` has applied."""

    def __init__(self, url: str, clock: Clock | None = None) -> None:
        self.url = url
        self.clock: Clock = clock or SystemClock()
        self._listeners: list[Listener] = []

    @property
    def at_rest(self) -> Store:
        """The store as it holds its data: without the seal, where there is one. What proofs read."""
        return self

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @abc.abstractmethod
    async def open(self) -> None:
        """Connect; create what is missing. Raises StoreBroken, SchemaUnknown, StoreError."""

    @abc.abstractmethod
    async def close(self) -> None:
        """Finish what was submitted, then disconnect."""

    # ---- writing

    @abc.abstractmethod
    def submit(self, request: Append, *, flush: bool = False) -> None:
        """Append with the next group; the answer comes by `request.answer`.

        Groups form until the end of the loop's turn; `flush` says that nothing else is to be waited for.
        """

    @abc.abstractmethod
    def next_batch(self) -> str:
        """A batch id for an append that is submitted by hand (law L12)."""

    @abc.abstractmethod
    async def append(
        self,
        run_id: str,
        events: Sequence[Draft],
        *,
        after: int | None = None,
        batch: str | None = None,
        owner: str | None = None,
    ) -> Appended:
        """Append to a run's log, all or nothing (laws L2–L5, L11, L12).

        `after=0` creates the log; its first event must be `run_created`. Facts and records need no `after`;
        commands do. Send an append whose answer was lost again with the same `batch`.

        Raises StaleLog (the view was old; `.missed`, `.recorded`), FenceMissing, RunNotFound, RunEnded,
        HookNotFound, DeliveryConflict, CommandMissing, StepEnded, TooEarly, StoreError.
        """

    @abc.abstractmethod
    async def deliver(
        self, token: str, payload: bytes, delivery: str, *, digest: str | None = None
    ) -> Appended:
        """Append a payload (JSON text) to the run that has this hook open; `.run` of the answer is its id.

        By `digest` a payload that is sent again is told from another one under the same delivery id; it is
        computed from the payload where it is not given.

        Raises HookNotFound, DeliveryConflict and RunContinued (see `succession.py`).
        """

    # ---- reading

    @abc.abstractmethod
    async def read(self, run_id: str, after: int = 0, limit: int | None = None) -> list[Event]:
        """The events beyond `after`, a prefix of what is there (law L1). Unknown runs give []."""

    @abc.abstractmethod
    async def head(self, run_id: str) -> Head | None:
        """The run's row, or None."""

    @abc.abstractmethod
    async def runs(
        self, which: RunFilter = ALL, *, before: tuple[int, str] | None = None, limit: int = 100
    ) -> list[Head]:
        """A page of runs, newest first. `before` is (created, run) of the last row of the page before."""

    async def all_runs(
        self,
        which: RunFilter = ALL,
        *,
        before: tuple[int, str] | None = None,
        limit: int | None = None,
        page: int = 100,
    ) -> AsyncIterator[Head]:
        """Runs, newest first, asked for page by page: runs that start meanwhile do not shift the pages."""
        left = sys.maxsize if limit is None else limit
        while left > 0 and (heads := await self.runs(which, before=before, limit=min(page, left))):
            for head in heads:
                yield head
            before, left = (heads[-1].created, heads[-1].run), left - len(heads)

    async def tally(self) -> dict[tuple[str, str], int]:
        """How many runs there are of each (workflow, status); (workflow, 'parked') counts besides."""
        counted: dict[tuple[str, str], int] = {}
        async for head in self.all_runs(page=1000):
            for word in (head.status, "parked") if head.parked is not None else (head.status,):
                counted[head.workflow, word] = counted.get((head.workflow, word), 0) + 1
        return counted

    @abc.abstractmethod
    async def gauge(self, since: int) -> Gauge:
        """What the rows come to at this moment, for `holdfast top`: bounded, whatever the number of runs.

        `since`: the time of the look before, from when on new runs are counted.
        """

    @abc.abstractmethod
    async def hooks(
        self,
        *,
        run: str | None = None,
        token: str | None = None,
        open_only: bool = True,
        after: tuple[str, str] | None = None,
        limit: int = 100,
    ) -> list[Hook]:
        """A page of hooks by (token, run); `after` is that pair of the last row of the page before.

        A pair is never cut in two, so a page may hold a few more than `limit`.
        """

    @abc.abstractmethod
    async def timers(self, *, run: str | None = None, limit: int = 100) -> list[Timer]:
        """Pending timers, the earliest first."""

    @abc.abstractmethod
    async def open_steps(self, run_id: str) -> list[OpenStep]:
        """The steps of a run that still owe an outcome."""

    @abc.abstractmethod
    async def children(self, run_id: str) -> list[Child]:
        """The child runs of which this run has not heard the end; of an ended run, its orphans."""

    async def take_up(self, run_id: str) -> TakenUp:
        """What a worker needs to go on with a run: its log, and what is open. Of an unknown run, nothing."""
        events = await self.read(run_id)  # first: what is open besides is of no account then
        return TakenUp(events, await self.open_steps(run_id), await self.children(run_id))

    async def catch_up(self, run_id: str, after: int) -> list[Event]:
        """`read`, by the run's decider: a store that remembers runs is up to date for what it appends next."""
        return await self.read(run_id, after)

    async def receiver(self, token: str) -> Hook | None:
        """The open hook that gets the payloads of a token: what a sender asks before `deliver`."""
        hooks = await self.hooks(token=token, limit=1)  # all of the one run that holds the token
        return hooks[-1] if hooks else None

    async def end_of(self, run_id: str) -> Event | None:
        """The event that ended a run, or None. Raises RunNotFound, StoreBroken."""
        head = await self.head(run_id)
        if head is None:
            raise RunNotFound(f"no run {run_id!r} in {self.url}")
        if head.ended is None:
            return None
        # The end is last but for late outcomes: look at the tail first, at the whole log if need be.
        for after in (max(0, head.position - 4), 0):
            for event in await self.read(run_id, after):
                if event.type in ENDS:
                    return event
        raise StoreBroken(f"run {run_id!r} has ended, but its log holds no end: see `holdfast verify`")

    @abc.abstractmethod
    async def chain(self, run_id: str) -> list[Link]:
        """The appends of the run, in order: what `verify` recomputes (law L13)."""

    async def strays(self) -> list[str]:
        """Rows that belong to no run, in words: there are none, unless a run's row was taken away by hand."""
        return []

    # ---- streams

    @abc.abstractmethod
    async def write_stream(
        self,
        run_id: str,
        name: str,
        parts: Sequence[Part],
        *,
        author: Author | None = None,
        batch: str | None = None,
        limit: int | None = None,
    ) -> Written:
        """Append chunks to a stream of a run, all or nothing; they are durable when this returns.

        Writes that wait at one moment share a commit with each other and with appends. Send a write whose
        answer was lost again with the same `batch`. `streams.judge_write` says what is accepted.

        Raises RunNotFound, RunEnded, StreamEnded, StepEnded (the author's attempt is over), PayloadError (over
        `limit`, the bytes of the whole stream), StoreError.
        """

    @abc.abstractmethod
    async def read_stream(
        self, run_id: str, name: str, after: int = 0, limit: int = PAGE_CHUNKS
    ) -> list[Chunk]:
        """A page of a stream beyond `after`: at most `limit` chunks and `PAGE_BYTES`, but one at least.

        What is read is durable. An empty page means that nothing lies beyond `after` yet; wait for news of the
        run with this `stream`, or for its end (`listen`), and read again.
        """

    @abc.abstractmethod
    async def stream(self, run_id: str, name: str) -> StreamHead | None:
        """A stream's row, or None where nothing was written to it yet."""

    @abc.abstractmethod
    async def streams(self, run_id: str) -> list[StreamHead]:
        """The streams of a run, in the order of their first chunks."""

    # ---- who works on what (never needed for correctness; it saves work)

    @abc.abstractmethod
    async def enlist(self, worker: WorkerRow) -> None:
        """Add a worker, or move its lease on. Raises LeaseLost if it was declared dead meanwhile."""

    @abc.abstractmethod
    async def workers(self) -> list[WorkerRow]:
        """All workers that have not left.

        An owner of runs that is not enlisted (it began them when others had declared it dead) is there too, with
        a lease that has run out: whoever looks for the dead finds it.
        """

    async def attend(self, worker: str) -> None:  # noqa: B027 - a store whose server cannot tell does nothing
        """From now on the store's server tells others of this worker's death. Asked before its first claim."""

    async def next_death(self, worker: str) -> str:
        """Wait for the death of another worker, as the store's server tells it; gives that one's id.

        Whoever asks attends too, until its question is cancelled. Called again and again; a store whose server
        cannot tell waits for ever, and leases tell instead.
        """
        never: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        return await never

    @abc.abstractmethod
    async def discharge(self, worker: str) -> None:
        """A worker is gone: free its runs."""

    @abc.abstractmethod
    async def claim(
        self, worker: str, workflows: Sequence[str], *, limit: int = 100, parked: bool = False
    ) -> list[Claim]:
        """Give the worker free runs of these workflows that are ready; with `parked`, parked ones instead.

        Of those, never a runaway: it would kill or block each worker that starts. `park(run, None)` frees it.
        """

    @abc.abstractmethod
    async def release(self, worker: str, marks: Mapping[str, int]) -> None:
        """Free these runs again; each value is the position up to which the worker delivered every fact."""

    @abc.abstractmethod
    async def park(self, run_id: str, reason: str | None) -> None:
        """Set a run aside with a reason (JSON text), or take it up again with None."""

    @abc.abstractmethod
    async def crashed(self, run_id: str) -> int:
        """Count one more crash or time-out of a tick of this run; a run's next own append resets it."""

    @abc.abstractmethod
    async def owned(self, worker: str) -> list[Claim]:
        """The runs that the store has down as this worker's, ended ones left out: a claim's answer may be lost."""

    @abc.abstractmethod
    async def behind(self, worker: str) -> list[tuple[str, int]]:
        """(run, last fact) of this worker's runs whose log holds facts beyond the delivered mark."""

    @abc.abstractmethod
    async def ended_children(self, worker: str) -> list[Child]:
        """The children of this worker's runs that have ended, and whose parent has not been told."""

    @abc.abstractmethod
    async def orphans(self, limit: int = 100) -> list[Child]:
        """Children whose parent has ended: to be cancelled, or (detached ones) to be started all the same."""

    @abc.abstractmethod
    async def bury_orphan(self, run_id: str, key: str) -> None:
        """An orphan has been seen to: forget it."""

    # ---- queues (`queued.py`)

    @abc.abstractmethod
    async def take_steps(
        self, worker: str, queues: Sequence[Queue], steps: Sequence[str], room: int
    ) -> Taken:
        """Give the worker steps that wait in these queues, within their limits: at most `room`, of these names.

        They are its own until their outcome is recorded, they are put back, or the worker is discharged.
        """

    @abc.abstractmethod
    async def held_steps(self, worker: str) -> list[Waiting]:
        """The queued steps that the store has down as this worker's: an answer may be lost."""

    @abc.abstractmethod
    async def put_back(self, worker: str, steps: Sequence[tuple[str, str]]) -> None:
        """Give up steps (run, key) that were taken and not begun."""

    @abc.abstractmethod
    async def queues(self) -> list[QueueRow]:
        """The queues in which steps wait or run, by name."""

    # ---- schedules

    @abc.abstractmethod
    async def schedules(self) -> list[ScheduleRow]:
        """The schedules, by workflow."""

    @abc.abstractmethod
    async def swap_schedule(self, was: ScheduleRow | None, now: ScheduleRow | None) -> bool:
        """Put `now` in the place of `was`, of the same workflow; False where something else stands there.

        None is no row: to add one, to take one away.
        """

    # ---- removing (`removal.py`)

    @abc.abstractmethod
    async def remove(self, runs: Sequence[str], ended_before: int, *, dry: bool = False) -> Removal:
        """Remove those of these runs that ended before a time, and all that belongs to them, in one transaction.

        Runs that somebody still needs are kept. With `dry` nothing is removed, and the answer says what would be.
        """

    async def changed(self) -> bool:
        """Whether anything was written since this was last asked: what makes the slow poll cheap."""
        return True

    async def work_waits(self, worker: str) -> bool:
        """Whether the slow poll of this worker may find something; asked by it alone."""
        return await self.changed()

    # ---- who may call `holdfast serve` (managed where the store is, never through the server)

    async def tokens(self) -> list[AccessToken]:
        """The tokens that callers of a server on this store may have."""
        raise StoreError(f"{self.url} keeps no tokens: manage them where the store is")

    async def put_token(self, token: AccessToken) -> None:
        """Keep a token's hash."""
        raise StoreError(f"{self.url} keeps no tokens: manage them where the store is")

    async def drop_token(self, token: str) -> bool:
        """Forget a token by its id; False where there was none."""
        raise StoreError(f"{self.url} keeps no tokens: manage them where the store is")

    # ---- being told

    def listen(self, listener: Listener, *, every: bool = False) -> Callable[[], None]:
        """Call `listener` with the news of each commit, also of other processes; returns how to stop.

        A worker in another process does not tell of what concerns itself alone (its steps go on); with `every`,
        for those who follow a log, it does.
        """
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def tell(self, news: Sequence[News]) -> None:
        """Pass news on to the listeners of this process."""
        for listener in tuple(self._listeners):
            listener(news)
