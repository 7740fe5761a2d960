"""Group commit: what waits at one moment is committed together, with one fsync (DESIGN: the store).

`submit` puts an append into `pending` and asks the loop to flush at the end of this turn, so that all that
became ready in the turn forms one group, or several where it is much: nobody waits for the whole of a crowd.
While a group is being committed elsewhere (a writer thread), the next one gathers. A refused append does not
fail its neighbours: each has its own verdict. A store that cannot commit at all fails the whole group, and
nothing of it is stored.

Other writes (claims, leases, parking) go through the same door as `Job`s, so a backend has one writer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from operator import attrgetter
from time import perf_counter
from typing import Any, Generic, TypeVar

import msgspec

from .. import metrics
from ..chunks import Part
from ..clock import Clock
from ..codec import digest as digest_of
from ..errors import HoldfastError, StoreError
from ..events import Draft, new
from ..ids import BatchIds
from .base import Store
from .messages import Append, Appended, News
from .streams import Author, Write, Written

T = TypeVar("T")
_type_of = attrgetter("type")
HEAVY = 64 * 1024
"""Bytes of a write to a stream from which on it may hold up whoever shares its thread."""
LARGEST = 128
"""Writes in a group. A commit's price is spread thin over so many already, and nobody waits for the whole of a
crowd."""


class Job(Generic[T]):
    """A write that is no append: `work` runs inside the group's transaction, `answer` on the loop.

    `news` says what its result is to others; `heavy` that it is too large for the loop's own thread. `write` is
    set where the job is a write to a stream.
    """

    __slots__ = ("answer", "heavy", "news", "work", "write")

    def __init__(
        self,
        work: Callable[[], T],
        answer: Callable[[T | BaseException], None],
        news: Callable[[T], Sequence[News]] | None = None,
        *,
        heavy: bool = False,
        write: Write | None = None,
    ) -> None:
        self.work = work
        self.answer = answer
        self.news = news
        self.heavy = heavy
        self.write = write

    def told(self, answer: T | BaseException) -> Sequence[News]:
        """What it has changed for others, now that it is committed and has this answer."""
        return () if self.news is None or isinstance(answer, BaseException) else self.news(answer)


Item = Append | Job[Any]
Answers = list[Any]
"""One answer for each item of a group: a result, or an exception."""


class GroupStore(Store):
    """A store whose writes are grouped, over a backend's reads.

    A backend supplies `commit_group` and `put_chunks`, or, where it cannot commit before it returns,
    `start_commit`, which does the work of both.
    """

    def __init__(self, url: str, clock: Clock | None = None) -> None:
        super().__init__(url, clock)
        self.pending: list[Item] = []
        self._scheduled = False
        self._committing = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._idle: asyncio.Future[None] | None = None
        self._batches = BatchIds()
        self._closed = True
        self._began = 0.0

    # ---- what a backend supplies

    largest = LARGEST
    """Writes in a group."""
    commits_here = True
    """Whether this process commits, and so counts, what it writes; a server's clients leave that to the server."""

    def put_chunks(self, write: Write) -> Written | HoldfastError:
        """Judge and write chunks of a stream, inside the group's transaction."""
        raise NotImplementedError

    def commit_group(self, group: Sequence[Item]) -> tuple[Answers, list[News]]:
        """Judge and write a group in one transaction; raises where nothing could be written."""
        raise NotImplementedError

    def start_commit(self, group: Sequence[Item]) -> None:
        """Commit a group, here and now. A backend may do so elsewhere (a thread, a task), and then finish it."""
        self.finish_commit(group, self.guarded_commit(group))

    # ---- the door

    def submit(self, request: Append, *, flush: bool = False) -> None:
        """Append with the next group; with `flush`, that group is committed at once."""
        self._put(request)
        if flush:
            self._flush()

    async def append(
        self,
        run_id: str,
        events: Sequence[Draft],
        *,
        after: int | None = None,
        batch: str | None = None,
        owner: str | None = None,
    ) -> Appended:
        """Append to a run's log and wait for the answer."""
        future: asyncio.Future[Appended] = asyncio.get_running_loop().create_future()
        self._put(Append(run_id, events, after, batch or self._batches.next(), settle(future), owner=owner))
        return await future

    async def deliver(
        self, token: str, payload: bytes, delivery: str, *, digest: str | None = None
    ) -> Appended:
        """Append a payload to the run that has this hook open."""
        future: asyncio.Future[Appended] = asyncio.get_running_loop().create_future()
        digest = digest or digest_of(payload)
        data = {"delivery": delivery, "payload": msgspec.Raw(payload), "digest": digest}
        draft = new("hook_received", key=f"{token}#0", data=data)
        self._put(Append("", [draft], None, self._batches.next(), settle(future), token=token))
        return await future

    async def job(
        self,
        work: Callable[[], T],
        news: Callable[[T], Sequence[News]] | None = None,
        *,
        heavy: bool = False,
        write: Write | None = None,
    ) -> T:
        """Run a write that is no append in the next group's transaction."""
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._put(Job(work, settle(future), news, heavy=heavy, write=write))
        return await future

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
        """Append chunks to a stream, in the next group's transaction."""
        write = Write(run_id, name, parts, batch or self._batches.next(), author, limit)
        grown = [News(run_id, None, False, False, False, name)]
        answer = await self.job(
            lambda: self.put_chunks(write),
            lambda answer: grown if isinstance(answer, Written) and answer.last else (),
            heavy=sum(len(part.body) for part in parts) > HEAVY,
            write=write,
        )
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def next_batch(self) -> str:
        """A batch id for an append that is made by hand (law L12)."""
        return self._batches.next()

    # ---- how groups form

    def opened(self) -> None:
        """The backend is connected: accept writes on the running loop."""
        self._loop = asyncio.get_running_loop()
        self._closed = False

    async def drain(self) -> None:
        """Wait until everything submitted is answered, and accept no more."""
        try:
            while self.pending or self._committing:
                self._idle = asyncio.get_running_loop().create_future()
                await self._idle
        finally:
            self._closed = True
            abandoned, self.pending = self.pending, []
            for item in abandoned:  # only where the wait was cancelled
                item.answer(StoreError(f"{self.url} was closed before this was written"))

    def _put(self, item: Item) -> None:
        if self._closed or self._loop is None:
            item.answer(StoreError(f"{self.url} is not open: use it inside `async with`"))
            return
        self.pending.append(item)
        if not self._scheduled and not self._committing:
            self._scheduled = True
            self._loop.call_soon(self._turn_ended)

    def _turn_ended(self) -> None:
        self._scheduled = False
        self._flush()

    def _flush(self) -> None:
        if self._committing or not self.pending:
            return
        group, self.pending = self.pending[: self.largest], self.pending[self.largest :]
        self._committing = True
        self._began = perf_counter()
        self.start_commit(group)

    def guarded_commit(self, group: Sequence[Item]) -> tuple[Answers, list[News]] | Exception:
        """`commit_group`, with a failure of the whole group as a value."""
        try:
            return self.commit_group(group)
        except Exception as error:  # noqa: BLE001 - whatever failed the commit is every writer's answer
            return error

    def finish_commit(self, group: Sequence[Item], outcome: tuple[Answers, list[News]] | Exception) -> None:
        """Hand out the answers, on the loop; start the next group if one has gathered."""
        if isinstance(outcome, Exception):
            for item in group:
                item.answer(outcome)
        else:
            answers, news = outcome
            taken = perf_counter() - self._began
            for item, answer in zip(group, answers, strict=True):
                if type(item) is Job:
                    news += item.told(answer)
            if news:
                self.tell_others(news)  # before anything else: they have the longer way
            for item, answer in zip(group, answers, strict=True):
                item.answer(answer)
            if news:
                self.tell(news)
            if self.commits_here:
                count(group, answers, taken)
        self._committing = False
        if self.pending:
            if not self._scheduled and self._loop is not None:
                self._scheduled = True
                self._loop.call_soon(self._turn_ended)
        elif self._idle is not None and not self._idle.done():
            self._idle.set_result(None)

    def announce(self, news: Sequence[News]) -> None:
        """Tell everybody: in this process, and in others."""
        if news:
            self.tell(news)
            self.tell_others(news)

    def tell_others(self, news: Sequence[News]) -> None:
        """Pass news on to other processes, where the backend has any."""


