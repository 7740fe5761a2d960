"""A scheduler that decides everything: two real deciders and a client on one run, and every order of their calls.

A call of the store is two events: its arrival, when it is judged and committed, and the arrival of its answer.
Between any two events of the others a worker may also hear news, its next alarm may ring, or the body of a step
may end. Nothing else happens, and nothing happens by chance: a list of choices is one schedule. `explore` tries
all lists, depth first, each from the beginning of a new world.

What is not tried twice, and why nothing is lost by it:

- Code runs on to its next call at once: till then, it touches nothing that another process sees.
- A schedule that comes to a state seen before is cut there, and counts for all that went on from that state. A
  state is the log, what each worker has in memory (its execution is told by the facts that it was fed, by law
  L6), what is on its way, and what is yet to be heard: what can follow is a function of these. `merge=False`
  goes without this; a test compares what both find.
- Both workers run the same code: a state with their names exchanged is the same state.
- What a worker has not heard yet, it hears at once, as one piece of news. The client, who does one thing at a
  time, has its answers at once: nobody sees when it gets them. So has a worker the answers of its reads, where the
  store is not `far`: the stores in memory and in a file read in one go.
- Once the run has ended, what is on its way arrives in one order, for nothing of it can be more than refused or a
  late outcome (law L11). With `beyond`, it arrives in every order.
"""

from __future__ import annotations

import asyncio
import contextlib
from asyncio import events
from collections.abc import Callable, Coroutine, Iterator, Sequence
from functools import partial
from hashlib import blake2b
from typing import Any, NamedTuple, Protocol
from weakref import WeakKeyDictionary

import msgspec
from processes import RUN, Call, Client, Clock, Hand, Handle, answered, drafted

from holdfast.engine.tick import Execution, tick
from holdfast.errors import StoreError
from holdfast.events import Event, new
from holdfast.store.base import Store
from holdfast.store.messages import Append, News
from holdfast.testing.simulation.loop import VirtualLoop
from holdfast.workflow import Workflow

WORKERS = ("wrk-a", "wrk-b")


class Backend(Protocol):
    """A store with one run in it."""

    def handle(self, clock: Clock) -> Handle:
        """A process's own handle."""
        ...

    def log(self) -> Sequence[Event]:
        """The run's log."""
        ...

    def batch(self, batch: object) -> object:
        """Where the log holds this batch, if it does."""
        ...

    def plain(self) -> Store:
        """The store itself, for who checks it."""
        ...


class Choice(NamedTuple):
    """Something that can happen now."""

    who: str
    how: str
    what: object
    do: Callable[[], object]

    def __str__(self) -> str:
        return f"{self.who} {self.how} {self.what}"


