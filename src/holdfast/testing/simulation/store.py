"""A store behind a network that fails: what each simulated process sees of the one store.

No rule of the protocol is written here: a call arrives late, twice or never, and what arrives is judged by the
store itself. `Distant` is mixed into a store's own class; a simulated world has nothing but the memory store
unless it is given another `Site`.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import msgspec

from ...chunks import Chunk
from ...clock import Clock
from ...errors import StoreError
from ...events import Event
from ...store.base import Store
from ...store.group import GroupStore, Item, Job
from ...store.memory import Data, MemoryStore
from ...store.messages import Append, Appended, News
from ...store.rows import ALL, Claim, Head, Hook, OpenStep, RunFilter, Timer, WorkerRow
from ...store.streams import PAGE_CHUNKS, StreamHead
from .invariants import check_places

if TYPE_CHECKING:
    from .world import World

    Backend = MemoryStore  # or another: what matters is that it has all that is asked through `super()`
else:
    Backend = GroupStore

T = TypeVar("T")


class Site(Protocol):
    """Where the runs of a world are."""

    @property
    def data(self) -> Data:
        """What is there now, for who checks it."""
        ...

    def store(self, world: World, clock: Clock, name: str) -> Distant:
        """A process's handle."""
        ...

    def plain(self, world: World, clock: Clock) -> Store:
        """The store itself, without a network."""
        ...


