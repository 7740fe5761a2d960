"""The event loop on which workflow code runs: asyncio's coordination, and nothing of the world.

It guarantees that the order in which callbacks run is a pure function of the code and of the facts delivered
(law L6). It rests on three things: one FIFO queue and no selector; time that stands still between facts
(`time()` is the run's clock); and hashes that do not come from addresses, for CPython's TaskGroup,
`asyncio.wait` and `as_completed` iterate over sets. Tasks and futures hash by their ordinal in the run, plus
a number that the run's seed gives, so that the first tasks of a million runs do not collide in asyncio's own
set of all tasks.

Timers are durable: `call_at` asks the engine, which records a command, and the callback runs when the fact
`timer_fired` is delivered. Whatever reaches for threads, sockets, processes or signals raises
NotDeterministic with the remedy.

Rejected: subclassing BaseEventLoop (its selector, its debug machinery and its closing rules come along), and
patching a real loop (one process runs thousands of these).
"""

from __future__ import annotations

import abc
import asyncio
import gc
import logging
from asyncio import events, tasks
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context, copy_context
from typing import Any, NoReturn

import msgspec

from ..errors import NotDeterministic
from ..runtime import Runtime, here
from . import guard
from .burial import Evicted, close, close_generator
from .generators import hook_generators
from .guard import watcher

log = logging.getLogger("holdfast.workflow")


_PATIENCE = 1000
"""How often buried code is told that it is Evicted; code that catches that for ever is left waiting instead."""

_FOREVER = 253_402_300_799_000_000
"""The end of the year 9999, in microseconds: when a sleep of `math.inf` ends."""


Around = tuple[bool, asyncio.AbstractEventLoop | None, object]
"""What a tick finds on its thread: whether garbage is collected, the running loop, the profile function."""


class Ready(msgspec.Struct, eq=False):
    """A callback that waits for its turn; what `call_soon` returns."""

    callback: Callable[..., object]
    args: tuple[Any, ...]
    context: Context
    off: bool = False

    def cancel(self) -> None:
        self.off = True

    def cancelled(self) -> bool:
        return self.off


class DurableTimer(Ready, kw_only=True):
    """A callback that waits for a fact; what `call_at` returns. `key` is the timer's in the log."""

    loop: Loop
    due: int
    fired: bool = False
    key: str = ""

    def __post_init__(self) -> None:
        self.key = self.loop.runtime.start_timer(self)

    def when(self) -> float:
        return self.due / 1e6

    def cancel(self) -> None:
        if not self.off:
            self.off = True
            if not self.fired:
                self.loop.runtime.cancel_timer(self)

    def fire(self) -> None:
        """Let the callback run: the fact has been delivered."""
        if not self.off and not self.fired:
            self.fired = True
            self.loop.ready.append(self)


class DurableTask(asyncio.Task[Any]):
    """A task that hashes by its ordinal, and remembers its context (for the burial of its coroutine).

    `branch` is its number among the run's tasks, the main one being 0: what a command is credited to.
    """

    __slots__ = ("branch", "hashed", "own_context")
    branch: int
    hashed: int
    own_context: Context

    def __hash__(self) -> int:
        return self.hashed


class DurableFuture(asyncio.Future[Any]):
    """A future that hashes by its ordinal."""

    __slots__ = ("hashed",)
    hashed: int

    def __hash__(self) -> int:
        return self.hashed


class Timers(Runtime):
    """What the loop needs of its run."""

    __slots__ = ("clock",)
    clock: int

    @abc.abstractmethod
    def start_timer(self, timer: DurableTimer) -> str: ...

    @abc.abstractmethod
    def cancel_timer(self, timer: DurableTimer) -> None: ...


