"""A scheduler that decides everything: two real deciders and a client on one run, and every order of their calls.

Each process has a handle on the store that parks its calls. A call is two events: its arrival at the store, where
it is judged and committed, and the arrival of its answer. Between any two events of the others, a worker may also
hear news, its alarm may ring, or a step's body may end. Nothing else happens by chance, so a list of choices is
one history; `Explorer` tries all lists, depth first, each from the beginning.

What is not tried twice, and why that loses nothing:

- Code runs to its next call as soon as it can: it touches nothing that another process can see before that.
- A history that comes to a state seen before is cut there. A state is the log, what each worker has in memory (its
  execution stands for the facts it was fed), what is parked and what is heard; what can follow depends on these
  alone. `merge=False` goes without this; a test compares what both find.
- Two workers run the same code: a state with their names exchanged is the same state.
- News that a worker has not heard yet are heard at once. The answer of a client's call reaches it at once.
"""

from __future__ import annotations

import asyncio
from asyncio import events
from collections.abc import Callable, Coroutine, Iterator, Sequence
from hashlib import blake2b
from typing import Any

import msgspec

from holdfast.engine.tick import Execution
from holdfast.errors import HoldfastError, StoreError
from holdfast.events import Draft, Event, new
from holdfast.store.base import Append, Appended, News, OpenStep
from holdfast.store.group import GroupStore, Item
from holdfast.testing.simulation.loop import VirtualLoop
from holdfast.testing.simulation.world import START
from holdfast.worker.advance import Advance
from holdfast.worker.agenda import Agenda
from holdfast.worker.execute import Executor
from holdfast.worker.worker import Worker
from holdfast.workflow import Workflow

RUN = "run-1"
WORKERS = ("wrk-a", "wrk-b")


# ---- a process: its clock, its handle on the store, its calls


class Alarm:
    """One alarm of a `Clock`."""

    def __init__(self, clock: Clock, due: int, callback: Callable[[], object]) -> None:
        self.clock, self.due, self.callback = clock, due, callback

    def cancel(self) -> None:
        if self in self.clock.alarms:
            self.clock.alarms.remove(self)


class Clock:
    """A process's own clock: it stands still until the scheduler lets its next alarm ring."""

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

    @property
    def label(self) -> str:
        return " ".join(str(part) for part in self.what[:2])


