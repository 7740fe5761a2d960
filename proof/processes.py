"""The processes of a small world: real workers and a client whose calls of the store wait to be let through.

No rule of the protocol is written here. A `Handle` is mixed into a backend's own: it parks each call twice, on
its way to the store and, with its answer, on its way back; what arrives is judged and committed by the backend.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Protocol

from holdfast.errors import HoldfastError, StoreError
from holdfast.events import Draft, Event, new
from holdfast.store.group import GroupStore, Item
from holdfast.store.messages import Append, Appended, News
from holdfast.store.rows import OpenStep
from holdfast.testing.simulation.world import START
from holdfast.worker.advance import Advance
from holdfast.worker.agenda import Agenda
from holdfast.worker.execute import Executor
from holdfast.worker.places import Places
from holdfast.worker.worker import Worker
from holdfast.workflow import Workflow

RUN = "run-1"


class Alarm:
    """One alarm of a `Clock`."""

    def __init__(self, clock: Clock, due: int, callback: Callable[[], object]) -> None:
        self.clock, self.due, self.callback = clock, due, callback

    def cancel(self) -> None:
        if self in self.clock.alarms:
            self.clock.alarms.remove(self)


class Clock:
    """A process's own clock: it stands still until its next alarm is let ring."""

    def __init__(self) -> None:
        self.time = START
        self.alarms: list[Alarm] = []

    def now(self) -> int:
        return self.time

    def alarm(self, due: int, callback: Callable[[], object]) -> Alarm:
        alarm = Alarm(self, due, callback)
        self.alarms.append(alarm)
        return alarm

    def ring(self) -> None:
        first = min(self.alarms, key=lambda alarm: alarm.due)
        self.alarms.remove(first)
        self.time = max(self.time, first.due)
        first.callback()


class Call:
    """A call of the store on its way there, then its answer on its way back."""

    def __init__(self, what: tuple[Any, ...], work: Callable[[], Any], back: Callable[[Any], None]) -> None:
        self.what, self.work, self.back = what, work, back
        self.arrived = self.given_up = False
        self.answer: Any = None

    def __str__(self) -> str:
        return f"{self.what[0]} {self.what[1]}"


class Net(Protocol):
    """What lies between the processes and the store."""

    over: bool
    calls: dict[str, list[Call]]

    def spread(self, source: Handle, news: Sequence[News]) -> None:
        """Tell the other processes, sooner or later."""
        ...