class Loop(asyncio.AbstractEventLoop):
    """One run's loop. `drain` runs it until nothing is runnable."""

    def __init__(self, runtime: Timers, salt: int) -> None:
        self.runtime = runtime
        self.ready: deque[Ready] = deque()
        self.dead = False
        self._salt = salt
        self._ordinal = 0
        self._branches = 0
        self._tasks: list[DurableTask] = []
        self._prune_at = 64
        self.generators: list[tuple[Any, Context]] = []
        self._told = 0
        self._around: Runtime | None = None  # whose code runs on the thread between our ticks

    # ---- what asyncio calls

    def time(self) -> float:
        return self.runtime.clock / 1e6

    def call_soon(  # type: ignore[override]
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> Ready:
        handle = Ready(callback, args, context if context is not None else copy_context())
        if not self.dead:
            self.ready.append(handle)
        return handle

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Any, *args: Any, context: Context | None = None
    ) -> DurableTimer:
        due = min(self.runtime.clock + _micros(delay), _FOREVER)
        context = context if context is not None else copy_context()
        return DurableTimer(callback, args, context, loop=self, due=due)

    def call_at(  # type: ignore[override]
        self, when: float, callback: Any, *args: Any, context: Context | None = None
    ) -> DurableTimer:
        due = _micros(when)
        context = context if context is not None else copy_context()
        return DurableTimer(callback, args, context, loop=self, due=due)

    def create_future(self) -> DurableFuture:
        future = DurableFuture(loop=self)
        self._ordinal += 1
        future.hashed = self._salt + self._ordinal
        return future

    def create_inner_future(self) -> asyncio.Future[Any]:
        """The future of an outcome that the engine's own frame awaits, and nobody else: no set will hold it.

        So it can be of asyncio's own class, which its tasks await at half the price.
        """
        self._ordinal += 1  # logs were written when it took one
        return asyncio.Future(loop=self)

    def create_task(  # type: ignore[override]
        self,
        coro: Coroutine[Any, Any, Any],
        *,
        name: object = None,
        context: Context | None = None,
        **_eager: object,
    ) -> DurableTask:
        if self.dead:
            coro.close()
            self.tell()
        task = DurableTask.__new__(DurableTask)
        task.hashed = self.next_hash()
        task.branch = self._branches
        self._branches += 1
        task.own_context = context = context if context is not None else copy_context()
        DurableTask.__init__(
            task, coro, loop=self, name=str(name or f"task-{self._ordinal}"), context=context
        )
        if self.dead:
            task._log_destroy_pending = False  # type: ignore[attr-defined]
        else:
            self._hold(task)
        return task

    get_debug = bool  # asked of for each future, and `bool()` is False

    def is_running(self) -> bool:
        return True

    def is_closed(self) -> bool:
        return False

    def get_task_factory(self) -> None:
        return None

    def get_exception_handler(self) -> None:
        return None

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        if not self.dead:
            log.warning("%s", context.get("message"), exc_info=context.get("exception"))

    def default_exception_handler(self, context: dict[str, Any]) -> None:
        self.call_exception_handler(context)

    # ---- what the engine calls

    def next_hash(self) -> int:
        """A number for a task or future: by order of creation, the same on each replay."""
        self._ordinal += 1
        return self._salt + self._ordinal

    def drain(self, settled: asyncio.Future[Any] | None) -> None:
        """Run until nothing is runnable. Exceptions of callbacks are logged, as asyncio does.

        `settled` is the inner future that has its outcome since, if any.
        """
        around = self.begin_ticks()
        try:
            self.run_ready(settled)
        finally:
            self.end_ticks(around)

    def begin_ticks(self) -> Around:
        """Make the thread ours for one tick, or for many in a row; `end_ticks` takes the result."""
        collecting = gc.isenabled()
        if collecting:
            gc.disable()  # a finaliser of another run must not run against this one
        hook_generators()
        outer, self._around = events._get_running_loop(), here.runtime
        events._set_running_loop(self)
        return collecting, outer, guard.set_aside()

    def end_ticks(self, around: Around) -> None:
        """Put everything back."""
        collecting, outer, profiler = around
        if profiler is not None:
            guard.put_back(profiler)
        events._set_running_loop(outer)
        if collecting:
            gc.enable()

    def run_ready(self, settled: asyncio.Future[Any] | None) -> None:
        """`drain`, between `begin_ticks` and `end_ticks`."""
        ready = self.ready
        here.runtime = self.runtime
        try:
            while ready:
                handle = ready.popleft()
                if handle.off:
                    continue
                args = handle.args
                # Where a step's outcome wakes a task, the frame that wakes first is the engine's
                # (`RunContext.step`): it starts the watch as it gives control back to workflow code.
                if settled is None or not args or args[0] is not settled:
                    guard.begin()
                try:
                    handle.context.run(handle.callback, *args)
                except SystemExit:
                    pass  # the task has it; the engine sees it there
                except KeyboardInterrupt:
                    raise
                except BaseException as error:  # noqa: BLE001 - as asyncio: log it and go on
                    self.call_exception_handler({"message": "callback failed", "exception": error})
                if watcher() is not None:  # else a step that was called has paused the watch
                    guard.pause()
        except BaseException:  # an interrupt
            guard.pause()
            raise
        finally:
            here.runtime = self._around

    def bury(self) -> None:
        """Close what is suspended, each in its own context, where every durable call raises Evicted."""
        self.dead = True
        self.ready.clear()
        outer, outer_runtime = events._get_running_loop(), here.runtime
        events._set_running_loop(self)
        here.runtime = self.runtime
        try:
            for task in self._tasks:
                if not task.done():
                    task._log_destroy_pending = False  # type: ignore[attr-defined]
                    close(task.own_context, task.get_coro())
            for generator, context in self.generators:
                if generator.ag_frame is not None:
                    close_generator(context, generator)
        finally:
            here.runtime = outer_runtime
            events._set_running_loop(outer)
        self._tasks.clear()
        self.generators.clear()

    def tell(self) -> None:
        """Raise Evicted; once that has been said too often, return, and the caller is to wait for ever."""
        self._told += 1
        if self._told <= _PATIENCE:
            raise Evicted

    def hold_generator(self, generator: Any) -> None:
        """Remember an asynchronous generator, and the context of its burial."""
        self.generators.append((generator, copy_context()))

    def _hold(self, task: DurableTask) -> None:
        # Held until it is done, so that no workflow code runs from the garbage collector.
        held = self._tasks
        held.append(task)
        if len(held) >= self._prune_at:
            held[:] = [t for t in held if not t.done()]
            self.generators[:] = [g for g in self.generators if g[0].ag_frame is not None]
            self._prune_at = max(64, 2 * len(held))