class Handle(GroupStore):
    """What a process sees of the store; mixed into a backend, which judges and commits as always."""

    world: World
    name: str
    seen: int
    """How many events its last read brought; the code that reads may remember them while it waits for more."""

    def park(self, what: tuple[Any, ...], work: Callable[[], Any], back: Callable[[Any], None]) -> None:
        if self.world.over:
            back(StoreError("the world is over"))
            return
        self.world.calls[self.name].append(Call(what, work, back))

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
            self.world.spread(self, news)
            return answer

        def back(answer: Any) -> None:
            item.answer(answer)
            if told:
                self.tell(told)

        self.park(written(item), commit, back)

    async def _ask(self, what: tuple[Any, ...], work: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

        def read() -> Any:
            coroutine = work()
            try:
                coroutine.send(None)
            except StopIteration as done:
                return done.value
            raise AssertionError("reads of so small a log do not wait")

        def back(answer: Any) -> None:
            if future.done():
                return
            if isinstance(answer, BaseException):
                future.set_exception(answer)
            else:
                future.set_result(answer)

        self.park(what, read, back)
        return await future

    async def read(self, run_id: str, after: int = 0, limit: int | None = None) -> list[Event]:
        found: list[Event] = await self._ask(("read", after), lambda: super(Handle, self).read(run_id, after, limit))
        self.seen = after + len(found)
        return found

    async def open_steps(self, run_id: str) -> list[OpenStep]:
        found = await self._ask(("open_steps", self.seen), lambda: super(Handle, self).open_steps(run_id))
        return list(found)

    def tell_others(self, news: Sequence[News]) -> None:
        self.world.spread(self, news)


class Unwatched:
    """Ticks without a thread that looks at them."""

    stuck = False

    def run(self, run_id: str, work: Callable[[], None]) -> None:
        work()


class Hand(Worker):
    """A worker without its background work: it serves the run that it is given, and takes no other."""

    def __init__(self, store: Handle, name: str) -> None:
        super().__init__(store, payload_limit=1 << 20)
        self.id = name
        self.folder = None
        self.watch = Unwatched()  # type: ignore[assignment]
        self.executor = Executor(self.clock, 100, self.payload_limit)
        self.agenda = Agenda(self.clock, self._ring)
        store.listen(self._hear)

    def later(self, delay: float, work: Callable[[], None]) -> None:
        asyncio.get_running_loop().call_soon(work)  # the call that it makes is parked all the same

    @property
    def advance(self) -> Advance | None:
        return self._live.get(RUN)

    def join(self, workflow: Workflow[..., Any]) -> None:
        """Decide on the run, whoever else does: leases play no part in correctness."""
        self._live[RUN] = advance = Advance(self, RUN, workflow)
        advance.load()


# ---- the world


class World:
    """One history, from the creation of the run on."""

    def __init__(
        self, backend: Any, workflow: Workflow[..., Any], client: Client, *, workers: int = 2, losses: int = 0
    ) -> None:
        self.loop = VirtualLoop()
        self.over = False
        self.losses = losses
        self.problems: list[str] = []
        self.gates: dict[str, asyncio.Future[None]] = {}
        self.loop.set_exception_handler(lambda _, context: self.problems.append(f"unhandled: {context}"))
        names = WORKERS[:workers]
        self.calls: dict[str, list[Call]] = {name: [] for name in (*names, "client")}
        self.news: dict[str, dict[News, None]] = {name: {} for name in names}
        self.chosen: list[str] = []
        self.backend = backend
        self.clocks = {name: Clock() for name in self.calls}
        self.handles: dict[str, Handle] = {}
        self.client = client
        events._set_running_loop(self.loop)
        try:
            for name, clock in self.clocks.items():
                self.handles[name] = handle = backend.handle(clock)
                handle.world, handle.name, handle.seen = self, name, 0
            self._create(workflow)
            self.workers = {name: Hand(self.handles[name], name) for name in names}
            for worker in self.workers.values():
                worker.join(workflow)
            client.begin(self.handles["client"], self.loop)
        finally:
            events._set_running_loop(None)
        self._settle()

    def _create(self, workflow: Workflow[..., Any]) -> None:
        data = {"workflow": workflow.name, "args": {}, "seed": "0", "python": "3"}
        created = Append(RUN, [new("run_created", data=data)], 0, "0", lambda _: None, owner="wrk-gone")
        outcome = self.handles["client"].guarded_commit([created])
        assert not isinstance(outcome, Exception), outcome

    def _settle(self) -> None:
        """Let all code run to its next call."""
        events._set_running_loop(self.loop)
        try:
            while self.loop._ready:
                self.loop._run_once()
        finally:
            events._set_running_loop(None)

    def spread(self, source: Handle, news: Sequence[News]) -> None:
        """The others are told, sooner or later."""
        for name, heard in self.news.items():
            if name != source.name and self.workers[name].advance is not None:
                heard.update((item, None) for item in news if item.fact or item.ended)

    # ---- what can happen next

    def choices(self) -> list[tuple[str, Callable[[], None]]]:
        """Everything that can happen now, in an order that depends on the state alone."""
        return list(self._choices())

    def _choices(self) -> Iterator[tuple[str, Callable[[], None]]]:
        for name, calls in self.calls.items():
            for call in calls:
                if call.arrived:
                    yield f"{name} < {call.label}", lambda calls=calls, call=call: self._answer(calls, call)  # type: ignore[misc]
                else:
                    yield f"{name} > {call.label}", lambda calls=calls, call=call: self._arrive(calls, call)  # type: ignore[misc]
                    if self.losses and call.what[0] == "append" and not call.given_up:
                        yield f"{name} x {call.label}", lambda call=call: self._lose(call)  # type: ignore[misc]
        for name, worker in self.workers.items():
            if worker.advance is None:
                continue
            if self.news[name]:
                yield f"{name} hears", lambda name=name: self._hear(name)  # type: ignore[misc]
            if len(worker.agenda):
                yield f"{name} rings", self.clocks[name].ring
        for name, gate in self.gates.items():
            if not gate.done():
                yield f"{name} ends", lambda gate=gate: gate.set_result(None)  # type: ignore[misc]

    def _arrive(self, calls: list[Call], call: Call) -> None:
        call.answer, call.arrived = call.work(), True
        if call.given_up or calls is self.calls["client"]:
            self._answer(calls, call)

    def _answer(self, calls: list[Call], call: Call) -> None:
        calls.remove(call)
        if not call.given_up:
            call.back(call.answer)

    def _lose(self, call: Call) -> None:
        """Its sender gives it up; it will arrive all the same, whenever that is."""
        self.losses -= 1
        call.given_up = True
        call.back(StoreError("the connection was lost"))

    def _hear(self, name: str) -> None:
        news, self.news[name] = list(self.news[name]), {}
        self.handles[name].tell(news)

    def choose(self, choice: tuple[str, Callable[[], None]]) -> None:
        """Let one thing happen, and everything that follows from it up to the next calls."""
        what, do = choice
        self.chosen.append(what)
        events._set_running_loop(self.loop)
        try:
            do()
        finally:
            events._set_running_loop(None)
        self._settle()

    async def gate(self, name: str) -> None:
        """A step's body waits here until the scheduler lets it end."""
        self.gates[name] = asyncio.get_running_loop().create_future()
        await self.gates[name]

    def finish(self, check: Callable[[World], Coroutine[Any, Any, None]] | None = None) -> None:
        """Look at what came of it, then bury what is left."""
        self.over = True
        try:
            if check is not None:
                self.loop.run_until_complete(check(self))
        finally:
            self.problems = list(self.problems)
            self.loop.set_exception_handler(lambda _, context: None)
            for worker in self.workers.values():
                if worker.advance is not None:
                    worker.advance.closed = True
                    worker.advance.drop()
            for task in asyncio.all_tasks(self.loop):
                task.cancel()
            self._settle()
            self.loop.close()

    # ---- the state

    def state(self) -> bytes:
        """What can follow depends on this alone."""
        log = [(e.type, e.key, e.time, e.body) for e in self.backend.log(RUN)]
        client = (self.client.key(), self._calls("client"), self.losses, sorted(n for n, g in self.gates.items() if not g.done()))
        parts = {name: repr((_memory(worker), self._calls(name), list(self.news[name]))) for name, worker in self.workers.items()}
        shared = repr((log, client))
        texts = []
        for order in (list(parts), list(reversed(parts))):
            text = "\n".join([shared, *(parts[name] for name in order)])
            for number, name in enumerate(order):
                text = text.replace(name, f"<{number}>")
            texts.append(text)
        return blake2b(min(texts).encode(), digest_size=16).digest()

    def _calls(self, name: str) -> list[Any]:
        return [
            (call.what, call.given_up, call.arrived and answered(call.answer), self.backend.batch(RUN, call.what[-1]))
            for call in self.calls[name]
        ]


def written(item: Item) -> tuple[Any, ...]:
    """A write, as far as it decides what follows: its drafts, its fence and who waits for the answer."""
    if not isinstance(item, Append):
        return ("job", item.work.__qualname__)
    kinds = ",".join(draft.type + (f" {draft.key}" if draft.key else "") for draft in item.drafts)
    waiting = getattr(item.answer, "__qualname__", "")
    return "append", f"after={item.after} [{kinds}]", waiting, [_draft(d) for d in item.drafts], Batch(item.batch)


class Batch(str):
    """A batch id: in a state, only whether it is in the log counts."""

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


def _draft(draft: Draft) -> tuple[Any, ...]:
    return draft.type, draft.key, draft.at, draft.body


def _memory(worker: Hand) -> Any:
    advance = worker.advance
    agenda = sorted((worker.agenda._entries.items()), key=lambda entry: entry[1])
    heap = {(number, key): due for due, number, key in worker.agenda._heap}
    alarms = sorted(alarm.due for alarm in worker.clock.alarms)  # type: ignore[attr-defined]
    outside = (worker.clock.now(), [(key, heap[number, key]) for key, number in agenda], alarms)
    running = [(r.call.key, r.attempt, r.cancelled) for r in worker.executor._running]
    if advance is None:
        return sorted(running)
    execution, attempts = advance.execution, advance._attempts
    live = execution and (execution.fed, execution.count - len(execution.asked), sorted(execution.abandoned))
    flags = advance.busy, advance._early, advance._news, advance._stale, advance._has_fact, advance._taken
    drafts = [_draft(d) for d in advance._out], [_draft(d) for d in advance._inbox]
    steps = sorted(attempts.running), sorted(attempts._waiting.items()), sorted(attempts._unwanted)
    return outside, sorted(running), live, advance.after, advance._time, flags, drafts, steps


def _note_what_is_fed() -> None:
    """Let each execution remember, as a hash, the facts that it was fed: it is a function of these (law L6)."""
    run = Execution._run
    Execution.fed = b""  # type: ignore[attr-defined]

    def noted(self: Any, time: int, deliver: Any, what: Any) -> None:
        self.fed = blake2b(self.fed + repr((time, what.type, what.key, what.body)).encode(), digest_size=16).digest()
        run(self, time, deliver, what)

    Execution._run = noted  # type: ignore[method-assign]


_note_what_is_fed()


class Client:
    """Sends what its script says, one after the other; sends again, under the same id, what is not answered."""

    def __init__(self, script: Sequence[str]) -> None:
        self.script = script
        self.next = 0
        self.acknowledged: dict[str, int] = {}
        self.refused: list[str] = []

    def key(self) -> Any:
        return self.next, self.refused

    def begin(self, store: Handle, loop: asyncio.AbstractEventLoop) -> None:
        self.task = loop.create_task(self._main(store))

    async def _main(self, store: Handle) -> None:
        for number, what in enumerate(self.script):
            self.next = number
            while True:
                try:
                    answer = await self._send(store, number, what)
                except HoldfastError as error:
                    if type(error) is not StoreError:
                        self.refused.append(f"{what} {number}")
                        break
                else:
                    if what != "cancel":
                        self.acknowledged[f"{number}"] = answer.first
                    break
        self.next = len(self.script)

    async def _send(self, store: Handle, number: int, what: str) -> Appended:
        if what == "cancel":
            return await store.append(RUN, [new("cancel_requested", data={"reason": ""})])
        return await store.deliver(what, str(number).encode(), f"{number}")


# ---- all histories


class Tried(msgspec.Struct):
    """What an enumeration came to. `whole` says that there is no other history."""

    histories: int = 0
    cut: int = 0
    states: int = 0
    longest: int = 0
    whole: bool = False
    calls: int = 0
    loops: int = 0
    problems: list[tuple[list[str], list[int]]] = []


def explore(
    make: Callable[[], World],
    check: Callable[[World], Coroutine[Any, Any, None]],
    *,
    merge: bool = True,
    most: int | None = None,
    enough: int = 1,
    seen: Callable[[Tried, float], None] = lambda tried, share: None,
) -> Tried:
    """Try every list of choices, depth first; stop after `enough` problems or `most` histories.

    `check` adds to the problems of a world that has come to its end. `seen` is told how far it is.
    """
    tried, known, on_path = Tried(), set[bytes](), list[bytes]()
    prefix: list[int] = []
    while True:
        world, path, widths, cut = make(), list[int](), list[int](), False
        while choices := world.choices():
            depth = len(path)
            path.append(prefix[depth] if depth < len(prefix) else 0)
            widths.append(len(choices))
            world.choose(choices[path[-1]])
            if merge and depth >= len(prefix) - 1:
                state = world.state()
                del on_path[depth:]
                if cut := state in known:
                    tried.loops += state in on_path
                    break
                known.add(state)
                on_path.append(state)
        world.finish(None if cut else check)
        tried.histories += not cut
        tried.cut += cut
        tried.states, tried.calls = len(known), tried.calls + len(path)
        tried.longest = max(tried.longest, len(path))
        if world.problems:
            tried.problems.append((world.problems, path))
        while path and path[-1] + 1 >= widths[-1]:
            path.pop()
            widths.pop()
        if path:
            path[-1] += 1
        seen(tried, _share(path, widths))
        if not path or len(tried.problems) >= enough or tried.histories == most:
            tried.whole = not path
            return tried
        prefix = path


def _share(path: Sequence[int], widths: Sequence[int]) -> float:
    """How much of the tree lies before this path, if all branches were alike."""
    share, part = 0.0, 1.0
    for number, width in zip(path, widths, strict=True):
        part /= width
        share += number * part
    return share if path else 1.0


__all__ = ["RUN", "WORKERS", "Client", "Handle", "Tried", "World", "explore"]
