"""The watch over ticks: code that does not come back must not stop other runs, and must be found out.

A tick runs on the worker's loop, so one that spins holds everything up. A thread looks twice a second which
tick is under way. One that has lasted `limit` seconds is reported with run, file and line, and interrupted
by an exception raised inside it (`PyThreadState_SetAsyncExc`), which ends a `while True` in Python code. A
blocking C call cannot be interrupted so: where `exit_after` is set (the worker of the command line sets it),
the process ends after that time, and other workers take its runs over.

The name of the run whose tick is under way also stands in the worker's presence file (`presence.py`), so that
whoever finds the worker dead knows which run it died in.

Rejected: a thread hop for each tick (15 µs, a third of a step), a process for each run.
"""

from __future__ import annotations

import ctypes
import faulthandler
import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

from ..errors import Runaway
from .presence import Presence, Sign

log = logging.getLogger("holdfast.worker")
EXIT_CODE = 75
"""What a worker process exits with that gave up on a tick it could not interrupt (EX_TEMPFAIL)."""

_LOOK_EVERY = 0.5


class Interrupted(BaseException):
    """Raised inside a tick that took too long; not for workflow code to catch."""


class Watch:
    """Runs ticks on one thread, and watches them from another."""

    def __init__(self, presence: Presence | None, *, limit: float, exit_after: float | None) -> None:
        self._presence = presence
        self._limit = limit
        self._exit_after = exit_after
        self._thread_id = threading.get_ident()
        self._lock = threading.Lock()
        self._run: str | None = None
        self._count = 0
        self._where = ""
        self._interrupting = False
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look, name="holdfast-watch", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread."""
        self._stop.set()
        self._thread.join()

    @property
    def stuck(self) -> bool:
        """Whether a tick is being interrupted just now: then the worker's lease must not be renewed."""
        return self._interrupting

    def run(self, run: Sign, work: Callable[..., None], *args: Any) -> None:
        """Do a tick's work. Raises Runaway where it had to be interrupted."""
        if self._run is not None:
            work(*args)  # a tick inside a tick is the outer one's time
            return
        self._count += 1
        self._run = run.run
        if self._presence is not None:
            self._presence.mark(run)
        error: BaseException | None = None
        try:
            try:
                work(*args)
            except BaseException as came:  # noqa: BLE001 - raised again below
                error = came
            interrupted = self._end()
        except Interrupted:  # it came between the two
            interrupted = self._end()
        if self._presence is not None:
            self._presence.clear()
        if interrupted and not isinstance(error, KeyboardInterrupt):
            # Whatever else came of it (a divergence, say) came of the interrupt.
            raise Runaway(
                f"a tick of {run.run} did not come back within {self._limit:g} s; it was at {self._where}: "
                "a workflow must await, not spin or block (put long work into a step)"
            )
        if error is not None:
            try:
                raise error
            finally:
                del error

    def _end(self) -> bool:
        """The tick is over; whether it was interrupted. An interrupt on its way comes out here, if anywhere.

        It is never called back: on CPython 3.11, `PyThreadState_SetAsyncExc(…, None)` leaves the interpreter's
        eval breaker set, and the next call under a profile function (the guard's) then spins for ever.
        """
        while True:
            try:
                with self._lock:
                    self._run = None
                    sent = self._interrupting
                if not sent:
                    return False
                for _ in range(100):  # a loop's jump is where the interpreter looks for interrupts
                    pass
                interrupted, self._interrupting = self._interrupting, False
            except Interrupted:
                continue
            return interrupted

    def _look(self) -> None:
        seen, since = 0, 0.0
        while not self._stop.wait(_LOOK_EVERY):
            now = time.monotonic()
            if self._run is None or self._count != seen:
                seen, since = self._count, now
                continue
            if now - since >= self._limit:
                self._interrupt(seen, now - since)

    def _interrupt(self, count: int, lasted: float) -> None:
        frame = sys._current_frames().get(self._thread_id)
        where = _place(frame)
        with self._lock:
            run = self._run
            if run is None or self._count != count:
                return
            first, self._interrupting = not self._interrupting, True
            self._where = where
            interrupted = ctypes.py_object(Interrupted)
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(self._thread_id), interrupted)
        if first:
            log.error(
                "a tick of %s has not come back for %.1f s; it is at %s",
                run,
                lasted,
                where,
                extra={"run": run, "place": where},
            )
        if self._exit_after is not None and lasted >= self._exit_after:
            log.critical(
                "%s cannot be interrupted at %s: this worker exits",
                run,
                where,
                extra={"run": run, "place": where},
            )
            faulthandler.dump_traceback(all_threads=True)
            os._exit(EXIT_CODE)


def _place(frame: FrameType | None) -> str:
    """File and line of the innermost frame that is not Holdfast's or asyncio's own."""
    innermost = frame
    while frame is not None:
        module = frame.f_globals.get("__name__", "").partition(".")[0]
        if module not in ("holdfast", "asyncio", "threading", "contextlib"):
            return f"{frame.f_code.co_filename}:{frame.f_lineno}"
        frame = frame.f_back
    return "?" if innermost is None else f"{innermost.f_code.co_filename}:{innermost.f_lineno}"