def _micros(seconds: float) -> int:
    return _FOREVER if seconds * 1e6 >= _FOREVER else round(seconds * 1e6)


def _refuse(name: str, remedy: str) -> Callable[..., NoReturn]:
    def method(_self: Loop, *_args: object, **_kwargs: object) -> NoReturn:
        raise NotDeterministic(f"loop.{name}() in workflow code reaches outside of it: {remedy}")

    method.__name__ = name
    return method


_STEP = "do it in a step"
_REMEDIES = {
    "run_in_executor": "make the function a sync @hf.step (steps run in threads) instead of to_thread",
    "set_default_executor": _STEP,
    "call_soon_threadsafe": "send a payload to an hf.hook() instead",
    "run_forever": "await instead",
    "run_until_complete": "await instead",
    "stop": "return from the workflow instead",
    "close": "return from the workflow instead",
    "set_task_factory": "the engine makes the tasks",
    "set_debug": "the engine has no debug mode",
    "set_exception_handler": "await the task and handle its exception",
    "shutdown_asyncgens": "the engine looks after generators",
    "shutdown_default_executor": _STEP,
}
for _name in dir(asyncio.AbstractEventLoop):
    _inherited = getattr(Loop, _name) is getattr(asyncio.AbstractEventLoop, _name)
    if not _name.startswith("_") and _inherited:
        setattr(Loop, _name, _refuse(_name, _REMEDIES.get(_name, _STEP)))


def _hash_gathering(future: Any) -> int:
    """`gather` makes futures of its own class: in a workflow's loop, hash them by ordinal too."""
    loop = future._loop
    if not isinstance(loop, Loop):
        return object.__hash__(future)
    hashed = getattr(future, "_holdfast_hash", None)
    if hashed is None:
        hashed = future._holdfast_hash = loop.next_hash()
    return int(hashed)


tasks._GatheringFuture.__hash__ = _hash_gathering  # type: ignore[attr-defined]
