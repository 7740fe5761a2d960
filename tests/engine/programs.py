"""Generated programs: a small grammar of asyncio, one interpreter for both loops, and CPython's loop in fake time.

A program is data (nested tuples). `Play.run` interprets it with nothing but asyncio, and notes what happens:
where, when, and which exception. It runs unchanged on CPython's `BaseEventLoop` and on the engine's loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import heapq
import random
import sys
from asyncio import base_events, events
from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

SLOTS = 3
"""Tasks, queues, events … of a program are numbered; a program shares a few of each."""

colour: contextvars.ContextVar[str] = contextvars.ContextVar("colour", default="none")


class Boom(Exception):
    """What programs raise on purpose."""


class Bang(BaseException):
    """A BaseException of the program's own."""


ERRORS: dict[str, type[BaseException]] = {
    "boom": Boom,
    "value": ValueError,
    "key": KeyError,
    "bang": Bang,
    "timeout": TimeoutError,
    "cancelled": asyncio.CancelledError,
}

# ---- the grammar

slot = st.integers(0, SLOTS - 1)
delay = st.sampled_from([0, 1, 1, 2, 2, 3, 0.5, -1])
span = st.sampled_from([0, 1, 2, 3, 1.5])
maybe_span = st.one_of(st.none(), span)

_leaf = st.one_of(
    st.tuples(st.just("sleep"), delay),
    st.tuples(st.just("sleep"), delay),
    st.tuples(st.just("raise"), st.sampled_from(sorted(ERRORS))),
    st.tuples(st.just("cancel"), st.integers(-1, SLOTS - 1), st.sampled_from(["", "stop"])),
    st.tuples(st.just("cancel"), st.integers(-1, SLOTS - 1), st.sampled_from(["", "stop"])),
    st.tuples(st.just("join"), slot),
    st.tuples(st.just("put"), slot),
    st.tuples(st.just("get"), slot),
    st.tuples(st.just("set"), slot),
    st.tuples(st.just("clear"), slot),
    st.tuples(st.just("wait_event"), slot),
    st.tuples(st.just("notify"), slot, st.booleans()),
    st.tuples(st.just("wait_condition"), slot),
    st.tuples(st.just("barrier"), slot),
    st.tuples(st.just("paint"), st.sampled_from(["red", "blue"])),
    st.tuples(st.just("look")),
    st.tuples(st.just("call_later"), span, st.booleans()),
    st.tuples(st.just("uncancel")),
    st.tuples(st.just("return"), st.integers(0, 9)),
)
body: st.SearchStrategy[Any] = st.deferred(lambda: st.lists(statement, min_size=1, max_size=4))
bodies: st.SearchStrategy[Any] = st.lists(body, min_size=1, max_size=4)
_nested = st.one_of(
    st.tuples(st.just("spawn"), slot, body),
    st.tuples(st.just("spawn"), slot, body),
    st.tuples(
        st.just("try"),
        body,
        st.sampled_from(["cancelled", "exception", "base", "group", "none"]),
        st.booleans(),
        body,
        st.one_of(st.none(), body),
    ),
    st.tuples(st.just("gather"), st.booleans(), bodies),
    st.tuples(
        st.just("wait"),
        st.sampled_from(["FIRST_COMPLETED", "FIRST_EXCEPTION", "ALL_COMPLETED"]),
        maybe_span,
        bodies,
        st.booleans(),
    ),
    st.tuples(st.just("wait_for"), maybe_span, body),
    st.tuples(st.just("timeout"), maybe_span, body),
    st.tuples(st.just("timeout_at"), span, body),
    st.tuples(st.just("reschedule"), span, maybe_span, body),
    st.tuples(st.just("group"), bodies, body),
    st.tuples(st.just("as_completed"), maybe_span, bodies),
    st.tuples(st.just("shield"), slot, body),
    st.tuples(st.just("lock"), slot, body),
    st.tuples(st.just("semaphore"), slot, body),
    st.tuples(st.just("generator"), st.integers(1, 3), st.integers(1, 3), body),
)
statement: st.SearchStrategy[Any] = st.one_of(_leaf, _nested)
_small = st.lists(statement, min_size=1, max_size=6)


