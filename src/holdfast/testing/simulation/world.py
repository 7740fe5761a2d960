"""A simulated world: one seed, one loop, one store, and processes that come and go.

Everything that a real deployment leaves to chance is drawn from the seed: how long calls travel, which are
lost, when workers die, pause or lose their lease, how clocks are set, what ids are made. So one seed is one
history, and `trace` is the same text each time, down to the byte.
"""

from __future__ import annotations

import asyncio
import contextvars
import hashlib
import random
import warnings
from collections import Counter
from collections.abc import Callable, Collection, Coroutine, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from ... import ids
from ...client import App
from ...errors import StoreError
from ...events import Event
from ...store.base import Store
from ...store.memory import Data
from .faults import QUIET, Profile
from .loop import Process, Stuck, VirtualLoop, process
from .store import Distant, Memory, Site

START = 1_767_225_600_000_000
"""2026-01-01 in microseconds since 1970: when every world begins."""


class SimulatedClock:
    """A process's clock: the world's time, and how wrong the process has it."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop
        self.skew = 0

    def now(self) -> int:
        """Microseconds since 1970."""
        return START + self._loop.micros + self.skew

    def alarm(self, due: int, callback: Callable[[], object]) -> asyncio.TimerHandle:
        """Call back when this clock has reached `due`, or after an hour, as the system's clock does."""
        delay = min(max(0, due - self.now()), 3_600_000_000)
        return self._loop.call_at((self._loop.micros + delay) / 1e6, callback)