class Handle(GroupStore):
    """What a process sees of the store; a backend's own handle lies behind it."""

    net: Net
    name: str
    seen = 0
    """Up to where its last read went: what the code behind it may hold in its hands while it reads on."""

    def join(self, net: Net, name: str) -> None:
        self.net, self.name = net, name
        self._closed = False

    def hold(self, what: tuple[Any, ...], work: Callable[[], Any], back: Callable[[Any], None]) -> None:
        if self.net.over:
            back(StoreError("the world is over"))
        else:
            self.net.calls[self.name].append(Call(what, work, back))

    def submit(self, request: Append, *, flush: bool = False) -> None:
        self._put(request)

    def _put(self, item: Item) -> None:
        told: list[News] = []

        def commit() -> Any:
            outcome = self.guarded_commit([item])
            if isinstance(outcome, Exception):
                return outcome
            [answer], news = outcome
            told.extend(news)
            self.net.spread(self, news)
            return answer

        def back(answer: Any) -> None:
            item.answer(answer)
            if told:
                self.tell(told)

        self.hold(written(item), commit, back)

    async def _ask(self, what: tuple[Any, ...], work: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

        def read() -> Any:
            try:
                work().send(None)
            except StopIteration as done:
                return done.value
            raise AssertionError("a log as small as this is read in one go")

        def back(answer: Any) -> None:
            if future.done():
                return
            if isinstance(answer, BaseException):
                future.set_exception(answer)
            else:
                future.set_result(answer)

        self.hold(what, read, back)
        return await future

    async def read(self, run_id: str, after: int = 0, limit: int | None = None) -> list[Event]:
        ask = super().read
        return await self.read_by(lambda: ask(run_id, after, limit), after)

    async def read_by(self, ask: Callable[[], Coroutine[Any, Any, list[Event]]], after: int) -> list[Event]:
        """The call that brings what stands beyond a position, whatever a store remembers of it besides."""
        found: list[Event] = await self._ask(("read", after), ask)
        self.seen = after + len(found)
        return found

    async def open_steps(self, run_id: str) -> list[OpenStep]:
        ask = super().open_steps
        return list(await self._ask(("open_steps", self.seen), lambda: ask(run_id)))

    def tell_others(self, news: Sequence[News]) -> None:
        self.net.spread(self, news)


def written(item: Item) -> tuple[Any, ...]:
    """A write, as far as it decides what follows: its fence, its drafts, who waits for the answer, its batch."""
    if not isinstance(item, Append):
        return "job", item.work.__qualname__
    kinds = ",".join(draft.type + (f" {draft.key}" if draft.key else "") for draft in item.drafts)
    waiting = getattr(item.answer, "__qualname__", "")
    return (
        "append",
        f"after={item.after} [{kinds}]",
        waiting,
        [drafted(d) for d in item.drafts],
        Batch(item.batch),
    )


def drafted(draft: Draft) -> tuple[Any, ...]:
    """A draft, as far as it decides what follows."""
    return draft.type, draft.key, draft.at, draft.body


class Batch(str):
    """A batch id, whose text decides nothing."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "batch"


def answered(answer: Any) -> Any:
    """An answer, as far as it decides what follows."""
    if isinstance(answer, Appended):
        return answer.first, answer.last, [e.position for e in answer.missed], answer.doubles
    if isinstance(answer, BaseException):
        return type(answer).__name__, getattr(answer, "position", None), getattr(answer, "recorded", None)
    if isinstance(answer, list):
        return [one.position if isinstance(one, Event) else repr(one) for one in answer]
    return repr(answer)


class Unwatched:
    """Ticks without a thread that looks at them."""

    stuck = False

    def run(self, run_id: str, work: Callable[..., None], *args: Any) -> None:
        work(*args)


class Hand(Worker):
    """A worker without its background work: it serves the run that it is given, and takes no other."""

    def __init__(self, store: Handle, name: str) -> None:
        super().__init__(store, payload_limit=1 << 20)
        self._take_name(name)
        self.folder = None
        self.watch = Unwatched()  # type: ignore[assignment]
        self.executor = Executor(self.clock, 100, self.payload_limit)
        self.places = Places(100, lambda: self.clock.now() / 1e6)
        self.agenda = Agenda(self.clock, self._ring)
        store.listen(self._hear)

    def later(self, delay: float, work: Callable[[], None]) -> None:
        asyncio.get_running_loop().call_soon(work)  # what it sends is on its way for as long as you like

    @property
    def advance(self) -> Advance | None:
        return self.runs.live.get(RUN)

    def join(self, workflow: Workflow[..., Any]) -> None:
        """Decide on the run, whoever else does: leases play no part in correctness."""
        self.runs.live[RUN] = advance = Advance(self, RUN, workflow)
        advance.load()


class Client:
    """Does what its script says, one after the other; repeats, under the same id, what is not answered."""

    def __init__(self, script: Sequence[str]) -> None:
        self.script = script
        self.next = 0
        self.acknowledged: dict[str, int] = {}
        """Delivery -> the position that was answered."""
        self.refused: list[str] = []
        self.unsure: set[str] = set()
        """What it has given up once: the first copy may land when the second has been refused."""

    def begin(self, store: Handle, loop: asyncio.AbstractEventLoop) -> None:
        self._task = loop.create_task(self._main(store))

    async def _main(self, store: Handle) -> None:
        for number, what in enumerate(self.script):
            while not await self._send(store, number, what):
                pass
            self.next = number + 1

    async def _send(self, store: Handle, number: int, what: str) -> bool:
        try:
            if what == "cancel":
                await store.append(RUN, [new("cancel_requested", data={"reason": ""})])
            else:
                answer = await store.deliver(what, str(number).encode(), str(number))
                self.acknowledged[str(number)] = answer.first
        except HoldfastError as error:
            if type(error) is StoreError:
                self.unsure.add(str(number))
                return False
            self.refused.append(str(number))
        return True