def grown(seed: int) -> Any:
    """A larger program than hypothesis likes to make: some thirty statements, half of them nested."""
    chance = random.Random(seed)
    left = 30

    def some(least: int, most: int, depth: int) -> list[Any]:
        return [one(depth) for _ in range(chance.randint(least, most))]

    def many(depth: int) -> list[Any]:
        return [some(1, 3, depth) for _ in range(chance.randint(2, 4))]

    def one(depth: int) -> Any:
        nonlocal left
        left -= 1
        number, seconds = chance.randrange(SLOTS), chance.choice([0, 0.5, 1, 1, 2, 3])
        perhaps = chance.choice([None, seconds])
        if depth > 3 or left < 0 or chance.random() < 0.45:
            return chance.choice(
                [
                    *[("sleep", seconds)] * 5,
                    *[("cancel", chance.randrange(-1, SLOTS), chance.choice(["", "stop"]))] * 2,
                    ("raise", chance.choice(sorted(ERRORS))),
                    ("join", number),
                    ("put", number),
                    ("get", number),
                    ("set", number),
                    ("wait_event", number),
                    ("notify", number, chance.random() < 0.5),
                    ("wait_condition", number),
                    ("barrier", number),
                    ("call_later", seconds, chance.random() < 0.3),
                    ("uncancel",),
                ]
            )
        deeper = depth + 1
        kind = chance.choice(_KINDS)
        if kind == "spawn":
            return (kind, number, some(1, 4, deeper))
        if kind == "try":
            catch = chance.choice(["cancelled", "exception", "base", "group", "none"])
            last = chance.choice([None, some(1, 2, deeper)])
            return (kind, some(1, 3, deeper), catch, chance.random() < 0.5, some(1, 2, deeper), last)
        if kind == "gather":
            return (kind, chance.random() < 0.5, many(deeper))
        if kind == "wait":
            when = chance.choice(_WHEN)
            return (kind, when, perhaps, many(deeper), chance.random() < 0.5)
        if kind in ("wait_for", "timeout"):
            return (kind, perhaps, some(1, 3, deeper))
        if kind == "reschedule":
            return (kind, seconds, perhaps, some(1, 3, deeper))
        if kind == "group":
            return (kind, many(deeper), some(1, 2, deeper))
        if kind == "as_completed":
            return (kind, perhaps, many(deeper))
        if kind == "generator":
            return (kind, chance.randint(1, 3), chance.randint(1, 3), some(1, 2, deeper))
        return (kind, number, some(1, 3, deeper))

    return some(2, 6, 0)


_KINDS = ["spawn", "spawn", "try", "gather", "wait", "wait_for", "timeout", "reschedule", "group", "group"]
_KINDS += ["as_completed", "shield", "lock", "semaphore", "generator"]
_WHEN = ["FIRST_COMPLETED", "FIRST_EXCEPTION", "ALL_COMPLETED"]
programs = st.one_of(_small, st.integers(0, 2**32 - 1).map(grown))


# ---- the interpreter