class World:
    """One simulation. `troubles` are what went wrong, in order, `problems` what must not come of it.

    With `only`, all other troubles that the seed has in store do not happen. The runs are in memory, unless a
    `site` has them.
    """

    def __init__(
        self,
        seed: int | str,
        profile: Profile = QUIET,
        only: Collection[str] | None = None,
        site: Site | None = None,
    ) -> None:
        self.seed = seed
        self.site = site or Memory()
        self.chance = random.Random(f"{seed}/world")
        # A stream for each use: what befalls the 17th call is the same, whatever befell those before it.
        self._calls = random.Random(f"{seed}/calls")
        self._news = random.Random(f"{seed}/news")
        self._travel = random.Random(f"{seed}/travel")
        self._ids = random.Random(f"{seed}/ids")
        self.profile = profile
        self.loop = VirtualLoop()
        self.handles: list[Distant] = []
        self.reads: list[tuple[str, int, int, list[Event]]] = []
        """What processes have read: of which run, beyond what, what was acknowledged by then, and the events."""
        self.told: dict[str, int] = {}
        """Of each run, the last position of what was acknowledged to anybody."""
        self.down = False
        self.over = False
        self.version = 1
        self.calls = 0
        self.notices = 0
        self.only = only
        self.troubles: list[str] = []
        self.problems: list[str] = []
        self.trace: list[str] = []
        self.processes: dict[str, Process] = {}
        self.clocks: dict[str, SimulatedClock] = {}
        self._outside = contextvars.Context()
        self._tasks: set[asyncio.Task[Any]] = set()
        self.loop.set_task_factory(self._task)
        self._count = 0

    # ---- time and trace

    @property
    def now(self) -> float:
        """Seconds since the world began."""
        return self.loop.time()

    def note(self, text: str) -> None:
        """Write a line of the trace."""
        if not self.over:
            self.trace.append(f"{self.loop.micros / 1e6:.6f} {text}")

    @property
    def digest(self) -> str:
        """What the trace comes to: the same for the same seed."""
        return hashlib.sha256("\n".join(self.trace).encode("utf-8", "surrogatepass")).hexdigest()[:16]

    def later(self, delay: float, work: Callable[[], object]) -> None:
        """Do something outside of every process."""
        self.loop.call_later(delay, work, context=self._outside)

    # ---- chance

    def befalls(self, name: str, what: str) -> str | None:
        """What befalls this call of a process."""
        self.calls += 1
        fate = self.profile.call(self._calls)
        if fate is None or not self.happens(fate, self.calls):
            return None
        self.note(f"{name}: {what} ! {fate}")
        return fate

    def notice(self) -> str | None:
        """What befalls a notice."""
        self.notices += 1
        fate = self.profile.notice(self._news)
        return fate if fate is not None and self.happens(fate, self.notices) else None

    def happens(self, kind: str, number: int) -> bool:
        """Whether this trouble is one of those that happen; it is noted then, by its kind and number."""
        trouble = f"{kind} {number}"
        if self.only is not None and trouble not in self.only:
            return False
        self.troubles.append(trouble)
        return True

    @property
    def befallen(self) -> Counter[str]:
        """How often each kind of trouble has happened."""
        return Counter(trouble.rpartition(" ")[0] for trouble in self.troubles)

    def travel(self, fate: str | None) -> float:
        """How long a message is under way, in seconds."""
        if fate in ("slow", "news late"):
            return self._travel.expovariate(1 / 2.0)
        return self._travel.uniform(0, self.profile.delay) if self.profile.delay else 0.0

    # ---- processes

    def app(self, name: str) -> App:
        """A client of the store, for the process of this name."""
        clock = self.clocks[name]
        return App(self.site.store(self, clock, name))

    def plain(self) -> Store:
        """The store itself, without a network: for who checks it."""
        return self.site.plain(self, SimulatedClock(self.loop))

    @property
    def data(self) -> Data:
        """What is stored now: for who checks it."""
        return self.site.data

    def launch(self, kind: str, main: Callable[[str], Coroutine[Any, Any, Any]]) -> asyncio.Task[None]:
        """Start a process that runs `main(name)`."""
        self._count += 1
        name = f"{kind}-{self._count}"
        owner = self.processes[name] = Process(name)
        clock = self.clocks[name] = SimulatedClock(self.loop)
        if "clock jump" in self.profile.events:
            clock.skew = round(self.chance.uniform(-3, 3) * 1e6)
        context = contextvars.Context()
        context.run(process.set, owner)
        self.note(f"{name}: starts")
        return self.loop.create_task(self._guarded(name, main), context=context)

    def _task(self, loop: Any, coro: Any, **more: Any) -> asyncio.Task[Any]:
        # A loop holds its tasks weakly; those of a dead process would go whenever the collector comes by.
        task: asyncio.Task[Any] = asyncio.Task(coro, loop=loop, **more)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard, context=self._outside)
        return task

    async def _guarded(self, name: str, main: Callable[[str], Coroutine[Any, Any, Any]]) -> None:
        try:
            await main(name)
        except asyncio.CancelledError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, the simulation has found it
            if self.over:
                return
            if isinstance(
                error, StoreError
            ):  # a worker that cannot begin ends; its supervisor starts another
                self.crash(self.processes[name])
            else:
                self.problems.append(f"{name} failed: {type(error).__name__}: {error}")

    def alive(self, kind: str = "") -> list[Process]:
        """The processes that live, of a kind."""
        return [p for p in self.processes.values() if not p.dead and p.name.startswith(kind)]

    def crash_soon(self, name: str) -> None:
        """Kill a process, from inside a call of its own."""
        owner = self.processes.get(name)
        if owner is not None and not owner.dead:
            self.crash(owner)

    def crash(self, owner: Process) -> None:
        """Kill a process: nothing of it runs again, no `finally` block either."""
        owner.dead = True
        self.note(f"{owner.name}: dies")
        self.handles[:] = [handle for handle in self.handles if handle._name != owner.name]
        self.on_death(owner)

    def on_death(self, owner: Process) -> None:
        """What the world does about a death; a scenario may start another process."""

    # ---- running

    def run(self, main: Coroutine[Any, Any, Any]) -> Any:
        """Run the world until `main` is done."""
        with self._seeded(), warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # coroutines of the dead are never awaited
            self.loop.set_exception_handler(self._unhandled)
            asyncio.set_event_loop(None)
            try:
                return self.loop.run_until_complete(self.loop.create_task(main, context=self._outside.copy()))
            finally:
                self._bury()

    def _bury(self) -> None:
        """Let the tasks of all processes end, the dead ones' too, now that nobody looks any more.

        Left to the garbage collector, their `finally` blocks would run on a closed loop, at any time. No round is
        long: a worker whose steps never end looks for their end each millisecond.
        """
        self.over, self.down, self.profile = True, False, QUIET
        for owner in self.processes.values():
            owner.dead = False
            self.loop.resume(owner)
        for _ in range(100):
            tasks = asyncio.all_tasks(self.loop)
            if not tasks:
                break
            for task in tasks:
                task.cancel()
            with suppress(Stuck):
                self.loop.run_until_complete(
                    self.loop.create_task(asyncio.sleep(1), context=self._outside.copy())
                )
        self.loop.close()

    def _unhandled(self, _loop: Any, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if self.over:
            return
        where = (
            context.get("task") or context.get("future") or context.get("asyncgen") or context.get("handle")
        )
        self.problems.append(f"unhandled: {context.get('message')}: {error!r} in {where!r:.300}")

    @contextmanager
    def _seeded(self) -> Iterator[None]:
        before = ids.random_bytes, ids.wall_nanoseconds
        ids.random_bytes = self._ids.randbytes
        ids.wall_nanoseconds = lambda: (START + self.loop.micros) * 1000
        try:
            yield
        finally:
            ids.random_bytes, ids.wall_nanoseconds = before
