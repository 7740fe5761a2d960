"""The store behind a server: what the contract asks for, as requests.

Appends that wait at one moment travel in one request and are committed together; while it is under way the next
group gathers (`group.py`, as for every store). A group whose answer is lost is sent again under its batch ids.
The time is the server's: a worker whose clock is wrong must not be refused for it (law L8).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import TypeVar

from holdfast import ids
from holdfast.chunks import Chunk, Part
from holdfast.clock import Alarm, Clock, SystemClock
from holdfast.errors import HoldfastError, StoreError
from holdfast.events import Event
from holdfast.queues import Queue
from holdfast.store.gauge import Gauge
from holdfast.store.group import Answers, GroupStore, Item, Job, settle
from holdfast.store.messages import SOME_QUEUE, Listener, News
from holdfast.store.queued import QueueRow, Taken, Waiting
from holdfast.store.removal import Removal
from holdfast.store.rows import (
    ALL,
    Child,
    Claim,
    Head,
    Hook,
    Link,
    OpenStep,
    RunFilter,
    ScheduleRow,
    Timer,
    WorkerRow,
)
from holdfast.store.streams import PAGE_CHUNKS, Author, StreamHead, Write, Written

from .calls import Calls
from .hear import Hearing
from .wire import encoding, reading, working, writing
from .wire.events import events_of

T = TypeVar("T")
LARGEST = 4 * 1024 * 1024
"""Bytes of one request with appends; more go in several. A single append may be larger."""
_PATIENCE_AT_FIRST = 2.0
"""Seconds to wait for a server that has not answered yet: it may be starting, or the URL is wrong."""


@cache
def _reader(kind: type[T]) -> Callable[[bytes], T]:
    """What reads answers of a kind."""
    return encoding.decoder(kind)


class ServerClock:
    """The server's clock, as far as its answers tell."""

    def __init__(self, own: Clock) -> None:
        self.own = own
        self.calls: Calls | None = None

    @property
    def _offset(self) -> int:
        return (self.calls.offset or 0) if self.calls is not None else 0

    def now(self) -> int:
        """Microseconds since 1970, UTC."""
        return self.own.now() + self._offset

    def alarm(self, due: int, callback: Callable[[], object]) -> Alarm:
        """Call back when the server's clock has reached `due`."""
        return self.own.alarm(due - self._offset, callback)