class Play:
    """One run of a program: its shared things, and what happened."""

    def __init__(self, program: Any) -> None:
        self.program = program
        self.trace: list[Any] = []
        self.over = False
        self.start = 0.0
        self.tasks: dict[int, asyncio.Future[Any]] = {}

    def note(self, *what: Any) -> None:
        loop = asyncio.get_running_loop()
        if not self.over and not getattr(loop, "dead", False):
            self.trace.append((round(loop.time() - self.start, 6), *what))

    async def main(self) -> None:
        self.start = asyncio.get_running_loop().time()
        self.tasks[-1] = asyncio.current_task()  # type: ignore[assignment]
        self.queues = [asyncio.Queue(1) for _ in range(SLOTS)]
        self.events = [asyncio.Event() for _ in range(SLOTS)]
        self.locks = [asyncio.Lock() for _ in range(SLOTS)]
        self.semaphores = [asyncio.Semaphore(n + 1) for n in range(SLOTS)]
        self.conditions = [asyncio.Condition() for _ in range(SLOTS)]
        self.barriers = [asyncio.Barrier(n + 1) for n in range(SLOTS)]
        try:
            self.note("result", await self.run(self.program, ""))
        except BaseException as error:
            self.note("result", described(error))
            raise

    async def run(self, program: Any, path: str) -> Any:
        """A body, with what came of it noted."""
        self.note(path, "begins")
        try:
            for number, (kind, *args) in enumerate(program):
                where = f"{path}.{number}{kind}"
                if kind == "return":
                    self.note(where)
                    return args[0]
                await getattr(self, f"do_{kind}")(where, *args)
                self.note(where)
        except BaseException as error:
            self.note(path, "ends", described(error))
            raise
        self.note(path, "ends")
        return None

    def spawned(self, many: Any, path: str) -> list[asyncio.Task[Any]]:
        loop = asyncio.get_running_loop()
        return [loop.create_task(self.run(one, f"{path}/{n}")) for n, one in enumerate(many)]

    async def do_sleep(self, _where: str, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def do_raise(self, where: str, name: str) -> None:
        raise ERRORS[name](where)

    async def do_spawn(self, where: str, number: int, program: Any) -> None:
        self.tasks[number] = asyncio.create_task(self.run(program, where))

    async def do_cancel(self, where: str, number: int, message: str) -> None:
        task = self.tasks.get(number)
        if task is not None:
            self.note(where, task.cancel(message) if message else task.cancel())

    async def do_join(self, where: str, number: int) -> None:
        task = self.tasks.get(number)
        if task is not None:
            self.note(where, await task)

    async def do_try(
        self, where: str, program: Any, catch: str, again: bool, handler: Any, last: Any
    ) -> None:
        kinds: dict[str, Any] = {
            "cancelled": asyncio.CancelledError,
            "exception": Exception,
            "base": BaseException,
            "group": BaseExceptionGroup,
            "none": (),
        }
        try:
            try:
                await self.run(program, f"{where}/try")
            except GeneratorExit:
                raise
            except kinds[catch] as error:
                self.note(where, "caught", described(error))
                await self.run(handler, f"{where}/except")
                if again:
                    raise
        finally:
            if last is not None:
                await self.run(last, f"{where}/finally")

    async def do_gather(self, where: str, return_exceptions: bool, many: Any) -> None:
        coros = [self.run(one, f"{where}/{n}") for n, one in enumerate(many)]
        results = await asyncio.gather(*coros, return_exceptions=return_exceptions)
        self.note(where, [described(r) for r in results])

    async def do_wait(self, where: str, when: str, timeout: float | None, many: Any, cancel: bool) -> None:
        tasks = self.spawned(many, where)
        done, pending = await asyncio.wait(tasks, timeout=timeout, return_when=when)
        self.note(where, [outcome(task) for task in tasks], len(done))
        if cancel:
            for task in pending:  # a set: in the order of its hashes
                task.cancel()
        if pending and timeout is None:
            await asyncio.wait(pending)
        self.note(where, [outcome(task) for task in tasks])

    async def do_wait_for(self, where: str, timeout: float | None, program: Any) -> None:
        self.note(where, await asyncio.wait_for(self.run(program, where), timeout))

    async def do_timeout(self, where: str, seconds: float | None, program: Any) -> None:
        limit = asyncio.timeout(seconds)
        try:
            async with limit:
                await self.run(program, where)
        finally:
            self.note(where, limit.expired())

    async def do_timeout_at(self, where: str, seconds: float, program: Any) -> None:
        async with asyncio.timeout_at(asyncio.get_running_loop().time() + seconds):
            await self.run(program, where)

    async def do_reschedule(self, where: str, first: float, second: float | None, program: Any) -> None:
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(first) as limit:
            limit.reschedule(None if second is None else loop.time() + second)
            await self.run(program, where)

    async def do_group(self, where: str, many: Any, program: Any) -> None:
        async with asyncio.TaskGroup() as group:
            for number, one in enumerate(many):
                group.create_task(self.run(one, f"{where}/{number}"))
            await self.run(program, f"{where}/body")

    async def do_as_completed(self, where: str, timeout: float | None, many: Any) -> None:
        for future in asyncio.as_completed(self.spawned(many, where), timeout=timeout):
            try:
                self.note(where, await future)
            except Exception as error:
                self.note(where, described(error))

    async def do_shield(self, where: str, number: int, program: Any) -> None:
        self.tasks[number] = asyncio.create_task(self.run(program, where))
        await asyncio.shield(self.tasks[number])

    async def do_put(self, where: str, number: int) -> None:
        await self.queues[number].put(where)

    async def do_get(self, where: str, number: int) -> None:
        self.note(where, await self.queues[number].get())

    async def do_set(self, _where: str, number: int) -> None:
        self.events[number].set()

    async def do_clear(self, _where: str, number: int) -> None:
        self.events[number].clear()

    async def do_wait_event(self, _where: str, number: int) -> None:
        await self.events[number].wait()

    async def do_notify(self, _where: str, number: int, all_: bool) -> None:
        async with self.conditions[number]:
            if all_:
                self.conditions[number].notify_all()
            else:
                self.conditions[number].notify()

    async def do_wait_condition(self, _where: str, number: int) -> None:
        async with self.conditions[number]:
            await self.conditions[number].wait()

    async def do_barrier(self, where: str, number: int) -> None:
        self.note(where, await self.barriers[number].wait())

    async def do_paint(self, _where: str, name: str) -> None:
        colour.set(name)

    async def do_look(self, where: str) -> None:
        self.note(where, colour.get())

    async def do_call_later(self, where: str, seconds: float, cancel: bool) -> None:
        loop = asyncio.get_running_loop()
        handle = loop.call_later(seconds, self.note, where, "called later")
        loop.call_soon(self.note, where, "called soon")
        if cancel:
            handle.cancel()

    async def do_uncancel(self, where: str) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.note(where, task.cancelling(), task.uncancel())

    async def do_lock(self, where: str, number: int, program: Any) -> None:
        async with self.locks[number]:
            await self.run(program, where)

    async def do_semaphore(self, where: str, number: int, program: Any) -> None:
        async with self.semaphores[number]:
            await self.run(program, where)

    async def do_generator(self, where: str, many: int, taken: int, program: Any) -> None:
        async def numbers() -> Any:
            try:
                for number in range(many):
                    yield number
                    await asyncio.sleep(1)
            finally:
                self.note(where, "generator ends")
                await asyncio.sleep(0)

        async with contextlib.aclosing(numbers()) as generator:
            async for number in generator:
                await self.run(program, f"{where}/{number}")
                if number + 1 == taken:
                    break


def described(value: Any) -> Any:
    """A value or an exception, so that two of them can be compared."""
    if isinstance(value, BaseExceptionGroup):
        return (type(value).__name__, [described(error) for error in value.exceptions])
    if isinstance(value, RecursionError):  # the message depends on where it was noticed
        return "RecursionError"
    if isinstance(value, RuntimeError):  # its message shows a task
        return (type(value).__name__, str(value).partition("<")[0])
    if isinstance(value, BaseException):
        return (type(value).__name__, value.args)
    return value


def outcome(task: asyncio.Future[Any]) -> Any:
    if not task.done():
        return "pending"
    if task.cancelled():
        return "cancelled"
    return described(task.exception() or task.result())


# ---- CPython's loop, in fake time


class HashedTask(asyncio.Task[Any]):
    """CPython's sets iterate by address; to compare, they must iterate as ours do: by order of creation."""

    def __hash__(self) -> int:
        return self.hashed  # type: ignore[attr-defined,no-any-return]


class HashedFuture(asyncio.Future[Any]):
    def __hash__(self) -> int:
        return self.hashed  # type: ignore[attr-defined,no-any-return]


class FakeTimeLoop(base_events.BaseEventLoop):
    """CPython's loop without a selector: when nothing is ready, time jumps to the next timer.

    Timers of one instant run one after the other, in the order in which they were started, each until
    everything that follows from it is done: CPython leaves that order to a heap.
    """

    def __init__(self, start: int, salt: int) -> None:
        super().__init__()
        self.micros = start
        self.salt = salt
        self.ordinal = self.started = 0
        self.timers: list[tuple[int, int, asyncio.TimerHandle]] = []
        self.set_exception_handler(lambda _loop, _context: None)

    def time(self) -> float:
        return self.micros / 1e6

    def call_at(
        self, when: float, callback: Callable[..., Any], *args: Any, context: Any = None
    ) -> asyncio.TimerHandle:
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        self.started += 1
        heapq.heappush(self.timers, (round(when * 1e6), self.started, handle))
        return handle

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """It is skipped when its time has come."""

    def create_future(self) -> asyncio.Future[Any]:
        future = HashedFuture(loop=self)
        self.ordinal += 1
        future.hashed = self.salt + self.ordinal  # type: ignore[attr-defined]
        return future

    def create_task(self, coro: Any, **options: Any) -> asyncio.Task[Any]:
        task = HashedTask.__new__(HashedTask)
        self.ordinal += 1
        task.hashed = self.salt + self.ordinal  # type: ignore[attr-defined]
        HashedTask.__init__(task, coro, loop=self, **options)
        return task

    def play(self, play: Play) -> tuple[list[Any], Any]:
        """Run a program to its end, or until nothing can happen any more."""
        hooks = sys.get_asyncgen_hooks()
        sys.set_asyncgen_hooks(self._asyncgen_firstiter_hook, self._asyncgen_finalizer_hook)  # type: ignore[attr-defined]
        events._set_running_loop(self)
        try:
            main = self.create_task(play.main(), context=contextvars.Context())
            while True:
                while self._ready:  # type: ignore[attr-defined]
                    handle = self._ready.popleft()  # type: ignore[attr-defined]
                    if not handle.cancelled():
                        handle._run()
                if main.done() or not self._next_timer():
                    break
            result = outcome(main) if main.done() else "stuck"
            play.over = True
            for task in asyncio.all_tasks(self):
                task._log_destroy_pending = False  # type: ignore[attr-defined]
                with contextlib.suppress(BaseException):
                    for _ in range(50):
                        task.get_coro().throw(Bang())  # type: ignore[union-attr]
        finally:
            events._set_running_loop(None)
            sys.set_asyncgen_hooks(*hooks)
            self.close()
        return play.trace, result

    def _next_timer(self) -> bool:
        while self.timers:
            due, _, handle = heapq.heappop(self.timers)
            if not handle.cancelled():
                self.micros = max(self.micros, due)
                self._ready.append(handle)  # type: ignore[attr-defined]
                return True
        return False
