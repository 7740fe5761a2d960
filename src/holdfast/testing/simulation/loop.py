"""An event loop in which time is a number and processes are a context: what simulation runs on.

Nothing waits. When nothing is ready, the clock jumps to the next timer, so thirty days take as long as the code
that runs in them. Each callback belongs to the simulated process in whose context it was scheduled; those of a
dead or paused process do not run. A paused one goes on with them, a dead one only when the world is over and
its tasks are buried. Callbacks run in the order in which asyncio promises to run them: chance comes in only
through delays.
"""

from __future__ import annotations

import asyncio
import heapq
import math
from asyncio import base_events
from collections import deque
from collections.abc import Callable
from contextvars import Context, ContextVar
from typing import Any

process: ContextVar[Process | None] = ContextVar("holdfast_simulated_process", default=None)
"""The process that runs just now."""


class Stuck(Exception):
    """Nothing is ready and nothing will be: everybody waits for somebody."""


class Process:
    """What a context belongs to: alive, paused or dead."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.dead = False
        self.paused = False
        self.backlog: list[asyncio.Handle] = []

    def __repr__(self) -> str:
        return self.name


class _Handle(asyncio.Handle):
    def _run(self) -> None:
        if _may_run(self):
            super()._run()


class _TimerHandle(asyncio.TimerHandle):
    def _run(self) -> None:
        if _may_run(self):
            super()._run()


def _may_run(handle: Any) -> bool:
    owner = handle._context.get(process)
    if owner is None or not (owner.dead or owner.paused):
        return True
    owner.backlog.append(handle)
    return False


class _NoSelector:
    """Where a real loop would wait for files, this one moves its clock."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop

    def select(self, timeout: float | None) -> list[Any]:
        if timeout is None:
            raise Stuck("nothing is ready, and no timer is set")
        self._loop.micros += max(0, math.ceil(timeout * 1e6 - 1e-3))
        return []


class VirtualLoop(base_events.BaseEventLoop):
    """`micros` is how long it has been running, in microseconds that nobody waited for."""

    _ready: deque[asyncio.Handle]  # what BaseEventLoop calls its own
    _scheduled: list[asyncio.TimerHandle]

    def __init__(self) -> None:
        super().__init__()
        self.micros = 0
        self._selector = _NoSelector(self)
        self._clock_resolution = 1e-6

    def time(self) -> float:
        """Seconds since the loop began."""
        return self.micros / 1e6

    def resume(self, owner: Process) -> None:
        """Let a paused process go on, with all that has become due meanwhile."""
        owner.paused = False
        handles, owner.backlog = owner.backlog, []
        self._ready.extend(handle for handle in handles if not handle.cancelled())

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:  # type: ignore[override]
        """Threads would bring chance that no seed gives: the function runs in one go, a moment later."""
        future = self.create_future()

        def call() -> None:
            if future.cancelled():
                return
            try:
                result = func(*args)
            except Exception as error:  # noqa: BLE001 - it is the waiter's
                future.set_exception(error)
            else:
                future.set_result(result)

        self.call_soon(call)
        return future

    # What BaseEventLoop leaves to its heirs.

    def _call_soon(self, callback: Any, args: Any, context: Context | None) -> asyncio.Handle:
        handle = _Handle(callback, args, self, context)
        self._ready.append(handle)
        return handle

    def call_soon_threadsafe(  # type: ignore[override]
        self, callback: Any, *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        """There are no threads here."""
        return self.call_soon(callback, *args, context=context)

    def call_at(  # type: ignore[override]
        self, when: float, callback: Any, *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """Call back when the clock has reached `when`."""
        timer = _TimerHandle(when, callback, args, self, context)
        heapq.heappush(self._scheduled, timer)
        timer._scheduled = True  # type: ignore[attr-defined]
        return timer

    def _process_events(self, event_list: Any) -> None:
        pass

    def _write_to_self(self) -> None:
        pass