class World:
    """One schedule: a run that was just created (or `begun` by a dead worker), workers that join it, a client."""

    def __init__(
        self,
        backend: Backend,
        workflow: Workflow[..., Any],
        script: Sequence[str] = (),
        *,
        deciders: int = 2,
        losses: int = 0,
        far: bool = False,
        beyond: bool = False,
        begun: bool = False,
    ) -> None:
        self.backend, self.losses, self.far, self.beyond, self.begun = backend, losses, far, beyond, begun
        self.ended = False
        self.names = WORKERS[:deciders]
        self.over = False
        self.problems: list[str] = []
        self.chosen: list[Choice] = []
        self.loop = VirtualLoop()
        self.loop.set_exception_handler(lambda _, context: self.problems.append(f"unhandled: {context}"))
        self._tasks: set[asyncio.Task[Any]] = set()
        self.loop.set_task_factory(self._task)
        self.gates: dict[str, asyncio.Future[None]] = {}
        self.calls: dict[str, list[Call]] = {name: [] for name in (*self.names, "client")}
        self.news: dict[str, News | None] = dict.fromkeys(self.names)
        self.client = Client(script)
        self._run(partial(self._begin, workflow))

    def _begin(self, workflow: Workflow[..., Any]) -> None:
        handles = {name: self.backend.handle(Clock()) for name in self.calls}
        for name, handle in handles.items():
            handle.join(self, name)
        data = {"workflow": workflow.name, "args": {}, "seed": "0", "python": "3"}
        commit = handles["client"].guarded_commit
        commit([Append(RUN, [new("run_created", data=data)], 0, "0", lambda _: None, owner="wrk-gone")])
        if self.begun:
            first = [new("run_started", data={"worker": "wrk-gone"}), *tick(workflow, self.backend.log())]
            commit([Append(RUN, first, 1, "1", lambda _: None)])
        self.workers = {name: Hand(handles[name], name) for name in self.names}
        for worker in self.workers.values():
            worker.join(workflow)
        self.client.begin(handles["client"], self.loop)

    def _task(self, loop: Any, coro: Any, **more: Any) -> asyncio.Task[Any]:
        task: asyncio.Task[Any] = asyncio.Task(coro, loop=loop, **more)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _run(self, what: Callable[[], object]) -> None:
        """Let something happen, and all code run on to its next call."""
        global now
        now = self
        events._set_running_loop(self.loop)
        try:
            what()
            while self.loop._ready:  # type: ignore[attr-defined]
                self.loop._run_once()  # type: ignore[attr-defined]
        finally:
            events._set_running_loop(None)

    def spread(self, source: Handle, news: Sequence[News]) -> None:
        """The others are to hear it; what says nothing to a worker that has the run is left out."""
        self.ended = self.ended or any(item.ended for item in news)
        for name, before in self.news.items():
            if name == source.name or self.workers[name].advance is None:
                continue
            for item in filter(lambda item: item.fact or item.ended, news):
                ended = item.ended or (before is not None and before.ended)
                self.news[name] = before = News(RUN, item.owner, True, ended, False)

    async def gate(self, name: str) -> None:
        """The body of a step waits here until it is let end."""
        self.gates[name] = asyncio.get_running_loop().create_future()
        await self.gates[name]

    # ---- what can happen next

    def choices(self) -> list[Choice]:
        """Everything that can happen now."""
        found: list[Choice] = []
        for name, calls in self.calls.items():
            for call in calls:
                if call.arrived:
                    found.append(Choice(name, "<", call, partial(self._answer, name, call)))
                    continue
                found.append(Choice(name, ">", call, partial(self._arrive, name, call)))
                if self.losses and call.what[0] == "append" and not call.given_up:
                    found.append(Choice(name, "gives up", call, partial(self._give_up, call)))
        for name, worker in self.workers.items():
            if worker.advance is None:
                continue
            if self.news[name]:
                found.append(Choice(name, "hears", "", partial(self._hear, name)))
            if len(worker.agenda):
                found.append(Choice(name, "rings", "", worker.clock.ring))  # type: ignore[attr-defined]
        for name, gate in self.gates.items():
            if not gate.done():
                found.append(Choice(name, "ends", "", partial(gate.set_result, None)))
        return found[:1] if self.ended and not self.beyond else found

    def choose(self, choice: Choice) -> None:
        """Let it happen."""
        self.chosen.append(choice)
        self._run(choice.do)

    def _arrive(self, name: str, call: Call) -> None:
        call.answer, call.arrived = call.work(), True
        near = name == "client" or (not self.far and call.what[0] != "append")
        if call.given_up or near:
            self._answer(name, call)

    def _answer(self, name: str, call: Call) -> None:
        self.calls[name].remove(call)
        if not call.given_up:
            call.back(call.answer)

    def _give_up(self, call: Call) -> None:
        """Its sender thinks that it was lost; it will arrive all the same, sooner or later."""
        self.losses -= 1
        call.given_up = True
        call.back(StoreError("the connection was lost"))

    def _hear(self, name: str) -> None:
        news, self.news[name] = self.news[name], None
        assert news is not None
        self.workers[name].store.tell([news])

    def finish(self, check: Callable[[World], Coroutine[Any, Any, None]] | None = None) -> None:
        """Look at what came of it, then bury what is left."""
        self.over = True
        if check is not None:
            self.loop.run_until_complete(check(self))
        self.loop.set_exception_handler(lambda _, context: None)
        for worker in self.workers.values():
            if worker.advance is not None:
                worker.advance.closed = True
                worker.advance.drop()
        self._run(lambda: [task.cancel() for task in self._tasks])
        self.loop.close()

    # ---- the state

    def state(self) -> bytes:
        """What can follow depends on this alone."""
        log = [(event.type, event.key, event.time, event.body) for event in self.backend.log()]
        waiting = sorted(name for name, gate in self.gates.items() if not gate.done())
        client = self.client.next, self.client.refused, self._on_its_way("client")
        shared = repr((log, client, waiting, self.losses))
        workers = [
            repr((_memory(worker), self._on_its_way(name), self.news[name]))
            for name, worker in self.workers.items()
        ]
        texts = []
        for names, order in ((self.names, workers), (self.names[::-1], workers[::-1])):
            text = "\n".join([shared, *order])
            for number, name in enumerate(names):
                text = text.replace(name, f"<{number}>")
            texts.append(text)
        return blake2b(min(texts).encode(), digest_size=16).digest()

    def _on_its_way(self, name: str) -> list[Any]:
        return [
            (
                call.what,
                call.given_up,
                call.arrived and answered(call.answer),
                self.backend.batch(call.what[-1]),
            )
            for call in self.calls[name]
        ]


now: World
"""The world in which code runs just now."""