def count(group: Sequence[Item], answers: Answers, seconds: float) -> None:
    """Count what a group has committed, in this time, and what of it was refused."""
    metrics.COMMIT_TIME.observe(seconds)
    metrics.GROUP_SIZE.observe(len(group))
    accepted = 0
    drafts: list[Draft] = []
    for item, answer in zip(group, answers, strict=True):
        if type(item) is not Append:
            continue
        if type(answer) is Appended and not answer.duplicates:
            accepted += 1
            drafts += item.drafts
        else:
            _count_part(item.drafts, answer)
    metrics.APPENDS.totals["accepted"] += accepted
    metrics.EVENTS.totals.update(map(_type_of, drafts))


def _count_part(drafts: Sequence[Draft], answer: Any) -> None:
    """An append of which the log has taken only a part, or nothing."""
    if isinstance(answer, Appended):
        metrics.APPENDS.totals["duplicate"] += 1
        everything = len(answer.duplicates) == len(drafts)
        taken = [] if everything else [draft for draft in drafts if draft.unique not in answer.doubles]
    else:
        metrics.APPENDS.totals[getattr(answer, "code", "error")] += 1
        recorded: list[int] = getattr(answer, "recorded", [])
        facts = drafts if recorded == [1] else [draft for draft in drafts if draft.cls == "fact"]
        taken = list(facts[: len(recorded)])
    for draft in taken:
        metrics.EVENTS.totals[draft.type] += 1


def settle(future: asyncio.Future[Any]) -> Callable[[Any], None]:
    """How a future takes an answer: as its result, or as its error; once it is done, not at all."""

    def answer(result: Any) -> None:
        if future.done():
            return
        if isinstance(result, BaseException):
            future.set_exception(result)
        else:
            future.set_result(result)

    return answer