class HttpStore(GroupStore):
    """A store behind `holdfast serve`. Get one with `open_store("http://127.0.0.1:8470")`.

    A token stands in front of the host (`http://TOKEN@host:port`) or in HOLDFAST_TOKEN.
    """

    def __init__(self, url: str, clock: Clock | None = None) -> None:
        server_clock = ServerClock(clock or SystemClock())
        self._calls = server_clock.calls = Calls(url, server_clock.own)
        super().__init__(self._calls.url, server_clock)
        self._session = ids.sortable("ses")
        self._hearing = Hearing(self._calls, self._session, self.tell, self._look)
        self._every = False
        self._enlisted: set[str] = set()
        self._sending: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Reach the server. Raises StoreError where there is none, AccessDenied where a token is missing."""
        await self._calls.open()
        try:
            await self._calls.send(
                "store/head", encoding.encode(reading.OfRun("")), patience=_PATIENCE_AT_FIRST
            )
        except BaseException:
            await self._calls.close()
            raise
        self.opened()
        if self._listeners:
            self._hearing.start(every=self._every)

    async def close(self) -> None:
        """Finish what was submitted, then disconnect."""
        try:
            await self.drain()
        finally:
            self._hearing.stop()
            await self._calls.close()

    async def _ask(self, operation: str, question: object, answer: type[T], *, again: bool = True) -> T:
        await self._hearing.wait()
        read: Callable[[bytes], T] = _reader(answer)  # type: ignore[arg-type] # types are hashable
        return await self._calls.ask(f"store/{operation}", question, read, again=again)

    # ---- writing

    def commit_group(self, group: Sequence[Item]) -> tuple[Answers, list[News]]:
        """Never called: groups are sent, not committed here."""
        raise NotImplementedError

    commits_here = False

    def start_commit(self, group: Sequence[Item]) -> None:
        """Send a group."""
        self._sending = asyncio.get_running_loop().create_task(self._send(group))

    async def _send(self, group: Sequence[Item]) -> None:
        answers: Answers = []
        try:
            await self._hearing.wait()
            for part in _parts([_row(item) for item in group]):
                answers += await self._send_part(part)
        except BaseException as error:  # noqa: BLE001 - every writer gets an answer, also where we are cancelled
            failure = (
                error if isinstance(error, Exception) else StoreError(f"{self.url} was closed meanwhile")
            )
            answers += [failure] * (len(group) - len(answers))
        self.finish_commit(group, (answers, []))

    async def _send_part(self, rows: list[_Row]) -> Answers:
        body = b'{"appends":[%s],"chunks":[%s]}' % tuple(
            b",".join(text for is_chunks, text in rows if is_chunks is kind) for kind in (False, True)
        )
        try:
            raw = await self._calls.send("store/write", body)
            outcomes = _reader(writing.Outcomes)(raw)
        except HoldfastError as error:  # the request as a whole: of each of its appends nothing is known
            return [error] * len(rows)
        answers = [writing.answer_of(outcome) for outcome in outcomes.outcomes]
        appended = iter(answers[: sum(not is_chunks for is_chunks, _ in rows)])
        written = iter(answers[sum(not is_chunks for is_chunks, _ in rows) :])
        return [next(written if is_chunks else appended) for is_chunks, _ in rows]

    # ---- being told

    def listen(self, listener: Listener, *, every: bool = False) -> Callable[[], None]:
        """Call `listener` with the news of each commit, as the server tells them."""
        self._every |= every
        if self._loop is not None and not self._closed:
            self._hearing.start(every=self._every)
        return super().listen(listener, every=every)

    async def _look(self) -> None:
        """News were lost: tell our workers of the facts that they may have missed, and that there may be work."""
        news = [News("", None, False, False, True), SOME_QUEUE]
        for worker in self._enlisted:
            news += [News(run, worker, True, False, True) for run, _ in await self.behind(worker)]
        self.tell(news)

    async def changed(self) -> bool:
        """Whether the server told of anything since this was last asked, or could not tell."""
        return self._hearing.look()

    # ---- reading

    async def read(self, run_id: str, after: int = 0, limit: int | None = None) -> list[Event]:
        """The events beyond `after`, a prefix of what is there."""
        events: list[Event] = []
        while True:
            left = None if limit is None else limit - len(events)
            page = await self._ask("read", reading.ReadLog(run_id, after, left), reading.LogPage)
            events += events_of(run_id, page.events)
            if not page.more:
                return events
            after = events[-1].position

    async def head(self, run_id: str) -> Head | None:
        """The run's row, or None."""
        return (await self._ask("head", reading.OfRun(run_id), reading.HeadOf)).head

    async def runs(
        self, which: RunFilter = ALL, *, before: tuple[int, str] | None = None, limit: int = 100
    ) -> list[Head]:
        """A page of runs, newest first."""
        question = reading.ListRuns(which, before and reading.RunPlace(*before), limit)
        return (await self._ask("runs", question, reading.Heads)).heads

    async def hooks(
        self,
        *,
        run: str | None = None,
        token: str | None = None,
        open_only: bool = True,
        after: tuple[str, str] | None = None,
        limit: int = 100,
    ) -> list[Hook]:
        """A page of hooks by token and run."""
        question = reading.ListHooks(run, token, open_only, after and reading.HookPlace(*after), limit)
        return (await self._ask("hooks", question, reading.Hooks)).hooks

    async def timers(self, *, run: str | None = None, limit: int = 100) -> list[Timer]:
        """Pending timers, the earliest first."""
        return (await self._ask("timers", reading.ListTimers(run, limit), reading.Timers)).timers

    async def open_steps(self, run_id: str) -> list[OpenStep]:
        """The steps of a run that still owe an outcome."""
        return (await self._ask("open_steps", reading.OfRun(run_id), reading.OpenSteps)).steps

    async def children(self, run_id: str) -> list[Child]:
        """The child runs of which this run has not heard the end."""
        return (await self._ask("children", reading.OfRun(run_id), reading.Children)).children

    async def chain(self, run_id: str) -> list[Link]:
        """The appends of the run, in order."""
        return (await self._ask("chain", reading.OfRun(run_id), reading.Chain)).links

    async def strays(self) -> list[str]:
        """Rows that belong to no run."""
        return (await self._ask("strays", working.Done(), reading.Strays)).strays

    # ---- streams

    def put_chunks(self, write: Write) -> Written | HoldfastError:
        """Never called: the server judges."""
        raise NotImplementedError

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
        """Append chunks to a stream; a lost answer is asked for again under the same batch id."""
        write = Write(run_id, name, parts, batch or self.next_batch(), author, limit)
        future: asyncio.Future[Written] = asyncio.get_running_loop().create_future()
        self._put(Job(_never, settle(future), write=write))
        return await future

    async def read_stream(
        self, run_id: str, name: str, after: int = 0, limit: int = PAGE_CHUNKS
    ) -> list[Chunk]:
        """A page of a stream beyond `after`."""
        return (
            await self._ask("read_stream", reading.ReadStream(run_id, name, after, limit), reading.Chunks)
        ).chunks

    async def stream(self, run_id: str, name: str) -> StreamHead | None:
        """A stream's row, or None."""
        return (await self._ask("stream", reading.OfStream(run_id, name), reading.StreamOf)).stream

    async def streams(self, run_id: str) -> list[StreamHead]:
        """The streams of a run."""
        return (await self._ask("streams", reading.OfRun(run_id), reading.Streams)).streams

    # ---- who works on what

    async def enlist(self, worker: WorkerRow) -> None:
        """Add a worker, or move its lease on."""
        known = worker.id in self._enlisted
        await self._ask("enlist", working.Enlist(worker, self._session, known), working.Done)
        self._enlisted.add(worker.id)

    async def workers(self) -> list[WorkerRow]:
        """All workers that have not left."""
        return (await self._ask("workers", working.Done(), working.Workers)).workers

    async def discharge(self, worker: str) -> None:
        """Free the runs of a worker that is gone."""
        await self._ask("discharge", working.Discharge(worker), working.Done)

    async def claim(
        self, worker: str, workflows: Sequence[str], *, limit: int = 100, parked: bool = False
    ) -> list[Claim]:
        """Give the worker free runs. A lost answer is not asked for again: `owned` tells what it was."""
        question = working.ClaimRuns(worker, list(workflows), limit, parked)
        return (await self._ask("claim", question, working.Claims, again=False)).claims

    async def release(self, worker: str, marks: Mapping[str, int]) -> None:
        """Free these runs again."""
        await self._ask("release", working.Release(worker, dict(marks)), working.Done)

    async def park(self, run_id: str, reason: str | None) -> None:
        """Set a run aside, or take it up again."""
        await self._ask("park", working.Park(run_id, reason), working.Done)

    async def crashed(self, run_id: str) -> int:
        """Count one more crash of a tick."""
        return (await self._ask("crashed", reading.OfRun(run_id), working.Crashes, again=False)).count

    async def owned(self, worker: str) -> list[Claim]:
        """The live runs that are this worker's."""
        return (await self._ask("owned", working.OfWorker(worker), working.Claims)).claims

    async def behind(self, worker: str) -> list[tuple[str, int]]:
        """This worker's runs with facts beyond the delivered mark."""
        rows = (await self._ask("behind", working.OfWorker(worker), working.Behind)).runs
        return [(row.run, row.fact) for row in rows]

    async def ended_children(self, worker: str) -> list[Child]:
        """The children of this worker's runs that have ended, and whose parent has not been told."""
        return (await self._ask("ended_children", working.OfWorker(worker), reading.Children)).children

    async def orphans(self, limit: int = 100) -> list[Child]:
        """Children whose parent has ended."""
        return (await self._ask("orphans", working.ListOrphans(limit), reading.Children)).children

    async def bury_orphan(self, run_id: str, key: str) -> None:
        """An orphan has been seen to."""
        await self._ask("bury_orphan", working.OfChild(run_id, key), working.Done)

    # ---- schedules

    async def schedules(self) -> list[ScheduleRow]:
        """The schedules, by workflow."""
        return (await self._ask("schedules", working.Done(), working.ScheduleRows)).schedules

    async def swap_schedule(self, was: ScheduleRow | None, now: ScheduleRow | None) -> bool:
        """Put one row in the place of another. Where an answer was lost, False may be untrue: look again."""
        return (await self._ask("swap_schedule", working.SwapSchedule(was, now), working.Swapped)).done

    # ---- queues

    async def take_steps(
        self, worker: str, queues: Sequence[Queue], steps: Sequence[str], room: int
    ) -> Taken:
        """Give the worker queued steps. A lost answer is not asked for again: `held_steps` tells what it was."""
        question = working.TakeSteps(worker, list(queues), list(steps), room)
        taken = await self._ask("take_steps", question, working.StepsTaken, again=False)
        return Taken(taken.steps, taken.again)

    async def held_steps(self, worker: str) -> list[Waiting]:
        """The queued steps that are this worker's."""
        return (await self._ask("held_steps", working.OfWorker(worker), working.StepsTaken)).steps

    async def put_back(self, worker: str, steps: Sequence[tuple[str, str]]) -> None:
        """Give up steps that were taken and not begun."""
        await self._ask("put_back", working.PutBack(worker, list(steps)), working.Done)

    async def queues(self) -> list[QueueRow]:
        """The queues in which steps wait or run."""
        return (await self._ask("queues", working.Done(), working.QueueRows)).queues

    async def gauge(self, since: int) -> Gauge:
        """What the server's store comes to at this moment."""
        return (await self._ask("gauge", reading.Since(since), reading.GaugeOf)).gauge

    # ---- removing

    async def remove(self, runs: Sequence[str], ended_before: int, *, dry: bool = False) -> Removal:
        """Remove runs that ended before a time."""
        return await self._ask("remove", working.RemoveRuns(list(runs), ended_before, dry), Removal)


_Row = tuple[bool, bytes]
"""An item as it travels: whether it is chunks, and its JSON."""


def _never() -> Written:
    raise NotImplementedError  # it is done where the server is


def _row(item: Item) -> _Row:
    if isinstance(item, Job):
        assert item.write is not None, "no other jobs are made here"
        return True, encoding.encode(writing.write_row(item.write))
    return False, encoding.encode(writing.append_row(item))


def _parts(rows: list[_Row]) -> list[list[_Row]]:
    """The rows in as few lists as fit into a request each."""
    parts: list[list[_Row]] = [[]]
    size = 0
    for row in rows:
        if parts[-1] and size + len(row[1]) > LARGEST:
            parts.append([])
            size = 0
        parts[-1].append(row)
        size += len(row[1])
    return parts