def _memory(worker: Hand) -> Any:
    """What a worker's code may go by: every field that its own code reads again later."""
    running = sorted((r.call.key, r.attempt, r.cancelled) for r in worker.executor._running)
    advance, agenda, clock = worker.advance, worker.agenda, worker.clock
    if advance is None:
        return running
    due = {(number, key): when for when, number, key in agenda._heap}
    agreed = [(key, due[number, key]) for key, number in sorted(agenda._entries.items(), key=lambda e: e[1])]
    alarms = sorted(alarm.due for alarm in clock.alarms)  # type: ignore[attr-defined]
    execution, attempts = advance.execution, advance.attempts
    live = execution and (_fed[execution], len(execution.asked), execution.abandoned)
    stale = advance._stale and execution is not None  # without an execution the log is read anyway
    flags = advance.busy, advance._wary, advance._news, stale, advance._has_fact, advance._taken
    drafts = [drafted(d) for d in advance._out], [drafted(d) for d in advance._inbox]
    steps = sorted(attempts.running), sorted(attempts._waiting.items()), sorted(attempts._unwanted)
    line = sorted(attempts.begun), list(attempts._line), sorted(attempts._fresh)
    return (
        clock.now(),
        agreed,
        alarms,
        running,
        live,
        advance.after,
        advance._time,
        flags,
        drafts,
        steps,
        line,
    )


_fed: WeakKeyDictionary[Execution, bytes] = WeakKeyDictionary()


@contextlib.contextmanager
def _noting_what_is_fed() -> Iterator[None]:
    """Meanwhile, each execution remembers, as a hash, the facts that it was fed."""
    run = Execution._run

    def noted(self: Any, time: int, deliver: Any, what: Any) -> None:
        told = _fed.get(self, b"") + repr((time, what.type, what.key, what.body)).encode()
        _fed[self] = blake2b(told, digest_size=16).digest()
        run(self, time, deliver, what)

    Execution._run = noted  # type: ignore[method-assign]
    try:
        yield
    finally:
        Execution._run = run  # type: ignore[method-assign]


# ---- all schedules


class Tried(msgspec.Struct):
    """What an enumeration came to.

    `schedules` is how many there are: all lists of choices from the beginning to an end. `played` of them were
    played to their end, `cut` were cut at a state that another one had come to; `states` were seen. `whole`
    says that there is no other schedule; where it is False, `schedules` counts those that were looked at.
    `loops` counts the schedules that came back to a state of their own, so that they need not end.
    """

    schedules: int = 0
    played: int = 0
    cut: int = 0
    states: int = 0
    calls: int = 0
    longest: int = 0
    loops: int = 0
    whole: bool = False
    share: float = 0.0
    problems: list[tuple[list[str], list[int]]] = []
    """Of each unlawful schedule: what is wrong, and the choices that lead there."""


@_noting_what_is_fed()
def explore(  # noqa: C901 - one search, for whose state a class would be no shorter
    make: Callable[[], World],
    check: Callable[[World], Coroutine[Any, Any, None]],
    *,
    merge: bool = True,
    most: int | None = None,
    enough: int = 1,
    watch: Callable[[Tried], object] = lambda tried: None,
) -> Tried:
    """Try every list of choices, depth first; stop after `enough` problems, or `most` schedules played or cut.

    `check` adds to the problems of a world that has come to its end.
    """
    tried = Tried()
    known: dict[bytes, int] = {}
    "state -> how many schedules go on from there"
    path, widths, counts, states = list[int](), list[int](), list[int](), list[bytes]()
    while True:
        world, depth, found = make(), 0, None
        while choices := world.choices():
            fresh = depth == len(path)
            if fresh:
                path.append(0)
                widths.append(len(choices))
                counts.append(0)
            world.choose(choices[path[depth]])
            depth += 1
            if merge and depth == len(path):
                state = world.state()
                if (found := known.get(state)) is not None:
                    tried.loops += state in states
                    break
                known[state] = 0
                states.append(state)
        world.finish(check if found is None else None)
        tried.played += found is None
        tried.cut += found is not None
        tried.calls += depth
        tried.longest = max(tried.longest, depth)
        tried.states = len(known)
        if world.problems:
            tried.problems.append((world.problems, list(path)))
        count = 1 if found is None else found
        if merge and found is None:
            known[states.pop()] = count
        counts[-1] += count
        while path and path[-1] + 1 == widths[-1]:
            path.pop()
            widths.pop()
            count = counts.pop()
            if counts:
                counts[-1] += count
                if merge:
                    known[states.pop()] = count
        if path:
            path[-1] += 1
        tried.whole = not path
        tried.schedules = sum(counts) if path else count
        tried.share = _share(path, widths)
        watch(tried)
        if not path or len(tried.problems) >= enough or tried.played + tried.cut == most:
            return tried


def _share(path: Sequence[int], widths: Sequence[int]) -> float:
    """How much of the tree lies before this path, if all branches were alike."""
    share, part = 0.0, 1.0
    for number, width in zip(path, widths, strict=True):
        part /= width
        share += number * part
    return share if path else 1.0


def replay(make: Callable[[], World], path: Sequence[int]) -> World:
    """The world of one schedule, at its end."""
    world = make()
    for number in path:
        world.choose(world.choices()[number])
    return world