class Distant(Backend):
    """A process's handle on the store; a backend's own handle lies behind it."""

    _world: World
    _name: str
    _context: contextvars.Context

    def join(self, world: World, name: str) -> Distant:
        """Be the handle of this process."""
        self._world, self._name = world, name
        self._context = contextvars.copy_context()
        return self

    async def open(self) -> None:
        """Join the handles; what this one is told runs in the context of its process."""
        self._context = contextvars.copy_context()
        await super().open()
        self._world.handles.append(self)

    async def close(self) -> None:
        """Leave them."""
        await super().close()
        if self in self._world.handles:
            self._world.handles.remove(self)

    # ---- writing

    def submit(self, request: Append, *, flush: bool = False) -> None:
        """Send an append."""
        self._send(request, at_once=flush)

    def _put(self, item: Item) -> None:
        self._send(item, at_once=False)

    def _send(self, item: Item, *, at_once: bool) -> None:
        world = self._world
        if self._closed:
            item.answer(StoreError(f"{self.url} is not open: use it inside `async with`"))
            return
        what = _describe(item)
        fate = world.befalls(self._name, what)
        there, back = world.travel(fate), world.travel(None)
        answer = self._returning(item, what, back)
        if fate == "crash before":
            world.crash_soon(self._name)
        elif fate == "refused" or world.down:
            world.later(there, lambda: answer(StoreError("the store cannot be reached")))
        elif fate == "lost":
            world.later(there + back, lambda: answer(StoreError("the connection was lost")))
        elif fate is None and at_once and there == 0:
            item.answer(self._arrive(item, what))
        else:
            world.later(there, lambda: self._commit(item, what, fate, answer))
            if fate == "twice" and (isinstance(item, Append) or what == "write_stream"):
                world.later(world.travel("slow"), lambda: self._arrive(item, what))

    def _commit(self, item: Item, what: str, fate: str | None, answer: Callable[[Any], None]) -> None:
        result = self._arrive(item, what)
        if fate == "crash after":
            self._world.crash_soon(self._name)
        elif fate == "unanswered":
            answer(StoreError("the connection was lost"))
        else:
            answer(result)

    def _arrive(self, item: Item, what: str) -> Any:
        """The call is at the store: it is committed and judged as every other."""
        outcome = self.guarded_commit([item])
        if isinstance(outcome, Exception):
            return outcome
        [answer], news = outcome
        if isinstance(item, Job):
            news += item.told(answer)
        self._world.note(f"{self._name}: {what} -> {_short(answer)}")
        if what == "take_steps":
            check_places(self._world)
        self._spread(news)
        return answer

    def _returning(self, item: Item, what: str, delay: float) -> Callable[[Any], None]:
        """How the answer comes back: later, in the context of the process, if that is still alive."""
        context = contextvars.copy_context()
        loop = self._world.loop

        def answer(result: Any) -> None:
            if isinstance(result, Appended):
                told = self._world.told
                told[result.run] = max(told.get(result.run, 0), result.last)
            if isinstance(result, StoreError):
                self._world.note(f"{self._name}: {what} => {type(result).__name__}")
            loop.call_later(delay, item.answer, result, context=context)

        return answer

    def _spread(self, news: Sequence[News]) -> None:
        world = self._world
        abroad = [msgspec.structs.replace(item, end=None) for item in self.for_others(news)]
        for handle in tuple(world.handles):
            told = news if handle is self else abroad
            if not told:
                continue
            fate = None if handle is self else world.notice()
            times = {"news dropped": 0, "news doubled": 2}.get(fate or "", 1)
            for _ in range(times):
                world.loop.call_later(
                    world.travel("slow" if fate else None), handle.tell, told, context=handle._context
                )

    def for_others(self, news: Sequence[News]) -> Sequence[News]:
        """What other processes are told of this."""
        return news

    def tell_others(self, news: Sequence[News]) -> None:
        """Runs that are free now: heard by all."""
        if news:
            self._spread(news)

    # ---- reading: it takes time both ways, and may fail

    async def _ask(self, what: str, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        world = self._world
        fate = world.befalls(self._name, what)
        if fate in ("crash before", "crash after"):
            world.crash_soon(self._name)
            await asyncio.get_running_loop().create_future()
        await asyncio.sleep(world.travel(fate))
        if fate in ("refused", "lost", "unanswered") or world.down:
            raise StoreError("the store cannot be reached")
        found = await work()
        await asyncio.sleep(world.travel(None))
        return found

    async def read(self, run_id: str, after: int = 0, limit: int | None = None) -> list[Event]:
        """The events beyond `after`."""
        told = self._world.told.get(run_id, 0)
        found = await self._ask("read", lambda: super(Distant, self).read(run_id, after, limit))
        if limit is None:
            self._world.reads.append((run_id, after, told, found))
        return found

    async def head(self, run_id: str) -> Head | None:
        """The run's row, or None."""
        return await self._ask("head", lambda: super(Distant, self).head(run_id))

    async def runs(self, which: RunFilter = ALL, **page: Any) -> list[Head]:
        """A page of runs."""
        ask = super().runs
        return await self._ask("runs", lambda: ask(which, **page))

    async def hooks(self, **query: Any) -> list[Hook]:
        """A page of hooks."""
        ask = super().hooks
        return await self._ask("hooks", lambda: ask(**query))

    async def timers(self, **query: Any) -> list[Timer]:
        """Pending timers."""
        ask = super().timers
        return await self._ask("timers", lambda: ask(**query))

    async def open_steps(self, run_id: str) -> list[OpenStep]:
        """The steps that owe an outcome."""
        return await self._ask("open_steps", lambda: super(Distant, self).open_steps(run_id))

    async def read_stream(
        self, run_id: str, name: str, after: int = 0, limit: int = PAGE_CHUNKS
    ) -> list[Chunk]:
        """A page of a stream."""
        ask = super().read_stream
        return await self._ask("read_stream", lambda: ask(run_id, name, after, limit))

    async def stream(self, run_id: str, name: str) -> StreamHead | None:
        """A stream's row."""
        return await self._ask("stream", lambda: super(Distant, self).stream(run_id, name))

    async def workers(self) -> list[WorkerRow]:
        """All workers that have not left."""
        return await self._ask("workers", super().workers)

    async def owned(self, worker: str) -> list[Claim]:
        """The live runs that are this worker's."""
        return await self._ask("owned", lambda: super(Distant, self).owned(worker))

    async def behind(self, worker: str) -> list[tuple[str, int]]:
        """This worker's runs with facts beyond the delivered mark."""
        return await self._ask("behind", lambda: super(Distant, self).behind(worker))


class SimulatedStore(Distant, MemoryStore):
    """A process's handle on runs in memory."""


class SimulatedPlain(MemoryStore):
    """The memory store itself; what it changes is told to all."""

    def hand_to(self, handles: Sequence[Distant]) -> SimulatedPlain:
        """Tell these."""
        self._handles = handles
        return self

    def tell_others(self, news: Sequence[News]) -> None:
        """At once, and surely: no process has done it."""
        tell_all(self._handles, news)


class Memory:
    """The runs of a world in memory."""

    def __init__(self) -> None:
        self.data = Data()

    def store(self, world: World, clock: Clock, name: str) -> Distant:
        """A process's handle."""
        return SimulatedStore("memory://simulated", clock, self.data).join(world, name)

    def plain(self, world: World, clock: Clock) -> Store:
        """The store itself."""
        return SimulatedPlain("memory://simulated", clock, self.data).hand_to(world.handles)


def tell_all(handles: Sequence[Distant], news: Sequence[News]) -> None:
    """Tell each process, in its own context."""
    for handle in tuple(handles):
        handle._world.loop.call_soon(handle.tell, news, context=handle._context)


def _describe(item: Item) -> str:
    if not isinstance(item, Append):
        return str(item.work.__qualname__).split(".")[1]
    what = ",".join(draft.type + (f" {draft.key}" if draft.key else "") for draft in item.drafts)
    where = item.run or f"token {item.token}"
    return f"append {where} after={item.after} [{what}]"


def _short(answer: Any) -> str:
    if isinstance(answer, BaseException):
        return type(answer).__name__
    first = getattr(answer, "first", None)
    return f"{first}..{answer.last}" if first is not None else "done"
